import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { newId } from '../../src/base/ids.ts'
import { buildSpec } from '../../src/containers/spec/build-spec.ts'
import type { OciProcess, OciSpec } from '../../src/model/oci.ts'
import type { Cgroups } from '../../src/os/cgroup/cgroup.ts'
import { openCgroups } from '../../src/os/cgroup/open-cgroups.ts'
import { boundingCapabilities, hardLimit, kernelFeatures, kernelRelease } from '../../src/os/node.ts'
import { checkExitNotices } from '../../src/os/pidfd.ts'
import { adoptOrphans } from '../../src/os/processes.ts'
import { createRuntime, type RuntimeOptions } from '../../src/runtime/runc.ts'
import type {
  ContainerPaths,
  CreateRequest,
  ExecRequest,
  ExecResult,
  Runtime,
} from '../../src/runtime/runtime.ts'
import type { TestClient } from './channels.ts'
import { runtimeFilesOf } from './elf.ts'
import { type SpecChanges, specInput } from './spec-input.ts'

const BUSYBOX = '/usr/bin/busybox'
const APPLETS =
  'sh dd tr stty tty sha256sum nc touch sleep echo true false cat setsid yes head id ps kill env pwd ls tail wc'.split(
    ' ',
  )

export type TestContainer = {
  readonly id: string
  readonly paths: ContainerPaths
  readonly logPath: string
  readonly spec: OciSpec
  readonly cgroup: string
}

type Io = Pick<CreateRequest, 'terminal' | 'stdin' | 'stdinOnce'>

/** A runtime with real runc and conmon in directories and cgroups of its own; all gone after the file's tests. */
export class RuntimeHost {
  readonly root = `/run/berth-rt-${newId().slice(0, 6)}`
  readonly cgroups: Cgroups = openCgroups()
  readonly rootfs = join(this.root, 'rootfs')
  readonly #containers: TestContainer[] = []
  runtime!: Runtime

  options(changes: Partial<RuntimeOptions> = {}): RuntimeOptions {
    return {
      handler: 'runc',
      runtimePath: '/usr/sbin/runc',
      runtimeRoot: join(this.root, 'r'),
      conmonPath: '/usr/bin/conmon',
      exitsDir: join(this.root, 'e'),
      socketsDir: join(this.root, 's'),
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', TMPDIR: join(this.root, 'tmp') },
      systemdCgroup: false,
      noSyncLog: false,
      cgroups: this.cgroups,
      log: { info: () => undefined, warn: () => undefined },
      ...changes,
    }
  }

  async open(): Promise<void> {
    await checkExitNotices()
    adoptOrphans()
    for (const name of ['r', 'e', 's', 'tmp', 'logs'])
      mkdirSync(join(this.root, name), { recursive: true, mode: 0o700 })
    for (const file of [BUSYBOX, ...runtimeFilesOf(BUSYBOX)]) {
      const target = join(this.rootfs, file === BUSYBOX ? '/bin/busybox' : file)
      mkdirSync(dirname(target), { recursive: true })
      copyFileSync(file, target)
    }
    for (const applet of APPLETS) symlinkSync('busybox', join(this.rootfs, 'bin', applet))
    for (const name of ['proc', 'sys', 'dev', 'etc', 'tmp'])
      mkdirSync(join(this.rootfs, name), { recursive: true })
    this.runtime = await createRuntime(this.options())
  }

  async close(): Promise<void> {
    for (const { id, paths } of this.#containers) {
      await this.runtime.remove(id, paths)
      await this.cgroups.remove(this.#monitorCgroup(id))
    }
    await this.cgroups.remove(this.#parent)
    rmSync(this.root, { recursive: true, force: true })
  }

  get #parent(): string {
    return this.root.replace('/run', '')
  }

  #monitorCgroup(id: string): string {
    return `${this.#parent}/conmon-${id}`
  }

