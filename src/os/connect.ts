import { closeSync } from 'node:fs'
import net from 'node:net'
import { BerthError } from '../base/errors.ts'
import type { NamespacePins } from './namespaces.ts'
import { tcpSocket } from './socket-calls.ts'

const LOOPBACK = [
  { family: 4, address: '127.0.0.1' },
  { family: 6, address: '::1' },
] as const

/** On one host an answer comes at once; what takes longer has a full queue, or a firewall that drops. */
const CONNECT_MS = 10_000

/**
 * A TCP connection to a port of a network namespace's own loopback address: IPv4, or IPv6 where that is refused. A
 * socket stays in the namespace in which it was made, so only that is the worker's; connecting is the event loop's.
 * @param netns where the namespace is pinned; undefined is the node's own
 * @throws Error ECONNREFUSED and the like, or BerthError deadline, of the first address; BerthError cancelled
 */
export async function connectLocally(
  pins: NamespacePins,
  netns: string | undefined,
  port: number,
  signal: AbortSignal,
): Promise<net.Socket> {
  const failures: unknown[] = []
  for (const { family, address } of LOOPBACK) {
    if (signal.aborted) throw cancelled(port, signal)
    try {
      const fd = netns === undefined ? tcpSocket(family) : await pins.tcpSocket(netns, family)
      return await connect(fd, address, port, signal)
    } catch (error) {
      if (signal.aborted) throw error
      failures.push(error)
    }
  }
  throw failures[0]
}

async function connect(fd: number, host: string, port: number, signal: AbortSignal): Promise<net.Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = wrap(fd)
  const cancel = () => reject(cancelled(port, signal))
  const late = `connecting to ${host}:${port} took longer than ${CONNECT_MS / 1000} s`
  const timer = setTimeout(() => reject(new BerthError('deadline', late)), CONNECT_MS)
  signal.addEventListener('abort', cancel, { once: true })
  if (signal.aborted) cancel()
  socket.on('error', reject) // stays: a connection that breaks before it has an owner must not end us
  try {
    socket.connect({ host, port }, resolve)
    await promise
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', cancel)
  }
}

/** Takes over a socket that is not connected yet: reading begins with the connection. */
function wrap(fd: number): net.Socket {
  const options: object = { fd, allowHalfOpen: true, manualStart: true }
  try {
    return new net.Socket(options)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function cancelled(port: number, signal: AbortSignal): BerthError {
  return new BerthError('cancelled', `connecting to port ${port} was cancelled`, signal.reason)
}
