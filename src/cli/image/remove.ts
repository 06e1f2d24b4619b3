import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import type { Streams } from '../streams.ts'

/** `berth image rm IMAGE…` */
export async function removeImages(
  images: readonly string[],
  flags: Flags,
  options: { readonly json?: true; readonly name?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const request = { images: [...images], names_only: options.name === true }
  const reply = await client.imageAdmin('RemoveImages', request)
  if (options.json) {
    streams.stdout.write(`${JSON.stringify(reply, undefined, 2)}\n`)
    return OK
  }
  const { removed, containers } = reply
  for (const id of removed) streams.stdout.write(`${id}\n`)
  if (containers.length > 0) {
    const ids = containers.map(id => id.slice(0, 12)).join(', ')
    streams.stderr.write(`its layers stay for the containers ${ids} until they are removed\n`)
  }
  return OK
}
