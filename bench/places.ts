import { join } from 'node:path'

export const ROOT = join(import.meta.dirname, '..')

/** What is expensive to make and stays between runs: the images, Debian's containerd. */
export const CACHE = join(ROOT, '.cache/bench')

/** On the machine's own file system, as a node's images and writable layers are. */
export const DATA = '/var/lib/berth-bench'

/** On a tmpfs of the bench's own. */
export const RUN = '/run/berth-bench'

/** Parent of all pods' control groups. */
export const CGROUP = '/berth-bench'

/** A peer's own directories and control group: no two peers share one. */
export type Places = { readonly data: string; readonly run: string; readonly cgroup: string }

export function placesOf(peer: string): Places {
  const name = peer.toLowerCase()
  return { data: join(DATA, name), run: join(RUN, name), cgroup: join(CGROUP, name) }
}
