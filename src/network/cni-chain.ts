import { BerthError, inStep, messageOf } from '../base/errors.ts'
import type { CniNetwork, CniPlugin } from './cni-config.ts'
import { type CniVerb, findPlugin, runPlugin } from './cni-plugin.ts'
import { parseResult } from './cni-result.ts'
import { isAtLeast } from './cni-version.ts'
import { withHostAddresses } from './host-addresses.ts'
import type { JsonObject } from './json.ts'

/** Milliseconds for a whole verb, all plugins of the list together. */
export type CniTimeouts = Readonly<Record<CniVerb, number>>

type ChainOptions = {
  /** Absolute directories, searched in this order. */
  readonly pluginDirs: readonly string[]
  /** PATH of the plugins, which run `iptables` and the like. */
  readonly path: string
  readonly timeouts: CniTimeouts
}

/** One pod's attachment, as plugins see it. */
export type ChainTarget = {
  readonly containerId: string
  /** '' when there is none any more. */
  readonly netns: string
  readonly ifName: string
  /** Value of CNI_ARGS. */
  readonly args: string
  /** By capability, what goes to the plugins that declare it. */
  readonly capabilityArgs: JsonObject
}

/** What a plugin gets beside its own configuration. */
type Call = {
  readonly verb: CniVerb
  readonly target?: ChainTarget
  readonly added?: JsonObject
  readonly signal?: AbortSignal | undefined
}

/** Runs the plugins of a network configuration list, verb by verb (CNI specification 1.1, sections 2 and 3). */
export class CniChain {
  readonly #options: ChainOptions

  constructor(options: ChainOptions) {
    this.#options = options
  }

