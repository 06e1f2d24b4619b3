import { statSync } from 'node:fs'
import { join } from 'node:path'
import { effect } from '../base/effects.ts'
import { BerthError, errnoOf, inStep, messageOf } from '../base/errors.ts'
import { type RunResult, run } from '../os/spawn.ts'
import { excerpt, MAX_RESULT_BYTES, parseFailure } from './cni-result.ts'
import type { JsonObject } from './json.ts'

export type CniVerb = 'ADD' | 'CHECK' | 'DEL' | 'GC' | 'STATUS'

type PluginCall = {
  readonly verb: CniVerb
  readonly type: string
  /** Absolute path of the executable, from `findPlugin`. */
  readonly file: string
  readonly networkName: string
  /** Whom it is about, for the effect hook: a pod id, or the network's name. */
  readonly subject: string
  readonly environment: Readonly<Record<string, string>>
  readonly stdin: JsonObject
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

// Codes by which a plugin says that a later try may succeed: 11 from any verb, 50 and 51 from STATUS.
const RETRYABLE_CODES: ReadonlySet<number> = new Set([11, 50, 51])

/**
 * The executable of a plugin. Plugins run as root, so only what root alone can have put there is taken: a regular
 * file owned by root that not everybody may write.
 * @throws BerthError unavailable saying for each directory why it is not there
 */
export function findPlugin(type: string, dirs: readonly string[]): string {
  const reasons: string[] = []
  for (const dir of dirs) {
    const file = join(dir, type)
    const reason = whyNotExecutable(file)
    if (reason === undefined) return file
    reasons.push(`${file}: ${reason}`)
  }
  throw new BerthError(
    'unavailable',
    `CNI plugin ${type}: ${reasons.join('; ') || 'no plugin directory is configured'}`,
  )
}

function whyNotExecutable(file: string): string | undefined {
  try {
    const stat = statSync(file)
    if (!stat.isFile()) return 'expected a regular file'
    if (stat.uid !== 0) return `expected a file owned by root, owner is uid ${stat.uid}`
    if ((stat.mode & 0o002) !== 0) return 'expected a file that not everybody may write'
    if ((stat.mode & 0o111) === 0) return 'expected an executable file'
    return undefined
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? 'not found' : messageOf(error)
  }
}

/**
 * Runs one plugin once and returns what it printed.
 * @throws BerthError with the plugin, verb, network, duration and the plugin's own words: unavailable if it says
 *   that a later try may succeed, deadline, cancelled, else internal
 */
export async function runPlugin(call: PluginCall): Promise<Buffer> {
  const started = performance.now()
  const step = () => {
    const ms = Math.round(performance.now() - started)
    return `CNI plugin ${call.type}, ${call.verb} of network ${JSON.stringify(call.networkName)}, after ${ms} ms`
  }
  let result: RunResult
  try {
    result = await effect('network', `cni-${call.verb.toLowerCase()}`, `${call.type} ${call.subject}`, () =>
      run(call.file, {
        args: [],
        env: call.environment,
        stdin: JSON.stringify(call.stdin),
        timeoutMs: call.timeoutMs,
        maxOutput: MAX_RESULT_BYTES + 1, // one more than is taken, to see that it was too much
        label: `CNI plugin ${call.type}`,
        ...(call.signal === undefined ? {} : { signal: call.signal }),
      }),
    )
  } catch (error) {
    throw inStep(step(), error)
  }
  if (result.code !== 0) throw failed(step(), result)
  return result.stdout
}

function failed(step: string, { code, stdout, stderr }: RunResult): BerthError {
  const failure = parseFailure(stdout)
  if (failure === undefined) {
    const printed = excerpt(stderr.length > 0 ? stderr : stdout)
    return new BerthError(
      'internal',
      `${step}: exited with ${code} and without a CNI error, printed ${printed}`,
    )
  }
  const details = failure.details === '' ? '' : ` (${failure.details})`
  return new BerthError(
    RETRYABLE_CODES.has(failure.code) ? 'unavailable' : 'internal',
    `${step}: code ${failure.code}: ${failure.msg || 'no message'}${details}`,
  )
}
