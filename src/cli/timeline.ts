import type { Flags } from '../config/load-config.ts'
import { connectDaemon } from './connect.ts'
import { OK } from './exit-codes.ts'
import { duration, printable } from './render/units.ts'
import { waterfall } from './render/waterfall.ts'
import type { Streams } from './streams.ts'

/** Where no terminal tells its width. */
const DEFAULT_WIDTH = 100

/** `berth timeline POD` */
export async function printTimeline(
  pod: string,
  flags: Flags,
  options: { readonly json?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const reply = await client.admin('Timeline', { pod })
  if (options.json) {
    streams.stdout.write(`${JSON.stringify(reply, undefined, 2)}\n`)
    return OK
  }
  const steps = reply.entries.map(entry => ({
    ...entry,
    containerId: entry.container_id,
    startNs: BigInt(entry.started_at),
    durationNs: BigInt(entry.duration),
  }))
  streams.stdout.write(`pod ${printable(reply.pod_name)}  ${reply.pod_id.slice(0, 12)}\n\n`)
  streams.stdout.write(
    steps.length === 0
      ? 'no steps are remembered\n'
      : waterfall(steps, streams.stdout.columns ?? DEFAULT_WIDTH),
  )
  const { current } = reply
  if (current !== null) {
    const age = duration(BigInt(current.duration))
    streams.stdout.write(
      `\nnow: ${printable(current.operation)} is in step ${printable(current.step)} for ${age}\n`,
    )
  }
  return OK
}
