import type net from 'node:net'
import { sleep } from '../base/clock.ts'
import { effectSync } from '../base/effects.ts'
import { errnoOf, precondition } from '../base/errors.ts'
import { wrapPackets } from '../os/handles.ts'
import { connectPackets } from '../os/socket-calls.ts'

/** First byte of each packet of the monitor. */
export const STDOUT = 2
export const STDERR = 3

/** The monitor drops what exceeds this. */
const MAX_PACKET = 32 * 1024

/** The monitor accepts within a millisecond, unless it is stopped. */
const CONNECT_MS = 5000
const RETRY_MS = 20

export type Receiver = (stream: number, bytes: Buffer) => void

/** The connection to a monitor: packets both ways. It is always read, whether anybody wants to know or not. */
export class AttachSocket {
  /** How many use it; counted by them. */
  users = 0
  readonly receivers = new Set<Receiver>()
  readonly connected: Promise<void>
  /** Resolves when the container's output has ended, or the monitor has. */
  readonly ended: Promise<void>
  readonly #ended = Promise.withResolvers<void>()
  #socket: net.Socket | undefined
  #hasEnded = false
  #hasEndedInput = false
  #lastWrite: Promise<void> = Promise.resolve()

  constructor(path: string) {
    this.ended = this.#ended.promise
    this.connected = this.#connect(path)
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  get hasEndedInput(): boolean {
    return this.#hasEndedInput
  }

  async #connect(path: string): Promise<void> {
    try {
      const fd = await connectWhenFree(path)
      this.#follow(wrapPackets(fd))
    } catch (error) {
      this.#end()
      throw error
    }
  }

  #follow(socket: net.Socket): void {
    this.#socket = socket
    socket.on('data', (packet: Buffer) => {
      const bytes = packet.subarray(1)
      for (const receive of this.receivers) receive(packet[0] as number, bytes)
    })
    socket.on('end', () => this.#end())
    socket.on('error', () => this.#end())
    socket.on('close', () => this.#end())
    if (this.#hasEnded) socket.destroy()
  }

  #end(): void {
    this.#hasEnded = true
    this.#ended.resolve()
  }

  /**
   * Returns when the monitor has been given all of it. One packet at a time: libuv would put two into one.
   * @throws when the connection or its input has ended
   */
  write(bytes: Buffer): Promise<void> {
    const turn = this.#lastWrite.then(() => this.#writeAll(bytes))
    this.#lastWrite = turn.catch(() => undefined)
    return turn
  }

  async #writeAll(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; at += MAX_PACKET) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      this.#socket?.write(bytes.subarray(at, at + MAX_PACKET), error => (error ? reject(error) : resolve()))
      await promise
    }
  }

  /** After what has been written: the container's stdin ends. */
  endInput(): void {
    this.#hasEndedInput = true
    void this.#lastWrite.then(() => this.#socket?.end())
  }

  close(): void {
    this.#end()
    this.#socket?.destroy()
  }
}

async function connectWhenFree(path: string): Promise<number> {
  const deadline = performance.now() + CONNECT_MS
  for (;;) {
    try {
      return effectSync('runtime', 'attach', path, () => connectPackets(path))
    } catch (error) {
      const code = errnoOf(error)
      if (code === 'ENOENT' || code === 'ECONNREFUSED')
        throw precondition('the container has no monitor any more')
      if (code !== 'EAGAIN' || performance.now() > deadline) throw error
      await sleep(RETRY_MS)
    }
  }
}
