import { closeSync, constants, openSync, readSync } from 'node:fs'
import { errnoOf } from '../base/errors.ts'

/** Of the device: a read with less room than a record needs fails (kernel: PRINTKRB_RECORD_MAX, with its fields). */
const RECORD_BYTES = 8192

/** A buffer of 1 MiB holds fewer, and nobody waits for one that is written as fast as it is read. */
const MAX_RECORDS = 20_000

/**
 * How often the kernel's log tells that a process of `group`, or below, was killed for memory. It remembers what the
 * counter of a group forgets with the group, but not for ever, and of a flood only some: 0 means nothing.
 */
export function loggedOomKills(group: string): number {
  return kernelRecords().filter(record => isOomKill(record, group)).length
}

/** @param record as /dev/kmsg has it: `PRIORITY,SEQUENCE,TIME,FLAGS;MESSAGE` (kernel: ABI/testing/dev-kmsg) */
export function isOomKill(record: string, group: string): boolean {
  // The facility is in the upper bits: what programs write there is not the kernel's.
  if (Number.parseInt(record, 10) >> 3 !== 0) return false
  const path = /^[^;]*;oom-kill:.*,task_memcg=([^,]+),/.exec(record)?.[1]
  return path !== undefined && `${path}/`.includes(`${group}/`)
}

/** Oldest first; none where it cannot be read. */
function kernelRecords(): string[] {
  let log: number
  try {
    log = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK)
  } catch {
    return [] // not there in a container, or not allowed
  }
  const buffer = Buffer.alloc(RECORD_BYTES)
  try {
    return takeRecords(() => readRecord(log, buffer))
  } finally {
    closeSync(log)
  }
}

/** @param next undefined: there are no more */
export function takeRecords(next: () => string | undefined): string[] {
  const records: string[] = []
  while (records.length < MAX_RECORDS) {
    const record = next()
    if (record === undefined) break
    records.push(record)
  }
  return records
}

/** undefined: there are no more. '' stands for some that were overwritten before they were read. */
function readRecord(log: number, buffer: Buffer): string | undefined {
  try {
    const length = readSync(log, buffer)
    return length === 0 ? undefined : buffer.toString('latin1', 0, length)
  } catch (error) {
    return errnoOf(error) === 'EPIPE' ? '' : undefined
  }
}
