import { BerthError, invalid, messageOf, precondition } from '../base/errors.ts'
import { KeyedMutex } from '../base/keyed-mutex.ts'
import type { Difference } from '../model/difference.ts'
import type { CniAttachment, PodNetwork } from '../model/pod.ts'
import { isPinned } from '../os/namespaces.ts'
import { chainTarget, networkOf, newAttachment } from './attachment.ts'
import { AttachmentJournal } from './attachment-journal.ts'
import { cniArgs, POD_INTERFACE } from './cni-args.ts'
import { CniChain, type CniTimeouts } from './cni-chain.ts'
import { type CniLog, CniReadiness } from './cni-readiness.ts'
import { podAddresses } from './cni-result.ts'
import { networkDifferences } from './differences.ts'
import { endLeftPlugins } from './left-plugins.ts'
import { masquerades, removeRulesOf } from './nat-rules.ts'
import { netnsFirstDelIsSafe } from './netns-first.ts'
import type { Network, NetworkMember, NetworkStatus, NetworkTarget } from './network.ts'
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
  /** How often plugins are asked for their STATUS, in ms. */
  readonly statusIntervalMs?: number
  readonly log: CniLog
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

// Nobody can be attached while forgotten pods are detached. Some hundred fit in; the next GC does the rest.
const FORGOTTEN_MAX_MS = 30_000

const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/

/** Begins at once to look for a configuration; there need not be one. */
export function createCni(options: CniOptions): Network {
  return new Cni(options)
}

class Cni implements Network {
  readonly #journal: AttachmentJournal
  readonly #chain: CniChain
  readonly #readiness: CniReadiness
  readonly #log: CniLog
  readonly #path: string
  /** The specification forbids two operations on one attachment at a time. */
  readonly #pods = new KeyedMutex()
  /** It also forbids a GC beside an ADD or a DEL. */
  readonly #gate = new SharedGate()
  /** Pods whose ADD began in this process and whose DEL has not succeeded: GC must spare them. */
  readonly #attached = new Set<string>()

  constructor(options: CniOptions) {
    const { confDir, pluginDirs, defaultNetwork, path, log, statusIntervalMs = STATUS_INTERVAL_MS } = options
    this.#journal = new AttachmentJournal(options.cacheDir)
    this.#chain = new CniChain({ pluginDirs, path, timeouts: { ...DEFAULT_TIMEOUTS, ...options.timeouts } })
    this.#readiness = new CniReadiness({ confDir, defaultNetwork, chain: this.#chain, statusIntervalMs, log })
    this.#log = log
    this.#path = path
  }

  status(): NetworkStatus {
    return this.#readiness.status()
  }

