import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import { garbageText } from '../render/garbage-text.ts'
import type { Streams } from '../streams.ts'

/** `berth image gc` */
export async function collectGarbage(
  flags: Flags,
  options: { readonly json?: true; readonly dryRun?: true; readonly prune?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const dryRun = options.dryRun === true
  const reply = await client.imageAdmin('CollectGarbage', { prune: options.prune === true, dry_run: dryRun })
  streams.stdout.write(options.json ? `${JSON.stringify(reply, undefined, 2)}\n` : garbageText(reply, dryRun))
  return OK
}
