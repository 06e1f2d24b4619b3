import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const HYBRID = '/sys/fs/cgroup/unified'

/**
 * crun refuses a node that mounts cgroup v2 beside v1: there it gets a mount namespace without it.
 * @returns the program to call in its place; it may be a script in `directory`
 */
export function crunFor(directory: string, path: string): string {
  if (!existsSync(HYBRID)) return path
  const script = join(directory, 'crun')
  const inside = `mount --make-private /sys/fs/cgroup; umount ${HYBRID}; exec ${path} "$@"`
  writeFileSync(
    script,
    `#!/bin/sh\nexec unshare --mount --propagation unchanged sh -c '${inside}' crun "$@"\n`,
    { mode: 0o755 },
  )
  return script
}
