import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { OciResources } from '../../model/oci.ts'
import type { HugetlbUsage } from './cgroup.ts'
import * as files from './group-files.ts'
import * as parse from './parse.ts'

/** What the controller calls its files in each version; version 2 keeps no highest usage. */
const FILES = {
  1: { limit: 'limit_in_bytes', usage: 'usage_in_bytes', maxUsage: 'max_usage_in_bytes' },
  2: { limit: 'max', usage: 'current', maxUsage: undefined },
} as const

/** The sizes of huge pages that this kernel has, by the names of control group files (`2MB`). */
export function hugepageSizes(dir = '/sys/kernel/mm/hugepages'): string[] {
  return existsSync(dir)
    ? readdirSync(dir).flatMap(name => pageSizeName(Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0)))
    : []
}

function pageSizeName(kib: number): string[] {
  if (kib <= 0) return []
  if (kib >= 1 << 20) return [`${kib >> 20}GB`]
  return [kib >= 1 << 10 ? `${kib >> 10}MB` : `${kib}KB`]
}

/**
 * The limits of pages in use and, where the kernel counts them (Linux 5.7), of pages reserved. Runtimes set both: one
 * that stayed at its old value would be the limit.
 */
export function writeHugetlbLimits(
  dir: string,
  version: 1 | 2,
  limits: NonNullable<OciResources['hugepageLimits']>,
): void {
  const { limit: file } = FILES[version]
  for (const { pageSize, limit } of limits) {
    files.writeFile(dir, `hugetlb.${pageSize}.${file}`, `${limit}`)
    const reserved = `hugetlb.${pageSize}.rsvd.${file}`
    if (existsSync(join(dir, reserved))) files.writeFile(dir, reserved, `${limit}`)
  }
}

/** Of every size that the group counts. A page counts from its reservation on where the kernel can tell. */
export function readHugetlb(dir: string, version: 1 | 2, sizes: readonly string[]): HugetlbUsage[] {
  const { usage, maxUsage } = FILES[version]
  return sizes.flatMap(pageSize => {
    for (const prefix of [`hugetlb.${pageSize}.rsvd`, `hugetlb.${pageSize}`]) {
      const text = files.readFile(dir, `${prefix}.${usage}`)
      if (text === '') continue
      const peak = maxUsage === undefined ? '' : files.readFile(dir, `${prefix}.${maxUsage}`)
      return [
        {
          pageSize,
          usage: parse.parseLimit(text),
          ...(peak === '' ? {} : { maxUsage: parse.parseLimit(peak) }),
        },
      ]
    }
    return []
  })
}
