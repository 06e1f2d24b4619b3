import { cpSync, globSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const checkout = join(import.meta.dirname, '../..')

/**
 * A copy of this build in another directory, that calls itself another version: what an upgrade puts on a node.
 * @returns the program and its first arguments, as `BerthDaemon.program` takes them
 */
export function otherBuild(directory: string, version: string): readonly string[] {
  const isSource = process.env.BERTH_TEST_SOURCE !== undefined
  for (const name of ['package.json', 'proto', 'conf', ...(isSource ? ['src'] : ['bin', 'dist'])]) {
    cpSync(join(checkout, name), join(directory, name), { recursive: true, preserveTimestamps: true })
  }
  symlinkSync(join(checkout, 'node_modules'), join(directory, 'node_modules'))
  const current: string = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')).version
  for (const file of [join(directory, 'package.json'), ...globSync(join(directory, 'dist/*.mjs'))]) {
    const text = readFileSync(file, 'utf8')
    const renamed = text.replaceAll(`"${current}"`, `"${version}"`)
    if (renamed !== text) writeFileSync(file, renamed)
  }
  return isSource ? [process.execPath, join(directory, 'src/main.ts')] : [join(directory, 'bin/berth')]
}
