import type { CgroupStats } from './cgroup.ts'
import { readFile } from './group-files.ts'
import { parsePressure } from './parse.ts'

/** Of a directory in a version 2 hierarchy; undefined where the kernel does not account pressure. */
export function readPressure(dir: string): CgroupStats['pressure'] {
  const cpu = parsePressure(readFile(dir, 'cpu.pressure'))
  const memory = parsePressure(readFile(dir, 'memory.pressure'))
  const io = parsePressure(readFile(dir, 'io.pressure'))
  return cpu === undefined || memory === undefined || io === undefined ? undefined : { cpu, memory, io }
}
