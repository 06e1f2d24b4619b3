/**
 * The process that reads back what is on disk, at low priority: compares layers with their records, makes their
 * archives again, lays archives of images into a directory. One job at a time; for a layer it is chrooted into the
 * layer's directory, whose content nobody trusts. Everything is loaded before the first job.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { Socket } from 'node:net'
import { gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { digestFromHex } from '../base/digest.ts'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'
import { chroot, dropFromCache, fchdir } from '../os/syscalls.ts'
import type { ArchiveJob, ArchiveReply, LayerFiles, RecreatedLayer } from './archive-protocol.ts'
import { decompress, sniff } from './decompress.ts'
import { digestOfRecord } from './layer-record.ts'
import { archiveSize, failOnProblem, recreateLayer } from './recreate-layer.ts'
import { spoolArchive } from './spool-archive.ts'
import { BULK_FD, FrameReader, frameLength } from './unpack-protocol.ts'
import { verifyLayer } from './verify-layer.ts'

const root = openSync('/', 'r')
const bulk = new Socket({ fd: BULK_FD })
const frames = new FrameReader(bulk)

// As often as a progress bar is worth drawing.
const PROGRESS_BYTES = 8 * 1024 * 1024

function reply(message: ArchiveReply): void {
  // The daemon is gone, or has lost interest and is about to kill this process.
  process.send?.(message, undefined, undefined, () => undefined)
}

async function answer(job: ArchiveJob): Promise<ArchiveReply> {
  try {
    return await work(job)
  } catch (error) {
    const isFull = ['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')
    const code = error instanceof BerthError ? error.code : isFull ? 'exhausted' : 'internal'
    return { kind: 'failed', code, message: messageOf(error) }
  }
}

async function work(job: ArchiveJob): Promise<ArchiveReply> {
  if (job.kind === 'spool') {
    return { kind: 'spooled', files: await spoolArchive(frames.run(), job.directory, job.limits) }
  }
  const { layer } = job
  if ((await digestOfRecord(layer.record)) !== layer.recordDigest) {
    throw new BerthError('precondition', 'the record of the layer is damaged: its digest is another one')
  }
  return inLayer(layer, async record => {
    if (job.kind === 'verify') {
      return { kind: 'verified', verification: verifyLayer(record, layer.diffId, progress()) }
    }
    const size = job.kind === 'measure' ? archiveSize(record) : undefined
    if (size !== undefined) return { kind: 'recreated', layer: { digest: layer.diffId, size } }
    return { kind: 'recreated', layer: await recreate(record, job.kind === 'recreate') }
  })
}

async function inLayer<T>({ dir, record }: LayerFiles, run: (record: number) => Promise<T>): Promise<T> {
  const fd = openSync(record, 'r')
  try {
    process.chdir(dir)
    chroot('.')
    process.chdir('/')
    return await run(fd)
  } finally {
    fchdir(root)
    chroot('.')
    closeSync(fd)
  }
}

async function recreate(record: number, isSent: boolean): Promise<RecreatedLayer> {
  const hash = createHash('sha256')
  let size = 0
  for (const chunk of recreateLayer(record, failOnProblem)) {
    hash.update(chunk)
    size += chunk.length
    if (isSent && chunk.length > 0) await send(chunk)
  }
  if (isSent) await send(Buffer.alloc(0))
  return { digest: digestFromHex(hash.digest('hex')), size }
}

/** A frame; an empty one ends the run. */
function send(chunk: Buffer): Promise<void> | undefined {
  bulk.cork()
  bulk.write(frameLength(chunk.length))
  const takesMore = bulk.write(chunk)
  bulk.uncork()
  if (takesMore) return undefined
  const { promise, resolve } = Promise.withResolvers<void>()
  bulk.once('drain', resolve)
  return promise
}

function progress(): (bytes: number) => void {
  let unsaid = 0
  return bytes => {
    unsaid += bytes
    if (unsaid < PROGRESS_BYTES) return
    reply({ kind: 'progress', bytes: unsaid })
    unsaid = 0
  }
}

/** Makes Node and its libraries load what they load at first use. */
async function warmUp(): Promise<void> {
  for (const blob of [gzipSync('x'), zstdCompressSync('x')]) {
    const source = (async function* () {
      yield blob
    })()
    await decompress(await sniff(source), () => undefined)
  }
  zstdDecompressSync(zstdCompressSync('x'))
  dropFromCache(root)
}

// At the end, where every class above has been set up.
process.umask(0o077)
process.on('disconnect', () => process.exit()) // the daemon has died
process.on('message', async (job: ArchiveJob) => reply(await answer(job)))
await warmUp()
reply({ kind: 'ready' })
