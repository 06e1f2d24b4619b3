import { effect } from '../base/effects.ts'
import { BerthError, internal } from '../base/errors.ts'
import { forkWorker, type WorkerProcess } from '../os/workers.ts'
import type {
  ArchiveJob,
  ArchiveReply,
  LayerFiles,
  RecreatedLayer,
  SpooledFile,
  SpoolLimits,
} from './archive-protocol.ts'
import { FrameReader, writeFrames } from './unpack-protocol.ts'
import type { Verification } from './verify-layer.ts'

// A record of two million objects, the most that a layer may have by default, as objects of V8.
const OLD_SPACE_MIB = 2048
const SEMI_SPACE_MIB = 4

/** Behind everybody else: nobody waits for a verification as a kubelet waits for a pull. */
const NICE = 15

/** Reads what anybody owns, in a layer as the root, with overlayfs' own attributes (`trusted.`); writes into a directory. */
const READING = ['dac_override', 'dac_read_search', 'sys_chroot', 'sys_admin'] as const

/** What ends a job: everything but `ready` and `progress`. */
type Outcome = Exclude<ArchiveReply, { readonly kind: 'ready' | 'progress' | 'failed' }>
type OutcomeOf<Kind extends Outcome['kind']> = Extract<Outcome, { readonly kind: Kind }>

/**
 * A process that reads layers and archives. One job at a time; the first error or abort ends it, and with it every
 * later job. Whoever has it disposes of it.
 */
export class ArchiveProcess implements AsyncDisposable {
  readonly #process: WorkerProcess
  readonly #ready = Promise.withResolvers<void>()
  readonly #frames: FrameReader
  readonly #ended: Promise<void>
  #outcome: PromiseWithResolvers<Outcome> | undefined
  #onProgress: (bytes: number) => void = () => undefined

  constructor() {
    this.#process = forkWorker('archive-worker', {
      from: import.meta.url,
      maxSemiSpace: SEMI_SPACE_MIB,
      maxOldSpace: OLD_SPACE_MIB,
      nice: NICE,
      capabilities: READING,
      onMessage: message => this.#receive(message as ArchiveReply),
    })
    this.#frames = new FrameReader(this.#process.bulk)
    this.#ended = this.#process.exited.then(
      ({ code, stderr }) =>
        this.#fail(internal(`the archive worker ended with code ${code}: ${stderr.trim()}`)),
      error => this.#fail(internal('the archive worker did not start', error)),
    )
    this.#ready.promise.catch(() => undefined) // it may end before anybody waits for it
  }

  /** @param onProgress told how many bytes were read since the last call */
  async verify(
    layer: LayerFiles,
    signal: AbortSignal,
    onProgress: (bytes: number) => void,
  ): Promise<Verification> {
    this.#onProgress = onProgress
    return (await this.#run({ kind: 'verify', layer }, 'verified', signal)).verification
  }

  /** What `recreate` would give. */
  async measure(layer: LayerFiles, signal: AbortSignal): Promise<RecreatedLayer> {
    return (await this.#run({ kind: 'measure', layer }, 'recreated', signal)).layer
  }

  /** The layer's uncompressed archive, and at its end what it turned out to be. */
  async *recreate(layer: LayerFiles, signal: AbortSignal): AsyncGenerator<Buffer, RecreatedLayer> {
    const done = this.#run({ kind: 'recreate', layer }, 'recreated', signal)
    done.catch(() => undefined)
    try {
      yield* this.#frames.run()
    } catch (error) {
      await done // says why
      throw error
    }
    return (await done).layer
  }

  /** Lays the files of an archive into `directory`, which it makes. */
  async spool(
    source: AsyncIterable<Buffer>,
    directory: string,
    limits: SpoolLimits,
    signal: AbortSignal,
  ): Promise<readonly SpooledFile[]> {
    const done = effect('storage', 'spool', directory, () =>
      this.#run({ kind: 'spool', directory, limits }, 'spooled', signal),
    )
    done.catch(() => undefined)
    // The worker may fail before the archive ends: then nobody reads any more.
    await Promise.race([done, writeFrames(source, this.#process.bulk)])
    return (await done).files
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill()
    await this.#ended
  }

  async #run<Kind extends Outcome['kind']>(
    job: ArchiveJob,
    kind: Kind,
    signal: AbortSignal,
  ): Promise<OutcomeOf<Kind>> {
    signal.throwIfAborted()
    const outcome = Promise.withResolvers<Outcome>()
    outcome.promise.catch(() => undefined)
    this.#outcome = outcome
    const abort = () => {
      this.#process.kill()
      outcome.reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
    try {
      await this.#ready.promise
      await this.#process.send(job)
      const reply = await outcome.promise
      if (reply.kind !== kind) throw internal(`the archive worker answered ${reply.kind} to ${job.kind}`)
      return reply as OutcomeOf<Kind>
    } catch (error) {
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  #receive(message: ArchiveReply): void {
    if (message.kind === 'ready') this.#ready.resolve()
    else if (message.kind === 'progress') this.#onProgress(message.bytes)
    else if (message.kind === 'failed') {
      this.#outcome?.reject(new BerthError(message.code, message.message))
      this.#process.kill()
    } else this.#outcome?.resolve(message)
  }

  #fail(error: BerthError): void {
    this.#ready.reject(error)
    this.#outcome?.reject(error)
  }
}
