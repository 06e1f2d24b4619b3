import { createReadStream, lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pack as newPack, type Pack } from 'tar-stream'

/** A file of an archive: its bytes, or where they come from. */
export type PackedFile = {
  readonly name: string
  readonly size: number
  content(): Iterable<Buffer> | AsyncIterable<Buffer>
}

/** A tar archive of these files, in this order; the same files give the same bytes, whoever makes it and when. */
export async function* packFiles(
  files: Iterable<PackedFile> | AsyncIterable<PackedFile>,
): AsyncGenerator<Buffer> {
  const pack = newPack()
  const filling = fill(pack, files).catch((error: unknown) => pack.destroy(error as Error))
  try {
    yield* pack as unknown as AsyncIterable<Buffer>
    await filling
  } finally {
    pack.destroy()
  }
}

async function fill(pack: Pack, files: Iterable<PackedFile> | AsyncIterable<PackedFile>): Promise<void> {
  for await (const { name, size, content } of files) {
    const done = Promise.withResolvers<void>()
    const header = { name, size, mode: 0o644, uid: 0, gid: 0, uname: '', gname: '', mtime: new Date(0) }
    const entry = pack.entry(header, error => (error ? done.reject(error) : done.resolve()))
    // Whoever reads the archive is told.
    entry.on('error', () => undefined)
    done.promise.catch(() => undefined)
    for await (const chunk of content()) {
      if (pack.destroyed) return
      if (!entry.write(chunk)) await drained(pack, entry)
    }
    entry.end(undefined)
    await done.promise
  }
  pack.finalize()
}

/** Until the entry takes more, or nobody reads the archive any more. */
function drained(pack: Pack, entry: NodeJS.EventEmitter): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  entry.once('drain', resolve)
  pack.once('close', resolve)
  return promise.finally(() => {
    entry.removeListener('drain', resolve)
    pack.removeListener('close', resolve)
  })
}

/** The regular files below a directory as an archive, in the order of their names. */
export function packDirectory(directory: string): AsyncGenerator<Buffer> {
  return packFiles(filesBelow(directory, ''))
}

function* filesBelow(directory: string, prefix: string): Generator<PackedFile> {
  const entries = readdirSync(directory, { withFileTypes: true }).toSorted((a, b) =>
    a.name < b.name ? -1 : 1,
  )
  for (const entry of entries) {
    const path = join(directory, entry.name)
    const name = `${prefix}${entry.name}`
    if (entry.isDirectory()) yield* filesBelow(path, `${name}/`)
    else if (entry.isFile()) {
      const { size } = lstatSync(path)
      const end = size - 1
      yield { name, size, content: () => (size === 0 ? [] : createReadStream(path, { end })) }
    }
  }
}
