/**
 * The path of a slice in the cgroup hierarchy, which its name spells out: `a-b.slice` is `/a.slice/a-b.slice`
 * (systemd.slice(5)).
 * @returns undefined for what names no slice below the root
 */
export function slicePath(name: string): string | undefined {
  const stem = /^([A-Za-z0-9:_.\\-]+)\.slice$/.exec(name)?.[1]
  const parts = stem?.split('-') ?? ['']
  if (parts.includes('')) return undefined
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('-')}.slice`).join('')
}

export function isSlice(path: string): boolean {
  return path.endsWith('.slice')
}
