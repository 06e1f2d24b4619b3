import { invalid } from '../base/errors.ts'
import type { CollectedGarbage } from '../images/collect-images.ts'
import type { Explanation } from '../images/explain-image.ts'
import type { ExportEvent } from '../images/export-images.ts'
import type { InspectedImage, StoredImage } from '../images/image-admin.ts'
import type { ImportEvent, ImportedImage } from '../images/import-images.ts'
import type { VerifiedLayer, VerifyEvent } from '../images/verify-images.ts'
import type { Layer } from '../model/image.ts'
import type { Calls } from './call.ts'
import { nonEmptyLine } from './convert/fields.ts'
import type { CollectGarbageResponse } from './generated/berth/admin/v1/CollectGarbageResponse.ts'
import type { ImageAdminHandlers } from './generated/berth/admin/v1/ImageAdmin.ts'
import type { ImportImagesRequest__Output } from './generated/berth/admin/v1/ImportImagesRequest.ts'
import type { StoredImage as WireImage } from './generated/berth/admin/v1/StoredImage.ts'
import type { StoredLayer } from './generated/berth/admin/v1/StoredLayer.ts'
import type { VerifiedLayer as WireVerified } from './generated/berth/admin/v1/VerifiedLayer.ts'
import type { VerifyImagesResponse } from './generated/berth/admin/v1/VerifyImagesResponse.ts'

/** What `berth image` needs of the images. */
export interface ImageAdminBackend {
  list(reference: string): StoredImage[]
  inspect(reference: string): InspectedImage
  tag(reference: string, name: string): string
  remove(
    references: readonly string[],
    namesOnly: boolean,
  ): Promise<{ readonly removed: readonly string[]; readonly containers: readonly string[] }>
  verify(references: readonly string[], repair: boolean, signal: AbortSignal): AsyncGenerator<VerifyEvent>
  collect(prune: boolean, dryRun: boolean): CollectedGarbage
  why(reference: string): Explanation
  import(source: AsyncIterable<Buffer>, tag: string, signal: AbortSignal): AsyncGenerator<ImportEvent>
  export(references: readonly string[], signal: AbortSignal): AsyncGenerator<ExportEvent>
}

/** `berth.admin.v1.ImageAdmin`: all its calls. */
export function imageAdminService(calls: Calls, images: ImageAdminBackend): ImageAdminHandlers {
  return {
    ListImages: calls.read(({ image }) => ({ images: images.list(image).map(fromStored) })),

    InspectImage: calls.read(({ image }) => fromInspected(images.inspect(nonEmptyLine('image', image)))),

    TagImage: calls.write(({ image, name }) => ({
      name: images.tag(nonEmptyLine('image', image), nonEmptyLine('name', name)),
    })),

    RemoveImages: calls.write(async ({ images: references, names_only: namesOnly }) => {
      const { removed, containers } = await images.remove(linesOf(references), namesOnly)
      return { removed: [...removed], containers: [...containers] }
    }),

    VerifyImages: calls.stream('write', async function* ({ images: references, repair }, { signal }) {
      for await (const event of images.verify(linesOf(references), repair, signal)) yield fromVerify(event)
    }),

    CollectGarbage: calls.write(({ prune, dry_run: dryRun }) => fromGarbage(images.collect(prune, dryRun))),

    WhyImage: calls.read(({ object }) => {
      const { holders, ...rest } = images.why(nonEmptyLine('object', object))
      return { ...rest, holders: [...holders] }
    }),

    ImportImages: calls.duplex('write', async function* (requests, { signal }) {
      const first = await requests[Symbol.asyncIterator]().next()
      if (first.done === true) throw invalid('tag', 'expected a first message')
      for await (const event of images.import(dataOf(requests), first.value.tag, signal)) {
        if (event.kind === 'received') yield { bytes: event.bytes, image: null }
        else yield { image: fromImported(event.imported) }
      }
    }),

    ExportImages: calls.stream('read', async function* ({ images: references }, { signal }) {
      if (references.length === 0) throw invalid('images', 'expected at least one')
      for await (const event of images.export(linesOf(references), signal)) {
        yield event.kind === 'data' ? { data: event.bytes } : { note: event.text }
      }
    }),
  }
}

async function* dataOf(requests: AsyncIterable<ImportImagesRequest__Output>): AsyncGenerator<Buffer> {
  for await (const { data } of requests) yield data
}

function fromImported({ image, names, ignoredNames }: ImportedImage) {
  return { id: image.id, names: [...names], ignored_names: [...ignoredNames] }
}

function fromGarbage({ images, layers, leased, retired }: CollectedGarbage): CollectGarbageResponse {
  return {
    deleted: [
      ...images.map(({ id, repoTags }) => ({ kind: 'image', id, names: [...repoTags] })),
      ...layers.map(({ diffId, size }) => ({ kind: 'layer', id: diffId, size })),
      ...retired.map(dir => ({ kind: 'directory', id: dir })),
    ],
    kept: leased.map(({ diffId, size }) => ({
      kind: 'layer',
      id: diffId,
      size,
      reason: 'a pull is at work on it, or failed a while ago and is expected again',
    })),
  }
}

function linesOf(references: readonly string[]): string[] {
  return references.map((reference, index) => nonEmptyLine(`images[${index}]`, reference))
}

function fromStored({ image, disk, usedAt, containers, damage }: StoredImage): WireImage {
  return {
    id: image.id,
    repo_tags: [...image.repoTags],
    repo_digests: [...image.repoDigests],
    size: image.size,
    disk,
    pinned: image.pinned,
    created_at: String(image.createdAt),
    used_at: String(usedAt),
    containers: containers.length,
    damage: damage ?? '',
  }
}

function fromInspected({ config, manifests, layers, ...stored }: InspectedImage) {
  return {
    image: fromStored(stored),
    config,
    manifests: manifests.map(({ digest, mediaType, bytes }) => ({
      digest,
      media_type: mediaType,
      document: bytes,
    })),
    layers: layers.map(fromLayer),
  }
}

function fromLayer(layer: Layer): StoredLayer {
  return {
    diff_id: layer.diffId,
    chain_id: layer.chainId,
    blob_digest: layer.blobDigest,
    blob_size: layer.blobSize,
    directory: layer.dir,
    size: layer.size,
    inodes: layer.inodes,
    verified_at: String(layer.verifiedAt),
    damage: layer.damage ?? '',
    recorded: layer.seal !== undefined,
  }
}

const LAYER_STATES = {
  whole: 'WHOLE',
  unrecorded: 'UNRECORDED',
  damaged: 'DAMAGED',
  repaired: 'REPAIRED',
  failed: 'FAILED',
} as const

function fromVerify(event: VerifyEvent): VerifyImagesResponse {
  if (event.kind === 'progress') return { layer: null, bytes: event.bytes, total: event.total }
  return { layer: fromVerified(event.result) }
}

function fromVerified({ layer, images, state, differences, count, note }: VerifiedLayer): WireVerified {
  return {
    diff_id: layer.diffId,
    chain_id: layer.chainId,
    directory: layer.dir,
    images: [...images],
    state: LAYER_STATES[state],
    differences: differences.map(({ path, what }) => ({ path: Buffer.from(path, 'latin1'), what })),
    difference_count: count,
    note,
  }
}
