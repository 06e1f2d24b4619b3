import { closeSync } from 'node:fs'
import net from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { internal } from '../base/errors.ts'
import { packetSocketPair } from './socket-calls.ts'
import * as sys from './syscalls.ts'

/*
 * Descriptors of kinds that Node has no stream for, in the event loop. libuv's Pipe handle takes any that can be
 * polled and reads and writes it. Node documents neither the class nor the option that takes it, so both are used in
 * this file only, and what relies on them is tried at start (`checkExitNotices`, `checkPackets`).
 */

type PipeHandle = { open(fd: number): void }
type PipeClass = new (type: number) => PipeHandle
type Handled = net.Socket & { _handle: { readonly fd?: number; constructor: unknown } | null }

let pipeClass: PipeClass | undefined

/** A descriptor as a stream, which owns it from now on. It stays half open: its end ends reading alone. */
export function wrapDescriptor(fd: number, direction: 'read' | 'both'): net.Socket {
  pipeClass ??= findPipeClass()
  const handle = new pipeClass(0)
  handle.open(fd)
  // Node declares another type for its `handle`.
  const options: object = { handle, readable: true, writable: direction === 'both', allowHalfOpen: true }
  return new net.Socket(options)
}

/** The descriptor behind a stream; undefined once that is closed. */
export function descriptorOf(stream: net.Socket): number | undefined {
  const fd = (stream as Handled)._handle?.fd
  return fd === undefined || fd < 0 ? undefined : fd
}

/** Bytes that have been written to a stream's other end and not been read yet. */
export function unreadIn(stream: net.Socket): number {
  const fd = descriptorOf(stream)
  return stream.readableLength + (fd === undefined ? 0 : sys.unreadBytes(fd))
}

/** Makes room for so many bytes in the pipe behind a stream, where that can be had. */
export function growPipe(stream: net.Socket, bytes: number): void {
  const fd = descriptorOf(stream)
  if (fd !== undefined) sys.setPipeSize(fd, bytes)
}

function findPipeClass(): PipeClass {
  const [read, write] = sys.pipe()
  closeSync(write)
  const socket = new net.Socket({ fd: read }) as Handled
  const found = socket._handle?.constructor as PipeClass
  socket.destroy()
  return found
}

let packetsWork = true

/** Packets go from hand to hand in the kernel; what has not come after this never does. */
const SELF_TEST_MS = 2000

/**
 * A packet socket as a stream: each packet is one chunk.
 * @throws BerthError internal where `checkPackets` has found that it is not
 */
export function wrapPackets(fd: number): net.Socket {
  if (packetsWork) return wrapDescriptor(fd, 'both')
  closeSync(fd)
  throw internal('this Node.js does not keep the packets of a socket apart')
}

/** @returns false if a packet socket's packets do not come one by one, or its half-close does not arrive */
export async function checkPackets(): Promise<boolean> {
  const [a, b] = packetSocketPair().map(fd => wrapDescriptor(fd, 'both')) as [net.Socket, net.Socket]
  const seen: string[] = []
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, SELF_TEST_MS)
  b.on('data', chunk => seen.push(String(chunk)))
  b.on('end', () => {
    seen.push('end')
    resolve()
  })
  for (const socket of [a, b]) socket.on('error', () => resolve())
  a.write('one')
  await turn()
  a.write('two')
  a.end()
  await ended
  clearTimeout(timer)
  packetsWork = seen.join() === 'one,two,end' && !b.writableEnded
  a.destroy()
  b.destroy()
  return packetsWork
}
