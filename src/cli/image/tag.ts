import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import type { Streams } from '../streams.ts'

/** `berth image tag IMAGE NAME` */
export async function tagImage(
  image: string,
  name: string,
  flags: Flags,
  options: { readonly json?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const reply = await client.imageAdmin('TagImage', { image, name })
  streams.stdout.write(options.json ? `${JSON.stringify(reply, undefined, 2)}\n` : `${reply.name}\n`)
  return OK
}
