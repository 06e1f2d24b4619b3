import { join } from 'node:path'
import type { Digest } from '../../base/digest.ts'
import { BerthError, isCode, messageOf } from '../../base/errors.ts'
import { WatchedFiles } from '../../os/watched-files.ts'
import { readText } from '../../registry/read-text.ts'
import { parseReference, type Reference } from '../../registry/reference.ts'
import type { AttachedSignature } from '../../registry/registry.ts'
import { mismatch, type SignedIdentity } from './identity.ts'
import { type Policy, parsePolicy, type Requirement } from './policy-file.ts'
import { loadKey, verifySignature } from './verify-signature.ts'

export type PoliciesOptions = {
  /** policy.json. */
  readonly file: string
  /** Without the file every image is accepted; else every image is refused then. */
  readonly isOptional: boolean
  /** Directory of `<namespace>.json`, which go before it; '' for none. */
  readonly directory: string
}

/** Reads the signatures of a manifest, wherever they are. */
export type SignatureReader = (manifest: Digest) => Promise<readonly AttachedSignature[]>

/** A signature that a requirement was met with. */
export type AcceptedSignature = AttachedSignature & { readonly manifest: Digest }

/** Which rule is for a reference, in words. */
export type ExplainedPolicy = { readonly origin: string; readonly requirements: readonly string[] }

const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
/** More namespaces than pull on any node. */
const MAX_FILES = 1000
const MAX_REASONS = 5

/** kubelet knows this word at the beginning of a message. */
export const REFUSED = 'SignatureValidationFailed'

type Rule = { readonly policy: Policy; readonly place: string; readonly requirements: readonly Requirement[] }

/** Which images may be pulled: containers-policy.json(5), for the node and for single namespaces. Files are read anew when they change. */
export class Policies {
  readonly #options: PoliciesOptions
  readonly #files = new Map<string, WatchedFiles<Policy | undefined>>()

  constructor(options: PoliciesOptions) {
    this.#options = options
  }

  /** The policy file of a namespace's own, '' if it has none: pulls with different ones are different pulls. */
  ownFile(namespace: string): string {
    const { directory } = this.#options
    if (directory === '' || !NAMESPACE.test(namespace)) return ''
    const file = join(directory, `${namespace}.json`)
    try {
      return this.#read(file) === undefined ? '' : file
    } catch {
      return file
    }
  }

  /** There is no rule that could refuse an image. False too for a policy that cannot be read. */
  acceptsAll(namespace: string): boolean {
    try {
      const policy = this.#policyFor(namespace)
      const lists = policy === undefined ? [] : [policy.default, ...policy.scopes.values()]
      return lists.flat().every(({ type }) => type === 'insecureAcceptAnything')
    } catch {
      return false
    }
  }

  /**
   * Lets an image pass, or not.
   *
   * @param reference as it was asked for, whatever mirror the image comes from
   * @param digests of the image manifest, and of the indexes that led to it: a signature of any of them counts
   * @returns the signatures that it passed with
   * @throws BerthError unknown, starting with `SignatureValidationFailed: ` and naming file and rule; cancelled
   */
  async check(
    reference: Reference,
    digests: readonly Digest[],
    namespace: string,
    signatures: SignatureReader,
  ): Promise<readonly AcceptedSignature[]> {
    const rule = this.#ruleFor(reference, namespace)
    const accepted: AcceptedSignature[] = []
    for (const requirement of rule?.requirements ?? []) {
      const outcome = await judge(requirement, reference, digests, signatures)
      if ('accepted' in outcome) accepted.push(...outcome.accepted)
      else
        throw refused(
          reference,
          `${rule?.policy.file}: ${requirement.place} (${outcome.type}): ${outcome.why}`,
        )
    }
    return accepted
  }

  /** Never throws: what cannot be understood is what a pull would say. */
  explain(reference: string, namespace: string): ExplainedPolicy {
    try {
      const rule = this.#ruleFor(parseReference(reference), namespace)
      if (rule === undefined) return { origin: 'none: every image is accepted', requirements: [] }
      return { origin: `${rule.policy.file}: ${rule.place}`, requirements: rule.requirements.map(inWords) }
    } catch (error) {
      return { origin: 'every pull is refused', requirements: [messageOf(error)] }
    }
  }

