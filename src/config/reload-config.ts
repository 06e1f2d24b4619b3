import type { Config } from './config.ts'
import { camel, fullName } from './config.ts'
import { SECTIONS } from './keys.ts'
import { configValues } from './render-config.ts'

export type Reload = {
  /** The running configuration with the reloadable keys taken over. */
  readonly config: Config
  /** Full names of keys that changed and take effect now. */
  readonly applied: readonly string[]
  /** Full names of keys that changed and wait for a restart. */
  readonly needRestart: readonly string[]
}

/** What a SIGHUP can take over from a configuration that was read again. */
export function reloadConfig(running: Config, next: Config): Reload {
  const applied: string[] = []
  const needRestart = changedTables(running, next)
  const config: Record<string, unknown> = { ...running, origins: next.origins, files: next.files }
  for (const [section, keys] of Object.entries(SECTIONS)) {
    const [before, after] = [valuesOf(running, section), valuesOf(next, section)]
    for (const [name, key] of Object.entries(keys)) {
      const property = camel(name)
      if (JSON.stringify(before[property]) === JSON.stringify(after[property])) continue
      if (!key.reload) {
        needRestart.push(fullName(section, name))
        continue
      }
      applied.push(fullName(section, name))
      config[section] = Object.freeze({ ...valuesOf(config as Config, section), [property]: after[property] })
    }
  }
  return { config: Object.freeze(config) as Config, applied, needRestart }
}

/** Every reloadable key stands in a table below [crio]. */
function valuesOf(config: Config, section: string): Readonly<Record<string, unknown>> {
  const tables: Readonly<Record<string, unknown>> = config
  return (section === 'crio' ? tables : tables[section]) as Readonly<Record<string, unknown>>
}

function changedTables(running: Config, next: Config): string[] {
  const [before, after] = [configValues(running), configValues(next)]
  const names = new Set([...Object.keys(before), ...Object.keys(after)])
  return [...names].filter(
    name =>
      name.startsWith('crio.runtime.runtimes.') &&
      JSON.stringify(before[name]) !== JSON.stringify(after[name]),
  )
}
