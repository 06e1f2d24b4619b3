import type { Socket } from 'node:net'
import { finished } from 'node:stream/promises'
import { sleep } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Channel } from './channel.ts'

/** One connection to be forwarded. */
export type Forward = { readonly port: number; readonly data: Channel; readonly error: Channel }

/** How long a client may go on sending to a target that has ended. Clients hang up at once. */
const AFTER_TARGET_MS = 1000

/**
 * Connects to the target and copies both ways until it has ended, or the client has left. A client that has said all
 * still gets the whole answer. What goes wrong is told on the error channel, and is the business of this connection
 * alone. Never rejects.
 *
 * @param connect what it throws is told to the client
 * @returns what went wrong, if anything did
 */
export async function forwardPort(
  { port, data, error }: Forward,
  connect: () => Promise<Socket>,
): Promise<string | undefined> {
  error.input.resume()
  let problem: string | undefined
  try {
    await splice(data, await connect())
  } catch (failure) {
    problem = `error forwarding port ${port}: ${messageOf(failure)}`
    error.output.write(problem)
  }
  error.output.end()
  await finished(error.output).catch(() => undefined)
  // What has not ended by itself is reset.
  data.input.destroy()
  data.output.destroy()
  return problem
}

/** @throws what became of the target */
async function splice(data: Channel, target: Socket): Promise<void> {
  try {
    const broken = new Promise<never>((_, reject) => {
      target.once('error', reject)
      target.once('close', () => {
        if (!data.output.writableEnded) reject(new Error('the connection to the target was closed'))
      })
    })
    broken.catch(() => undefined)
    // It ends quietly with the connection of the client.
    const answered = finished(data.output).catch(() => 'client has left' as const)
    data.input.pipe(target)
    target.pipe(data.output)
    if ((await Promise.race([answered, broken])) === 'client has left') return
    await untilAsked(target)
  } finally {
    target.destroy()
  }
}

/** Until the client has ended its direction, too. */
async function untilAsked(target: Socket): Promise<void> {
  const over = new AbortController()
  const asked = finished(target, { readable: false }).catch(() => undefined)
  await Promise.race([asked, sleep(AFTER_TARGET_MS, over.signal).catch(() => undefined)])
  over.abort()
}
