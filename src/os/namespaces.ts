import { closeSync, openSync, readlinkSync, rmdirSync, rmSync, statfsSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { effect, effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal, precondition } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import { ensureDir } from './files.ts'
import { attachMount, bindMount, unmountAll } from './mounts.ts'
import {
  type Answer,
  type Call,
  type Home,
  linksOf,
  NAMESPACES,
  PINS,
  type Pin,
  type PinRequest,
  type Question,
} from './namespace-calls.ts'
import { type InterfaceCounters, parseNetDev } from './net-dev.ts'
import { withUserNamespace } from './user-namespace.ts'
import { workerUrl } from './workers.ts'

type Pending = {
  readonly question: Question
  readonly timer: NodeJS.Timeout
  readonly resolve: (value: string) => void
  readonly reject: (e: Error) => void
}

// Each call takes about 0.5 ms: a longer queue means that the worker hangs.
const MAX_PENDING = 1000

// Keeps the worker busy; a storm of forwarded connections beyond waits here, and not in the way of pods.
const MAX_SOCKETS_PENDING = 16

// What takes longer hangs in the kernel; the callers should hear of it while their own clients still listen.
const CALL_LIMIT_MS = 30_000

// What the thread's V8 may take, MiB. It holds a few short strings; the defaults are sized for a program.
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 }

/**
 * Namespaces of pods that exist without a process, each held by a bind mount. One worker thread makes them, one after
 * the other; those that a user namespace of the pod owns are made by a short process.
 */
export class NamespacePins {
  #worker: Worker | undefined
  #nextId = 0
  #closed = false
  readonly #home = openHome()
  /** In the order asked; the worker is at the first. */
  readonly #pending = new Map<number, Pending>()
  readonly #sockets = new Semaphore('sockets in pods', MAX_SOCKETS_PENDING)

  private constructor() {}

  /**
   * libuv's thread pool must have been started before (`warmThreadPool`).
   * @throws BerthError internal if the worker does not start in the node's namespaces
   */
  static async open(): Promise<NamespacePins> {
    const pins = new NamespacePins()
    const [here, there] = [linksOf('/proc/self/ns'), await pins.#ask({ kind: 'where' })]
    if (there !== here) throw internal(`the namespace worker is in ${there}, the daemon in ${here}`)
    return pins
  }

  /**
   * Makes and pins new namespaces with the loopback interface up.
   * On an error, and after a crash, `remove` clears away what is there.
   */
  async create(request: PinRequest): Promise<void> {
    if (request.user === undefined) await this.#pin({ kind: 'pin', request })
    else {
      await withUserNamespace(request.user, request, helper => this.#pin({ kind: 'pin', request, helper }))
    }
  }

  async #pin(call: Extract<Call, { kind: 'pin' }>): Promise<void> {
    await effect('os', 'pin-namespaces', call.request.dir, () => this.#ask(call))
  }

  /** Lets go of the namespaces pinned in `dir` and removes it; succeeds when there is nothing. */
  remove(dir: string): void {
    for (const name of PINS) unmountAll(`${dir}/${name}`)
    effectSync('os', 'remove-pins', dir, () => {
      for (const name of PINS) rmSync(`${dir}/${name}`, { force: true })
      try {
        rmdirSync(dir)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    })
  }

  /**
   * Pins a namespace again that a process is in. Nothing happens if one is pinned there.
   * @throws BerthError precondition if the process has the node's
   */
  pinOf(pid: number, dir: string, name: Pin): void {
    const file = `${dir}/${name}`
    if (isPinned(file)) return
    const source = `/proc/${pid}/ns/${name}`
    if (readlinkSync(source) === readlinkSync(`/proc/self/ns/${name}`)) {
      throw precondition(`process ${pid} is in the ${name} namespace of the node`)
    }
    ensureDir(dir, 0o700)
    closeSync(openSync(file, 'a', 0o444))
    bindMount(source, file)
  }

  /** Shows the root file system of a process in another mount namespace at `target`. */
  async mountRootOf(pid: number, target: string): Promise<void> {
    const copy = Number(await this.#ask({ kind: 'root-of', pid }))
    try {
      attachMount(copy, target)
    } finally {
      closeSync(copy)
    }
  }

  /** Counters of every interface in the network namespace pinned at `netns`, `lo` included. */
  async interfaceCounters(netns: string): Promise<InterfaceCounters[]> {
    return parseNetDev(await this.#ask({ kind: 'net-dev', netns }))
  }

  /** A TCP socket that is in the network namespace pinned at `netns` for good. @returns its descriptor, the caller's */
  async tcpSocket(netns: string, family: 4 | 6): Promise<number> {
    return Number(await this.#sockets.run(() => this.#ask({ kind: 'tcp-socket', netns, family })))
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#worker?.terminate()
    for (const { name } of NAMESPACES) closeSync(this.#home[name])
  }

  #ask(call: Call): Promise<string> {
    if (this.#closed) return Promise.reject(closedError())
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new BerthError('exhausted', `${MAX_PENDING} namespace calls are waiting already`))
    }
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const question = { id: this.#nextId++, call }
    const timer = setTimeout(() => this.#giveUp(question.id), CALL_LIMIT_MS)
    this.#pending.set(question.id, { question, timer, resolve, reject })
    if (this.#worker === undefined) this.#startWorker()
    else this.#worker.postMessage(question)
    return promise
  }

  /** A new worker is asked everything that is still unanswered. */
  #startWorker(): Worker {
    const url = workerUrl('namespace-worker', import.meta.url)
    const worker = new Worker(url, {
      env: {},
      workerData: this.#home,
      resourceLimits: RESOURCE_LIMITS,
      trackUnmanagedFds: false, // they are, by the code that opens them
    })
    this.#worker = worker
    worker.on('message', (answer: Answer) => this.#settle(answer))
    worker.on('error', error => this.#failFirst(error))
    worker.on('exit', () => this.#replace())
    for (const { question } of this.#pending.values()) worker.postMessage(question)
    return worker
  }

  #settle(answer: Answer): void {
    const pending = this.#take(answer.id)
    if ('value' in answer) pending?.resolve(answer.value)
    else pending?.reject(new BerthError(answer.code, answer.message))
  }

  /** The worker died without an answer: the call it was at must not be tried on the next one, too. */
  #failFirst(error: Error): void {
    const [first] = this.#pending.keys()
    if (first !== undefined) this.#take(first)?.reject(internal('the namespace worker failed', error))
  }

  #giveUp(id: number): void {
    const late = `a namespace call takes longer than ${CALL_LIMIT_MS / 1000} s`
    this.#take(id)?.reject(new BerthError('deadline', late))
    void this.#worker?.terminate()
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    clearTimeout(pending?.timer)
    return pending
  }

  #replace(): void {
    this.#worker = undefined
    if (!this.#closed) {
      if (this.#pending.size > 0) this.#startWorker()
      return
    }
    for (const id of this.#pending.keys()) this.#take(id)?.reject(closedError())
  }
}

function closedError(): BerthError {
  return internal('the namespace worker has been closed')
}

function openHome(): Home {
  const open = (name: string) => openSync(`/proc/self/ns/${name}`, 'r')
  return { net: open('net'), ipc: open('ipc'), uts: open('uts') }
}

/** A namespace is pinned at `path`; false for a plain file, left by a crash between its making and the mount. */
export function isPinned(path: string): boolean {
  const NSFS_MAGIC = 0x6e736673
  try {
    return statfsSync(path).type === NSFS_MAGIC
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
