import protobuf from 'protobufjs'

export type FieldFact = {
  readonly number: number
  readonly type: string
  readonly label?: 'repeated' | 'map'
}

/** The interface without its comments and its order: what has to be equal for two programs to understand each other. */
export type CriFacts = {
  /** By message and field; names of nested types are joined by dots. */
  readonly messages: Record<string, Record<string, FieldFact>>
  readonly enums: Record<string, Record<string, number>>
  /** `Request -> Reply`, `Request -> stream Reply`. */
  readonly calls: Record<string, string>
}

/** Reads `package runtime.v1` of a definition file. */
export function factsOf(protoFile: string): CriFacts {
  const root = new protobuf.Root()
  root.loadSync(protoFile, { keepCase: true })
  root.resolveAll()
  const facts: CriFacts = { messages: {}, enums: {}, calls: {} }
  collect(root.lookup('runtime.v1') as protobuf.Namespace, '', facts)
  return facts
}

function collect(namespace: protobuf.NamespaceBase, prefix: string, facts: CriFacts): void {
  for (const object of namespace.nestedArray) {
    const name = `${prefix}${object.name}`
    if (object instanceof protobuf.Type) {
      facts.messages[name] = Object.fromEntries(
        object.fieldsArray.map(field => [field.name, fieldFact(field)]),
      )
      collect(object, `${name}.`, facts)
    } else if (object instanceof protobuf.Enum) {
      facts.enums[name] = object.values
    } else if (object instanceof protobuf.Service) {
      for (const call of object.methodsArray) facts.calls[`${name}.${call.name}`] = callFact(call)
    }
  }
}

function fieldFact(field: protobuf.Field): FieldFact {
  const type = field.resolvedType?.fullName.replace(/^\.runtime\.v1\./, '') ?? field.type
  if (field instanceof protobuf.MapField) {
    return { number: field.id, type: `${field.keyType}, ${type}`, label: 'map' }
  }
  return field.repeated ? { number: field.id, type, label: 'repeated' } : { number: field.id, type }
}

function callFact(call: protobuf.Method): string {
  const request = `${call.requestStream === true ? 'stream ' : ''}${call.requestType}`
  return `${request} -> ${call.responseStream === true ? 'stream ' : ''}${call.responseType}`
}
