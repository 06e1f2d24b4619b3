import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { sleep } from '../../src/base/clock.ts'
import { newId } from '../../src/base/ids.ts'
import { BerthClient } from '../../src/cri/client.ts'
import { warmThreadPool } from '../../src/os/node.ts'
import { raiseLoopback, unshare } from '../../src/os/syscalls.ts'
import { type CommandResult, command, output } from './command.ts'
import { destroy, footprint } from './footprint.ts'
import { TestRegistry } from './registry.ts'
import { linesWithSecrets } from './secrets.ts'
import { until } from './wait.ts'

const CLONE_NEWNET = 0x40000000
const checkout = join(import.meta.dirname, '../..')
const protoDir = join(checkout, 'proto')

/** Calls of tests may wait for a pod on a machine that is busy with something else. */
const CALL_TIMEOUT_MS = 60_000
/** A daemon that isn't up by then never will be. */
const START_LIMIT_MS = 120_000
/** Bytes of the daemon's log that are kept, for the report of a failing test. */
const MAX_LOG = 4 << 20
/** Lines with secrets that are told. */
const MAX_LEAKS = 10

/** Registries whose names lead to the test's registry, each below a directory of its own there. */
const MIRRORED = ['docker.io', 'registry.k8s.io', 'quay.io', 'gcr.io', 'k8s.gcr.io']

export type DaemonOptions = {
  /** Part of the names of its directories and its cgroup; `test` unless given. */
  readonly label?: string
  /** TOML, for the daemon whose files are in that directory; the paths are flags. */
  readonly config?: (directory: string) => string
  /** Beside PATH and HOME, such as BERTH_FAULTS. */
  readonly env?: Readonly<Record<string, string>>
  /** The build that runs until `program` is set to another one. */
  readonly program?: readonly string[]
}

type NetworkOptions = {
  readonly ipMasq?: boolean
  readonly plugins?: readonly object[]
  /** Of the CNI specification. */
  readonly cniVersion?: string
}

let networkEntered = false
let daemons = 0

/**
 * Moves this process into a network namespace of its own, once: the daemons it starts, their plugins, the registry
 * and the test itself then share a "node" that has nothing to do with the machine's network.
 */
async function enterOwnNetwork(): Promise<void> {
  if (networkEntered) return
  networkEntered = true
  // The pool's threads keep the namespace in which they start; only file calls run there.
  await warmThreadPool()
  unshare(CLONE_NEWNET)
  raiseLoopback()
}

/**
 * `berth daemon` in a process of its own, with a root, a socket, a network, a registry and a cgroup that it shares
 * with nobody. bin/berth is what runs, or the source itself with BERTH_TEST_SOURCE=1.
 */
export class BerthDaemon {
  /** Everything of this daemon that is on disk. */
  readonly directory: string
  readonly root: string
  readonly runRoot: string
  readonly socket: string
  /** Parent of all pods' cgroups. */
  readonly cgroup: string
  readonly logs: string
  readonly cniConfDir: string
  /** Searched before the machine's plugins. */
  readonly cniPluginDir: string
  readonly ipamDir: string
  readonly bridge = `bt${++daemons}`
  readonly subnet = `10.66.${daemons}`
  readonly registry: TestRegistry
  /** The build that the next start runs: a program and its first arguments. */
  program: readonly string[]
  readonly #options: DaemonOptions
  #process: ChildProcess | undefined
  #ended: Promise<number> = Promise.resolve(0)
  #client: BerthClient | undefined
  #log = ''
  readonly #leaks: string[] = []
  #baseline: ReadonlySet<string> = new Set()

