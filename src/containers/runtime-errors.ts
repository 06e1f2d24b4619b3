import { BerthError, isCode, messageOf } from '../base/errors.ts'

/** In runc's and crun's words: a command that is not there, is no program, or may not be run by this user. */
const COMMAND = /exec: "|executable file|exec format error|: (?:stat|fork\/exec) \/|argument list too long/

/** A value for a cgroup's file that the kernel does not take. */
const LIMIT = /failed to write .*(?:invalid argument|out of range|permission denied)/

/** What else of a request only the kernel can tell to be wrong, with the field that asked for it. */
const FIELDS: ReadonlyArray<readonly [RegExp, string]> = [
  [/chdir to cwd|mkdir cwd|setting up cwd/, 'config.working_dir'],
  [/memory limit too low/, 'config.linux.resources.memory_limit_in_bytes'],
  [LIMIT, 'config.linux.resources'],
  [/creating device nodes/, 'config.devices'],
  [/error mounting .*(?:not a directory|is a directory|file exists|too long)/, 'config.mounts'],
]

type Unified = Readonly<Record<string, string>>

/**
 * A container that could not be created, told by the request's field where that is at fault and not the node.
 * @param unified files of version 2 that the request names
 */
export function createFailure(error: unknown, unified: Unified = {}): unknown {
  if (!isCode(error, 'internal')) return error
  const words = messageOf(error)
  if (namesFile(words, unified)) {
    return new BerthError('invalid', `config.linux.resources.unified: ${words}`, error)
  }
  const field = FIELDS.find(([pattern]) => pattern.test(words))?.[1]
  if (field !== undefined) return new BerthError('invalid', `${field}: ${words}`, error)
  return execFailure('config.command', error)
}

/** The same of a command in a container that runs. */
export function execFailure(field: string, error: unknown): unknown {
  if (!isCode(error, 'internal') || !COMMAND.test(messageOf(error))) return error
  return new BerthError('invalid', `${field}: ${messageOf(error)}`, error)
}

/** The same of new limits. */
export function updateFailure(error: unknown, unified: Unified = {}): unknown {
  if (!isCode(error, 'internal')) return error
  const words = messageOf(error)
  if (namesFile(words, unified)) return new BerthError('invalid', `linux.unified: ${words}`, error)
  return LIMIT.test(words) ? new BerthError('invalid', `linux: ${words}`, error) : error
}

/** One that this kernel does not have, or a value that it does not take: every runtime names the file or its controller. */
function namesFile(words: string, unified: Unified): boolean {
  const names: readonly string[] = words.match(/[A-Za-z0-9_.]+/g) ?? []
  const missing = /controller [`"']?(\w+)[`"']? (?:is )?not available/.exec(words)?.[1]
  return Object.keys(unified).some(key => names.includes(key) || key.split('.', 1)[0] === missing)
}
