import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import { imageTable } from '../render/image-table.ts'
import type { Streams } from '../streams.ts'

/** `berth image list [IMAGE]` */
export async function listImages(
  image: string | undefined,
  flags: Flags,
  options: { readonly json?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const { images } = await client.imageAdmin('ListImages', { image: image ?? '' })
  const text = options.json ? `${JSON.stringify(images, undefined, 2)}\n` : imageTable(images)
  streams.stdout.write(text)
  return OK
}
