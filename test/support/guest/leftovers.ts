import { sleep } from '../../../src/base/clock.ts'
import type { Guest } from './guest.ts'

/** One line for each thing that a pod or container left in the guest. */
const LOOK = [
  'ls -d /run/berth/containers/* /run/berth/pods/* /run/berth/exits/* /run/berth/s/* /var/lib/berth/containers/*',
  'find /sys/fs/cgroup -type d -name "berth-*"',
  'pgrep -l "conmon|runc|crun|catatonit"',
  // /run/berth/pods itself is one for as long as the daemon runs.
  'findmnt -rno TARGET | grep -E "^/(run|var/lib)/berth/[^/]+/"',
  'ls /var/lib/cni/networks/pods | grep -E "^[0-9.]+$"',
  'ip -o link | grep -o "veth[^:@]*"',
  'systemctl list-units --all --plain --no-legend "berth-*"',
  'ls /run/systemd/transient | grep "^berth-"',
]

/** What is on its way out gets so many looks, a second apart. */
const LOOKS = 20

export async function leftoversOf(guest: Guest): Promise<string[]> {
  const line = `${LOOK.map(look => `(${look}) 2>/dev/null`).join('; ')}; true`
  for (let look = 1; ; look++) {
    const left = (await guest.output(line)).split('\n').filter(Boolean)
    if (left.length === 0 || look === LOOKS) return left
    await sleep(1000)
  }
}
