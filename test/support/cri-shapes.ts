/** Random requests of the CRI, from the shapes in proto/: right but for one member, or wild all over. */
import { join } from 'node:path'
import fc from 'fast-check'
import protobuf from 'protobufjs'
import { protoDir } from './cri.ts'

const root = new protobuf.Root().loadSync(join(protoDir, 'runtime/v1/api.proto'), { keepCase: true })

export type Json = { [name: string]: unknown }
type Draw = <T>(arbitrary: fc.Arbitrary<T>) => T

export type Call = { readonly path: string; readonly streams: boolean; readonly request: protobuf.Type }

export const CALLS: ReadonlyMap<string, Call> = new Map(
  ['RuntimeService', 'ImageService'].flatMap(name => {
    const service = root.lookupService(`runtime.v1.${name}`)
    return service.methodsArray.map(method => {
      const request = root.lookupType(`runtime.v1.${method.requestType}`)
      const path = `/runtime.v1.${name}/${method.name}`
      return [method.name, { path, streams: method.responseStream === true, request }] as const
    })
  }),
)

const STRINGS = [
  '',
  ' ',
  'x',
  '\0',
  'a\0b',
  'a\nb',
  '\x1b[2J',
  '..',
  '../../etc/passwd',
  '/',
  '//',
  '/..',
  '/a/../../b',
  '/proc/self/fd/3',
  '/proc/1/root',
  'localhost/../x',
  '__proto__',
  'constructor',
  'toString',
  '-1',
  '4294967296',
  '0x0',
  'a:b',
  'a=b',
  '%s%n',
  '$(reboot)',
  '🦊',
  '\ufeff',
  '\u202e',
  `/${'n'.repeat(300)}`,
  '/d'.repeat(3000),
  'h'.repeat(100),
  'x'.repeat(70_000),
]
const INT64 = [
  '-9223372036854775808',
  '-2',
  '-1',
  '0',
  '1',
  '999',
  '2147483648',
  '4294967296',
  '9007199254740993',
]
const LARGEST = '9223372036854775807'
const INT32 = [-2147483648, -1, 0, 1, 70_000, 2147483647]
const UINT32 = [0, 1, 65_536, 4294967295]

/** Values of one field's type, most of them wrong for what the field means. */
function scalar(field: protobuf.Field): fc.Arbitrary<unknown> {
  const { resolvedType, type } = field
  if (resolvedType instanceof protobuf.Enum) {
    return fc.constantFrom(...Object.values(resolvedType.values), 99, -1, 2147483647)
  }
  if (type === 'string') {
    return fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...STRINGS) }, fc.string({ unit: 'binary' }))
  }
  if (type === 'bool') return fc.boolean()
  if (type === 'bytes') return fc.uint8Array({ maxLength: 50 }).map(bytes => Buffer.from(bytes))
  if (type === 'int64') return fc.constantFrom(...INT64, LARGEST)
  if (type === 'uint64') return fc.constantFrom('0', '1', '18446744073709551615')
  if (type === 'double') return fc.double()
  return fc.constantFrom(...(type === 'uint32' ? UINT32 : INT32))
}

function oneValue(draw: Draw, field: protobuf.Field, depth: number): unknown {
  if (field.resolvedType instanceof protobuf.Type) return wildMessage(draw, field.resolvedType, depth - 1)
  return draw(scalar(field))
}

/** A value for a whole field: a list or a map may be empty, long, or hold anything. */
function fieldValue(draw: Draw, field: protobuf.Field, depth: number): unknown {
  if (field instanceof protobuf.MapField) {
    if (draw(fc.nat(19)) === 0)
      return Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, 'v']))
    const keys = draw(
      fc.array(fc.oneof(fc.constantFrom(...STRINGS), fc.string()), { minLength: 1, maxLength: 3 }),
    )
    const map: Json = Object.create(null)
    for (const key of keys) map[key] = oneValue(draw, field, depth)
    return map
  }
  if (!field.repeated) return oneValue(draw, field, depth)
  const length = draw(fc.oneof({ weight: 40, arbitrary: fc.nat(3) }, fc.constant(1000)))
  if (length < 1000) return Array.from({ length }, () => oneValue(draw, field, depth))
  return new Array(length).fill(oneValue(draw, field, 1))
}

function wildMessage(draw: Draw, type: protobuf.Type, depth: number): Json {
  const message: Json = {}
  if (depth < 0) return message
  for (const field of type.fieldsArray) {
    if (draw(fc.nat(2)) > 0) message[field.name] = fieldValue(draw, field.resolve(), depth)
  }
  return message
}

function drawn<T>(make: (draw: Draw) => T): fc.Arbitrary<T> {
  return fc.gen().map(generate => make(arbitrary => generate(() => arbitrary)))
}

/** Any request of the call. */
export function wild({ request }: Call): fc.Arbitrary<Json> {
  return drawn(draw => wildMessage(draw, request, 4))
}

/** `valid` with one member anywhere in it set to something else, or taken away. `fixed`: paths that stay as they are. */
export function mutated({ request }: Call, valid: Json, fixed: readonly string[] = []): fc.Arbitrary<Json> {
  return drawn(draw => change(draw, request, valid, fixed, ''))
}

function change(
  draw: Draw,
  type: protobuf.Type,
  message: Json,
  fixed: readonly string[],
  path: string,
): Json {
  // What is for other systems nobody looks at.
  const fields = type.fieldsArray.filter(({ name }) => name !== 'windows' && !fixed.includes(path + name))
  if (fields.length === 0) return message
  const field = draw(fc.constantFrom(...fields)).resolve()
  const { name, resolvedType } = field
  const current = message[name]
  const holdsFixed = fixed.some(one => one.startsWith(`${path}${name}.`))
  if (resolvedType instanceof protobuf.Type && (holdsFixed || draw(fc.nat(9)) > 0)) {
    const inner = resolvedType
    const into = (value: unknown) => change(draw, inner, (value ?? {}) as Json, fixed, `${path}${name}.`)
    if (!field.repeated) return { ...message, [name]: into(current) }
    const list = (current as Json[] | undefined) ?? []
    const index = draw(fc.nat(list.length))
    return { ...message, [name]: [...list.slice(0, index), into(list[index]), ...list.slice(index + 1)] }
  }
  if (current !== undefined && draw(fc.nat(3)) === 0) return { ...message, [name]: null }
  return { ...message, [name]: fieldValue(draw, field, 2) }
}

/**
 * Whether a message begins with a path of the request (`config.linux.sysctls[net.x]: …`), at most one word and a colon
 * before it.
 */
export function namesField({ request }: Call, message: string): boolean {
  return [message, message.replace(/^[A-Za-z]+: /, '')].some(text => startsWithPath(request, text))
}

function startsWithPath(request: protobuf.Type, text: string): boolean {
  let type: protobuf.Type | undefined = request
  for (let rest = text; ; ) {
    const name = /^[A-Za-z_0-9]+/.exec(rest)?.[0] ?? ''
    const field: protobuf.Field | undefined = type?.fields[name]?.resolve()
    if (field === undefined) return false
    rest = rest.slice(name.length)
    if (rest.startsWith('[')) return true // a key may be any text, and what follows it
    if (!rest.startsWith('.')) return /^[: ,]/.test(rest)
    rest = rest.slice(1)
    type = field.resolvedType instanceof protobuf.Type ? field.resolvedType : undefined
  }
}

/** The bytes of a request; `null` members are left out. */
export function encode({ request }: Call, message: Json): Buffer {
  return Buffer.from(request.encode(message).finish())
}