  /** A container to be created: `script` runs in a shell, on the node's network. */
  container(script: string, changes: SpecChanges = {}): TestContainer {
    const id = newId()
    const cgroup = `${this.#parent}/c-${id}`
    const spec = buildSpec(
      specInput({
        ...changes,
        namespaces: { network: 'node', ipc: 'node', ...changes.namespaces },
        config: { command: ['sh', '-c', script], ...changes.config },
        host: {
          ...kernelFeatures(),
          capabilities: boundingCapabilities(),
          hardLimit,
          kernel: kernelRelease(),
          cgroupVersion: this.cgroups.version,
          swapAccounting: false,
          hugepageSizes: [],
          ...changes.host,
        },
        defaults: { apparmorProfile: '', ...changes.defaults },
        input: {
          rootfs: this.rootfs,
          cgroupsPath: cgroup,
          podPaths: {
            shmPath: '/dev/shm',
            resolvConfPath: '/etc/resolv.conf',
            hostnamePath: '/etc/hostname',
          },
          ...changes.input,
        },
      }),
    )
    const paths = { bundle: join(this.root, 'b', id), persist: join(this.root, 'p', id) }
    const container = { id, paths, logPath: join(this.root, 'logs', `${id}.log`), spec, cgroup }
    this.#containers.push(container)
    return container
  }

  request(container: TestContainer, changes: Partial<CreateRequest> = {}): CreateRequest {
    const { id, paths, spec, logPath } = container
    const monitorCgroup = this.#monitorCgroup(id)
    void this.cgroups.create(monitorCgroup) // plain files, written when this returns
    return { id, name: 'test', paths, spec, logPath, ...this.io(), monitorCgroup, ...changes }
  }

  /** Created and started. */
  async run(script: string, changes: SpecChanges = {}): Promise<TestContainer> {
    const container = this.container(script, changes)
    await this.runtime.create(this.request(container))
    await this.runtime.start(container.id, container.paths)
    return container
  }

  io(changes: Partial<Io> = {}): Io {
    return { terminal: false, stdin: false, stdinOnce: false, ...changes }
  }

  /** Created, not started, with such streams. */
  async create(script: string, changes: Partial<Io>): Promise<TestContainer & { readonly io: Io }> {
    const io = this.io(changes)
    const container = this.container(script, { config: { tty: io.terminal } })
    await this.runtime.create(this.request(container, io))
    return { ...container, io }
  }

  attach({ id, paths, io }: TestContainer & { readonly io: Io }, client: TestClient): Promise<void> {
    return this.runtime.attach({ containerId: id, paths, ...io }, client, client.signal)
  }

  exec(container: TestContainer, args: string[], changes: Partial<ExecRequest> = {}): Promise<ExecResult> {
    const process: OciProcess = { ...container.spec.process, args, terminal: false }
    const directory = join(this.root, 'x', newId())
    const limits = { timeoutMs: 20_000, maxOutput: 1 << 20 }
    const { id: containerId, cgroup } = container
    return this.runtime.exec({ containerId, cgroup, process, directory, ...limits, ...changes })
  }

  /** A command for a connected client; with a terminal if that wants one. */
  execStream(container: TestContainer, args: string[], client: TestClient, killAfterMs = 0): Promise<number> {
    const { id: containerId, cgroup, spec } = container
    const process: OciProcess = { ...spec.process, args, terminal: client.tty }
    const directory = join(this.root, 'x', newId().slice(0, 16))
    const request = { containerId, cgroup, process, directory, killAfterMs }
    return this.runtime.execStream(request, client, client.signal)
  }

  log(container: TestContainer): string {
    return existsSync(container.logPath) ? readFileSync(container.logPath, 'utf8') : ''
  }
}

/** The host for the tests of one file. */
export function useRuntimeHost(): RuntimeHost {
  const host = new RuntimeHost()
  before(() => host.open())
  after(() => host.close())
  return host
}

/** What must come true soon; a test that waits for what never comes fails with its name. */
export async function eventually<T>(what: string, look: () => T | undefined | false): Promise<T> {
  for (let waited = 0; waited < 15_000; waited += 20) {
    const found = look()
    if (found !== undefined && found !== false) return found
    await sleep(20)
  }
  throw new Error(`it never came to pass that ${what}`)
}

/** Host pids of processes with this exact command line. */
export function processesWith(commandLine: string): number[] {
  return readdirSync('/proc')
    .filter(name => /^[0-9]+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() === commandLine
      } catch {
        return false
      }
    })
}

let sleeps = 0

/** A command that no other process on this machine runs. */
export function uniqueSleep(): string {
  return `sleep ${process.pid}${++sleeps}`
}
