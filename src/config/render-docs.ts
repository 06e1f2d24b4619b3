import { variableOf } from './environment.ts'
import { fileFlags, keyFlags } from './flags.ts'
import { FOREIGN_HANDLER_KEYS, FOREIGN_KEYS } from './foreign-keys.ts'
import type { Key } from './key.ts'
import { HANDLER_KEYS, SECTIONS } from './keys.ts'
import type { Kind } from './kinds.ts'
import { assignment, type Described, HEADING, notes, tableName } from './render-config.ts'

/** Files with a part between the two marks that is generated. */
export function generatedDocs(): ReadonlyArray<{ readonly file: string; readonly text: string }> {
  return [
    { file: 'docs/configuration.md', text: `${renderTables()}\n${renderForeign()}` },
    { file: 'docs/berth.conf.5.md', text: renderManualKeys() },
    { file: 'docs/berth.8.md', text: renderManualFlags() },
  ]
}

const BEGIN = '<!-- generated from src/config/keys.ts by scripts/generate-config-docs.ts -->\n'
const END = '<!-- end of the generated part -->'

/** The document with what is between the marks replaced. */
export function withGenerated(document: string, text: string): string {
  const [head, rest] = document.split(BEGIN)
  const tail = rest?.split(END)[1]
  if (head === undefined || tail === undefined) throw new Error('the marks of the generated part are missing')
  return `${head}${BEGIN}\n${text}\n${END}${tail}`
}

function renderTables(): string {
  const parts: string[] = []
  for (const [section, keys] of Object.entries(SECTIONS)) {
    parts.push(`### \`[${tableName(section)}]\` ${HEADING[section]}`, '')
    parts.push('| key | default | what it does | flag, variable |', '|---|---|---|---|')
    for (const [name, key] of Object.entries(keys)) {
      const flag = `\`--${key.flag}\` \`${variableOf(key.flag)}\``
      parts.push(`| \`${name}\` | ${shownDefault(key)} | ${meaning(key)} | ${flag} |`)
    }
    parts.push('')
  }
  parts.push('### `[crio.runtime.runtimes.<name>]` OCI runtimes', '')
  parts.push('| key | default | what it does |', '|---|---|---|')
  for (const [name, key] of Object.entries(HANDLER_KEYS)) {
    parts.push(`| \`${name}\` | ${shownDefault(key)} | ${meaning(key)} |`)
  }
  return `${parts.join('\n')}\n`
}

function renderManualKeys(): string {
  const parts: string[] = []
  for (const [section, keys] of Object.entries(SECTIONS)) {
    parts.push(`## [${tableName(section)}]`, '')
    for (const [name, key] of Object.entries(keys)) parts.push(...manualEntry(name, key))
  }
  parts.push('## [crio.runtime.runtimes.NAME]', '')
  for (const [name, key] of Object.entries(HANDLER_KEYS)) parts.push(...manualEntry(name, key))
  return `${parts.join('\n').trimEnd()}\n`
}

function manualEntry(name: string, key: Described): string[] {
  const variable =
    key.flag === undefined ? '' : ` Flag **--${key.flag}**, variable **${variableOf(key.flag)}**.`
  return [
    `**${name}** = ${shownDefault(key)}`,
    `:   ${key.description}${notes(key)} Value: ${form(key.kind)}.${variable}`,
    '',
  ]
}

function form(kind: Kind<unknown>): string {
  return kind.expected.replaceAll('*', '\\*')
}

function shownDefault(key: Pick<Key<unknown>, 'kind' | 'default'>): string {
  const text = assignment('x', key.kind.toToml(key.default)).slice('x = '.length)
  return `\`${text}\``
}

function meaning(key: Described): string {
  return `${key.description}${notes(key)}`.replaceAll('|', '\\|')
}

/** Keys of CRI-O's that are accepted without effect or refused. */
function renderForeign(): string {
  const lines = ['| key | what Berth does with it | why |', '|---|---|---|']
  for (const [section, keys] of Object.entries(FOREIGN_KEYS)) {
    for (const [name, key] of Object.entries(keys))
      lines.push(foreignRow(`${tableName(section)}.${name}`, key))
  }
  for (const [name, key] of Object.entries(FOREIGN_HANDLER_KEYS)) {
    lines.push(foreignRow(`crio.runtime.runtimes.<name>.${name}`, key))
  }
  return `### Keys of crio.conf without a meaning here\n\n${lines.join('\n')}\n`
}

function foreignRow(name: string, key: (typeof FOREIGN_HANDLER_KEYS)[string]): string {
  const harmless = key.harmless.map(value => `\`${JSON.stringify(value)}\``).join(', ')
  const but = harmless === '' ? '' : `; ${harmless} is fine`
  return `| \`${name}\` | ${key.refuse ? 'error' : 'warning'}${but} | ${key.reason} |`
}

function renderManualFlags(): string {
  const entries = [...fileFlags(), ...keyFlags()].map(flag => {
    const short = flag.short === undefined ? '' : `**-${flag.short}**, `
    const value = flag.isSwitch ? '[=*true*|*false*]' : '=*value*'
    return `${short}**--${flag.name}**${value}\n:   ${flag.description} Variable **${flag.variable}**.\n`
  })
  return `${entries.join('\n')}`
}
