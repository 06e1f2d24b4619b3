import type { Readable } from 'node:stream'
import { BerthError, internal } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import { forkWorker, type WorkerProcess } from '../os/workers.ts'
import type { UnpackedLayer } from './snapshots.ts'
import { type UnpackJob, type UnpackReply, writeFrames } from './unpack-protocol.ts'

// A pull unpacks its layers back to back; after it, 50 MB per worker go back to the node.
const IDLE_MS = 10_000
// Loading takes 0.1 s; a node that is overloaded, or whose disk is, was seen to take half a minute.
const START_MS = 120_000
const SEMI_SPACE_MIB = 16
// The names of a layer with a million directories.
const OLD_SPACE_MIB = 512

/**
 * Objects of a layer belong to anybody, have any mode and may be devices; the layer's directory becomes the root.
 * `sys_admin`: the kernel asks it of who sets overlayfs' own attributes (`trusted.`).
 */
const UNPACKING = [
  'chown',
  'dac_override',
  'fowner',
  'fsetid',
  'mknod',
  'setfcap',
  'sys_admin',
  'sys_chroot',
] as const
/** What it takes to start the program for gzip with less, as nobody without capabilities, and to end it. */
const LETTING_GO = ['kill', 'setgid', 'setpcap', 'setuid'] as const

/** A few processes that unpack layers, started on demand. */
export class UnpackPool {
  readonly #size: number
  readonly #gzipProgram: string
  readonly #warn: (message: string) => void
  readonly #slots: Semaphore
  /** With the timers that end them. */
  readonly #idle = new Map<UnpackWorker, NodeJS.Timeout>()
  readonly #all = new Set<UnpackWorker>()
  #isClosed = false

  /**
   * @param size at most one per processor is of use
   * @param gzipProgram decompresses gzip; '': the workers do it themselves
   */
  constructor(size: number, gzipProgram: string, warn: (message: string) => void) {
    this.#size = size
    this.#gzipProgram = gzipProgram
    this.#warn = warn
    this.#slots = new Semaphore('unpack workers', size)
  }

  /** Starts what is missing, so that the first layers do not wait for it. */
  prepare(): void {
    while (!this.#isClosed && this.#all.size < this.#size) this.#rest(this.#start())
  }

  /** When this returns or throws, nothing is written to the job's directory any more. */
  async run(job: UnpackJob, source: Readable, signal: AbortSignal): Promise<UnpackedLayer> {
    try {
      return await this.#slots.run(() => this.#run(job, source, signal), signal)
    } finally {
      source.destroy()
    }
  }

  async #run(job: UnpackJob, source: Readable, signal: AbortSignal): Promise<UnpackedLayer> {
    if (this.#isClosed) throw new BerthError('cancelled', 'the unpack workers are closed')
    const worker = this.#wake() ?? this.#start()
    try {
      const { layer, warning } = await worker.unpack(job, source, signal)
      if (warning !== undefined) this.#warn(warning)
      this.#rest(worker)
      return layer
    } catch (error) {
      // Whatever state it is in: the next layer gets a fresh one.
      await worker.end()
      throw error
    }
  }

  /** Kills the workers. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#all].map(worker => worker.end()))
  }

  #start(): UnpackWorker {
    const worker = new UnpackWorker(this.#gzipProgram)
    this.#all.add(worker)
    void worker.ended.then(() => {
      this.#all.delete(worker)
      this.#forget(worker)
    })
    return worker
  }

  #rest(worker: UnpackWorker): void {
    if (worker.hasEnded) return
    const end = () => {
      this.#forget(worker) // at once: its end takes a moment, in which it must get no job
      void worker.end()
    }
    this.#idle.set(worker, setTimeout(end, IDLE_MS).unref())
  }

  #wake(): UnpackWorker | undefined {
    const worker = this.#idle.keys().next().value
    if (worker !== undefined) this.#forget(worker)
    return worker
  }

  #forget(worker: UnpackWorker): void {
    clearTimeout(this.#idle.get(worker))
    this.#idle.delete(worker)
  }
}

type Done = Extract<UnpackReply, { kind: 'done' }>

class UnpackWorker {
  readonly #process: WorkerProcess
  readonly #ready = Promise.withResolvers<void>()
  #reply: PromiseWithResolvers<Done> | undefined
  readonly ended: Promise<void>
  hasEnded = false

  constructor(gzipProgram: string) {
    let isLate = false
    this.#process = forkWorker('unpack-worker', {
      from: import.meta.url,
      args: gzipProgram === '' ? [] : [gzipProgram],
      maxSemiSpace: SEMI_SPACE_MIB,
      maxOldSpace: OLD_SPACE_MIB,
      capabilities: gzipProgram === '' ? UNPACKING : [...UNPACKING, ...LETTING_GO],
      onMessage: message => this.#receive(message as UnpackReply),
    })
    this.ended = this.#process.exited.then(
      ({ code, stderr }) =>
        this.#onEnd(
          isLate
            ? internal(`the unpack worker had not begun after ${START_MS / 1000} s: the node is overloaded`)
            : internal(`the unpack worker ended with code ${code}: ${stderr.trim()}`),
        ),
      error => this.#onEnd(internal('the unpack worker did not start', error)),
    )
    this.#ready.promise.catch(() => undefined) // it may end before anybody waits for it
    const late = setTimeout(() => {
      isLate = true
      void this.end()
    }, START_MS)
    void Promise.race([this.#ready.promise.catch(() => undefined), this.ended]).then(() => clearTimeout(late))
  }

  async unpack(job: UnpackJob, source: Readable, signal: AbortSignal): Promise<Done> {
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    try {
      return await Promise.race([aborted.promise, this.#unpack(job, source)])
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  async #unpack(job: UnpackJob, source: Readable): Promise<Done> {
    await this.#ready.promise
    const reply = Promise.withResolvers<Done>()
    this.#reply = reply
    const sent = this.#process.send(job).then(() => writeFrames(source, this.#process.bulk))
    const [done] = await Promise.all([reply.promise, sent])
    return done
  }

  #receive(message: UnpackReply): void {
    if (message.kind === 'ready') this.#ready.resolve()
    else if (message.kind === 'done') this.#reply?.resolve(message)
    else this.#reply?.reject(new BerthError(message.code, message.message))
  }

  #onEnd(error: BerthError): void {
    this.hasEnded = true
    this.#ready.reject(error)
    this.#reply?.reject(error)
  }

  async end(): Promise<void> {
    this.#process.kill()
    await this.ended
  }
}
