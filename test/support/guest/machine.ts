import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../../src/base/clock.ts'
import type { GuestImage } from './image.ts'
import { Qmp } from './qmp.ts'

const MEMORY_MIB = 1536
const PROCESSORS = 2

/** Emulated in software: its monitor is there within a second on an idle machine. */
const MONITOR_MS = 30_000

export type MachineOptions = {
  readonly image: GuestImage
  /** For its sockets and its console. */
  readonly directory: string
  /** qcow2 */
  readonly disk: string
  /** Raw and read-only: what is mounted at /opt/berth. */
  readonly program: string
  /** A free port of 127.0.0.1 that leads to the guest's sshd. */
  readonly port: number
  /**
   * `boot`: from the kernel on. `freeze`: the same, with the memory in a file, to be kept. `clone`: goes on from a
   * frozen one; its memory is mapped copy-on-write, so that any number of them may run and none has to load it.
   */
  readonly start:
    | { readonly kind: 'boot' }
    | { readonly kind: 'freeze' | 'clone'; readonly memory: string; readonly state: string }
}

/** One QEMU. */
export class Machine {
  readonly qmp: Qmp
  readonly #process: ChildProcess
  readonly #console: string

  static async launch(options: MachineOptions): Promise<Machine> {
    const { image, directory, start } = options
    const qmpPath = join(directory, 'qmp')
    const [file, ...args] = image.program('qemu-system-x86_64')
    const child = spawn(file!, [...args, ...machineArguments(options)], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { QEMU_MODULE_DIR: image.modules },
    })
    let words = ''
    child.stderr?.on('data', (text: Buffer) => {
      words = (words + text).slice(-4096)
    })
    const end = performance.now() + MONITOR_MS
    for (;;) {
      if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}: ${words}`)
      const qmp = existsSync(qmpPath) ? await Qmp.connect(qmpPath).catch(() => undefined) : undefined
      if (qmp !== undefined) {
        const machine = new Machine(child, qmp, join(directory, 'console'))
        if (start.kind === 'clone') await machine.#resume(start.state)
        return machine
      }
      if (performance.now() > end) {
        child.kill('SIGKILL')
        throw new Error(`QEMU does not start: ${words}`)
      }
      await sleep(20)
    }
  }

  private constructor(child: ChildProcess, qmp: Qmp, console: string) {
    this.#process = child
    this.qmp = qmp
    this.#console = console
  }

  get alive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** What it wrote to its serial console. */
  get console(): string {
    return existsSync(this.#console) ? readFileSync(this.#console, 'latin1') : ''
  }

  /** Writes the state of everything but memory to `file`, and goes on. */
  async freeze(file: string): Promise<void> {
    await this.#shareMemory()
    await this.qmp.execute('migrate', { uri: `file:${file}` })
    for (;;) {
      const { status } = (await this.qmp.execute('query-migrate')) as { status?: string }
      if (status === 'completed') return
      if (status === 'failed' || status === 'cancelled')
        throw new Error(`the machine's state was not saved: ${status}`)
      await sleep(50)
    }
  }

  async #resume(file: string): Promise<void> {
    await this.#shareMemory()
    const resumed = this.qmp.next('RESUME')
    await this.qmp.execute('migrate-incoming', { uri: `file:${file}` })
    await resumed
  }

  /** The memory is a file of its own and stays out of the state. */
  async #shareMemory(): Promise<void> {
    await this.qmp.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'x-ignore-shared', state: true },
        { capability: 'events', state: true },
      ],
    })
  }

  /** Power loss: what the guest had not written is gone. Returns when the process has ended. */
  async cut(): Promise<void> {
    this.qmp.close()
    if (!this.alive) return
    const ended = new Promise(resolve => this.#process.once('exit', resolve))
    this.#process.kill('SIGKILL')
    await ended
  }
}

function machineArguments(options: MachineOptions): string[] {
  const { image, directory, disk, program, port, start } = options
  const memory =
    start.kind === 'boot'
      ? `memory-backend-ram,id=ram,size=${MEMORY_MIB}M`
      : `memory-backend-file,id=ram,size=${MEMORY_MIB}M,mem-path=${start.memory},share=${start.kind === 'freeze' ? 'on' : 'off'}`
  return [
    ['-nodefaults', '-no-user-config', '-display', 'none', ...image.firmware],
    ['-machine', 'pc,hpet=off,memory-backend=ram', '-object', memory, '-m', `${MEMORY_MIB}`],
    ['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max', '-smp', `${PROCESSORS}`],
    ['-kernel', image.kernel, '-initrd', image.initrd, '-append', KERNEL_LINE],
    ['-serial', `file:${join(directory, 'console')}`],
    ['-qmp', `unix:${join(directory, 'qmp')},server=on,wait=off`],
    ['-drive', `file=${disk},if=virtio,format=qcow2,cache=writeback,discard=unmap`],
    ['-drive', `file=${program},if=virtio,format=raw,read-only=on`],
    ['-device', 'virtio-rng-pci'],
    ['-netdev', `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:22`],
    ['-device', 'virtio-net-pci,netdev=net,romfile='],
    start.kind === 'clone' ? ['-incoming', 'defer'] : [],
  ].flat()
}

const KERNEL_LINE = [
  'console=ttyS0 quiet net.ifnames=0 mitigations=off psi=1 security=apparmor apparmor=1',
  'systemd.show_status=0 random.trust_cpu=on tsc=reliable panic=1',
].join(' ')
