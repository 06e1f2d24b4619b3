import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { sleep } from '../src/base/clock.ts'
import { BerthClient } from '../src/cri/client.ts'
import { within } from '../src/os/spawn.ts'
import { ROOT } from './places.ts'

export type DaemonOptions = {
  readonly file: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly socket: string
  /** What it prints; kept until the bench ends. */
  readonly log: string
}

const START_MS = 60_000
const END_MS = 30_000
const LOOK_EVERY_MS = 2

/** The longest single call: the pull of 5 GB on a machine that is busy with something else. */
const CALL_MS = 900_000

/** A daemon that serves the CRI on a socket. */
export class Daemon {
  readonly #options: DaemonOptions
  #process: ChildProcess | undefined
  #client: BerthClient | undefined

  constructor(options: DaemonOptions) {
    this.#options = options
  }

  get pid(): number {
    return this.#process?.pid ?? 0
  }

  get client(): BerthClient {
    if (this.#client === undefined) throw new Error(`${this.#options.file} does not run`)
    return this.#client
  }

  /** Returns once `ready` says so: the daemon serves by then. */
  async start(ready: (client: BerthClient) => Promise<boolean>): Promise<void> {
    const { file, args, env, log } = this.#options
    mkdirSync(dirname(log), { recursive: true })
    const output = openSync(log, 'a')
    this.#process = spawn(file, args, { env, stdio: ['ignore', output, output] })
    closeSync(output)
    this.#process.once('error', () => undefined) // then it has no pid, which #whenReady says
    const end = performance.now() + START_MS
    this.#client = await this.#whenReady(ready, end)
  }

  async #whenReady(ready: (client: BerthClient) => Promise<boolean>, end: number): Promise<BerthClient> {
    let last: unknown
    while (performance.now() < end) {
      if (this.#process?.pid === undefined || this.#process.exitCode !== null) break
      try {
        const client = await BerthClient.connect(this.#options.socket, join(ROOT, 'proto'), {
          timeoutMs: CALL_MS,
        })
        if (await ready(client)) return client
        client[Symbol.dispose]()
      } catch (error) {
        last = error
      }
      await sleep(LOOK_EVERY_MS)
    }
    const said = readFileSync(this.#options.log, 'utf8').slice(-4000)
    throw new Error(`${this.#options.file} does not serve (${String(last)}):\n${said}`)
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    this.#client?.[Symbol.dispose]()
    this.#client = undefined
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await within(END_MS, exited)
    if (child.exitCode === null && child.signalCode === null) {
      throw new Error(`${this.#options.file} does not end on ${signal}`)
    }
  }
}
