import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { setEffectHook } from '../../src/base/effects.ts'
import { type ErrorCode, isCode, messageOf } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import type { PortMapping } from '../../src/model/pod.ts'
import { type CniOptions, createCni } from '../../src/network/cni.ts'
import type { Network, NetworkTarget } from '../../src/network/network.ts'
import { NamespacePins } from '../../src/os/namespaces.ts'
import { warmThreadPool } from '../../src/os/node.ts'
import { run } from '../../src/os/spawn.ts'
import { raiseLoopback, unshare } from '../../src/os/syscalls.ts'

const CLONE_NEWNET = 0x40000000
export const PLUGIN_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'

/** Which generation of plugins a test uses. */
type Generation = { readonly pluginDir: string; readonly cniVersion: string }

/** What Debian 12 has: no GC, no STATUS. */
export const DEBIAN: Generation = { pluginDir: '/usr/lib/cni', cniVersion: '1.0.0' }

/**
 * Everything a CNI network needs, in a directory of the test's own. Plugins act in the network namespace of whoever
 * starts them: the "host" is one of this process's own.
 */
export class CniHost {
  readonly root = mkdtempSync('/tmp/berth-network-')
  readonly confDir = join(this.root, 'net.d')
  /** For scripts; searched first. */
  readonly pluginDir = join(this.root, 'plugins')
  readonly #cacheDir = join(this.root, 'cache')
  readonly #ipamDir = join(this.root, 'ipam')
  readonly #generation: Generation
  readonly #pins: NamespacePins
  readonly #pinned: string[] = []
  readonly #networks: Network[] = []

  constructor(generation: Generation, pins: NamespacePins) {
    this.#generation = generation
    this.#pins = pins
    mkdirSync(this.confDir)
    mkdirSync(this.pluginDir)
  }

  /** A new one on the same directories is what a restarted daemon opens. */
  open(options: Partial<CniOptions> = {}): Network {
    const network = createCni({
      confDir: this.confDir,
      pluginDirs: [this.pluginDir, this.#generation.pluginDir],
      cacheDir: this.#cacheDir,
      path: PLUGIN_PATH,
      log: { info: () => undefined, warn: () => undefined },
      ...options,
    })
    this.#networks.push(network)
    return network
  }

  configure(plugins: object[], members: object = {}): void {
    const { cniVersion } = this.#generation
    const list = { cniVersion, name: 'pods', plugins, ...members }
    writeFileSync(join(this.confDir, '10-pods.conflist'), JSON.stringify(list))
  }

  /** A bridge of the test's own, with addresses of its own. */
  bridge(members: object = {}): object {
    bridges++
    return {
      type: 'bridge',
      bridge: `br${bridges}`,
      isGateway: true,
      ipam: {
        type: 'host-local',
        dataDir: this.#ipamDir,
        ranges: [[{ subnet: `10.77.${bridges}.0/24` }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
      ...members,
    }
  }

  /** A plugin that is a shell script and leaves its last environment and input beside itself. */
  script(type: string, body: string): { type: string } {
    const file = join(this.pluginDir, type)
    const record = 'env | sort > "$0.env"\ncat > "$0.stdin"\necho "$CNI_COMMAND" >> "$0.calls"'
    writeFileSync(file, `#!/bin/sh\n${record}\n${body}\n`)
    chmodSync(file, 0o755)
    return { type }
  }

  /** `calls`: the verbs it was called with, one per line. */
  recorded(type: string, what: 'env' | 'stdin' | 'calls'): string {
    const file = join(this.pluginDir, `${type}.${what}`)
    return existsSync(file) ? readFileSync(file, 'utf8').trim() : ''
  }

  forgetCalls(type: string): void {
    rmSync(join(this.pluginDir, `${type}.calls`), { force: true })
  }

  /** A pod's namespace, and what names it to the network. */
  async pod(portMappings: readonly PortMapping[] = []): Promise<NetworkTarget> {
    const podId = newId()
    const dir = join(this.root, podId)
    this.#pinned.push(dir)
    await this.#pins.create({ dir, network: true, ipc: false, uts: false, hostname: '', sysctls: {} })
    return {
      podId,
      metadata: { name: 'web', namespace: 'default', uid: 'uid-1', attempt: 0 },
      netns: join(dir, 'net'),
      portMappings,
    }
  }

  destroyNamespace({ podId }: NetworkTarget): void {
    this.#pins.remove(join(this.root, podId))
  }

  /** What attachments leave on the host: addresses taken, links to pods, rules of single pods, the journal. */
  async held(): Promise<string[]> {
    const dirs = existsSync(this.#ipamDir) ? readdirSync(this.#ipamDir) : []
    const addresses = dirs.flatMap(name => readdirSync(join(this.#ipamDir, name))).filter(isIPv4)
    const links = (await output('/usr/sbin/ip', '-o', 'link')).match(/^\d+: (?!lo:|br\d+:).*/gm) ?? []
    const rules = (await output('/usr/sbin/iptables-save')).match(/^.*CNI-(DN-)?[0-9a-f]{20}.*$/gm) ?? []
    const journal = existsSync(this.#cacheDir) ? readdirSync(this.#cacheDir) : []
    return [...addresses, ...links, ...rules, ...journal]
  }

  [Symbol.dispose](): void {
    for (const network of this.#networks) network.close()
    for (const dir of this.#pinned) this.#pins.remove(dir)
    rmSync(this.root, { recursive: true })
  }
}

// One address range per bridge, also across the tests of a file: bridges live as long as the process.
let bridges = 0

/** For a test file: a fresh host for each test. Moves this process into a network namespace of its own. */
export function useCniHost(generation = DEBIAN): () => CniHost {
  let pins: NamespacePins
  let host: CniHost
  before(async () => {
    await warmThreadPool()
    pins = await NamespacePins.open()
    unshare(CLONE_NEWNET)
    raiseLoopback()
  })
  beforeEach(() => {
    host = new CniHost(generation, pins)
  })
  afterEach(() => {
    setEffectHook(undefined)
    host[Symbol.dispose]()
  })
  after(() => pins.close())
  return () => host
}

export async function output(file: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(file, { args, env: { PATH: PLUGIN_PATH }, timeoutMs: 10_000 })
  assert.equal(code, 0, `${file} ${args.join(' ')}: ${stderr}`)
  return stdout.toString()
}

export async function eventually(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await isSo()) return
    await sleep(25)
  }
  assert.fail(`not within 5 s: ${what}`)
}

/** For `assert.rejects`: a BerthError of that code whose message matches all. */
export function failure(code: ErrorCode, ...messages: RegExp[]): (error: unknown) => boolean {
  return error => {
    assert.ok(isCode(error, code), `expected ${code}: ${String(error)}`)
    for (const message of messages) assert.match(messageOf(error), message)
    return true
  }
}
