import { createHash } from 'node:crypto'
import { type Digest, digestFromHex, hexOf } from '../base/digest.ts'
import { BerthError } from '../base/errors.ts'
import type { Image, Layer } from '../model/image.ts'
import { parseReference } from '../registry/reference.ts'
import { ArchiveProcess } from '../storage/archive-process.ts'
import type { LayerFiles, RecreatedLayer } from '../storage/archive-protocol.ts'
import { type PackedFile, packFiles } from '../storage/pack-files.ts'
import type { ImageContext } from './image-context.ts'

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar'

export type ExportEvent =
  /** What is not as the user may expect. Before the archive. */
  { readonly kind: 'note'; readonly text: string } | { readonly kind: 'data'; readonly bytes: Buffer }

/** An image to export, with the name it was asked for by. */
export type ExportRequest = { readonly reference: string; readonly image: Image }

type ExportedLayer = RecreatedLayer & { readonly layer: Layer; readonly files: LayerFiles }

type ExportedImage = {
  readonly names: readonly string[]
  readonly config: Buffer
  readonly manifest: Buffer
  readonly layers: readonly ExportedLayer[]
}

/**
 * An archive that is an OCI layout and what `docker load` reads, both in one. Layers are made again from what is on
 * disk, uncompressed, with the digests that the image's configuration has: the image keeps its id. The same images
 * give the same bytes.
 *
 * @throws BerthError precondition for a layer that is damaged or has no record
 */
export async function* exportImages(
  context: ImageContext,
  requests: readonly ExportRequest[],
  signal: AbortSignal,
): AsyncGenerator<ExportEvent> {
  const chains = requests.map(({ image }) => chainOf(context, image))
  const release = context.leases.hold(chains.flat().map(({ chainId }) => chainId))
  try {
    await using reader = new ArchiveProcess()
    const images: ExportedImage[] = []
    const measured = new Map<Digest, ExportedLayer>()
    for (const [at, request] of requests.entries()) {
      for (const layer of chains[at]!) {
        if (measured.has(layer.chainId)) continue
        const files = filesOf(context, request, layer)
        measured.set(layer.chainId, { layer, files, ...(await reader.measure(files, signal)) })
      }
      const layers = chains[at]!.map(({ chainId }) => measured.get(chainId)!)
      const { image, note } = describe(context, request, layers)
      images.push(image)
      if (note !== undefined) yield { kind: 'note', text: note }
    }
    for await (const bytes of packFiles(contentsOf(reader, images, signal))) yield { kind: 'data', bytes }
  } finally {
    release()
  }
}

/** Lowest first. */
function chainOf({ db }: ImageContext, { topLayer }: Image): Layer[] {
  return topLayer === undefined ? [] : db.read.layers.chain(topLayer).reverse()
}

function filesOf(
  { snapshots, health }: ImageContext,
  { reference }: ExportRequest,
  layer: Layer,
): LayerFiles {
  const damage = layer.damage ?? snapshots.checkLayer(layer.dir, layer.seal)
  if (damage !== undefined) {
    health.report(layer, damage)
    throw new BerthError('precondition', `${reference}: its layer ${layer.diffId} is damaged: ${damage}`)
  }
  if (layer.seal === undefined) {
    const why = `its layer ${layer.diffId} was unpacked by an earlier version of berth, which kept no record of it`
    throw new BerthError('precondition', `${reference}: ${why}; remove the image and pull it again`)
  }
  return {
    dir: snapshots.layerPath(layer.dir),
    record: snapshots.recordPath(layer.dir),
    recordDigest: layer.seal.record,
    diffId: layer.diffId,
  }
}

function describe(
  { db }: ImageContext,
  { reference, image }: ExportRequest,
  layers: readonly ExportedLayer[],
): { readonly image: ExportedImage; readonly note: string | undefined } {
  const original = db.read.images.rawConfig(image.id) ?? Buffer.alloc(0)
  const isSame = layers.every(({ digest, layer }) => digest === layer.diffId)
  const config = isSame ? original : withDiffIds(original, layers)
  const manifest = json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptor(OCI_CONFIG, digestOf(config), config.length),
    layers: layers.map(({ digest, size }) => descriptor(OCI_LAYER, digest, size)),
  })
  return {
    image: { names: namesOf(image, reference), config, manifest, layers },
    note: isSame
      ? undefined
      : `${reference}: a layer has the same file twice, of which the first content is lost; the image is exported with ` +
        `the same files under the id ${digestOf(config)}`,
  }
}

function withDiffIds(config: Buffer, layers: readonly ExportedLayer[]): Buffer {
  const document = JSON.parse(String(config)) as { rootfs: object }
  const diffIds = layers.map(({ digest }) => digest)
  return json({ ...document, rootfs: { ...document.rootfs, diff_ids: diffIds } })
}

/** The name that was asked for, or all of them if it was asked for by its id. */
function namesOf({ repoTags }: Image, reference: string): readonly string[] {
  if (repoTags.includes(reference)) return [reference]
  try {
    const name = `${parseReference(reference)}`
    if (repoTags.includes(name)) return [name]
  } catch {
    // an id
  }
  return repoTags.toSorted()
}

/** The lists of contents first, so that a reader knows what comes. */
function* contentsOf(
  reader: ArchiveProcess,
  images: readonly ExportedImage[],
  signal: AbortSignal,
): Generator<PackedFile> {
  const manifests = images.flatMap(({ names, manifest }) =>
    (names.length === 0 ? [undefined] : names).map(name => ({
      ...descriptor(OCI_MANIFEST, digestOf(manifest), manifest.length),
      ...(name === undefined
        ? {}
        : { annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name } }),
    })),
  )
  yield document('oci-layout', json({ imageLayoutVersion: '1.0.0' }))
  yield document('index.json', json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }))
  yield document(
    'manifest.json',
    json(
      images.map(({ names, config, layers }) => ({
        Config: blobName(digestOf(config)),
        RepoTags: names,
        Layers: layers.map(({ digest }) => blobName(digest)),
      })),
    ),
  )
  const written = new Set<Digest>()
  const isNew = (digest: Digest) => !written.has(digest) && written.add(digest) !== undefined
  for (const { config, manifest, layers } of images) {
    for (const bytes of [manifest, config]) {
      if (isNew(digestOf(bytes))) yield document(blobName(digestOf(bytes)), bytes)
    }
    for (const layer of layers) {
      if (isNew(layer.digest)) {
        yield {
          name: blobName(layer.digest),
          size: layer.size,
          content: () => checked(reader, layer, signal),
        }
      }
    }
  }
}

/** Files may be damaged in ways that their checksums do not show. */
async function* checked(
  reader: ArchiveProcess,
  { digest, files }: ExportedLayer,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { digest: found } = yield* reader.recreate(files, signal)
  if (found !== digest) {
    throw new BerthError('precondition', `the layer ${digest} is damaged: its archive has digest ${found}`)
  }
}

function document(name: string, bytes: Buffer): PackedFile {
  return { name, size: bytes.length, content: () => [bytes] }
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`
}

function descriptor(mediaType: string, digest: Digest, size: number) {
  return { mediaType, digest, size }
}

function digestOf(bytes: Buffer): Digest {
  return digestFromHex(createHash('sha256').update(bytes).digest('hex'))
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}
