import { BerthError, inStep, invalid, messageOf, precondition } from '../base/errors.ts'
import { KeyedMutex } from '../base/keyed-mutex.ts'
import type { CniAttachment, PodNetwork } from '../model/pod.ts'
import { isPinned } from '../os/namespaces.ts'
import { AttachmentJournal } from './attachment-journal.ts'
import { capabilityArgs, cniArgs, POD_INTERFACE } from './cni-args.ts'
import { CniChain, type CniTimeouts } from './cni-chain.ts'
import { type CniNetwork, parseNetwork } from './cni-config.ts'
import { CniConfigDir, type ConfigState } from './cni-config-dir.ts'
import { podAddresses } from './cni-result.ts'
import { isJsonObject } from './json.ts'
import { netnsFirstDelIsSafe } from './netns-first.ts'
import type { Network, NetworkStatus, NetworkTarget } from './network.ts'
import { SharedGate } from './shared-gate.ts'

export type CniOptions = {
  readonly confDir: string
  /** Absolute directories, searched in this order. */
  readonly pluginDirs: readonly string[]
  /** Name of the network to use; undefined: the first usable configuration. */
  readonly defaultNetwork?: string
  /** Where begun attachments are written down; must outlive the daemon. */
  readonly cacheDir: string
  /** PATH of the plugins, which run `iptables` and the like. */
  readonly path: string
  readonly timeouts?: Partial<CniTimeouts>
  /** How often STATUS is asked, in ms. */
  readonly statusIntervalMs?: number
  readonly log: {
    info(fields: object, message: string): void
    warn(fields: object, message: string): void
  }
}

const DEFAULT_TIMEOUTS: CniTimeouts = {
  ADD: 5 * 60_000, // longer than kubelet waits (4 min), so that what slows it down gets to say so itself
  DEL: 60_000, // kubelet waits 2 min for StopPodSandbox, and asks again
  CHECK: 60_000,
  GC: 30_000, // nobody can be attached meanwhile
  STATUS: 5_000, // a healthy plugin answers in milliseconds; kubelet asks for the outcome every 5 s
}

// kubelet asks every 5 s; a network that is down may be noticed one question late.
const STATUS_INTERVAL_MS = 10_000

// GC is housekeeping: when attachments keep coming for this long, the next one will do.
const GC_MAX_WAIT_MS = 30_000

// What fits into a node condition; the first problem is nearly always the one that counts.
const MAX_PROBLEMS_SHOWN = 5

const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/

export function createCni(options: CniOptions): Network {
  return new Cni(options)
}

type StatusVerdict = { readonly network: CniNetwork; readonly error: string | undefined }

class Cni implements Network {
  readonly #confDir: string
  readonly #configDir: CniConfigDir
  readonly #journal: AttachmentJournal
  readonly #chain: CniChain
  readonly #log: CniOptions['log']
  readonly #pods = new KeyedMutex()
  /** The specification forbids a GC beside an ADD or a DEL. */
  readonly #gate = new SharedGate()
  /** Pods whose ADD began in this process and whose DEL has not succeeded: GC must spare them. */
  readonly #attached = new Set<string>()
  readonly #closing = new AbortController()
  readonly #timer: NodeJS.Timeout
  #seen: ConfigState | undefined
  #verdict: StatusVerdict | undefined
  #asking: CniNetwork | undefined

  constructor(options: CniOptions) {
    const { pluginDirs, path } = options
    this.#confDir = options.confDir
    this.#configDir = new CniConfigDir(options.confDir, options.defaultNetwork)
    this.#journal = new AttachmentJournal(options.cacheDir)
    this.#chain = new CniChain({ pluginDirs, path, timeouts: { ...DEFAULT_TIMEOUTS, ...options.timeouts } })
    this.#log = options.log
    this.#timer = setInterval(() => this.#askStatus(), options.statusIntervalMs ?? STATUS_INTERVAL_MS).unref()
    this.#askStatus()
  }

