import { parseReference, type Reference } from '../../registry/reference.ts'

/** Which names a signature may be about: containers-policy.json(5), "signedIdentity". */
export type SignedIdentity =
  | { readonly type: 'matchExact' }
  | { readonly type: 'matchRepoDigestOrExact' }
  | { readonly type: 'matchRepository' }
  | { readonly type: 'exactReference'; readonly dockerReference: string }
  | { readonly type: 'exactRepository'; readonly dockerRepository: string }
  | { readonly type: 'remapIdentity'; readonly prefix: string; readonly signedPrefix: string }

/** A name as it is written in a signature or policy: the repository, and what of tag and digest there is. */
type Identity = { readonly name: string; readonly suffix: string }

/**
 * @param signed the name in the signature's payload
 * @returns why the signature is not about the image, undefined if it is
 */
export function mismatch(identity: SignedIdentity, reference: Reference, signed: string): string | undefined {
  const found = tryParse(signed)
  if (found === undefined) return `the signature is for ${JSON.stringify(signed)}, which is no image name`
  const wanted = { name: reference.name, suffix: `${reference}`.slice(reference.name.length) }
  const isMatch = matches(identity, wanted, found)
  if (isMatch) return undefined
  const hint =
    found.suffix === '' && identity.type !== 'matchRepository' && identity.type !== 'exactRepository'
      ? '; it names no tag, as cosign writes it: signedIdentity "matchRepository" accepts that'
      : ''
  return `the signature is for ${JSON.stringify(signed)}, which is not what ${identity.type} accepts${hint}`
}

function matches(identity: SignedIdentity, wanted: Identity, found: Identity): boolean {
  switch (identity.type) {
    case 'matchExact':
      return isSame(wanted, found)
    case 'matchRepoDigestOrExact':
      return isSameOrRepository(wanted, found)
    case 'matchRepository':
      return found.name === wanted.name
    case 'exactReference':
      return isSame(parseIdentity(identity.dockerReference), found)
    case 'exactRepository':
      return found.name === parseIdentity(identity.dockerRepository).name
    case 'remapIdentity':
      return isSameOrRepository(remapped(identity.prefix, identity.signedPrefix, wanted), found)
  }
}

function isSame(wanted: Identity, found: Identity): boolean {
  return found.suffix !== '' && found.suffix === wanted.suffix && found.name === wanted.name
}

/** Of an image that was asked for by digest, the payload's digest says the rest. */
function isSameOrRepository(wanted: Identity, found: Identity): boolean {
  if (found.suffix === '') return false
  return wanted.suffix.startsWith('@') ? found.name === wanted.name : isSame(wanted, found)
}

function remapped(prefix: string, signedPrefix: string, wanted: Identity): Identity {
  const whole = wanted.name + wanted.suffix
  const end = whole[prefix.length]
  if (!whole.startsWith(prefix) || !(end === undefined || '/:@'.includes(end))) return wanted
  // What cannot be a name matches no signature.
  return tryParse(signedPrefix + whole.slice(prefix.length)) ?? { name: '', suffix: '' }
}

function tryParse(text: string): Identity | undefined {
  try {
    return parseIdentity(text)
  } catch {
    return undefined
  }
}

/** @throws BerthError invalid */
export function parseIdentity(text: string): Identity {
  const { name } = parseReference(text)
  const at = text.indexOf('@')
  const head = at < 0 ? text : text.slice(0, at)
  const colon = head.lastIndexOf(':')
  return { name, suffix: text.slice(colon > head.lastIndexOf('/') ? colon : head.length) }
}
