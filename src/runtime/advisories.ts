/**
 * What is known to be unsafe about a runtime, for a warning: distributions ship old versions, some with the fixes
 * taken over, so that refusing them would help nobody.
 * @param version as the runtime reports itself: `runc 1.1.5+ds1`
 */
export function knownWeakness(version: string): string | undefined {
  const match = /^runc (\d+)\.(\d+)\.(\d+)/.exec(version)
  if (match === null) return undefined
  const [major, minor, patch] = [Number(match[1]), Number(match[2]), Number(match[3])]
  const fixed = major > 1 || minor > 4 || (minor === 4 && patch >= 3) || (minor === 3 && patch >= 6)
  if (fixed) return undefined
  return (
    `${version} is older than 1.3.6 and 1.4.3, which fix container escapes (CVE-2025-31133, CVE-2025-52565, ` +
    'CVE-2025-52881, CVE-2026-41579); upgrade it unless your distribution has taken the fixes over'
  )
}
