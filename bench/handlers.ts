import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Handler } from './peer.ts'
import { RUN } from './places.ts'

export const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const PROGRAMS: Readonly<Record<Handler, string>> = { runc: '/usr/sbin/runc', crun: '/usr/bin/crun' }

const HYBRID = '/sys/fs/cgroup/unified'

/** The OCI runtimes of this machine, as every peer calls them. */
export function installedHandlers(): Map<Handler, string> {
  const handlers = new Map<Handler, string>([['runc', PROGRAMS.runc]])
  if (existsSync(PROGRAMS.crun)) handlers.set('crun', existsSync(HYBRID) ? crunOnHybridHost() : PROGRAMS.crun)
  return handlers
}

/** crun refuses a host that mounts cgroup v2 beside v1: it gets a mount namespace without it, for every peer. */
function crunOnHybridHost(): string {
  const directory = join(RUN, 'bin')
  const script = join(directory, 'crun')
  mkdirSync(directory, { recursive: true })
  const inside = `umount ${HYBRID}; exec ${PROGRAMS.crun} "$@"`
  writeFileSync(
    script,
    `#!/bin/sh\nexec unshare --mount --propagation private sh -c '${inside}' crun "$@"\n`,
    { mode: 0o755 },
  )
  return script
}
