import { invalid } from './errors.ts'

declare const brand: unique symbol
/** `sha256:` and 64 lower-case hex digits. Only a parsed digest may become part of a path or a URL. */
export type Digest = string & { readonly [brand]: 'digest' }

const SHA256 = /^sha256:[0-9a-f]{64}$/

export function isDigest(text: string): text is Digest {
  return SHA256.test(text)
}

/** @throws BerthError invalid, naming `field` */
export function parseDigest(text: unknown, field = 'digest'): Digest {
  if (typeof text === 'string' && isDigest(text)) return text
  throw invalid(field, `expected "sha256:" and 64 lower-case hex digits, got ${JSON.stringify(text)}`)
}

export function digestFromHex(hex: string): Digest {
  return parseDigest(`sha256:${hex}`)
}

export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length)
}
