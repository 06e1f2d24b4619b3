import { BerthError, messageOf } from '../base/errors.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { parseStrictJson } from '../base/strict-json.ts'
import { findProgram } from '../config/programs.ts'
import { type RunResult, run } from '../os/spawn.ts'
import { Credentials } from './credentials.ts'
import { DEFAULT_DOMAIN } from './reference.ts'
import { Failure, foreignText } from './transport/failure.ts'

/** A helper asks a cloud's API or a key store; kubelet gives its own credential plugins a minute. */
const TIMEOUT_MS = 30_000
/** A token has some kilobytes. */
const MAX_OUTPUT = 256 * 1024

/** What a helper says when it knows no such server; the protocol has no code for it. */
const NOT_FOUND = /credentials not found/i
/** The user name that marks the secret as an identity token. */
const TOKEN_USER = '<token>'

/** Docker Hub is filed under the address of its first API. */
const DOCKER_HUB_SERVER = 'https://index.docker.io/v1/'

/** Programs `docker-credential-<name>` that keep credentials: Docker's credential helper protocol. */
export class CredentialHelpers {
  readonly #env: Readonly<Record<string, string>>
  readonly #flights = new SingleFlight<Credentials | undefined>('last-waiter')

  /** @param env the whole environment of the programs; they are looked for in its PATH */
  constructor(env: Readonly<Record<string, string>>) {
    this.#env = env
  }

  /**
   * Asks for the credentials of a server. Who asks the same meanwhile gets the same answer.
   *
   * @param name what follows `docker-credential-`, made of letters, digits and `._-`
   * @param host `host[:port]`
   * @returns undefined if the helper has none
   * @throws Failure, never quoting what the helper printed as its answer; BerthError cancelled
   */
  get(name: string, host: string, signal: AbortSignal): Promise<Credentials | undefined> {
    return this.#flights.run(JSON.stringify([name, host]), signal, shared => this.#ask(name, host, shared))
  }

  async #ask(name: string, host: string, signal: AbortSignal): Promise<Credentials | undefined> {
    const program = programOf(name)
    const server = host === DEFAULT_DOMAIN ? DOCKER_HUB_SERVER : host
    const failed = (why: string, cause?: unknown) =>
      new Failure('refused', `credential helper ${program} for ${host}: ${why}`, { cause })
    let result: RunResult
    try {
      result = await run(findProgram(program, this.#env), {
        args: ['get'],
        env: this.#env,
        stdin: server,
        signal,
        timeoutMs: TIMEOUT_MS,
        maxOutput: MAX_OUTPUT + 1, // one more than is taken, to see that it was too much
        label: program,
      })
    } catch (error) {
      if (error instanceof BerthError && error.code === 'cancelled') throw error
      throw failed(messageOf(error), error)
    }
    const { code, stdout, stderr } = result
    if (code !== 0) {
      const said = [stdout, stderr].map(output => foreignText(output.toString('utf8', 0, 4096)))
      if (said.some(text => NOT_FOUND.test(text))) return undefined
      throw failed(
        `exit code ${code}: ${said.filter(text => text !== '').join('; ') || 'nothing was printed'}`,
      )
    }
    if (stdout.length > MAX_OUTPUT) throw failed(`its answer is longer than ${MAX_OUTPUT} bytes`)
    return credentialsOf(stdout, host, failed)
  }
}

export function programOf(name: string): string {
  return `docker-credential-${name}`
}

function credentialsOf(
  stdout: Buffer,
  host: string,
  failed: (why: string) => Failure,
): Credentials | undefined {
  let answer: Readonly<Record<string, unknown>>
  try {
    answer = Object(parseStrictJson(stdout))
  } catch {
    // The parser's message may quote the secret.
    throw failed('its answer is not valid JSON')
  }
  const { Username: username, Secret: secret } = answer
  if (typeof username !== 'string' || typeof secret !== 'string') {
    throw failed('its answer has no "Username" and "Secret"')
  }
  return username === TOKEN_USER
    ? Credentials.from({ identityToken: secret, serverAddress: host })
    : Credentials.from({ username, password: secret, serverAddress: host })
}
