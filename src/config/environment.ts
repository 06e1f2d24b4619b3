import { nearest } from './nearest.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Variables that belong to no key. */
const OTHERS = ['BERTH_CONFIG', 'BERTH_CONFIG_DIR', 'BERTH_RUNTIMES', 'BERTH_FAULTS']

/** `--cni-config-dir` ↔ `BERTH_CNI_CONFIG_DIR` */
export function variableOf(flag: string, prefix = 'BERTH'): string {
  return `${prefix}_${flag.replaceAll('-', '_').toUpperCase()}`
}

/** Set and not empty; an empty variable counts as not set. */
export function readVariable(env: Environment, name: string): string | undefined {
  return env[name] || undefined
}

/** Variables that look like a mistyped one of ours. */
export function suspiciousVariables(env: Environment, flags: readonly string[]): string[] {
  const known = [...OTHERS, ...flags.map(flag => variableOf(flag))]
  return Object.keys(env)
    .filter(name => name.startsWith('BERTH_') && !known.includes(name))
    .flatMap(name => {
      const meant = nearest(name, known)
      return meant === undefined ? [] : [`environment variable ${name} is not known; did you mean ${meant}?`]
    })
}
