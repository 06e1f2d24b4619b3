import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { unmountAll } from '../src/os/mounts.ts'
import { PATH } from './handlers.ts'
import type { Puller } from './peer.ts'
import { placesOf } from './places.ts'

export function skopeoVersion(): string | undefined {
  try {
    return execFileSync('skopeo', ['--version'], { encoding: 'utf8' }).trim().split(' ').at(-1)
  } catch {
    return undefined
  }
}

/** skopeo, copying into containers-storage: what CRI-O and podman do for a pull, in a process of its own. */
export class Skopeo implements Puller {
  readonly name = 'skopeo'
  readonly storage: string = placesOf('skopeo').data
  #cpuMs = 0

  constructor() {
    mkdirSync(this.storage, { recursive: true })
  }

  async pull(image: string): Promise<void> {
    const arguments_ = ['--insecure-policy', 'copy', '--quiet', '--src-tls-verify=false']
    const command = ['skopeo', ...arguments_, `docker://${image}`, this.#stored(image)]
    // bash tells the processor time of a command and all its children.
    const child = spawn('bash', ['-c', 'TIMEFORMAT="cpu %U %S"; time "$@"', 'time', ...command], {
      env: { PATH },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    const code = await new Promise(resolve => child.on('close', resolve))
    if (code !== 0) throw new Error(`skopeo: ${said}`)
    const [, user, system] = /cpu ([\d.]+) ([\d.]+)/.exec(said) ?? []
    this.#cpuMs += (Number(user) + Number(system)) * 1000
  }

  /** All that was pulled: it knows no other images. */
  async removeImage(): Promise<void> {
    const root = join(this.storage, 'root')
    // It binds its own directory to itself, to mount below it in private.
    unmountAll(join(root, 'overlay'))
    rmSync(root, { recursive: true, force: true })
  }

  cpuMs(): number {
    return this.#cpuMs
  }

  #stored(image: string): string {
    const place = `overlay@${join(this.storage, 'root')}+${placesOf('skopeo').run}`
    return `containers-storage:[${place}]${image}`
  }
}
