import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import type { Streams } from '../streams.ts'

/** `berth image inspect IMAGE`: JSON, the registry's documents included. */
export async function inspectImage(image: string, flags: Flags, streams: Streams): Promise<number> {
  using client = await connectDaemon(flags)
  const { image: stored, config, manifests, layers } = await client.imageAdmin('InspectImage', { image })
  const document = {
    ...stored,
    config: JSON.parse(String(config)),
    manifests: manifests.map(({ digest, media_type, document: bytes }) => ({
      digest,
      media_type,
      document: JSON.parse(String(bytes)),
    })),
    layers,
  }
  streams.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`)
  return OK
}
