import type { Duplex } from 'node:stream'

/** How long the other side may take to close after everything was handed to the kernel. */
const LINGER_MS = 10_000

/**
 * Ends a connection so that the other side gets all that was written: a socket that is closed with unread input
 * throws away its output, so what still comes is read and dropped.
 */
export function closeGently(transport: Duplex): void {
  transport.end(() => {
    if (transport.readableEnded) {
      transport.destroy()
      return
    }
    const timer = setTimeout(() => transport.destroy(), LINGER_MS)
    transport.once('close', () => clearTimeout(timer))
    transport.once('end', () => transport.destroy())
  })
  transport.resume()
}
