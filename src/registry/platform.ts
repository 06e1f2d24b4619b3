/** OCI image index, "platform": Go's names for operating system and architecture. */
export type Platform = {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' }

/** What containers on this node run. */
export function nodePlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch }
}

// Variants that a node of an architecture runs, best first; '' is an entry that names none. What an amd64 or riscv64
// entry demands beyond its base level cannot be told from here, and a wrong guess ends in SIGILL.
const VARIANTS: Readonly<Record<string, readonly string[]>> = {
  amd64: ['', 'v1'],
  arm64: ['v8', ''],
  arm: ['v7', '', 'v6', 'v5'],
}

/** The index of the entry that fits best, undefined if none does. */
export function choosePlatform(
  offered: ReadonlyArray<Platform | undefined>,
  node: Platform,
): number | undefined {
  // An index around a single image need not say what it is for.
  if (offered.length === 1 && offered[0] === undefined) return 0
  const variants = node.variant === undefined ? (VARIANTS[node.architecture] ?? ['']) : [node.variant]
  let best: { index: number; rank: number } | undefined
  for (const [index, platform] of offered.entries()) {
    if (platform?.os !== node.os || platform.architecture !== node.architecture) continue
    const rank = variants.indexOf(platform.variant ?? '')
    if (rank >= 0 && (best === undefined || rank < best.rank)) best = { index, rank }
  }
  return best?.index
}

export function platformName({ os, architecture, variant }: Platform): string {
  return variant === undefined || variant === ''
    ? `${os}/${architecture}`
    : `${os}/${architecture}/${variant}`
}
