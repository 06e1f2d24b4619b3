import { BerthError, messageOf } from '../../base/errors.ts'
import { parseStrictJson } from '../../base/strict-json.ts'
import { nearest } from '../../config/nearest.ts'
import { isPrefix } from '../../registry/registries-file.ts'
import { parseIdentity, type SignedIdentity } from './identity.ts'

/** Where a public key is: a PEM file, or the PEM itself from the policy. */
export type KeySource = { readonly path: string } | { readonly pem: string }

/** One entry of a list of requirements, with its place in the file: `transports.docker["quay.io"][0]`. */
export type Requirement = { readonly place: string } & (
  | { readonly type: 'insecureAcceptAnything' }
  | { readonly type: 'reject' }
  | {
      readonly type: 'sigstoreSigned'
      readonly keys: readonly KeySource[]
      readonly identity: SignedIdentity
    }
  /** It can be read, but not checked: images that it is for are refused. */
  | { readonly type: 'unsupported'; readonly name: string; readonly why: string }
)

export type Policy = {
  readonly file: string
  readonly default: readonly Requirement[]
  /** `transports.docker`. */
  readonly scopes: ReadonlyMap<string, readonly Requirement[]>
}

type Json = Readonly<Record<string, unknown>>

const KEY_MEMBERS = ['keyPath', 'keyPaths', 'keyData', 'keyDatas'] as const
/** Members of sigstoreSigned that ask for more than a key: certificates of Fulcio or a PKI, a log entry in Rekor. */
const MORE_THAN_A_KEY = [
  'fulcio',
  'pki',
  'rekorPublicKeyPath',
  'rekorPublicKeyPaths',
  'rekorPublicKeyData',
  'rekorPublicKeyDatas',
]
const MEMBERS: Readonly<Record<string, readonly string[]>> = {
  insecureAcceptAnything: [],
  reject: [],
  signedBy: ['keyType', 'keyPath', 'keyPaths', 'keyData', 'signedIdentity'],
  signedBaseLayer: ['baseLayerIdentity'],
  sigstoreSigned: [...KEY_MEMBERS, ...MORE_THAN_A_KEY, 'signedIdentity'],
}
const IDENTITY_MEMBERS: Readonly<Record<SignedIdentity['type'], readonly string[]>> = {
  matchExact: [],
  matchRepoDigestOrExact: [],
  matchRepository: [],
  exactReference: ['dockerReference'],
  exactRepository: ['dockerRepository'],
  remapIdentity: ['prefix', 'signedPrefix'],
}

/**
 * containers-policy.json(5), strictly: what is not understood could be what forbids an image.
 *
 * @throws BerthError unknown, naming the file and the place in it
 */
export function parsePolicy(file: string, source: string): Policy {
  try {
    const document = objectOf(parseStrictJson(Buffer.from(source)), 'the policy')
    known(document, 'the policy', ['default', 'transports'])
    const transports = document.transports === undefined ? {} : objectOf(document.transports, 'transports')
    const scopes = new Map<string, readonly Requirement[]>()
    for (const [transport, table] of Object.entries(transports)) {
      const place = `transports${member(transport)}`
      for (const [scope, value] of Object.entries(objectOf(table, place))) {
        const requirements = requirementsOf(value, `${place}[${JSON.stringify(scope)}]`)
        if (transport === 'docker') scopes.set(checkedScope(scope, place), requirements)
      }
    }
    return { file, default: requirementsOf(document.default, 'default'), scopes }
  } catch (error) {
    throw new BerthError('unknown', `${file}: ${messageOf(error)}`, error)
  }
}

/** A scope that no name can have would be a rule that never counts. */
function checkedScope(scope: string, place: string): string {
  const isWildcard = scope.startsWith('*.')
  if (scope === '' || (isPrefix(scope) && !(isWildcard && scope.includes('/')))) return scope
  const expected = 'expected host[:port][/path][:tag|@digest], "*.domain" or ""'
  throw new Error(`${place}[${JSON.stringify(scope)}]: ${expected}`)
}

function requirementsOf(value: unknown, place: string): readonly Requirement[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new Error(`${place}: expected a list of requirements with one at least`)
  }
  return value.map((item, index) => requirementOf(item, `${place}[${index}]`))
}

