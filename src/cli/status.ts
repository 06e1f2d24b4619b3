import { nowNs } from '../base/clock.ts'
import type { Flags } from '../config/load-config.ts'
import { connectDaemon } from './connect.ts'
import { OK } from './exit-codes.ts'
import { type NodeStatus, statusText } from './render/status-text.ts'
import type { Streams } from './streams.ts'

/** `berth status` */
export async function printStatus(
  flags: Flags,
  options: { readonly json?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const reply = await client.admin('Status', {})
  if (options.json) {
    streams.stdout.write(`${JSON.stringify(reply, undefined, 2)}\n`)
    return OK
  }
  const status: NodeStatus = {
    ...reply,
    pid: Number(reply.pid),
    startedAt: BigInt(reply.started_at),
    imageBytes: Number(reply.image_bytes),
    memory: Number(reply.memory),
    gzipProgram: reply.gzip_program,
  }
  streams.stdout.write(statusText(status, nowNs()))
  return OK
}
