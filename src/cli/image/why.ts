import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import { explanationText } from '../render/garbage-text.ts'
import type { Streams } from '../streams.ts'

/** `berth image why IMAGE|DIGEST` */
export async function explainImage(
  object: string,
  flags: Flags,
  options: { readonly json?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const reply = await client.imageAdmin('WhyImage', { object })
  streams.stdout.write(options.json ? `${JSON.stringify(reply, undefined, 2)}\n` : explanationText(reply))
  return OK
}
