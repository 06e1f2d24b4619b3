import { BerthError, messageOf } from '../base/errors.ts'
import type { CniChain } from './cni-chain.ts'
import type { CniNetwork } from './cni-config.ts'
import { CniConfigDir, type ConfigState } from './cni-config-dir.ts'
import type { NetworkStatus } from './network.ts'

export type CniLog = {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

type ReadinessOptions = {
  readonly confDir: string
  /** Name of the network to use; undefined: the first usable configuration. */
  readonly defaultNetwork: string | undefined
  readonly chain: CniChain
  /** How often plugins are asked for their STATUS, in ms. */
  readonly statusIntervalMs: number
  readonly log: CniLog
}

// What fits into a node condition; the first problem is nearly always the one that counts.
const MAX_PROBLEMS_SHOWN = 5

/** Which network configuration is in use, and whether pods can be attached by it. */
export class CniReadiness {
  readonly #confDir: string
  readonly #configDir: CniConfigDir
  readonly #chain: CniChain
  readonly #log: CniLog
  readonly #closing = new AbortController()
  readonly #timer: NodeJS.Timeout
  #seen: ConfigState | undefined
  /** The configuration whose plugins are being asked for their STATUS. */
  #asking: CniNetwork | undefined
  /** The last answer; undefined error: all are ready. Until there is one, plugins count as ready. */
  #answer: { readonly network: CniNetwork; readonly error: string | undefined } | undefined

  constructor({ confDir, defaultNetwork, chain, statusIntervalMs, log }: ReadinessOptions) {
    this.#confDir = confDir
    this.#configDir = new CniConfigDir(confDir, defaultNetwork)
    this.#chain = chain
    this.#log = log
    this.#timer = setInterval(() => this.#askAgain(), statusIntervalMs).unref()
    this.#askStatus()
  }

  /** The configuration in use, if there is one. */
  get network(): CniNetwork | undefined {
    return this.#refresh().active?.network
  }

  status(): NetworkStatus {
    const { active, problems } = this.#refresh()
    if (active === undefined) return notReady(this.#whyNone(problems))
    const { file, network } = active
    const source = { file, name: network.name }
    const missing = this.#chain.missingPlugins(network)
    if (missing.length > 0) return { ...notReady(`${file}: ${missing.join('; ')}`), source }
    const error = this.#lastError(network)
    return error === undefined
      ? { ready: true, reason: '', message: '', source }
      : { ...notReady(error), source }
  }

  /** @throws BerthError unavailable unless there is a configuration whose plugins all exist */
  usableNetwork(): CniNetwork {
    const { active, problems } = this.#refresh()
    if (active === undefined) throw new BerthError('unavailable', this.#whyNone(problems))
    const missing = this.#chain.missingPlugins(active.network)
    if (missing.length > 0) throw new BerthError('unavailable', `${active.file}: ${missing.join('; ')}`)
    return active.network
  }

  close(): void {
    clearInterval(this.#timer)
    this.#closing.abort(new BerthError('cancelled', 'the daemon stops'))
  }

  /** What the directory holds now; says so in the log when it is something else than before. */
  #refresh(): ConfigState {
    const state = this.#configDir.refresh()
    if (state === this.#seen) return state
    this.#seen = state
    const { active, problems } = state
    if (active === undefined) {
      this.#log.warn({ problems }, 'no usable network configuration')
    } else {
      this.#log.info({ file: active.file, network: active.network.name, problems }, 'network configuration')
      this.#askStatus()
    }
    return state
  }

  #whyNone(problems: readonly string[]): string {
    const shown = problems.slice(0, MAX_PROBLEMS_SHOWN).join('; ')
    const hidden = problems.length - MAX_PROBLEMS_SHOWN
    return `no usable network configuration in ${this.#confDir}: ${shown}${hidden > 0 ? `; and ${hidden} more` : ''}`
  }

  #lastError(network: CniNetwork): string | undefined {
    return this.#answer?.network === network ? this.#answer.error : undefined
  }

  #askAgain(): void {
    try {
      this.#askStatus()
    } catch (error) {
      // The directory cannot be read: no descriptor is to be had, say.
      this.#log.warn({ error: messageOf(error) }, 'network plugins could not be asked how they are')
    }
  }

  /** Asks the plugins of the present configuration how they are, unless they are being asked. */
  #askStatus(): void {
    const network = this.network
    if (network === undefined || this.#asking === network) return
    this.#asking = network
    void this.#chain
      .status(network, this.#closing.signal)
      .then(() => undefined, messageOf)
      .then(error => this.#take(network, error))
  }

  #take(network: CniNetwork, error: string | undefined): void {
    // Another configuration is being asked by now, or nobody is interested any more.
    if (this.#asking !== network || this.#closing.signal.aborted) return
    this.#asking = undefined
    const before = this.#lastError(network)
    this.#answer = { network, error }
    if (error !== undefined && before === undefined) {
      this.#log.warn({ network: network.name, error }, 'network plugins are not ready')
    } else if (error === undefined && before !== undefined) {
      this.#log.info({ network: network.name }, 'network plugins are ready again')
    }
  }
}

function notReady(message: string): NetworkStatus {
  return { ready: false, reason: 'NetworkPluginNotReady', message }
}