  static async start(options: DaemonOptions = {}): Promise<BerthDaemon> {
    await enterOwnNetwork()
    const daemon = new BerthDaemon(options, await TestRegistry.start())
    try {
      await daemon.up()
      await daemon.forgetLeftovers()
      return daemon
    } catch (error) {
      await daemon[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(options: DaemonOptions, registry: TestRegistry) {
    const name = `berth-${options.label ?? 'test'}-${newId().slice(0, 6)}`
    this.directory = join('/var/lib', name)
    this.runRoot = join('/run', name)
    this.cgroup = `/${name}`
    this.root = this.#file('state')
    this.socket = join(this.runRoot, 'berth.sock')
    this.logs = this.#file('logs')
    this.cniConfDir = this.#file('net.d')
    this.cniPluginDir = this.#file('plugins')
    this.ipamDir = this.#file('ipam')
    this.#options = options
    this.program = options.program ?? berthCommand()
    this.registry = registry
    for (const path of [this.logs, this.cniConfDir, this.cniPluginDir]) mkdirSync(path, { recursive: true })
    writeFileSync(this.#file('berth.conf'), options.config?.(this.directory) ?? '')
    writeFileSync(
      this.#file('registries.conf'),
      MIRRORED.map(name => mirror(name, registry.address)).join('\n'),
    )
    writeFileSync(this.#file('policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}')
    this.configureNetwork()
  }

  #file(name: string): string {
    return join(this.directory, name)
  }

  /** A bridge with addresses of this daemon's own, and host ports; further plugins come last. */
  configureNetwork({ ipMasq = true, plugins = [], cniVersion = '1.0.0' }: NetworkOptions = {}): void {
    const bridge = {
      type: 'bridge',
      bridge: this.bridge,
      isGateway: true,
      ipMasq,
      ipam: {
        type: 'host-local',
        dataDir: this.ipamDir,
        ranges: [[{ subnet: `${this.subnet}.0/24` }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    }
    const portmap = { type: 'portmap', capabilities: { portMappings: true } }
    const list = { cniVersion, name: 'pods', plugins: [bridge, portmap, ...plugins] }
    writeFileSync(join(this.cniConfDir, '10-pods.conflist'), JSON.stringify(list))
  }

  removeNetwork(): void {
    rmSync(join(this.cniConfDir, '10-pods.conflist'))
  }

  /** A CNI plugin that is a shell script: it has its input in $input and answers with the previous result. */
  networkPlugin(type: string, body: string): object {
    const file = join(this.cniPluginDir, type)
    const passOn = `printf '%s' "$input" | sed 's/.*"prevResult"://; s/}$//'`
    writeFileSync(file, `#!/bin/sh\ninput=$(cat)\n${body}\n[ "$CNI_COMMAND" = ADD ] && ${passOn}\nexit 0\n`)
    chmodSync(file, 0o755)
    return { type }
  }

  get client(): BerthClient {
    if (this.#client === undefined) throw new Error('the daemon is not running')
    return this.#client
  }

  get pid(): number {
    const pid = this.#process?.pid
    if (pid === undefined) throw new Error('the daemon is not running')
    return pid
  }

  /** What all processes of this daemon wrote. */
  get log(): string {
    return this.#log
  }

  /** Starts the process and waits until it serves. */
  async up(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.launch(env)
    const end = performance.now() + START_LIMIT_MS
    while (!(await this.#serves())) {
      if (this.#process?.exitCode !== null || this.#process.signalCode !== null)
        throw new Error(`the daemon ended:\n${this.#log}`)
      if (performance.now() > end) throw new Error(`the daemon does not serve:\n${this.#log}`)
      await sleep(10)
    }
  }

  /** Starts the process without waiting for it. */
  launch(env: Readonly<Record<string, string>> = {}): void {
    const [file, ...args] = this.program
    const child = spawn(file!, [...args, 'daemon', ...this.#flags()], {
      env: { PATH: process.env.PATH, HOME: this.directory, ...this.#options.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (text: Buffer) => {
        this.#log = (this.#log + text).slice(-MAX_LOG)
        // A line that comes in two pieces is seen at the end.
        this.#shown(text.toString())
      })
    }
    this.#process = child
    this.#ended = new Promise(resolve => {
      child.once('exit', code => resolve(code ?? -1))
    })
  }

  #flags(): string[] {
    return [
      `--config=${this.#file('berth.conf')}`,
      `--root=${this.root}`,
      `--runroot=${this.runRoot}`,
      `--pod-cgroup-parent=${this.cgroup}`,
      `--cni-config-dir=${this.cniConfDir}`,
      `--cni-plugin-dir=${this.cniPluginDir},/usr/lib/cni`,
      `--registries-conf=${this.#file('registries.conf')}`,
      `--registries-conf-dir=${this.#file('registries.conf.d')}`,
      `--certs-dir=${this.#file('certs.d')}`,
      `--namespaced-auth-dir=${this.#file('auth')}`,
      `--signature-policy=${this.#file('policy.json')}`,
      `--signature-policy-dir=${this.#file('policies')}`,
    ]
  }

  /** Another daemon in the same place, to its end. */
  second(): Promise<CommandResult> {
    const [file, ...args] = this.program
    return command(file!, [...args, 'daemon', ...this.#flags()], { HOME: this.directory })
  }

  async #serves(): Promise<boolean> {
    if (!existsSync(this.socket)) return false
    try {
      const client = await BerthClient.connect(this.socket, protoDir, { timeoutMs: CALL_TIMEOUT_MS })
      this.#client?.[Symbol.dispose]()
      this.#client = client
      await client.runtime('Version', {})
      return true
    } catch {
      return false // a socket of the process before, or not open yet
    }
  }

  /** The exit code of the process, -1 when a signal ended it. */
  get ended(): Promise<number> {
    return this.#ended
  }

  async kill9(): Promise<void> {
    this.#process?.kill('SIGKILL')
    await this.#ended
  }

  /** @returns the exit code */
  async stop(): Promise<number> {
    this.#process?.kill('SIGTERM')
    return this.#ended
  }

  /** SIGKILL, then a new process. */
  async restart(env: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.kill9()
    await this.up(env)
  }

  /** Every process, mount, namespace and rule is gone, the run directory empty. */
  async powerOff(): Promise<void> {
    await this.kill9()
    await destroy(this)
    for (const verb of ['-F', '-X']) await output('iptables', '-t', 'nat', verb)
    rmSync(this.runRoot, { recursive: true, force: true })
  }

  /**
   * What a power cut and a boot do: after `powerOff` the boot id is another one (the node's own cannot change, so the
   * rows get one of the past).
   */
  async reboot(): Promise<void> {
    await this.powerOff()
    const database = new Database(join(this.root, 'berth.db'))
    database.exec(`UPDATE pods SET boot_id = 'an earlier boot'`)
    database.close()
    await this.up()
  }

  /** The real crictl; see `crictlPath`. Ten times its default patience: the machine may be busy. */
  crictl(...args: readonly string[]): Promise<CommandResult> {
    const endpoint = `unix://${this.socket}`
    const flags = ['-c', '/dev/null', '-r', endpoint, '-i', endpoint, '-t', '20s']
    return command(crictlPath(), [...flags, ...args], { HOME: this.directory })
  }

  /** A client command of the product. */
  async berth(...args: readonly string[]): Promise<CommandResult> {
    const [file, ...before] = berthCommand()
    const result = await command(file!, [...before, ...args, '--listen', this.socket], {
      HOME: this.directory,
    })
    this.#shown(`${result.stdout}\n${result.stderr}`)
    return result
  }

  /** Keeps what shows a secret, for the end. */
  #shown(text: string): void {
    this.#leaks.push(...linesWithSecrets(text).slice(0, MAX_LEAKS))
  }

  /** A command that works on the same directories without the daemon. */
  offline(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CommandResult> {
    const [file, ...rest] = this.offlineCommand(args)
    return command(file!, rest, { HOME: this.directory, ...env })
  }

  offlineCommand(args: readonly string[]): string[] {
    return [...berthCommand(), ...args, ...this.#flags()]
  }

  /** What is there beyond what an idle daemon has, after what is on its way out had time to go. */
  async leftovers(kinds = /./): Promise<string[]> {
    let left: string[] = []
    for (let tries = 0; tries < 100; tries++) {
      const things = [...(await footprint(this))]
      left = things.filter(thing => kinds.test(thing) && !this.#baseline.has(thing)).sort()
      if (left.length === 0) break
      await sleep(50)
    }
    return left
  }

  /** What is there now does not count as left from here on: one test's remains are not the next one's. */
  async forgetLeftovers(): Promise<void> {
    this.#baseline = await footprint(this)
  }

  /** Removes everything, whatever state it is in. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.[Symbol.dispose]()
    await this.kill9()
    await destroy(this)
    await this.registry.close()
    rmSync(this.runRoot, { recursive: true, force: true })
    rmSync(this.directory, { recursive: true, force: true })
    this.#shown(this.#log)
    const leaks = [...new Set(this.#leaks)].slice(0, MAX_LEAKS)
    if (leaks.length > 0) throw new Error(`secrets were logged or shown:\n${leaks.join('\n')}`)
  }
}

function mirror(name: string, address: string): string {
  return `[[registry]]
prefix = "${name}"
location = "${name}"
[[registry.mirror]]
location = "${address}/${name}"
insecure = true
`
}

function berthCommand(): string[] {
  if (process.env.BERTH_TEST_SOURCE === undefined) return [join(checkout, 'bin/berth')]
  return [process.execPath, join(checkout, 'src/main.ts')]
}

/** Of `scripts/setup.sh test`; '' when Go was missing there. */
export function crictlPath(): string {
  return globSync(join(checkout, '.cache/cri-tools-*/crictl')).at(-1) ?? ''
}

/** Waits until a process that is about to end by a planned fault has ended. */
export async function crashed(daemon: BerthDaemon): Promise<void> {
  let code: number | undefined
  void daemon.ended.then(ended => {
    code = ended
  })
  await until('the planned fault kills the daemon', () => code !== undefined)
}
