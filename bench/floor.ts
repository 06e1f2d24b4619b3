import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { ProcessRef } from '../src/model/pod.ts'
import { mountOverlay, unmount } from '../src/os/mounts.ts'
import { NamespacePins } from '../src/os/namespaces.ts'
import { processRef, signalProcess, watchExit } from '../src/os/processes.ts'
import { run, start, within } from '../src/os/spawn.ts'
import { pullByHand } from './floor-pull.ts'
import { PATH } from './handlers.ts'
import { PLUGIN_DIR, pluginInput } from './network.ts'
import { type Handler, type Peer, type Steps, StepTimer } from './peer.ts'
import { type Places, placesOf } from './places.ts'
import { findProcesses } from './processes.ts'

const ENV = { PATH }

/** Far beyond what any step takes; a step that hangs ends the bench. */
const STEP_MS = 60_000

const SIGKILL = 9

type FloorPod = {
  readonly id: string
  readonly runtime: readonly [program: string, root: string]
  readonly init: ProcessRef
  readonly monitor: ProcessRef
}

/**
 * The least that a pod with one container costs on this machine: namespaces, the CNI plugin, an overlay, conmon with
 * `runc create`, `runc start`, each in the cheapest way known, and nothing of what a daemon owes its clients: no
 * records, no checks, no recovery.
 */
export class Floor implements Peer {
  readonly name = 'floor'
  readonly #places: Places
  readonly #handlers: ReadonlyMap<Handler, string>
  readonly #pins: NamespacePins
  readonly #spec: Spec
  readonly #pods = new Map<number, FloorPod>()

  static async open(handlers: ReadonlyMap<Handler, string>, image: string): Promise<Floor> {
    const places = placesOf('floor')
    for (const name of ['ns', 'b', 'e', 's', 'runc', 'crun'])
      mkdirSync(join(places.run, name), { recursive: true })
    for (const name of ['logs', 'containers']) mkdirSync(join(places.data, name), { recursive: true })
    await pullByHand(image, places.data)
    return new Floor(places, handlers, await NamespacePins.open())
  }

  private constructor(places: Places, handlers: ReadonlyMap<Handler, string>, pins: NamespacePins) {
    this.#places = places
    this.#handlers = handlers
    this.#pins = pins
    this.#spec = plainSpec(handlers.get('runc')!, places.run)
  }

  get storage(): string {
    return this.#places.data
  }

  async up(pod: number, handler: Handler): Promise<Steps> {
    const timer = new StepTimer()
    const id = `floor-${pod}`
    const runtime = [this.#handlers.get(handler)!, join(this.#places.run, handler)] as const
    await timer.time('RunPodSandbox', () => this.#network(id))
    const processes = await timer.time('CreateContainer', () => this.#create(pod, id, runtime))
    await timer.time('StartContainer', () => mustRun(runtime[0], ['--root', runtime[1], 'start', id]))
    this.#pods.set(pod, { id, runtime, ...processes })
    return timer.steps
  }

  async #network(id: string): Promise<void> {
    const dir = join(this.#places.run, 'ns', id)
    const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '0' }
    await this.#pins.create({ dir, network: true, ipc: true, uts: true, hostname: id, sysctls })
    await this.#plugin('ADD', id, join(dir, 'net'))
  }

  async #plugin(verb: 'ADD' | 'DEL', id: string, netns: string): Promise<void> {
    const env = {
      ...ENV,
      CNI_COMMAND: verb,
      CNI_CONTAINERID: id,
      CNI_NETNS: netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: PLUGIN_DIR,
    }
    await mustRun(join(PLUGIN_DIR, 'bridge'), [], { env, stdin: pluginInput('floor') })
  }

  async #create(
    pod: number,
    id: string,
    [program, root]: FloorPod['runtime'],
  ): Promise<{ init: ProcessRef; monitor: ProcessRef }> {
    const { data, run: runDir, cgroup } = this.#places
    const container = join(data, 'containers', id)
    const [upper, work, target] = ['upper', 'work', 'merged'].map(name => join(container, name))
    mkdirSync(container)
    for (const directory of [upper, work, target]) mkdirSync(directory!)
    mountOverlay({ lowers: [join(data, 'image/0')], upper: upper!, work: work!, target: target! })
    const bundle = join(runDir, 'b', id)
    mkdirSync(bundle)
    const spec = this.#spec(target!, join(runDir, 'ns', id), join(cgroup, `pod${pod}`, id))
    writeFileSync(join(bundle, 'config.json'), spec)
    const args = ['-b', bundle, '-c', id, '-u', id, '-n', id, '-r', program]
    args.push('--runtime-arg', '--root', '--runtime-arg', root, '-l', `k8s-file:${data}/logs/${id}`)
    args.push(
      '-p',
      join(bundle, 'pid'),
      '-P',
      join(bundle, 'monitor'),
      '--socket-dir-path',
      join(runDir, 's'),
    )
    args.push('--exit-dir', join(runDir, 'e'), '--persist-dir', bundle)
    const child = start('/usr/bin/conmon', {
      args,
      env: { ...ENV, _OCI_SYNCPIPE: '3' },
      cwd: bundle,
      fds: ['null', 'null', 'null', 'pipe-read'],
    })
    await answerOf(child.streams[3] as Readable, id)
    return { init: refIn(join(bundle, 'pid')), monitor: refIn(join(bundle, 'monitor')) }
  }

