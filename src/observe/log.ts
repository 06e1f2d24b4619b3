import pino from 'pino'
import { BerthError, messageOf } from '../base/errors.ts'
import { textLine } from './text-line.ts'

type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** Field names in use: requestId, podId, containerId, operation, step, ms, error. */
export type LogFields = Readonly<Record<string, unknown>>

/**
 * A structured log: what happened, as a constant sentence, and the facts as fields. Errors may be passed as they
 * are. Secrets must be of a type that prints as something else (Credentials, ProxySettings).
 */
export interface Log {
  trace(fields: LogFields, message: string): void
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
  fatal(fields: LogFields, message: string): void
  /** The same log with these fields on every line. It follows later changes of the level. */
  child(fields: LogFields): Log
}

export type RootLog = Log & { level: LogLevel }

export type LogOptions = {
  readonly level: LogLevel
  readonly format: 'text' | 'json'
  /** Takes whole lines; default is standard error, written synchronously: a killed daemon has said everything. */
  readonly write?: (line: string) => void
}

const SEVERITY: Readonly<Record<LogLevel, number>> = {
  trace: 10,
  debug: 20,
  info: 30,
  warn: 40,
  error: 50,
  fatal: 60,
}

/** Runtimes and plugins answer with pages; what an operator needs is in the first lines. */
const MAX_TEXT = 8192

export function createLog(options: LogOptions): RootLog {
  const write = options.write ?? standardError()
  const sink = pino(
    {
      level: 'trace',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
    },
    { write: line => write(scrubbed(options.format === 'json' ? line : textLine(line))) },
  )
  return new FieldLog(sink, { level: options.level }, {})
}

function standardError(): (line: string) => void {
  const stream = pino.destination({ fd: 2, sync: true })
  // Nobody reads any more: that is no reason to stop running containers.
  stream.on('error', () => undefined)
  return line => stream.write(line)
}

class FieldLog implements RootLog {
  readonly #sink: pino.Logger
  /** Shared by all children. */
  readonly #threshold: { level: LogLevel }
  readonly #fields: LogFields

  constructor(sink: pino.Logger, threshold: { level: LogLevel }, fields: LogFields) {
    this.#sink = sink
    this.#threshold = threshold
    this.#fields = fields
  }

  get level(): LogLevel {
    return this.#threshold.level
  }

  set level(level: LogLevel) {
    this.#threshold.level = level
  }

  trace(fields: LogFields, message: string): void {
    this.#write('trace', fields, message)
  }

  debug(fields: LogFields, message: string): void {
    this.#write('debug', fields, message)
  }

  info(fields: LogFields, message: string): void {
    this.#write('info', fields, message)
  }

  warn(fields: LogFields, message: string): void {
    this.#write('warn', fields, message)
  }

  error(fields: LogFields, message: string): void {
    this.#write('error', fields, message)
  }

  fatal(fields: LogFields, message: string): void {
    this.#write('fatal', fields, message)
  }

  child(fields: LogFields): Log {
    return new FieldLog(this.#sink, this.#threshold, { ...this.#fields, ...printable(fields) })
  }

  #write(level: LogLevel, fields: LogFields, message: string): void {
    if (SEVERITY[level] < SEVERITY[this.#threshold.level]) return
    this.#sink[level]({ ...this.#fields, ...printable(fields) }, capped(message))
  }
}

/** Errors become their message; one that we did not foresee also leaves its stack. */
function printable(fields: LogFields): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Error) {
      result[name] = capped(messageOf(value))
      if (!(value instanceof BerthError)) result.stack = capped(value.stack ?? '')
    } else if (typeof value === 'bigint') {
      result[name] = String(value)
    } else {
      result[name] = typeof value === 'string' ? capped(value) : value
    }
  }
  return result
}

function capped(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… (${text.length} characters)`
}

/**
 * The last line of defence behind the types that hide secrets: user information of URLs and values of
 * Authorization headers, which arrive inside messages of libraries and plugins. Controls that JSON leaves alone
 * (C1, bidirectional overrides) are escaped: a terminal obeys them.
 */
function scrubbed(line: string): string {
  return line
    .replace(/:\/\/[^/\s"'@]+@(?!sha256:)/g, '://[credentials]@')
    .replace(/\b(Bearer|Basic) [A-Za-z0-9+/=._~-]{8,}/g, '$1 [credentials]')
    .replace(/[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, escaped)
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
