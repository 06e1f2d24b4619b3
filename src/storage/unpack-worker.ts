/**
 * The process that unpacks layers, one at a time, chrooted into the layer's directory: nothing that a layer brings
 * can lead out of it, make the daemon grow or end it. Jobs come over the IPC channel, the bytes of a job's blob in
 * frames (length, bytes; see unpack-protocol.ts) on descriptor 3. Everything is loaded before the first job, since
 * whatever is opened later comes from the layer.
 */
import { createHash, type Hash } from 'node:crypto'
import { chmodSync, closeSync, constants, mkdirSync, openSync, readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { crc32, gzipSync, zstdCompressSync } from 'node:zlib'
import { digestFromHex } from '../base/digest.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import { checkExitNotices } from '../os/pidfd.ts'
import { chroot, fchdir } from '../os/syscalls.ts'
import { decompress, sniff } from './decompress.ts'
import { GzipProgram, startGzipProgram } from './gzip-program.ts'
import { RecordWriter } from './layer-record.ts'
import { TarReader } from './layer-tar.ts'
import { LayerWriter } from './layer-writer.ts'
import type { UnpackLimits } from './snapshots.ts'
import { BULK_FD, FrameReader, recordOf, type UnpackJob, type UnpackReply } from './unpack-protocol.ts'

const IDENTITY_MAP = /^\s*0\s+0\s+4294967295\s*$/

/** Compressed bytes for which starting a program, a few ms, pays. */
const WORTH_A_PROGRAM = 512 * 1024

/** Absolute path; undefined: gzip is decompressed here. */
const [gzipProgram] = process.argv.slice(2)
const root = openSync('/', 'r')
const skipDevices = !IDENTITY_MAP.test(readFileSync('/proc/self/uid_map', 'utf8'))
const frames = new FrameReader(new Socket({ fd: BULK_FD, writable: false }))

function reply(message: UnpackReply): void {
  // The daemon is gone, or has lost interest and is about to kill this process.
  process.send?.(message, undefined, undefined, () => undefined)
}

async function answer(job: UnpackJob): Promise<UnpackReply> {
  try {
    return await unpack(job)
  } catch (error) {
    const code = error instanceof BerthError ? error.code : 'internal'
    return { kind: 'failed', code, message: messageOf(error) }
  }
}

async function unpack({ staging, limits }: UnpackJob): Promise<UnpackReply> {
  const blob = new Meter()
  const sniffed = await sniff(metered(frames.run(), blob), WORTH_A_PROGRAM)
  const isWorthIt = sniffed.format === 'gzip' && !sniffed.isSmall
  const program = gzipProgram !== undefined && isWorthIt ? startGzipProgram(gzipProgram) : undefined
  const gunzip = program instanceof GzipProgram ? program : undefined
  const problem = program instanceof GzipProgram ? undefined : program?.problem
  try {
    return await recorded(staging, record =>
      unpackInto(staging, limits, blob, record, problem, output =>
        decompress(sniffed, output, gunzip && ((source, sink) => gunzip.decompress(source, sink))),
      ),
    )
  } finally {
    gunzip?.kill()
  }
}

/** Makes the staging directory and, beside it, the record. */
async function recorded<T>(staging: string, work: (record: RecordWriter) => Promise<T>): Promise<T> {
  mkdirSync(staging, { mode: 0o700 })
  const { O_WRONLY, O_CREAT, O_EXCL } = constants
  const recordFd = openSync(recordOf(staging), O_WRONLY | O_CREAT | O_EXCL, 0o600)
  try {
    return await work(RecordWriter.begin(recordFd))
  } finally {
    closeSync(recordFd)
  }
}

async function unpackInto(
  staging: string,
  limits: UnpackLimits,
  blob: Meter,
  record: RecordWriter,
  problem: string | undefined,
  read: (output: (chunk: Buffer) => void) => Promise<void>,
): Promise<UnpackReply> {
  chmodSync(staging, 0o755)
  process.chdir(staging)
  chroot('.')
  process.chdir('/')
  try {
    const writer = new LayerWriter({ ...limits, skipDevices }, record)
    const reader = new TarReader(writer, bytes => record.raw(bytes))
    const tar = new Meter()
    await read(chunk => {
      tar.add(chunk)
      checkSize(tar.size, blob.size, limits)
      reader.push(chunk)
    })
    reader.end()
    const { warning = problem, ...written } = writer.finish()
    record.flush()
    const layer = { blobDigest: blob.digest(), blobSize: blob.size, diffId: tar.digest(), ...written }
    return { kind: 'done', layer, warning }
  } finally {
    fchdir(root)
    chroot('.')
  }
}

/** Held while reading, so that a small blob cannot fill the disk. */
function checkSize(size: number, blobSize: number, { maxBytes, maxRatio, ratioFloor }: UnpackLimits): void {
  if (size > maxBytes)
    throw new BerthError('exhausted', `the layer is larger than ${maxBytes} bytes uncompressed`)
  if (maxRatio > 0 && size > ratioFloor && size > blobSize * maxRatio) {
    throw new BerthError(
      'exhausted',
      `${blobSize} bytes of the layer become more than ${maxRatio} times as many, as a decompression bomb would (unpack_max_ratio)`,
    )
  }
}

async function* metered(source: AsyncIterable<Buffer>, meter: Meter): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    meter.add(chunk)
    yield chunk
  }
}

class Meter {
  readonly #hash: Hash = createHash('sha256')
  size = 0

  add(chunk: Buffer): void {
    this.#hash.update(chunk)
    this.size += chunk.length
  }

  digest(): ReturnType<typeof digestFromHex> {
    return digestFromHex(this.#hash.digest('hex'))
  }
}

/** Makes Node and its libraries load what they load at first use. */
async function warmUp(): Promise<void> {
  for (const blob of [gzipSync('x'), zstdCompressSync('x')]) {
    await decompress(await sniff(metered(one(blob), new Meter())), () => undefined)
  }
  crc32(Buffer.from('x'))
  if (gzipProgram !== undefined) await checkExitNotices()
}

async function* one(chunk: Buffer): AsyncGenerator<Buffer> {
  yield chunk
}

// At the end, where every class above has been set up.
process.umask(0) // modes are set as the layer says
process.on('disconnect', () => process.exit()) // the daemon has died
process.on('message', async (job: UnpackJob) => reply(await answer(job)))
await warmUp()
reply({ kind: 'ready' })
