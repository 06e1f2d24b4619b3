import { constants } from 'node:os'
import { invalid } from '../../base/errors.ts'

/**
 * A seccomp profile as Docker, Podman and the other runtimes write it: rules that hold for some capabilities,
 * architectures or kernels only. The plain OCI form (`architectures` in place of `archMap`) is a special case.
 */
export type SeccompRules = {
  readonly defaultAction: string
  readonly defaultErrnoRet?: number
  readonly archMap: ReadonlyArray<{
    readonly architecture: string
    readonly subArchitectures: readonly string[]
  }>
  readonly architectures: readonly string[]
  readonly flags: readonly string[]
  readonly listenerPath?: string
  readonly syscalls: readonly SeccompRule[]
}

type SeccompRule = {
  readonly names: readonly string[]
  readonly action: string
  readonly errnoRet?: number
  readonly args: readonly SeccompArg[]
  readonly includes: SeccompFilter
  readonly excludes: SeccompFilter
}

type SeccompArg = {
  readonly index: number
  readonly value: number
  readonly valueTwo: number
  readonly op: string
}

export type SeccompFilter = {
  readonly caps: readonly string[]
  /** Go's names: amd64, x86, x32, arm64, arm. */
  readonly arches: readonly string[]
  /** `4.8`, '' for any. */
  readonly minKernel: string
}

const ACTIONS = [
  'SCMP_ACT_KILL',
  'SCMP_ACT_KILL_PROCESS',
  'SCMP_ACT_KILL_THREAD',
  'SCMP_ACT_TRAP',
  'SCMP_ACT_ERRNO',
  'SCMP_ACT_TRACE',
  'SCMP_ACT_ALLOW',
  'SCMP_ACT_LOG',
  'SCMP_ACT_NOTIFY',
]
const OPERATORS = [
  'SCMP_CMP_NE',
  'SCMP_CMP_LT',
  'SCMP_CMP_LE',
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_MASKED_EQ',
]

/** Far above any real profile (the default has some 50 rules and 460 names); keeps a hostile file from growing. */
const MAX_RULES = 4096
const MAX_NAMES = 4096
/** The kernel's: what runtimes cut to 16 bits could otherwise come out as success. */
const MAX_ERRNO = 4095

/**
 * @param text JSON, at most as long as the caller read
 * @param source the file's name, for messages
 * @throws BerthError invalid, naming the file and the member
 */
export function parseSeccompProfile(text: string, source: string): SeccompRules {
  const parse = new Parser(source)
  const top = parse.object(parse.json(text), 'the profile')
  const syscalls = parse.list(top.syscalls, 'syscalls', MAX_RULES)
  return {
    defaultAction: parse.oneOf(ACTIONS, top.defaultAction, 'defaultAction'),
    ...parse.errno(top.defaultErrno ?? top.defaultErrnoRet, 'defaultErrnoRet'),
    archMap: parse.list(top.archMap, 'archMap', 64).map((item, i) => {
      const entry = parse.object(item, `archMap[${i}]`)
      return {
        architecture: parse.string(entry.architecture, `archMap[${i}].architecture`),
        subArchitectures: parse.strings(entry.subArchitectures, `archMap[${i}].subArchitectures`),
      }
    }),
    architectures: parse.strings(top.architectures, 'architectures'),
    flags: parse.strings(top.flags, 'flags'),
    ...(top.listenerPath === undefined
      ? {}
      : { listenerPath: parse.string(top.listenerPath, 'listenerPath') }),
    syscalls: syscalls.map((item, i) => parse.rule(item, `syscalls[${i}]`)),
  }
}

type Members = Record<string, unknown>

class Parser {
  readonly #source: string

  constructor(source: string) {
    this.#source = source
  }

  fail(member: string, expected: string): never {
    throw invalid(`seccomp profile ${this.#source}`, `${member}: expected ${expected}`)
  }

