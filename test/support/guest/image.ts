import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { output } from '../command.ts'

const checkout = join(import.meta.dirname, '../../..')

/** What `scripts/guest-image.sh` made. */
export class GuestImage {
  readonly directory: string

  /** @throws Error that says how to make it */
  static find(): GuestImage {
    const script = join(checkout, 'scripts/guest-image.sh')
    const key = createHash('sha256').update(readFileSync(script)).digest('hex').slice(0, 12)
    const directory = join(checkout, '.cache/guest', key)
    if (!existsSync(join(directory, 'done'))) {
      throw new Error('the guest image is not there: run "bash scripts/setup.sh guest"')
    }
    return new GuestImage(directory)
  }

  private constructor(directory: string) {
    this.directory = directory
  }

  get disk(): string {
    return join(this.directory, 'base.img')
  }

  get kernel(): string {
    return join(this.directory, 'vmlinuz')
  }

  get initrd(): string {
    return join(this.directory, 'initrd.gz')
  }

  /** The ssh key of the guest's root. */
  get key(): string {
    return join(this.directory, 'key')
  }

  get modules(): string {
    return join(this.#qemu, 'usr/lib/x86_64-linux-gnu/qemu')
  }

  get firmware(): string[] {
    return ['qemu', 'seabios'].flatMap(name => ['-L', join(this.#qemu, 'usr/share', name)])
  }

  /** The words that run one of QEMU's programs: by the loader of its own release, so nothing is installed. */
  program(name: string): string[] {
    return [
      join(this.#qemu, 'usr/lib64/ld-linux-x86-64.so.2'),
      '--library-path',
      join(this.#qemu, 'usr/lib/x86_64-linux-gnu'),
      join(this.#qemu, 'usr/bin', name),
    ]
  }

  /** A disk whose unchanged blocks are those of `backing`. */
  async layer(file: string, backing: string, format: 'raw' | 'qcow2'): Promise<void> {
    const [program, ...args] = this.program('qemu-img')
    await output(program!, ...args, 'create', '-q', '-f', 'qcow2', '-F', format, '-b', backing, file)
  }

  get #qemu(): string {
    return join(this.directory, 'qemu')
  }
}

/**
 * The packed program as an ext4 image, which the guest mounts at /opt/berth.
 * @returns its path, which names its content; BERTH_GUEST_PROGRAM if somebody has made it for several processes
 */
export async function programImage(): Promise<string> {
  const made = process.env.BERTH_GUEST_PROGRAM
  if (made !== undefined && made !== '') return made
  const tree = (await output('bash', join(checkout, 'scripts/package.sh'), '--tree')).trim()
  const files = await output(
    'find',
    tree,
    '-type',
    'f',
    '!',
    '-path',
    '*/dist/.cache/*',
    '-printf',
    '%P %s %T@\n',
  )
  const key = createHash('sha256').update(files.split('\n').sort().join('\n')).digest('hex').slice(0, 12)
  const directory = join(checkout, '.cache/guest-program')
  const file = join(directory, `${key}.img`)
  if (existsSync(file)) return file
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory)
  await output('truncate', '-s', '400M', `${file}.new`)
  await output('mkfs.ext4', '-q', '-F', '-d', tree, `${file}.new`)
  renameSync(`${file}.new`, file)
  return file
}
