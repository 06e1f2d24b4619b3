import { existsSync } from 'node:fs'
import { namesIn, removeTree } from '../os/files.ts'
import { mountPointsBelow, unmountAll } from '../os/mounts.ts'
import type { PodContext } from './context.ts'

/** What there is of a pod that no row knows. */
export type PodStray = {
  readonly id: string
  readonly hasDirectory: boolean
  /** Of a pod whose client named none. */
  readonly cgroup: string | undefined
}

/** `podID`, or `PARENT-podID.slice` under systemd. */
const GROUP = /(?:^|-)pod([0-9a-f]{64})(?:\.slice)?$/

export function findPodStrays({ catalog, paths, cgroups, defaultCgroup }: PodContext): PodStray[] {
  const groups = new Map(
    cgroups.children(defaultCgroup).flatMap(name => {
      const id = GROUP.exec(name)?.[1]
      return id === undefined ? [] : [[id, `${defaultCgroup}/${name}`] as const]
    }),
  )
  const directories = new Set(namesIn(paths.pods))
  return [...new Set([...directories, ...groups.keys()])]
    .filter(id => catalog.pod(id) === undefined)
    .map(id => ({ id, hasDirectory: directories.has(id), cgroup: groups.get(id) }))
}

/** Its pins and mounts, its files, its cgroup unless something runs in it. */
export async function removePodStray({ paths, cgroups }: PodContext, stray: PodStray): Promise<void> {
  const { directory } = paths.pod(stray.id)
  for (const point of existsSync(directory) ? mountPointsBelow(directory) : []) unmountAll(point)
  await removeTree(directory)
  if (stray.cgroup !== undefined) await cgroups.remove(stray.cgroup)
}