function requirementOf(value: unknown, place: string): Requirement {
  const table = objectOf(value, place)
  const type = textOf(table, 'type', place)
  const members = choice(MEMBERS, type, `${place}.type`)
  known(table, place, ['type', ...members])
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      return { place, type }
    case 'sigstoreSigned':
      return sigstoreOf(table, place)
    default: {
      const why =
        type === 'signedBy'
          ? 'GPG signatures ("simple signing") are not supported; sign with sigstore and require sigstoreSigned'
          : 'it is not supported'
      return { place, type: 'unsupported', name: type, why }
    }
  }
}

function sigstoreOf(table: Json, place: string): Requirement {
  const more = MORE_THAN_A_KEY.find(name => name in table)
  if (more !== undefined) {
    const why = `"${more}" is not supported: only signatures by a public key (keyPath, keyData) can be verified`
    return { place, type: 'unsupported', name: 'sigstoreSigned', why }
  }
  const given = KEY_MEMBERS.filter(name => name in table)
  const [member] = given
  if (member === undefined || given.length > 1) {
    throw new Error(`${place}: expected exactly one of ${KEY_MEMBERS.join(', ')}`)
  }
  const at = `${place}.${member}`
  const values = member.endsWith('s') ? textsOf(table[member], at) : [textOf(table, member, place)]
  const keys = values.map(text => (member.startsWith('keyPath') ? pathKey(text, at) : dataKey(text, at)))
  const identity =
    table.signedIdentity === undefined
      ? ({ type: 'matchRepoDigestOrExact' } as const)
      : identityOf(table.signedIdentity, `${place}.signedIdentity`)
  return { place, type: 'sigstoreSigned', keys, identity }
}

function pathKey(path: string, place: string): KeySource {
  if (!path.startsWith('/'))
    throw new Error(`${place}: expected an absolute path, got ${JSON.stringify(path)}`)
  return { path }
}

function dataKey(text: string, place: string): KeySource {
  const pem = Buffer.from(text, 'base64').toString()
  if (!pem.includes('-----BEGIN ')) throw new Error(`${place}: expected a PEM public key in base64`)
  return { pem }
}

function identityOf(value: unknown, place: string): SignedIdentity {
  const table = objectOf(value, place)
  const type = textOf(table, 'type', place) as SignedIdentity['type']
  const members = choice(IDENTITY_MEMBERS, type, `${place}.type`)
  known(table, place, ['type', ...members])
  const texts = Object.fromEntries(members.map(name => [name, textOf(table, name, place)]))
  const reference = texts.dockerReference ?? texts.dockerRepository
  if (reference !== undefined) {
    const isWhole = parseIdentity(reference).suffix !== ''
    if (isWhole !== (type === 'exactReference')) {
      const expected = type === 'exactReference' ? 'a name with tag or digest' : 'a repository without tag'
      throw new Error(`${place}: expected ${expected}, got ${JSON.stringify(reference)}`)
    }
  }
  return { type, ...texts } as SignedIdentity
}

function choice(
  table: Readonly<Record<string, readonly string[]>>,
  name: string,
  place: string,
): readonly string[] {
  const members = Object.hasOwn(table, name) ? table[name] : undefined
  if (members !== undefined) return members
  throw new Error(`${place}: expected one of ${Object.keys(table).join(', ')}, got ${JSON.stringify(name)}`)
}

function known(table: Json, place: string, members: readonly string[]): void {
  const unknown = Object.keys(table).find(name => !members.includes(name))
  if (unknown === undefined) return
  const like = nearest(unknown, members)
  const hint = like === undefined ? `expected one of ${members.join(', ')}` : `did you mean "${like}"?`
  throw new Error(`${place}: unknown key ${JSON.stringify(unknown)}; ${hint}`)
}

function objectOf(value: unknown, place: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  throw new Error(`${place}: expected an object`)
}

function textOf(table: Json, name: string, place: string): string {
  const value = table[name]
  if (typeof value === 'string' && value !== '') return value
  throw new Error(`${place}.${name}: expected a text that is not empty`)
}

function textsOf(value: unknown, place: string): readonly string[] {
  if (Array.isArray(value) && value.length > 0 && value.every(item => typeof item === 'string')) return value
  throw new Error(`${place}: expected a list of texts with one at least`)
}

function member(name: string): string {
  return /^[A-Za-z][\w-]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`
}
