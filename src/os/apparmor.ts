import { existsSync, readFileSync } from 'node:fs'
import { precondition } from '../base/errors.ts'
import { run } from './spawn.ts'

/** A line for each profile: its name and, in parentheses, its mode. */
const LOADED = '/sys/kernel/security/apparmor/profiles'

const PARSERS = ['/usr/sbin/apparmor_parser', '/sbin/apparmor_parser']

/** Compiling takes a fraction of a second. */
const LIMIT_MS = 30_000

/** Whether the kernel has this profile; true also where nobody can tell, because securityfs is not mounted. */
export function isApparmorLoaded(name: string, file = LOADED): boolean {
  if (!existsSync(file)) return true
  return readFileSync(file, 'utf8')
    .split('\n')
    .some(line => line.replace(/ \([a-z]+\)$/, '') === name)
}

/**
 * Loads the profiles in a file, in place of what is loaded under their names.
 * @throws BerthError precondition, in the parser's words
 */
export async function loadApparmor(file: string): Promise<void> {
  const parser = PARSERS.find(path => existsSync(path))
  if (parser === undefined) throw precondition('apparmor_parser is not installed (Debian package apparmor)')
  const args = ['--replace', '--skip-cache', file]
  const { code, stderr } = await run(parser, { args, env: {}, timeoutMs: LIMIT_MS, label: 'apparmor_parser' })
  if (code !== 0) throw precondition(`apparmor_parser: ${stderr.toString().trim()}`)
}
