import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { BerthError, messageOf } from '../base/errors.ts'
import type { Config } from './config.ts'
import { fullName } from './config.ts'
import type { FileContent, Setting } from './config-file.ts'
import { readConfigFile } from './config-file.ts'
import type { Environment } from './environment.ts'
import { readVariable, suspiciousVariables, variableOf } from './environment.ts'
import { SECTIONS } from './keys.ts'
import { Mismatch, path as pathKind } from './kinds.ts'
import { resolveConfig } from './resolve-config.ts'

const DEFAULT_FILE = '/etc/berth/berth.conf'

/** Flags by name, without dashes; each with every text it was given. A switch without a value gives ''. */
export type Flags = Readonly<Record<string, readonly string[]>>

export type Sources = { readonly flags?: Flags; readonly env?: Environment }

export type Loaded = { readonly config: Config; readonly warnings: readonly string[] }

/**
 * Flags before environment before drop-ins (the last in the alphabet first) before the file before the defaults.
 * @throws BerthError invalid with one line for everything that is wrong, each naming its place
 */
export function loadConfig(sources: Sources = {}): Loaded {
  const { flags = {}, env = process.env } = sources
  const problems: string[] = []
  const files = configFiles(flags, env, problems)
  const contents = files.map(readConfigFile)
  const warnings = contents.flatMap(content => content.warnings)
  problems.push(...contents.flatMap(content => content.problems))
  const given = fromTexts(flags, env, problems)
  const settings = [...contents.flatMap(content => content.settings), ...given]
  refuse(problems)
  warnings.push(...withoutEffect(settings))
  warnings.push(...suspiciousVariables(env, Object.values(SECTIONS).flatMap(flagNames)))
  const config = resolveConfig({ settings, env, files, problems, warnings })
  refuse(problems)
  return { config, warnings }
}

/** What is wrong and what is odd in one file, by itself. */
export function checkConfigFile(file: string): {
  readonly problems: readonly string[]
  readonly warnings: readonly string[]
} {
  const content: FileContent = readConfigFile(file)
  const problems = [...content.problems]
  const warnings = [...content.warnings, ...withoutEffect(content.settings)]
  if (problems.length === 0) {
    resolveConfig({ settings: content.settings, env: {}, files: [file], problems, warnings })
  }
  return { problems, warnings }
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new BerthError('invalid', problems.join('\n'))
}

function flagNames(section: (typeof SECTIONS)[string]): string[] {
  return Object.values(section).map(key => key.flag)
}

/** The file and its drop-ins. A file or directory that was named must be there; the usual ones may be missing. */
function configFiles(flags: Flags, env: Environment, problems: string[]): string[] {
  const named = flags.config?.at(-1) ?? readVariable(env, 'BERTH_CONFIG')
  const file = named ?? DEFAULT_FILE
  const namedDir = flags['config-dir']?.at(-1) ?? readVariable(env, 'BERTH_CONFIG_DIR')
  const directory = namedDir ?? `${file}.d`
  const files = named !== undefined || existsSync(file) ? [file] : []
  // `--config-dir ""` asks for no drop-ins.
  if (directory === '' || (namedDir === undefined && !existsSync(directory))) return files
  try {
    const dropIns = readdirSync(directory).filter(name => name.endsWith('.conf') && !name.startsWith('.'))
    return [...files, ...dropIns.sort().map(name => join(directory, name))]
  } catch (error) {
    problems.push(`${directory}: cannot be read: ${messageOf(error)}`)
    return files
  }
}

/** Environment first, flags after it: the last setting of a key counts. */
function fromTexts(flags: Flags, env: Environment, problems: string[]): Setting[] {
  const settings: Setting[] = []
  const read = (section: string, name: string, texts: readonly string[], origin: string) => {
    try {
      const key = SECTIONS[section]?.[name]
      settings.push({ section, name, value: key?.kind.fromTexts(texts), origin })
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error
      problems.push(`${origin}: ${error.message}`)
    }
  }
  for (const [section, keys] of Object.entries(SECTIONS)) {
    for (const [name, key] of Object.entries(keys)) {
      const variables = key.shared
        ? [variableOf(key.flag, 'CONTAINER'), variableOf(key.flag)]
        : [variableOf(key.flag)]
      for (const variable of variables) {
        const text = readVariable(env, variable)
        if (text !== undefined) read(section, name, [text], variable)
      }
      const texts = flags[key.flag]
      if (texts !== undefined) read(section, name, texts, `--${key.flag}`)
    }
  }
  const variable = readVariable(env, 'BERTH_RUNTIMES')
  if (variable !== undefined) settings.push(...handlersOf([variable], 'BERTH_RUNTIMES', problems))
  if (flags.runtimes !== undefined) settings.push(...handlersOf(flags.runtimes, '--runtimes', problems))
  return settings
}

/** `name:path[:root]`, as CRI-O's --runtimes. */
function handlersOf(texts: readonly string[], origin: string, problems: string[]): Setting[] {
  const settings: Setting[] = []
  for (const text of texts.flatMap(given => given.split(',')).filter(given => given !== '')) {
    const [handler = '', runtimePath = '', root, ...more] = text.split(':')
    try {
      if (handler === '' || more.length > 0) throw new Mismatch('name:path or name:path:root', text)
      const put = (name: string, value: unknown) =>
        settings.push({ section: 'runtime', name, value, origin, handler })
      put('runtime_path', pathKind.fromTexts([runtimePath]))
      if (root !== undefined && root !== '') put('runtime_root', pathKind.fromTexts([root]))
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error
      problems.push(`${origin}: ${error.message}`)
    }
  }
  return settings
}

/** Keys that are set to something else than their default and that nothing acts on in this version. */
function withoutEffect(settings: readonly Setting[]): string[] {
  return settings.flatMap(({ section, name, value, origin, handler }) => {
    const key = handler === undefined ? SECTIONS[section]?.[name] : undefined
    if (key?.pending === undefined || JSON.stringify(key.default) === JSON.stringify(value)) return []
    return [`${origin}: ${fullName(section, name)} has no effect: ${key.pending}`]
  })
}
