import type { Socket } from 'node:net'
import { BerthError, invalid, messageOf } from '../base/errors.ts'
import type { Pod } from '../model/pod.ts'
import { connectLocally } from '../os/connect.ts'
import { hasNetwork, type PodContext } from './context.ts'

const MAX_PORT = 65_535

/**
 * A connection to a port of a ready pod's own loopback address, IPv4 or else IPv6; of the node's for a pod on its network.
 * @throws BerthError invalid, unavailable if nothing accepts it there
 */
export async function connectToPort(
  context: PodContext,
  pod: Pod,
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  if (!Number.isInteger(port) || port < 1 || port > MAX_PORT) {
    throw invalid('port', `expected 1 to ${MAX_PORT}, got ${port}`)
  }
  const netns = hasNetwork(pod) ? context.paths.pod(pod.id).namespace('net') : undefined
  try {
    return await connectLocally(context.pins, netns, port, signal)
  } catch (error) {
    if (error instanceof BerthError) throw error
    throw new BerthError('unavailable', `port ${port} of pod ${pod.id}: ${messageOf(error)}`, error)
  }
}
