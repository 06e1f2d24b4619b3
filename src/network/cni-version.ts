/** Versions of the CNI specification spoken here, oldest first. Older ones answer in another shape (`ip4`, `ip6`). */
const CNI_VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const

export type CniVersion = (typeof CNI_VERSIONS)[number]

/** For messages: what a configuration may ask for. */
export const SUPPORTED_VERSIONS = CNI_VERSIONS.join(', ')

export function isCniVersion(value: unknown): value is CniVersion {
  return CNI_VERSIONS.some(version => version === value)
}

export function isAtLeast(version: CniVersion, minimum: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(minimum)
}

/** The newest of `versions` that is spoken here, or undefined. */
export function newestOf(versions: readonly unknown[]): CniVersion | undefined {
  return CNI_VERSIONS.findLast(version => versions.includes(version))
}
