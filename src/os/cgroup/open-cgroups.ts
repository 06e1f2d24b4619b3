import { BerthError } from '../../base/errors.ts'
import { mountsBelow } from '../mounts.ts'
import type { Cgroups } from './cgroup.ts'
import { CgroupsV1 } from './v1.ts'
import { CgroupsV2 } from './v2.ts'

/**
 * The control groups mounted at and below `mountPoint`.
 * @throws BerthError unavailable if there are none
 */
export function openCgroups(mountPoint = '/sys/fs/cgroup'): Cgroups {
  const mounts = mountsBelow(mountPoint).filter(entry => entry.type === 'cgroup' || entry.type === 'cgroup2')
  const whole = mounts.find(entry => entry.mountPoint === mountPoint)
  if (whole?.type === 'cgroup2') return new CgroupsV2(mountPoint)
  if (mounts.length > 0) return new CgroupsV1(mounts)
  throw new BerthError('unavailable', `no control groups are mounted at ${mountPoint}`)
}