  #ruleFor(reference: Reference, namespace: string): Rule | undefined {
    try {
      const policy = this.#policyFor(namespace)
      return policy && ruleOf(policy, reference)
    } catch (error) {
      throw refused(reference, messageOf(error), error)
    }
  }

  /** undefined: there is none. */
  #policyFor(namespace: string): Policy | undefined {
    const own = this.ownFile(namespace)
    if (own !== '') return this.#read(own)
    const { file, isOptional } = this.#options
    const policy = this.#read(file)
    if (policy === undefined && !isOptional)
      throw new Error(`${file}: no such file, and signature_policy names it`)
    return policy
  }

  #read(file: string): Policy | undefined {
    let watched = this.#files.get(file)
    if (watched === undefined) {
      watched = new WatchedFiles(
        () => [file],
        () => {
          const source = readText(file)
          return source === undefined ? undefined : parsePolicy(file, source)
        },
      )
      if (this.#files.size >= MAX_FILES) this.#files.clear()
      this.#files.set(file, watched)
    }
    return watched.current()
  }
}

/** The longest scope that covers the reference: the name with tag or digest, its parents, its host, `*.domain`, then "". */
function ruleOf(policy: Policy, reference: Reference): Rule {
  const scope = scopesOf(reference).find(name => policy.scopes.has(name))
  if (scope === undefined) return { policy, place: 'default', requirements: policy.default }
  const place = `transports.docker[${JSON.stringify(scope)}]`
  return { policy, place, requirements: policy.scopes.get(scope)! }
}

function scopesOf(reference: Reference): string[] {
  const scopes = [`${reference}`]
  for (let name = reference.name; name !== ''; name = name.slice(0, Math.max(0, name.lastIndexOf('/')))) {
    scopes.push(name)
  }
  const host = reference.domain.replace(/:\d+$/, '')
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1))
    scopes.push(`*${host.slice(dot)}`)
  return [...scopes, '']
}

type Outcome =
  | { readonly accepted: readonly AcceptedSignature[] }
  | { readonly type: string; readonly why: string }

async function judge(
  requirement: Requirement,
  reference: Reference,
  digests: readonly Digest[],
  read: SignatureReader,
): Promise<Outcome> {
  const { type } = requirement
  switch (type) {
    case 'insecureAcceptAnything':
      return { accepted: [] }
    case 'reject':
      return { type, why: 'the policy refuses this image' }
    case 'unsupported':
      return { type: requirement.name, why: requirement.why }
    case 'sigstoreSigned': {
      const found = await findSignature(requirement, reference, digests, read)
      return typeof found === 'string' ? { type, why: found } : { accepted: [found] }
    }
  }
}

/** @returns the first signature that is accepted, or why none is */
async function findSignature(
  requirement: Requirement & { readonly type: 'sigstoreSigned' },
  reference: Reference,
  digests: readonly Digest[],
  read: SignatureReader,
): Promise<AcceptedSignature | string> {
  const reasons: string[] = []
  try {
    const keys = requirement.keys.map(loadKey)
    // Who signs an index signs what it leads to; who signs one image of it has signed that one.
    for (const manifest of new Set(digests)) {
      for (const signature of await read(manifest)) {
        const why = reasonAgainst(signature, keys, manifest, requirement.identity, reference)
        if (why === undefined) return { ...signature, manifest }
        reasons.push(why)
      }
    }
  } catch (error) {
    if (isCode(error, 'cancelled')) throw error
    return messageOf(error)
  }
  if (reasons.length === 0) return `there is no signature of ${[...new Set(digests)].join(' or ')}`
  const shown = [...new Set(reasons)].slice(0, MAX_REASONS).join('; ')
  return `none of ${reasons.length} signatures is accepted: ${shown}`
}

function reasonAgainst(
  signature: AttachedSignature,
  keys: ReturnType<typeof loadKey>[],
  manifest: Digest,
  identity: SignedIdentity,
  reference: Reference,
): string | undefined {
  try {
    const claim = verifySignature(signature, keys)
    if (claim.digest === manifest) return mismatch(identity, reference, claim.reference)
    return `it is for ${JSON.stringify(claim.digest)} instead of ${manifest}`
  } catch (error) {
    return messageOf(error)
  }
}

/** The error of an image that the policy does not let pass. */
export function refused(what: Reference | string, why: string, cause?: unknown): BerthError {
  return new BerthError('unknown', `${REFUSED}: ${what}: ${why}`, cause)
}

function inWords(requirement: Requirement): string {
  switch (requirement.type) {
    case 'insecureAcceptAnything':
      return 'insecureAcceptAnything: accepted unseen'
    case 'reject':
      return 'reject: refused'
    case 'unsupported':
      return `${requirement.name}: refused, since ${requirement.why}`
    case 'sigstoreSigned': {
      const keys = requirement.keys.map(key => ('path' in key ? key.path : 'a key in the policy'))
      return `sigstoreSigned by ${keys.join(' or ')}, ${requirement.identity.type}`
    }
  }
}
