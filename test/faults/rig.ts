import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../../src/base/clock.ts'
import { isCode } from '../../src/base/errors.ts'
import { BerthClient } from '../../src/cri/client.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { footprint } from '../support/footprint.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, Kubelet } from '../support/kubelet.ts'
import { findTools } from '../support/tools.ts'
import { until } from '../support/wait.ts'
import { parseTrace, type Traced } from './points.ts'

const protoDir = join(import.meta.dirname, '../../proto')

/** Effects that follow an answer (what is recorded after it, what is deleted in the background) begin within this. */
const QUIET_MS = 300

/** A daemon whose plan of faults can be replaced while it runs, so that one start serves many cases. */
export class FaultRig {
  readonly daemon: BerthDaemon
  readonly kubelet: Kubelet
  /** What an idle daemon has. */
  readonly idle: ReadonlySet<string>
  /** What makes a command follow the plan, as the daemon does. */
  readonly env: Readonly<Record<string, string>>
  readonly #files: string
  #serial = 0
  #trace = ''

  static async start(): Promise<FaultRig> {
    const files = mkdtempSync(join(tmpdir(), 'berth-faults-'))
    const runc = findTools()?.runc ?? '/bin/false'
    const daemon = await BerthDaemon.start({
      label: 'faults',
      config: () => `[crio.runtime.runtimes.mapping]\nruntime_path = "${runc}"\n`,
      env: environmentOf(files),
    })
    const kubelet = new Kubelet(daemon)
    daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
    try {
      await kubelet.pull(BUSYBOX)
    } catch (error) {
      await daemon[Symbol.asyncDispose]()
      throw error
    }
    return new FaultRig(daemon, kubelet, files, await footprint(daemon))
  }

  private constructor(daemon: BerthDaemon, kubelet: Kubelet, files: string, idle: ReadonlySet<string>) {
    this.daemon = daemon
    this.kubelet = kubelet
    this.idle = idle
    this.env = environmentOf(files)
    this.#files = files
  }

  /** From the daemon's next effect on this is its plan, and counting begins with it. */
  plan(rules: string): void {
    this.#trace = join(this.#files, `trace-${++this.#serial}`)
    const file = join(this.#files, 'plan')
    writeFileSync(`${file}.new`, `${rules},trace=${this.#trace}`)
    renameSync(`${file}.new`, file)
  }

  /** Effects since `plan`. */
  traced(): Traced {
    try {
      return parseTrace(readFileSync(this.#trace, 'utf8'))
    } catch {
      return { effects: [], struck: 0 }
    }
  }

  /** No effect has come for a while, and nothing waits for being deleted. */
  async quiet(): Promise<void> {
    let before = -1
    await until('the daemon has no effects any more', async () => {
      const { length } = this.traced().effects
      if (length === before && readdirSync(join(this.daemon.root, 'trash')).length === 0) return true
      before = length
      await sleep(QUIET_MS)
      return false
    })
  }

  /** A client that waits no longer than this. */
  client(timeoutMs: number): Promise<BerthClient> {
    return BerthClient.connect(this.daemon.socket, protoDir, { timeoutMs })
  }

  /** Makes the daemon ready for another case, whatever the last one did to it. */
  async renew(): Promise<void> {
    this.plan('')
    await this.daemon.restart()
    await this.clear()
    await this.daemon.forgetLeftovers()
  }

  /** Everything that a case makes is removed, as kubelet would. */
  async clear(): Promise<void> {
    await this.kubelet.removeAll()
    const { images } = await this.daemon.client.image('ListImages', {})
    for (const { id, repo_tags } of images) {
      if (repo_tags.includes(BUSYBOX)) continue
      await this.daemon.client.image('RemoveImage', { image: { image: id } })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon[Symbol.asyncDispose]()
    rmSync(this.#files, { recursive: true, force: true })
  }
}

function environmentOf(files: string): Record<string, string> {
  return { BERTH_FAULTS: `plan=${join(files, 'plan')}` }
}

/** The call ended with the connection: the daemon died in it. */
export function isDeath(error: unknown): boolean {
  return isCode(error, 'unavailable')
}