  status(): NetworkStatus {
    const { active, problems } = this.#config()
    if (active === undefined) return notReady(this.#noConfig(problems))
    const source = { file: active.file, name: active.network.name }
    const missing = this.#chain.missingPlugins(active.network)
    if (missing.length > 0) return { ...notReady(`${active.file}: ${missing.join('; ')}`), source }
    const error = this.#verdict?.network === active.network ? this.#verdict.error : undefined
    if (error !== undefined) return { ...notReady(error), source }
    return { ready: true, reason: '', message: '', source }
  }

  async attach(target: NetworkTarget, signal?: AbortSignal): Promise<PodNetwork> {
    const { podId, netns } = target
    if (!CONTAINER_ID.test(podId))
      throw invalid('pod id', `expected a CNI container id, found ${JSON.stringify(podId)}`)
    const args = cniArgs(target)
    if (!isPinned(netns)) throw precondition(`${netns}: expected a pinned network namespace`)
    return await this.#gate.shared(() =>
      this.#pods.run(podId, async () => {
        const network = this.#usableNetwork()
        const begun = {
          networkName: network.name,
          config: network.json,
          result: null,
          ifName: POD_INTERFACE,
          capabilityArgs: capabilityArgs(target),
        }
        this.#attached.add(podId)
        this.#journal.begin(podId, begun)
        const chainTarget = { containerId: podId, netns, args, ...begun }
        const result = await this.#chain.add(network, chainTarget, signal)
        const ips = podAddresses(result, POD_INTERFACE)
        if (ips.length === 0) {
          // kubelet takes a pod without an address for broken and makes another one, for ever.
          throw new BerthError(
            'internal',
            `CNI network ${JSON.stringify(network.name)} gave the pod no address`,
          )
        }
        return { ips, attachment: { ...begun, result } }
      }),
    )
  }

  async detach(target: NetworkTarget, podNetwork: PodNetwork | undefined): Promise<void> {
    const { podId } = target
    const args = cniArgsIfValid(target)
    if (args === undefined || !CONTAINER_ID.test(podId)) return // attach refused it before it did anything
    await this.#gate.shared(() =>
      this.#pods.run(podId, async () => {
        const attachment = podNetwork?.attachment ?? this.#journal.find(podId)
        const network = attachment === undefined ? this.#config().active?.network : networkOf(attachment)
        // Without any configuration there was no ADD either: one that began has left a journal entry.
        if (network !== undefined) {
          // A pin that lost its mount is a plain file, at which plugins fail; that there is none they accept.
          const netns = isPinned(target.netns) ? target.netns : ''
          const chainTarget = chainTargetOf({ ...target, netns }, args, attachment)
          await this.#chain.del(network, chainTarget, attachment?.result ?? undefined)
        }
        this.#journal.end(podId)
        this.#attached.delete(podId)
      }),
    )
  }

  async check(target: NetworkTarget, { attachment }: PodNetwork): Promise<void> {
    if (attachment === undefined) return
    const chainTarget = chainTargetOf(target, cniArgs(target), attachment)
    await this.#pods.run(target.podId, () =>
      this.#chain.check(networkOf(attachment), chainTarget, attachment.result),
    )
  }

  async collectGarbage(
    living: ReadonlyArray<{ readonly podId: string; readonly ifName: string }>,
  ): Promise<void> {
    await this.#gate.alone(GC_MAX_WAIT_MS, async () => {
      const network = this.#config().active?.network
      if (network === undefined) return
      const interfaces = new Map(living.map(({ podId, ifName }) => [podId, ifName]))
      // Those that came while this one waited are not in the caller's list.
      for (const podId of this.#attached) if (!interfaces.has(podId)) interfaces.set(podId, POD_INTERFACE)
      await this.#chain.gc(
        network,
        [...interfaces].map(([containerID, ifname]) => ({ containerID, ifname })),
      )
    })
  }

  canDetachWithoutNamespace({ attachment }: PodNetwork): boolean {
    return attachment !== undefined && netnsFirstDelIsSafe(networkOf(attachment))
  }

  close(): void {
    clearInterval(this.#timer)
    this.#closing.abort(new BerthError('cancelled', 'the daemon stops'))
  }

  /** What the configuration directory holds now; says so in the log when it is something else than before. */
  #config(): ConfigState {
    const state = this.#configDir.refresh()
    if (state === this.#seen) return state
    this.#seen = state
    const { active, problems } = state
    if (active === undefined) this.#log.warn({ problems }, 'no usable network configuration')
    else
      this.#log.info({ file: active.file, network: active.network.name, problems }, 'network configuration')
    this.#askStatus()
    return state
  }

  /** @throws BerthError unavailable unless there is a configuration whose plugins all exist */
  #usableNetwork(): CniNetwork {
    const { active, problems } = this.#config()
    if (active === undefined) throw new BerthError('unavailable', this.#noConfig(problems))
    const missing = this.#chain.missingPlugins(active.network)
    if (missing.length > 0) throw new BerthError('unavailable', `${active.file}: ${missing.join('; ')}`)
    return active.network
  }

  #noConfig(problems: readonly string[]): string {
    const shown = problems.slice(0, MAX_PROBLEMS_SHOWN).join('; ')
    const more =
      problems.length > MAX_PROBLEMS_SHOWN ? `; and ${problems.length - MAX_PROBLEMS_SHOWN} more` : ''
    return `no usable network configuration in ${this.#confDir}: ${shown}${more}`
  }

  /** Asks the plugins of the present configuration how they are, unless they are being asked. */
  #askStatus(): void {
    const network = this.#config().active?.network
    if (network === undefined || this.#asking === network) return
    this.#asking = network
    void this.#statusOf(network).then(error => this.#judge({ network, error }))
  }

  async #statusOf(network: CniNetwork): Promise<string | undefined> {
    try {
      await this.#chain.status(network, this.#closing.signal)
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  #judge(verdict: StatusVerdict): void {
    const { network, error } = verdict
    if (this.#asking !== network || this.#closing.signal.aborted) return // another configuration is being asked
    this.#asking = undefined
    const before = this.#verdict?.network === network ? this.#verdict.error : undefined
    this.#verdict = verdict
    if (error === undefined && before !== undefined)
      this.#log.info({ network: network.name }, 'network plugins are ready')
    if (error !== undefined && before === undefined) {
      this.#log.warn({ network: network.name, error }, 'network plugins are not ready')
    }
  }
}

function notReady(message: string): NetworkStatus {
  return { ready: false, reason: 'NetworkPluginNotReady', message }
}

/** The network as it was at ADD. */
function networkOf(attachment: CniAttachment): CniNetwork {
  try {
    return parseNetwork(attachment.config)
  } catch (error) {
    throw inStep(`stored configuration of network ${JSON.stringify(attachment.networkName)}`, error)
  }
}

function chainTargetOf(target: NetworkTarget, args: string, attachment: CniAttachment | undefined) {
  return {
    containerId: target.podId,
    netns: target.netns,
    ifName: attachment?.ifName ?? POD_INTERFACE,
    args,
    capabilityArgs: isJsonObject(attachment?.capabilityArgs)
      ? attachment.capabilityArgs
      : capabilityArgs(target),
  }
}

function cniArgsIfValid(target: NetworkTarget): string | undefined {
  try {
    return cniArgs(target)
  } catch {
    return undefined
  }
}
