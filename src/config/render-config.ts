import { stringify } from 'smol-toml'
import type { Config } from './config.ts'
import { camel } from './config.ts'
import type { Key } from './key.ts'
import { HANDLER_KEYS, SECTIONS } from './keys.ts'
import type { TomlValue } from './kinds.ts'

export const HEADING: Readonly<Record<string, string>> = {
  crio: 'Where Berth keeps its data',
  api: 'The interfaces',
  runtime: 'Pods and containers',
  image: 'Images',
  network: 'Pod networks (CNI)',
  observe: 'Timeline',
  metrics: 'Metrics',
  tracing: 'Traces',
}

export function tableName(section: string): string {
  return section === 'crio' ? 'crio' : `crio.${section}`
}

/** `key = value` on one line. */
export function assignment(name: string, value: TomlValue): string {
  return stringify({ [name]: value }).trimEnd()
}

/** The effective configuration as plain values by CRI-O's names, in the table's order. */
export function configValues(config: Config): Readonly<Record<string, Readonly<Record<string, TomlValue>>>> {
  const tables: Record<string, Record<string, TomlValue>> = {}
  for (const [section, keys] of Object.entries(SECTIONS)) {
    const values: Readonly<Record<string, unknown>> = section === 'crio' ? config : sectionOf(config, section)
    const entries = Object.entries(keys).map(([name, key]) => [name, key.kind.toToml(values[camel(name)])])
    tables[tableName(section)] = Object.fromEntries(entries)
  }
  for (const handler of Object.values(config.runtime.runtimes)) {
    tables[`crio.runtime.runtimes.${handler.name}`] = {
      runtime_path: handler.path,
      runtime_type: 'oci',
      runtime_root: handler.root,
      allowed_annotations: handler.allowedAnnotations,
      monitor_path: handler.monitorPath,
      monitor_cgroup: handler.monitorCgroup,
      monitor_env: Object.entries(handler.monitorEnv).map(([name, value]) => `${name}=${value}`),
      no_sync_log: handler.noSyncLog,
    }
  }
  return tables
}

function sectionOf(config: Config, section: string): Readonly<Record<string, unknown>> {
  // Config has one property for every section of the table.
  return (config as unknown as Record<string, Record<string, unknown>>)[section]!
}

/** The effective configuration as TOML that can be read again; what is not a default names its origin. */
export function renderConfig(config: Config): string {
  const tables = Object.entries(configValues(config)).map(([table, values]) => {
    const lines = Object.entries(values).map(([name, value]) => {
      const origin = config.origins[`${table}.${name}`]
      return `${assignment(name, value)}${origin === undefined ? '' : `  # ${origin}`}`
    })
    return `[${table}]\n${lines.join('\n')}\n`
  })
  return tables.join('\n')
}

/** conf/berth.conf: every key at its default, commented out, with what it means. */
export function renderExample(): string {
  const parts = [
    '# Berth: the container runtime daemon. Every key stands here with its default, commented out.',
    '# Values in /etc/berth/berth.conf.d/*.conf go before those of this file, BERTH_* variables before both, flags',
    '# before everything. `berth config` prints the result, `berth config check FILE` checks a file. Keys have the',
    '# names of crio.conf; [berth.*] may be written instead of [crio.*]. See berth.conf(5).',
  ]
  for (const [section, keys] of Object.entries(SECTIONS)) {
    parts.push('', `# ${HEADING[section]}`, `[${tableName(section)}]`)
    for (const [name, key] of Object.entries(keys)) parts.push('', ...commented(name, key))
  }
  parts.push('', '# One table for each OCI runtime; pods choose it by its name (RuntimeClass handler).')
  parts.push('# [crio.runtime.runtimes.runc]')
  for (const [name, key] of Object.entries(HANDLER_KEYS)) parts.push('', ...commented(name, key))
  return `${parts.join('\n')}\n`
}

export type Described = Pick<Key<unknown>, 'kind' | 'default' | 'description'> & Partial<Key<unknown>>

function commented(name: string, key: Described): string[] {
  const text = wrap(`${key.description}${notes(key)}`, 108)
  return [...text.map(line => `# ${line}`), `# ${assignment(name, key.kind.toToml(key.default))}`]
}

export function notes(key: Partial<Key<unknown>>): string {
  const pending = key.pending === undefined ? '' : ` Has no effect yet: ${key.pending}.`
  return `${pending}${key.reload === true ? ' Reloaded on SIGHUP.' : ''}`
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines
}
