import type { MethodDefinition, PackageDefinition } from '@grpc/proto-loader'
import protobuf from 'protobufjs'
import { BerthError } from '../base/errors.ts'

/**
 * Elements of lists and messages in one request. Sixteen MiB may be eight million empty mounts, which take minutes and
 * gigabytes to decode. Forty thousand environment variables, one each, are more than Linux hands to a process.
 */
const MAX_PARTS = 50_000

/** Bytes of a request that can hold too many parts at two bytes each: shorter ones are not looked through. */
const WORTH_COUNTING = 2 * MAX_PARTS

/** Which fields of a message, by number, are parts: messages, lists of text, and lists of numbers in one field. */
type Shape = Map<number, Shape | 'texts' | 'numbers'>

/** Takes the place of a request that is not decoded. */
export class RefusedRequest {
  readonly error: BerthError

  constructor(error: BerthError) {
    this.error = error
  }
}

/** The same methods, with a `RefusedRequest` for a request of too many parts. */
export function withBoundedRequests<Service extends object>(
  service: Service,
  definition: PackageDefinition,
): Service {
  const shapes = new Map<string, Shape>()
  const bounded = Object.entries(service).map(([name, method]) => {
    const { requestType, requestStream, path } = method as MethodDefinition<object, object>
    // Messages of a stream have no lists.
    if (requestStream) return [name, method]
    const scope = path.slice(1, path.lastIndexOf('.'))
    const shape = shapeOf(requestType.type as Descriptor, scope, definition, shapes)
    return [name, boundedMethod(method as MethodDefinition<object, object>, shape)]
  })
  return Object.fromEntries(bounded)
}

function boundedMethod(method: MethodDefinition<object, object>, shape: Shape) {
  return {
    ...method,
    requestDeserialize: (bytes: Buffer) => {
      if (
        bytes.length > WORTH_COUNTING &&
        countParts(protobuf.Reader.create(bytes), bytes.length, shape) > MAX_PARTS
      ) {
        return new RefusedRequest(
          new BerthError(
            'exhausted',
            `the request has more than ${MAX_PARTS} elements of lists and messages`,
          ),
        )
      }
      return method.requestDeserialize(bytes)
    },
  }
}

/** Up to where there are too many. */
function countParts(reader: protobuf.Reader, end: number, shape: Shape, before = 0): number {
  let count = before
  while (reader.pos < end && count <= MAX_PARTS) {
    const tag = reader.uint32()
    const inside = shape.get(tag >>> 3)
    if (inside === undefined || (tag & 7) !== 2) {
      if (inside !== undefined) count++
      reader.skipType(tag & 7)
      continue
    }
    const length = reader.uint32()
    const next = reader.pos + length
    count++
    if (inside === 'numbers') count += length
    else if (inside !== 'texts') count = countParts(reader, next, inside, count)
    reader.pos = next
  }
  return count
}

/** What is used of a descriptor (google/protobuf/descriptor.proto, FieldDescriptorProto). */
type Descriptor = {
  readonly name: string
  readonly field: ReadonlyArray<{
    readonly number: number
    readonly label: string
    readonly type: string
    readonly typeName: string
  }>
  readonly nestedType: readonly Descriptor[]
}

function shapeOf(
  type: Descriptor,
  scope: string,
  definition: PackageDefinition,
  known: Map<string, Shape>,
): Shape {
  const shape: Shape = new Map()
  for (const { number, label, type: kind, typeName } of type.field) {
    if (kind === 'TYPE_MESSAGE') shape.set(number, shapeNamed(typeName, type, scope, definition, known))
    else if (label === 'LABEL_REPEATED') {
      shape.set(number, kind === 'TYPE_STRING' || kind === 'TYPE_BYTES' ? 'texts' : 'numbers')
    }
  }
  return shape
}

/** Names are relative: of a type inside of `type` (a map's entries), or of the package. */
function shapeNamed(
  name: string,
  { nestedType }: Descriptor,
  scope: string,
  definition: PackageDefinition,
  known: Map<string, Shape>,
): Shape {
  const nested = nestedType.find(inside => inside.name === name)
  if (nested !== undefined) return shapeOf(nested, scope, definition, known)
  const full = `${scope}.${name}`
  const found = known.get(full)
  if (found !== undefined) return found
  const type = (definition[full] as { type?: Descriptor } | undefined)?.type
  if (type === undefined) throw new Error(`there is no message ${full}`)
  const shape = shapeOf(type, scope, definition, known)
  known.set(full, shape)
  return shape
}