  /**
   * For each plugin of the list whose executable is not usable, why. Address plugins are not looked at: which of them
   * are executables is known to the plugin that names them.
   */
  missingPlugins(network: CniNetwork): string[] {
    const types = new Set(network.plugins.map(({ type }) => type))
    return [...types].flatMap(type => {
      try {
        findPlugin(type, this.#options.pluginDirs)
        return []
      } catch (error) {
        return [messageOf(error)]
      }
    })
  }

  /** In list order, each plugin with the result of the one before; returns the last one's. */
  async add(network: CniNetwork, target: ChainTarget, signal: AbortSignal | undefined): Promise<JsonObject> {
    const remaining = this.#remaining('ADD')
    let result: JsonObject = {}
    for (const [index, plugin] of network.plugins.entries()) {
      const added = index === 0 ? {} : { prevResult: result }
      const stdout = await this.#run(network, plugin, { verb: 'ADD', target, added, signal }, remaining())
      try {
        result = parseResult(stdout, network.cniVersion)
      } catch (error) {
        throw inStep(`CNI plugin ${plugin.type}, ADD of network ${JSON.stringify(network.name)}`, error)
      }
    }
    return result
  }

  /** In reverse order; stops at a failure, since what lies below is still in use. */
  async del(network: CniNetwork, target: ChainTarget, result: unknown): Promise<void> {
    // Before 0.4.0 only ADD had a prevResult.
    const known = result !== undefined && isAtLeast(network.cniVersion, '0.4.0')
    const call: Call = { verb: 'DEL', target, added: known ? { prevResult: result } : {} }
    const remaining = this.#remaining('DEL')
    for (const plugin of network.plugins.toReversed()) await this.#run(network, plugin, call, remaining())
  }

  async check(network: CniNetwork, target: ChainTarget, result: unknown): Promise<void> {
    if (network.disableCheck || !isAtLeast(network.cniVersion, '0.4.0')) return
    const call: Call = { verb: 'CHECK', target, added: { prevResult: withHostAddresses(result) } }
    const remaining = this.#remaining('CHECK')
    for (const plugin of network.plugins) await this.#run(network, plugin, call, remaining())
  }

  /** As `check`, of these plugins alone and each by itself. @returns what those said that found something wrong */
  async checkEach(
    network: CniNetwork,
    target: ChainTarget,
    result: unknown,
    types: ReadonlySet<string>,
  ): Promise<Array<{ readonly plugin: CniPlugin; readonly error: string }>> {
    if (network.disableCheck || !isAtLeast(network.cniVersion, '0.4.0')) return []
    const call: Call = { verb: 'CHECK', target, added: { prevResult: withHostAddresses(result) } }
    const remaining = this.#remaining('CHECK')
    const errors: Array<{ plugin: CniPlugin; error: string }> = []
    for (const plugin of network.plugins) {
      if (!types.has(plugin.type)) continue
      try {
        await this.#run(network, plugin, call, remaining())
      } catch (error) {
        errors.push({ plugin, error: messageOf(error) })
      }
    }
    return errors
  }

  /** ADD of one plugin that makes nothing twice, for an attachment that it was part of. */
  async addAgain(
    network: CniNetwork,
    plugin: CniPlugin,
    target: ChainTarget,
    result: unknown,
  ): Promise<void> {
    const call: Call = { verb: 'ADD', target, added: { prevResult: result } }
    await this.#run(network, plugin, call, this.#remaining('ADD')())
  }

  /** Every plugin, also after one failed: its garbage is no reason to keep another's. */
  async gc(
    network: CniNetwork,
    living: ReadonlyArray<{ containerID: string; ifname: string }>,
  ): Promise<void> {
    if (network.disableGc || !isAtLeast(network.cniVersion, '1.1.0')) return
    const call: Call = { verb: 'GC', added: { 'cni.dev/valid-attachments': living } }
    const remaining = this.#remaining('GC')
    const errors: string[] = []
    for (const plugin of network.plugins) {
      try {
        await this.#run(network, plugin, call, remaining())
      } catch (error) {
        errors.push(messageOf(error))
      }
    }
    if (errors.length > 0) throw new BerthError('internal', errors.join('; '))
  }

  /** @throws BerthError in the words of the first plugin that is not ready */
  async status(network: CniNetwork, signal: AbortSignal): Promise<void> {
    if (!isAtLeast(network.cniVersion, '1.1.0')) return
    const remaining = this.#remaining('STATUS')
    for (const plugin of network.plugins)
      await this.#run(network, plugin, { verb: 'STATUS', signal }, remaining())
  }

  async #run(network: CniNetwork, plugin: CniPlugin, call: Call, timeoutMs: number): Promise<Buffer> {
    const { verb, target, added, signal } = call
    return await runPlugin({
      verb,
      type: plugin.type,
      file: findPlugin(plugin.type, this.#options.pluginDirs),
      networkName: network.name,
      subject: target?.containerId ?? network.name,
      environment: this.#environment(verb, target),
      stdin: { ...configurationFor(network, plugin, target?.capabilityArgs ?? {}), ...added },
      timeoutMs,
      signal,
    })
  }

  /** Made from nothing: plugins see no variable of the daemon's. */
  #environment(verb: CniVerb, target: ChainTarget | undefined): Readonly<Record<string, string>> {
    const { path, pluginDirs } = this.#options
    const environment = { PATH: path, CNI_COMMAND: verb, CNI_PATH: pluginDirs.join(':') }
    if (target === undefined) return environment
    return {
      ...environment,
      CNI_CONTAINERID: target.containerId,
      CNI_NETNS: target.netns,
      CNI_IFNAME: target.ifName,
      CNI_ARGS: target.args,
    }
  }

  /** How many ms of the verb's limit are left, each time it is called. */
  #remaining(verb: CniVerb): () => number {
    const deadline = performance.now() + this.#options.timeouts[verb]
    return () => Math.max(1, Math.round(deadline - performance.now()))
  }
}

/** A plugin's own configuration with what the list and the pod add to it (specification, section 4). */
function configurationFor(network: CniNetwork, plugin: CniPlugin, capabilityArgs: JsonObject): JsonObject {
  const { capabilities: _declared, ...own } = plugin.json
  const asked = Object.entries(capabilityArgs).filter(([capability]) => plugin.capabilities.has(capability))
  return {
    ...own,
    cniVersion: network.cniVersion,
    name: network.name,
    ...(asked.length > 0 ? { runtimeConfig: Object.fromEntries(asked) } : {}),
  }
}