  json(text: string): unknown {
    try {
      return JSON.parse(text)
    } catch (error) {
      return this.fail('the file', `JSON (${(error as Error).message})`)
    }
  }

  object(value: unknown, member: string): Members {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Members
    return this.fail(member, 'an object')
  }

  list(value: unknown, member: string, limit: number): unknown[] {
    if (value === undefined || value === null) return []
    if (Array.isArray(value) && value.length <= limit) return value
    return this.fail(member, `a list of at most ${limit}`)
  }

  string(value: unknown, member: string): string {
    return typeof value === 'string' ? value : this.fail(member, 'a string')
  }

  strings(value: unknown, member: string): string[] {
    return this.list(value, member, MAX_NAMES).map((item, i) => this.string(item, `${member}[${i}]`))
  }

  oneOf(known: readonly string[], value: unknown, member: string): string {
    if (typeof value === 'string' && known.includes(value)) return value
    return this.fail(member, `one of ${known.join(', ')}`)
  }

  /** JSON numbers above 2⁵³ would be rounded, and a rounded mask lets through what it should not. */
  integer(value: unknown, member: string): number {
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number
    return this.fail(member, 'an integer from 0 to 2^53-1')
  }

  /** A number or, as some tools write it, an errno's name. */
  errno(value: unknown, member: string): { defaultErrnoRet?: number } {
    const number = this.errnoNumber(value, member)
    return number === undefined ? {} : { defaultErrnoRet: number }
  }

  errnoNumber(value: unknown, member: string): number | undefined {
    if (value === undefined || value === null) return undefined
    if (typeof value !== 'string') {
      const number = this.integer(value, member)
      return number <= MAX_ERRNO ? number : this.fail(member, `an errno, at most ${MAX_ERRNO}`)
    }
    const number = (constants.errno as Record<string, number>)[value]
    return number ?? this.fail(member, `an errno, got ${JSON.stringify(value)}`)
  }

  rule(value: unknown, member: string): SeccompRule {
    const rule = this.object(value, member)
    const errnoRet = this.errnoNumber(rule.errno ?? rule.errnoRet, `${member}.errnoRet`)
    const names = this.strings(rule.names, `${member}.names`)
    if (typeof rule.name === 'string') names.push(rule.name)
    if (names.length === 0) this.fail(`${member}.names`, 'at least one system call')
    return {
      names,
      action: this.oneOf(ACTIONS, rule.action, `${member}.action`),
      ...(errnoRet === undefined ? {} : { errnoRet }),
      args: this.list(rule.args, `${member}.args`, 6).map((item, i) =>
        this.arg(item, `${member}.args[${i}]`),
      ),
      includes: this.filter(rule.includes, `${member}.includes`),
      excludes: this.filter(rule.excludes, `${member}.excludes`),
    }
  }

  arg(value: unknown, member: string): SeccompArg {
    const arg = this.object(value, member)
    const index = this.integer(arg.index, `${member}.index`)
    if (index > 5) this.fail(`${member}.index`, 'an argument from 0 to 5')
    return {
      index,
      value: this.integer(arg.value ?? 0, `${member}.value`),
      valueTwo: this.integer(arg.valueTwo ?? 0, `${member}.valueTwo`),
      op: this.oneOf(OPERATORS, arg.op, `${member}.op`),
    }
  }

  filter(value: unknown, member: string): SeccompFilter {
    const filter = value === undefined || value === null ? {} : this.object(value, member)
    const minKernel = this.string(filter.minKernel ?? '', `${member}.minKernel`)
    if (!/^([0-9]{1,4}\.[0-9]{1,4})?$/.test(minKernel))
      this.fail(`${member}.minKernel`, 'a version like "4.8"')
    return {
      caps: this.strings(filter.caps, `${member}.caps`),
      arches: this.strings(filter.arches, `${member}.arches`),
      minKernel,
    }
  }
}
