import { join } from 'node:path'
import type { Digest } from '../../base/digest.ts'
import { BerthError, isCode, messageOf } from '../../base/errors.ts'
import { readText } from '../../registry/read-text.ts'
import { parseReference, type Reference } from '../../registry/reference.ts'
import type { AttachedSignature } from '../../registry/registry.ts'
import { WatchedFiles } from '../../registry/watched-files.ts'
import { mismatch } from './identity.ts'
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

/** What a reference resolved to. */
export type ResolvedDigests = {
  /** Of an index, if it is one. */
  readonly digest: Digest
  /** Of the image manifest for this platform. */
  readonly manifestDigest: Digest
}

/** Reads the signatures that are attached to a manifest, whoever has them. */
export type SignatureReader = (manifest: Digest) => Promise<readonly AttachedSignature[]>

/** Which rule is for a reference, in words. */
export type ExplainedPolicy = { readonly origin: string; readonly requirements: readonly string[] }

const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
/** More namespaces than pull on any node. */
const MAX_FILES = 1000
const MAX_REASONS = 5

/** kubelet knows this word at the beginning of a message. */
const REFUSED = 'SignatureValidationFailed'

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

  /**
   * Lets an image pass, or not.
   *
   * @param reference as it was asked for, whatever mirror the image comes from
   * @throws BerthError unknown, starting with `SignatureValidationFailed: ` and naming file and rule; cancelled
   */
  async check(
    reference: Reference,
    resolved: ResolvedDigests,
    namespace: string,
    signatures: SignatureReader,
  ): Promise<void> {
    const rule = this.#ruleFor(reference, namespace)
    for (const requirement of rule?.requirements ?? []) {
      const why = await unmet(requirement, reference, resolved, signatures)
      if (why === undefined) continue
      const name = requirement.type === 'unsupported' ? requirement.name : requirement.type
      throw refused(reference, `${rule?.policy.file}: ${requirement.place} (${name}): ${why}`)
    }
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

/** Why a requirement is not met, undefined if it is. */
async function unmet(
  requirement: Requirement,
  reference: Reference,
  { digest, manifestDigest }: ResolvedDigests,
  read: SignatureReader,
): Promise<string | undefined> {
  switch (requirement.type) {
    case 'insecureAcceptAnything':
      return undefined
    case 'reject':
      return 'the policy refuses this image'
    case 'unsupported':
      return requirement.why
  }
  let keys: ReturnType<typeof loadKey>[]
  try {
    keys = requirement.keys.map(loadKey)
  } catch (error) {
    return messageOf(error)
  }
  const reasons: string[] = []
  // Who signs an index signs what it leads to; who signs one image of it has signed that one.
  for (const signed of new Set([digest, manifestDigest])) {
    let attached: readonly AttachedSignature[]
    try {
      attached = await read(signed)
    } catch (error) {
      if (isCode(error, 'cancelled')) throw error
      return `its signatures cannot be read: ${messageOf(error)}`
    }
    for (const signature of attached) {
      try {
        const claim = verifySignature(signature, keys)
        if (claim.digest !== signed)
          throw new Error(`it is for ${JSON.stringify(claim.digest)} instead of ${signed}`)
        const wrong = mismatch(requirement.identity, reference, claim.reference)
        if (wrong === undefined) return undefined
        reasons.push(wrong)
      } catch (error) {
        reasons.push(messageOf(error))
      }
    }
  }
  if (reasons.length === 0) return `there is no signature of ${digest}`
  return `none of ${reasons.length} signatures is accepted: ${[...new Set(reasons)].slice(0, MAX_REASONS).join('; ')}`
}

function refused(reference: Reference, why: string, cause?: unknown): BerthError {
  return new BerthError('unknown', `${REFUSED}: ${reference}: ${why}`, cause)
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
