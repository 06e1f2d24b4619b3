import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { BerthError, invalid, messageOf } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import type { Image } from '../model/image.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import type { BlobTraffic, Repository } from '../registry/registry.ts'
import { ArchiveProcess } from '../storage/archive-process.ts'
import { parseImageConfig } from './image-config.ts'
import type { ImageContext } from './image-context.ts'
import type { ImageName } from './image-index.ts'
import { type ArchivedImage, ArchiveFiles, imagesOf } from './read-archive.ts'
import { planOf, recordImage } from './record-image.ts'

export type ImportedImage = {
  readonly image: Image
  /** As they were recorded. */
  readonly names: readonly string[]
  /** What the archive calls it that is no name of an image. */
  readonly ignoredNames: readonly string[]
}

export type ImportEvent =
  /** Bytes of the archive, as they come. */
  | { readonly kind: 'received'; readonly bytes: number }
  | { readonly kind: 'image'; readonly imported: ImportedImage }

// As often as a progress bar is worth drawing.
const PROGRESS_MS = 100

/** An archive of images is some dozens of files for each of them. */
const MAX_FILES = 100_000

/**
 * Imports every image of an archive: an OCI layout or what `docker save` writes, as a tar that may be compressed.
 * The archive is laid into staging first, since it may have its list of contents at its end; nothing of that stays.
 *
 * @param tag the image's name, for an archive with one image; '' takes those in the archive
 * @throws BerthError invalid for what is no such archive; exhausted; cancelled
 */
export async function* importImages(
  context: ImageContext,
  source: AsyncIterable<Buffer>,
  tag: string,
  signal: AbortSignal,
): AsyncGenerator<ImportEvent> {
  const name = tag === '' ? undefined : tagOf(tag)
  const directory = context.snapshots.stagingPath(`import-${newId()}`)
  try {
    const files = new ArchiveFiles(yield* spool(context, source, directory, signal))
    const images = imagesOf(files, context.platform)
    if (name !== undefined && images.length > 1) {
      throw invalid('tag', `the archive has ${images.length} images; a name can be given to one only`)
    }
    for (const archived of images) {
      yield { kind: 'image', imported: await importOne(context, files, archived, name, signal) }
    }
  } finally {
    context.disposal.discardStaged(directory)
  }
}

function tagOf(tag: string): Reference {
  const reference = parseReference(tag)
  if (reference.digest !== undefined)
    throw invalid('tag', 'expected a name with a tag; a digest cannot be given')
  return reference
}

async function* spool(
  context: ImageContext,
  source: AsyncIterable<Buffer>,
  directory: string,
  signal: AbortSignal,
) {
  let bytes = 0
  async function* counted() {
    for await (const chunk of source) {
      bytes += chunk.length
      yield chunk
    }
  }
  await using worker = new ArchiveProcess()
  const limits = { maxFiles: MAX_FILES, maxBytes: context.maxArchiveBytes }
  const spooling = worker.spool(counted(), directory, limits, signal)
  spooling.catch(() => undefined)
  for (let told = 0; ; ) {
    const done = await Promise.race([spooling, pause(PROGRESS_MS, undefined, { ref: false })])
    if (bytes > told) yield { kind: 'received' as const, bytes }
    told = bytes
    if (done !== undefined) return done
  }
}

async function importOne(
  context: ImageContext,
  files: ArchiveFiles,
  archived: ArchivedImage,
  tag: Reference | undefined,
  signal: AbortSignal,
): Promise<ImportedImage> {
  const { layers, leases, log, platform } = context
  const label = tag?.toString() ?? archived.names[0] ?? archived.config.digest
  const config = configOf(archived, label, platform)
  const plan = planOf(config, archived.layers)
  const ids = plan.map(({ chainId }) => chainId)
  const release = leases.hold(ids)
  try {
    await layers.fetch({ reference: label, repository: repositoryOf(files), layers: plan }, signal)
    const { names, ignored } = namesOf(archived, tag)
    const image = recordImage(context, {
      id: archived.config.digest,
      names,
      config,
      rawConfig: archived.configBytes,
      manifest: {
        digest: archived.manifestDigest,
        mediaType: archived.mediaType,
        bytes: archived.manifestBytes,
      },
      layers: archived.layers,
      signatures: [],
      topLayer: ids.at(-1),
    })
    log.info({ imageId: image.id, names: image.repoTags, bytes: image.size }, 'image imported')
    return { image, names: names.map(({ name }) => name), ignoredNames: ignored }
  } finally {
    release()
    // What an import that failed has committed is nobody's.
    context.collectSoon()
  }
}

function configOf(archived: ArchivedImage, label: string, platform: ImageContext['platform']) {
  try {
    return parseImageConfig(archived.configBytes, platform, archived.layers.length)
  } catch (error) {
    const what = `${label}: image configuration ${archived.config.digest}`
    throw new BerthError('invalid', `${what}: ${messageOf(error)}`, error)
  }
}

/** A tag of the archive's own that names no repository, such as `latest`, is no name. */
function namesOf(
  archived: ArchivedImage,
  tag: Reference | undefined,
): { readonly names: ImageName[]; readonly ignored: string[] } {
  const references: Reference[] = tag === undefined ? [] : [tag]
  const ignored: string[] = []
  for (const text of tag === undefined ? archived.names : []) {
    const reference = referenceOf(text)
    if (reference === undefined) ignored.push(text)
    else references.push(reference)
  }
  const names = references.flatMap((reference): ImageName[] => {
    const digest: ImageName = { name: `${reference.withDigest(archived.digest)}`, kind: 'digest' }
    return reference.digest === undefined ? [digest, { name: `${reference}`, kind: 'tag' }] : [digest]
  })
  return { names, ignored }
}

/** Of a whole name: one with a tag or a repository with several components. */
function referenceOf(text: string): Reference | undefined {
  if (!/[:/@]/.test(text)) return undefined
  try {
    return parseReference(text)
  } catch {
    return undefined
  }
}

/** Nothing comes over the network. */
const NO_TRAFFIC: BlobTraffic = { received: 0, resumed: 0, waitedMs: 0, isWaiting: false, endpoint: '' }

/** The archive, asked as if it were a registry. */
function repositoryOf(files: ArchiveFiles): Pick<Repository, 'openBlob'> {
  return {
    openBlob: (descriptor, _signal, options) => {
      const { file } = files.blob(descriptor)
      const stream = Readable.from(readFile(file, options?.onBytes), { objectMode: false })
      return Object.assign(stream, { traffic: NO_TRAFFIC, hasFailed: false })
    },
  }
}

async function* readFile(
  file: string,
  onBytes: ((total: number) => void) | undefined,
): AsyncGenerator<Buffer> {
  let total = 0
  for await (const chunk of createReadStream(file, { highWaterMark: 256 * 1024 })) {
    total += (chunk as Buffer).length
    onBytes?.(total)
    yield chunk as Buffer
  }
}
