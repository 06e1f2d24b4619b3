import { createReadStream, statSync } from 'node:fs'
import { invalid, messageOf } from '../../base/errors.ts'
import type { Flags } from '../../config/load-config.ts'
import { packDirectory } from '../../storage/pack-files.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import { StatusLine } from '../render/status-line.ts'
import type { Streams } from '../streams.ts'

const CHUNK = 256 * 1024

/** `berth image import FILE|DIRECTORY|-` */
export async function importImages(
  file: string,
  flags: Flags,
  options: { readonly json?: true; readonly tag?: string },
  streams: Streams,
): Promise<number> {
  const { source, size } = openSource(file)
  using client = await connectDaemon(flags)
  const line = new StatusLine(streams.stderr)
  for await (const { bytes, image } of client.importImages(options.tag ?? '', source)) {
    if (image === null) {
      line.draw('importing', Number(bytes), size)
      continue
    }
    line.clear()
    if (options.json) streams.stdout.write(`${JSON.stringify(image)}\n`)
    else streams.stdout.write(`${image.id}${image.names.map(name => ` ${name}`).join('')}\n`)
    for (const name of image.ignored_names) {
      streams.stderr.write(
        `the archive calls it ${JSON.stringify(name)}, which is no name; give one with --tag\n`,
      )
    }
  }
  line.clear()
  return OK
}

/** `size`: 0 if it is not known. */
function openSource(file: string): { readonly source: AsyncIterable<Buffer>; readonly size: number } {
  if (file === '-') return { source: process.stdin, size: 0 }
  try {
    const stat = statSync(file)
    if (stat.isDirectory()) return { source: packDirectory(file), size: 0 }
    return { source: createReadStream(file, { highWaterMark: CHUNK }), size: stat.size }
  } catch (error) {
    throw invalid('file', `cannot be read: ${messageOf(error)}`)
  }
}
