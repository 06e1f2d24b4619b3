import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { FAILURE, OK } from '../exit-codes.ts'
import { StatusLine } from '../render/status-line.ts'
import { verifiedText } from '../render/verified-text.ts'
import type { Streams } from '../streams.ts'

/** `berth image verify [IMAGE…]`: fails if a layer is damaged and was not repaired. */
export async function verifyImages(
  images: readonly string[],
  flags: Flags,
  options: { readonly json?: true; readonly repair?: true },
  streams: Streams,
): Promise<number> {
  using client = await connectDaemon(flags)
  const line = new StatusLine(streams.stderr)
  const counts = { whole: 0, unrecorded: 0, damaged: 0, repaired: 0 }
  const request = { images: [...images], repair: options.repair === true }
  for await (const { layer, bytes, total } of client.imageAdminStream('VerifyImages', request)) {
    if (layer === null) {
      line.draw('verifying', Number(bytes), Number(total))
      continue
    }
    counts[stateOf(layer.state)]++
    line.clear()
    if (options.json) {
      const differences = layer.differences.map(({ path, what }) => ({ path: String(path), what }))
      streams.stdout.write(`${JSON.stringify({ ...layer, differences })}\n`)
    } else {
      streams.stdout.write(verifiedText(layer))
    }
  }
  line.clear()
  const summary = Object.entries(counts).filter(([, count]) => count > 0)
  if (!options.json) {
    streams.stdout.write(
      `layers: ${summary.map(([state, count]) => `${count} ${state}`).join(', ') || 'none'}\n`,
    )
  }
  return counts.damaged > 0 ? FAILURE : OK
}

function stateOf(state: string | number): 'whole' | 'unrecorded' | 'damaged' | 'repaired' {
  if (state === 'WHOLE') return 'whole'
  if (state === 'UNRECORDED') return 'unrecorded'
  return state === 'REPAIRED' ? 'repaired' : 'damaged'
}
