import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import type { Environment } from './environment.ts'

const STANDARD_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Where distributions put monitors and inits that nobody calls by hand. */
const LIBEXEC = ['/usr/libexec/berth', '/usr/libexec/crio', '/usr/local/libexec/crio', '/usr/libexec/podman']

/** The first executable of that name, or where a distribution puts it: a missing one is noticed when it is run. */
export function findProgram(name: string, env: Environment): string {
  return lookUpProgram(name, env) ?? `/usr/bin/${name}`
}

/** undefined if there is none. */
export function lookUpProgram(name: string, env: Environment): string | undefined {
  const directories = [...(env.PATH || STANDARD_PATH).split(':'), ...STANDARD_PATH.split(':'), ...LIBEXEC]
  for (const directory of directories.filter(entry => entry.startsWith('/'))) {
    const candidate = join(directory, name)
    try {
      accessSync(candidate, constants.X_OK)
      return candidate
    } catch {}
  }
  return undefined
}
