import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const PT_LOAD = 1
const PT_DYNAMIC = 2
const PT_INTERP = 3
const DT_NEEDED = 1
const DT_STRTAB = 5

type Segment = { type: number; offset: number; address: number; size: number }

/** Interpreter and direct library names of a 64-bit little-endian ELF file (ELF-64 object file format, ch. 5–7). */
function dynamicNeeds(file: string): { interpreter: string | undefined; libraries: string[] } {
  const elf = readFileSync(file)
  if (elf.toString('latin1', 0, 6) !== '\x7fELF\x02\x01')
    throw new Error(`${file}: not a 64-bit little-endian ELF file`)
  const segments = programHeaders(elf)
  const offsetOf = (address: number): number => {
    const load = segments.find(
      s => s.type === PT_LOAD && address >= s.address && address < s.address + s.size,
    )
    if (load === undefined) throw new Error(`${file}: address ${address} lies in no segment`)
    return address - load.address + load.offset
  }
  const textAt = (offset: number) => elf.toString('latin1', offset, elf.indexOf(0, offset))

  const interp = segments.find(s => s.type === PT_INTERP)
  const dynamic = segments.find(s => s.type === PT_DYNAMIC)
  const entries: Array<[tag: number, value: number]> = []
  for (let at = 0; dynamic !== undefined && at < dynamic.size; at += 16) {
    entries.push([
      Number(elf.readBigUInt64LE(dynamic.offset + at)),
      Number(elf.readBigUInt64LE(dynamic.offset + at + 8)),
    ])
  }
  const names = entries.find(([tag]) => tag === DT_STRTAB)?.[1]
  const libraries =
    names === undefined
      ? []
      : entries.filter(([tag]) => tag === DT_NEEDED).map(([, at]) => textAt(offsetOf(names) + at))
  return { interpreter: interp && textAt(interp.offset), libraries }
}

function programHeaders(elf: Buffer): Segment[] {
  const start = Number(elf.readBigUInt64LE(32))
  const size = elf.readUInt16LE(54)
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const at = start + index * size
    return {
      type: elf.readUInt32LE(at),
      offset: Number(elf.readBigUInt64LE(at + 8)),
      address: Number(elf.readBigUInt64LE(at + 16)),
      size: Number(elf.readBigUInt64LE(at + 32)),
    }
  })
}

/**
 * Absolute paths of everything that must lie beside `program` for it to run in a root of its own: the ELF interpreter
 * and, transitively, the libraries.
 */
export function runtimeFilesOf(program: string): string[] {
  const directories = ['/lib', '/usr/lib'].flatMap(lib => [
    ...readdirSync(lib)
      .filter(name => name.endsWith('-linux-gnu'))
      .map(name => join(lib, name)),
    lib,
  ])
  const found = new Set<string>()
  const visit = (file: string) => {
    const { interpreter, libraries } = dynamicNeeds(file)
    const loader = interpreter === undefined ? [] : [interpreter]
    // The interpreter is needed by libc too, as a library: it is there already, under its own path.
    const paths = libraries
      .filter(name => ![...found, ...loader].some(path => path.endsWith(`/${name}`)))
      .map(name => {
        const path = directories.map(directory => join(directory, name)).find(existsSync)
        if (path === undefined)
          throw new Error(`${file} needs ${name}, which is in none of ${directories.join(', ')}`)
        return path
      })
    for (const path of [...loader, ...paths]) {
      if (found.has(path)) continue
      found.add(path)
      visit(path)
    }
  }
  visit(program)
  return [...found].sort()
}
