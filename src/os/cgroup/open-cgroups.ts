import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BerthError } from '../../base/errors.ts'
import { mountsBelow } from '../mounts.ts'
import type { Cgroups } from './cgroup.ts'
import { hugepageSizes } from './hugetlb.ts'
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

export type CgroupFeatures = {
  /** The memory controller counts swap. */
  readonly swapAccounting: boolean
  /** The sizes of huge pages that are counted (`2MB`); none without the controller. */
  readonly hugepageSizes: readonly string[]
  /** The kernel counts how long the processes of each group wait. */
  readonly pressure: boolean
}

/** What the controllers of `cgroups` can do on this kernel. */
export function cgroupFeatures({ version }: Cgroups, mountPoint = '/sys/fs/cgroup'): CgroupFeatures {
  if (version === 1) {
    return {
      swapAccounting: existsSync(join(mountPoint, 'memory/memory.memsw.usage_in_bytes')),
      hugepageSizes: existsSync(join(mountPoint, 'hugetlb/cgroup.procs')) ? hugepageSizes() : [],
      pressure: existsSync(join(mountPoint, 'unified/io.pressure')),
    }
  }
  const controllers = readFileSync(join(mountPoint, 'cgroup.controllers'), 'utf8').trim().split(' ')
  // The root group has no limits of its own: look at any group below it.
  const swap = readdirSync(mountPoint, { withFileTypes: true }).some(
    entry => entry.isDirectory() && existsSync(join(mountPoint, entry.name, 'memory.swap.max')),
  )
  return {
    swapAccounting: swap,
    hugepageSizes: controllers.includes('hugetlb') ? hugepageSizes() : [],
    pressure: existsSync(join(mountPoint, 'io.pressure')),
  }
}