  async attach(target: NetworkTarget, signal?: AbortSignal): Promise<PodNetwork> {
    const { podId, netns } = target
    if (!CONTAINER_ID.test(podId))
      throw invalid('pod id', `expected a CNI container id, found ${JSON.stringify(podId)}`)
    const args = cniArgs(target)
    if (!isPinned(netns)) throw precondition(`${netns}: expected a pinned network namespace`)
    return await this.#alone(podId, async () => {
      const network = this.#readiness.usableNetwork()
      const begun = newAttachment(network, target)
      this.#attached.add(podId)
      this.#journal.begin(podId, { ...begun, netns, args })
      const result = await this.#chain.add(network, chainTarget(podId, netns, args, begun), signal)
      const ips = podAddresses(result, POD_INTERFACE)
      // kubelet takes a pod without an address for broken and makes another one, for ever.
      if (ips.length === 0)
        throw new BerthError('internal', `CNI network ${network.name} gave the pod no address`)
      return { ips, attachment: { ...begun, result } }
    })
  }

  async detach(target: NetworkTarget, podNetwork: PodNetwork | undefined): Promise<void> {
    const { podId, netns } = target
    const args = cniArgsIfValid(target)
    if (args === undefined || !CONTAINER_ID.test(podId)) return // attach refused it before it did anything
    await this.#alone(podId, async () => {
      if (podNetwork?.attachment === undefined && !this.#attached.has(podId)) await endLeftPlugins(podId)
      const { network } = this.#readiness
      const attachment =
        podNetwork?.attachment ?? this.#journal.find(podId) ?? (network && newAttachment(network, target))
      // Without any configuration there was no ADD either: one that began has left a journal entry.
      if (attachment !== undefined) await this.#del(podId, netns, args, attachment)
      this.#journal.end(podId)
      this.#attached.delete(podId)
    })
  }

  async check(target: NetworkTarget, { attachment }: PodNetwork): Promise<void> {
    if (attachment === undefined) return
    const { podId, netns } = target
    const subject = chainTarget(podId, netns, cniArgs(target), attachment)
    await this.#alone(podId, () => this.#chain.check(networkOf(attachment), subject, attachment.result))
  }

  canDetachWithoutNamespace({ attachment }: PodNetwork): boolean {
    return attachment !== undefined && netnsFirstDelIsSafe(networkOf(attachment))
  }

  async collectGarbage(
    living: ReadonlyArray<{ readonly podId: string; readonly ifName: string }>,
  ): Promise<void> {
    await this.#gate.alone(GC_MAX_WAIT_MS, async () => {
      const interfaces = new Map(living.map(({ podId, ifName }) => [podId, ifName]))
      // Those that came while this one waited are not in the caller's list.
      for (const podId of this.#attached) if (!interfaces.has(podId)) interfaces.set(podId, POD_INTERFACE)
      await this.#detachForgotten(interfaces)
      const { network } = this.#readiness
      if (network === undefined) return
      const valid = [...interfaces].map(([containerID, ifname]) => ({ containerID, ifname }))
      await this.#chain.gc(network, valid)
    })
  }

  async differences(members: readonly NetworkMember[]): Promise<Difference[]> {
    const held = new Set([...members.map(({ target }) => target.podId), ...this.#attached])
    return await networkDifferences({
      members,
      isHeld: podId => held.has(podId) || this.#attached.has(podId),
      journal: this.#journal,
      chain: this.#chain,
      network: this.#readiness.network,
      path: this.#path,
      alone: (podId, work) => this.#alone(podId, work),
      forget: podId => this.#alone(podId, () => this.#forget(podId)),
    })
  }

  close(): void {
    this.#readiness.close()
  }

  /** Nothing else happens to the pod's attachment while `work` runs, and no GC. */
  #alone<T>(podId: string, work: () => Promise<T>): Promise<T> {
    return this.#gate.shared(() => this.#pods.run(podId, work))
  }

  async #del(podId: string, netns: string, args: string, attachment: CniAttachment): Promise<void> {
    // A pin that lost its mount is a plain file, at which plugins fail; that there is none they accept.
    const hasNamespace = isPinned(netns)
    const network = networkOf(attachment)
    const target = chainTarget(podId, hasNamespace ? netns : '', args, attachment)
    await this.#chain.del(network, target, attachment.result ?? undefined)
    // Which rules are a pod's, the plugins learn from its interface.
    if (!hasNamespace && masquerades(network)) await removeRulesOf(this.#path, network.name, podId)
  }

  /**
   * DEL of what the journal has and nobody claims, as after the loss of the database. Needed besides GC, because the
   * reference plugins accept that verb and do nothing.
   */
  async #detachForgotten(living: ReadonlyMap<string, string>): Promise<void> {
    const deadline = performance.now() + FORGOTTEN_MAX_MS
    for (const podId of this.#journal.podIds()) {
      if (living.has(podId)) continue
      if (performance.now() > deadline) return
      try {
        await this.#forget(podId)
      } catch (error) {
        this.#log.warn({ podId, error: messageOf(error) }, 'a forgotten pod is still attached to its network')
      }
    }
  }

  async #forget(podId: string): Promise<void> {
    const begun = this.#journal.find(podId)
    if (begun !== undefined) await this.#del(podId, begun.netns, begun.args, begun)
    this.#journal.end(podId)
  }
}

function cniArgsIfValid(target: NetworkTarget): string | undefined {
  try {
    return cniArgs(target)
  } catch {
    return undefined
  }
}
