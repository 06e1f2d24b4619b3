import { createHash, randomUUID } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../../../src/base/clock.ts'
import type { CommandResult } from '../command.ts'
import { output } from '../command.ts'
import { GuestImage, programImage } from './image.ts'
import { Machine, type MachineOptions } from './machine.ts'
import { Shell } from './shell.ts'

/** A boot takes 15 s on an idle host. */
const BOOT_MS = 180_000

const READY = 'GUEST-READY'

type Start = MachineOptions['start']

/**
 * A Debian machine in QEMU, with what a test host may lack: systemd as its first process, the unified cgroup
 * hierarchy, AppArmor, reboots and power cuts. It reaches nothing but what is forwarded. Berth, packed, is at
 * /opt/berth and installed as a unit that is not started.
 */
export class Guest {
  readonly directory: string
  readonly #image: GuestImage
  readonly #program: string
  #machine: Machine | undefined
  #shell: Shell | undefined
  #port = 0
  #attached = 0

  /** Goes on from a machine that was booted and frozen once for this image, so it is there in seconds. */
  static async start(): Promise<Guest> {
    const image = GuestImage.find()
    const frozen = await frozenGuest(image)
    const guest = new Guest(image, await programImage())
    try {
      await image.layer(guest.#disk, join(frozen, 'disk.qcow2'), 'qcow2')
      await guest.#launch({ kind: 'clone', memory: join(frozen, 'memory'), state: join(frozen, 'state') })
      await guest.#connect()
      // What clones must not share, and what is other than when it was frozen.
      await guest.output(
        `echo ${randomUUID().replaceAll('-', '')} >/etc/machine-id; systemctl restart systemd-journald; mount /opt/berth`,
      )
      await guest.#install()
      return guest
    } catch (error) {
      await guest[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Makes the frozen machine, so that several processes find it. */
  static async prepare(): Promise<void> {
    await frozenGuest(GuestImage.find())
  }

  /** Boots one, and keeps its memory, its state and its disk in `directory`. */
  static async freeze(image: GuestImage, directory: string): Promise<void> {
    await using guest = new Guest(image, await programImage())
    await image.layer(guest.#disk, image.disk, 'raw')
    const [memory, state] = [join(directory, 'memory'), join(directory, 'state')]
    await guest.#launch({ kind: 'freeze', memory, state })
    await guest.#booted()
    // The disk of a clone has other content at /opt/berth, and nothing of this one's may be in the cache.
    await guest.output(
      'systemctl is-system-running --wait; umount /opt/berth; sync; echo 3 >/proc/sys/vm/drop_caches',
    )
    await guest.#shell?.close()
    await guest.#machine?.freeze(state)
    await guest.#machine?.qmp.execute('quit').catch(() => undefined)
    await guest.#machine?.cut()
    copyFileSync(guest.#disk, join(directory, 'disk.qcow2'))
  }

  /** Boots one, which takes ten times as long: it has a boot id of its own. */
  static async boot(): Promise<Guest> {
    const image = GuestImage.find()
    const guest = new Guest(image, await programImage())
    try {
      await image.layer(guest.#disk, image.disk, 'raw')
      await guest.#launch({ kind: 'boot' })
      await guest.#booted()
      await guest.#install()
      return guest
    } catch (error) {
      await guest[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(image: GuestImage, program: string) {
    this.#image = image
    this.#program = program
    this.directory = mkdtempSync(join(tmpdir(), 'berth-guest-'))
  }

  get #disk(): string {
    return join(this.directory, 'disk.qcow2')
  }

  get #connected(): Shell {
    if (this.#shell === undefined) throw new Error('the guest is not running')
    return this.#shell
  }

  /** A line of shell, as root. */
  run(line: string, stdin?: string | Buffer, limitMs?: number): Promise<CommandResult> {
    return this.#connected.run(line, stdin, limitMs)
  }

  /** @throws Error with what it wrote, unless it ends with 0 */
  async output(line: string, stdin?: string | Buffer): Promise<string> {
    const { code, stdout, stderr } = await this.run(line, stdin)
    if (code !== 0) throw new Error(`in the guest, ${line} ended with ${code}: ${stderr}${stdout}`)
    return stdout
  }

  async write(path: string, content: string | Buffer): Promise<void> {
    await this.output(`mkdir -p "$(dirname ${path})" && cat >${path}`, content)
  }

  async writeProgram(path: string, content: string | Buffer): Promise<void> {
    await this.write(path, content)
    await this.output(`chmod 755 ${path}`)
  }

  /** @returns a socket on the host that leads to one inside; gone with the next reboot */
  async forwardSocket(path: string): Promise<string> {
    const here = join(this.directory, `to${path.replaceAll('/', '-')}`)
    await this.#connected.forward('-L', `${here}:${path}`)
    return here
  }

  /** What listens at 127.0.0.1:`port` on the host is there in the guest, too; gone with the next reboot. */
  async admit(port: number): Promise<void> {
    await this.#connected.forward('-R', `127.0.0.1:${port}:127.0.0.1:${port}`)
  }

  /**
   * Plugs in a further disk and mounts it at `path`; gone with the next reboot. `source` is a raw image, or the socket of
   * a server.
   */
  async attachDisk(
    source: { readonly file: string } | { readonly socket: string },
    path: string,
  ): Promise<void> {
    const node = `disk${++this.#attached}`
    const driver =
      'file' in source
        ? { driver: 'raw', file: { driver: 'file', filename: source.file } }
        : { driver: 'nbd', server: { type: 'unix', path: source.socket } }
    await this.#machine?.qmp.execute('blockdev-add', { 'node-name': node, ...driver })
    await this.#machine?.qmp.execute('device_add', {
      driver: 'virtio-blk-pci',
      drive: node,
      id: node,
      serial: node,
    })
    const device = `/dev/disk/by-id/virtio-${node}`
    await this.output(
      `for i in $(seq 600); do [ -b ${device} ] && break; sleep 0.1; done; mkdir -p ${path}; mount ${device} ${path}`,
    )
  }

  /** In good order. Returns when it is up again. */
  async reboot(): Promise<void> {
    const boots = this.#boots()
    await this.run('systemctl reboot')
    await this.#shell?.close()
    await this.#booted(boots + 1)
  }

  /** The cable is pulled: what was not on the disk is lost. Returns when it is up again. */
  async powerCycle(): Promise<void> {
    await this.#stop()
    rmSync(join(this.directory, 'console'), { force: true })
    await this.#launch({ kind: 'boot' })
    await this.#booted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop()
    rmSync(this.directory, { recursive: true, force: true })
  }

  async #stop(): Promise<void> {
    await this.#shell?.close()
    await this.#machine?.cut()
    this.#shell = undefined
    this.#machine = undefined
  }

  async #launch(start: Start): Promise<void> {
    this.#port = await freePort()
    rmSync(join(this.directory, 'qmp'), { force: true })
    this.#machine = await Machine.launch({
      image: this.#image,
      directory: this.directory,
      disk: this.#disk,
      program: this.#program,
      port: this.#port,
      start,
    })
  }

  #boots(): number {
    return (this.#machine?.console ?? '').split(READY).length - 1
  }

  async #booted(times = 1): Promise<void> {
    const end = performance.now() + BOOT_MS
    while (this.#boots() < times) {
      const said = (this.#machine?.console ?? '').slice(-2000)
      if (this.#machine?.alive !== true) throw new Error(`the guest died: ${said}`)
      if (performance.now() > end) throw new Error(`the guest does not boot: ${said}`)
      await sleep(100)
    }
    await this.#connect()
  }

  async #connect(): Promise<void> {
    this.#shell = await Shell.connect(this.directory, this.#port, this.#image.key)
    // An emulated machine's clock is off by up to a second, a frozen one's by its age.
    await this.output(`date -s @${(Date.now() / 1000).toFixed(3)}`)
  }

  /** As the README has it, from the packed program. */
  async #install(): Promise<void> {
    await this.output(
      [
        'ln -sf /opt/berth/bin/berth /usr/bin/berth',
        'install -D -m 644 /opt/berth/systemd/berth.service /etc/systemd/system/berth.service',
        'install -D -m 644 /opt/berth/conf/berth.conf /etc/berth/berth.conf',
        'systemctl daemon-reload',
      ].join(' && '),
    )
  }
}

/** The folder of a machine that was frozen after its boot; made on first use. */
async function frozenGuest(image: GuestImage): Promise<string> {
  const [program, ...args] = image.program('qemu-system-x86_64')
  const version = await output(program!, ...args, '--version')
  const key = createHash('sha256')
    .update(version)
    .update(readFileSync(join(import.meta.dirname, 'machine.ts')))
    .digest('hex')
    .slice(0, 8)
  const directory = join(image.directory, `frozen-${key}`)
  if (existsSync(directory)) return directory
  const making = `${directory}.new`
  rmSync(making, { recursive: true, force: true })
  mkdirSync(making)
  await Guest.freeze(image, making)
  renameSync(making, directory)
  return directory
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}