  async down(pod: number): Promise<Steps> {
    const timer = new StepTimer()
    const { id, runtime, init, monitor } = this.#pods.get(pod)!
    const { data, run: runDir } = this.#places
    await timer.time('StopContainer', async () => {
      signalProcess(init, SIGKILL)
      await ended(monitor, id)
    })
    await timer.time('StopPodSandbox', async () => {
      this.#pins.remove(join(runDir, 'ns', id))
      // With the namespace gone the kernel has dropped the interfaces: the plugin only gives the address back.
      await this.#plugin('DEL', id, '')
    })
    await timer.time('RemoveContainer', async () => {
      await mustRun(runtime[0], ['--root', runtime[1], 'delete', id])
      unmount(join(data, 'containers', id, 'merged'))
      for (const path of [join(data, 'containers', id), join(runDir, 'b', id), join(runDir, 'e', id)]) {
        rmSync(path, { recursive: true })
      }
      for (const path of [join(runDir, 's', id), join(data, 'logs', id)]) rmSync(path, { force: true })
    })
    this.#pods.delete(pod)
    return timer.steps
  }

  async exec(pod: number): Promise<void> {
    const { id, runtime } = this.#pods.get(pod)!
    await mustRun(runtime[0], ['--root', runtime[1], 'exec', id, 'true'])
  }

  processes(): number[] {
    return findProcesses(line => line.includes('conmon') && line.includes(this.#places.run))
  }

  async pull(image: string): Promise<void> {
    await pullByHand(image, join(this.#places.data, 'pulled'))
  }

  async removeImage(): Promise<void> {
    rmSync(join(this.#places.data, 'pulled'), { recursive: true })
  }

  /** Its tar runs below the bench itself. */
  cpuMs(): undefined {
    return undefined
  }

  async close(): Promise<void> {
    await this.#pins.close()
  }
}

async function mustRun(
  program: string,
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; stdin?: string } = {},
): Promise<void> {
  const result = await run(program, { args, env: ENV, timeoutMs: STEP_MS, ...options })
  if (result.code !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stdout}${result.stderr}`)
}

/** conmon's word that the container is created: `{"pid": 123}`. */
async function answerOf(stream: Readable, id: string): Promise<void> {
  const line = new Promise<string>(resolve => {
    stream.once('data', (chunk: Buffer) => resolve(chunk.toString()))
    stream.once('close', () => resolve(''))
  })
  let answer = ''
  await within(
    STEP_MS,
    line.then(text => {
      answer = text
    }),
  )
  stream.destroy()
  if (!/"pid": *[1-9]/.test(answer)) throw new Error(`conmon did not create ${id}: ${answer}`)
}

function refIn(pidFile: string): ProcessRef {
  const ref = processRef(Number(readFileSync(pidFile, 'utf8')))
  if (ref === undefined) throw new Error(`the process of ${pidFile} is gone`)
  return ref
}

async function ended(ref: ProcessRef, id: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<true>()
  using _watch = watchExit(ref, () => resolve(true))
  let done = false
  await within(
    STEP_MS,
    promise.then(() => {
      done = true
    }),
  )
  if (!done) throw new Error(`the monitor of ${id} does not end`)
}

type Spec = (rootfs: string, pins: string, cgroup: string) => string

/** What `runc spec` writes, with the pod's own namespaces, a writable root and a process that sleeps. */
function plainSpec(runc: string, scratch: string): Spec {
  execFileSync(runc, ['spec', '--bundle', scratch])
  const spec = JSON.parse(readFileSync(join(scratch, 'config.json'), 'utf8'))
  delete spec.hostname
  spec.process.terminal = false
  spec.process.args = ['sleep', '1000000']
  return (rootfs, pins, cgroup) => {
    const joined = [
      ['network', 'net'],
      ['ipc', 'ipc'],
      ['uts', 'uts'],
    ].map(([type, file]) => ({ type, path: join(pins, file!) }))
    const namespaces = [{ type: 'pid' }, { type: 'mount' }, ...joined]
    const linux = { ...spec.linux, namespaces, cgroupsPath: cgroup }
    return JSON.stringify({ ...spec, root: { path: rootfs, readonly: false }, linux })
  }
}
