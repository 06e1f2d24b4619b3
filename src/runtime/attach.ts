import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { BerthError } from '../base/errors.ts'
import { AttachSocket, STDERR, STDOUT } from './attach-socket.ts'
import type { Channels, TerminalSize } from './channels.ts'
import { resizeLine, tellMonitor } from './control.ts'
import { Departure } from './departure.ts'
import { DetachKeys } from './detach-keys.ts'
import type { AttachRequest } from './runtime.ts'

/** Output that waits for one client: what one screen or a burst of log lines needs, many times over. */
const MAX_QUEUE = 1024 * 1024

/** Clients of running containers' first processes: one connection to each monitor, shared by all of its clients. */
export class Attachments {
  readonly #socketsDir: string
  readonly #sockets = new Map<string, AttachSocket>()

  constructor(socketsDir: string) {
    this.#socketsDir = socketsDir
  }

  /** @throws BerthError precondition if the monitor is gone; exhausted for a client that reads too slowly */
  async attach(request: AttachRequest, channels: Channels, signal: AbortSignal): Promise<void> {
    const { containerId: id } = request
    const socket = this.#sockets.get(id) ?? new AttachSocket(join(this.#socketsDir, id, 'attach'))
    this.#sockets.set(id, socket)
    socket.users++
    try {
      await socket.connected
      await new Client(request, channels, socket).run(signal)
    } finally {
      socket.users--
      // The monitor takes any end of a connection for the end of the one stdin that this container gets.
      const isHeld = closesInput(request) && !socket.hasEndedInput
      if (socket.hasEnded || (socket.users === 0 && !isHeld)) {
        socket.close()
        if (this.#sockets.get(id) === socket) this.#sockets.delete(id)
      }
    }
  }

  /** The container is being removed. */
  forget(id: string): void {
    this.#sockets.get(id)?.close()
    this.#sockets.delete(id)
  }
}

/** The end of a client's stdin is that of the container's. */
function closesInput({ stdin, stdinOnce, terminal }: AttachRequest): boolean {
  return stdin && stdinOnce && !terminal
}

class Client {
  readonly #request: AttachRequest
  readonly #channels: Channels
  readonly #socket: AttachSocket
  readonly #left = Promise.withResolvers<void>()

  constructor(request: AttachRequest, channels: Channels, socket: AttachSocket) {
    this.#request = request
    this.#channels = channels
    this.#socket = socket
  }

  async run(signal: AbortSignal): Promise<void> {
    const { terminal, paths } = this.#request
    using client = new Departure(signal)
    const receive = (stream: number, bytes: Buffer) => this.#receive(stream, bytes)
    this.#socket.receivers.add(receive)
    const { stdin, stdout, stderr } = this.#channels
    for (const stream of [stdin, stdout, stderr]) stream?.on('error', () => undefined) // the signal tells
    if (terminal) this.#channels.onResize(size => resize(paths.bundle, size))
    try {
      void this.#feed(client)
      const outputEnded = await Promise.race([
        this.#socket.ended.then(() => true),
        this.#left.promise.then(() => false),
        client.gone,
      ])
      if (outputEnded === true) await Promise.race([this.#finish(), client.gone])
    } finally {
      this.#socket.receivers.delete(receive)
      if (client.isGone) stdin?.destroy() // nothing comes any more, and that is to be noticed
    }
  }

  /** Never waits: a monitor that cannot hand on what it has read stops the container's log and then the container. */
  #receive(stream: number, bytes: Buffer): void {
    const { stdout, stderr } = this.#channels
    const sink = stream === STDOUT ? stdout : stream === STDERR ? stderr : undefined
    if (sink === undefined || !sink.writable) return
    if (sink.writableLength + bytes.length <= MAX_QUEUE) {
      sink.write(bytes)
      return
    }
    const limit = `${MAX_QUEUE / 1024} KiB of output`
    this.#left.reject(
      new BerthError('exhausted', `attach: dropped, since ${limit} are waiting for this client`),
    )
  }

  async #finish(): Promise<void> {
    await Promise.all([this.#channels.stdout, this.#channels.stderr].map(sink => sink && endOf(sink)))
  }

  /** Hands on what the client types. What cannot be taken any more is read all the same. */
  async #feed(client: Departure): Promise<void> {
    const { stdin } = this.#channels
    if (stdin === undefined) return
    const { stdin: isOpen, terminal } = this.#request
    try {
      if (isOpen) await this.#copy(stdin, terminal ? new DetachKeys() : undefined)
    } catch {
      // The client has left, or the container does not read any more; of both there is other news.
    }
    if (closesInput(this.#request)) this.#socket.endInput()
    else if (isOpen && !terminal && !client.isGone) this.#left.resolve()
    stdin.resume()
  }

  async #copy(stdin: Readable, keys: DetachKeys | undefined): Promise<void> {
    for await (const chunk of stdin.iterator({ destroyOnReturn: false })) {
      const { bytes, detached } = keys?.read(chunk as Buffer) ?? { bytes: chunk as Buffer, detached: false }
      await this.#socket.write(bytes)
      if (detached) {
        this.#left.resolve()
        return
      }
    }
  }
}

/** A client cannot do anything about a monitor that does not listen, and the next size may be heard. */
function resize(bundle: string, size: TerminalSize): void {
  try {
    tellMonitor(bundle, resizeLine(size))
  } catch {
    // EAGAIN
  }
}

async function endOf(sink: Writable): Promise<void> {
  if (sink.destroyed) return
  sink.end()
  await finished(sink, { readable: false }).catch(() => undefined) // its client has gone
}
