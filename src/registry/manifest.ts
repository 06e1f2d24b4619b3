import { type Digest, parseDigest } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import { parseStrictJson } from '../base/strict-json.ts'
import type { Platform } from './platform.ts'

/** OCI content descriptor, checked: only a parsed digest becomes part of a URL or a path. */
export type Descriptor = {
  readonly mediaType: string
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  /** Where a non-distributable layer may be had, for such layers only. */
  readonly urls?: string[]
}

type IndexEntry = Descriptor & { readonly platform?: Platform }

export type Manifest =
  | {
      readonly kind: 'image'
      readonly mediaType: string
      readonly config: Descriptor
      readonly layers: readonly Descriptor[]
    }
  | { readonly kind: 'index'; readonly mediaType: string; readonly entries: readonly IndexEntry[] }

const IMAGE_TYPES = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]
const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]
/** Media types of documents that can be used: the value of the Accept header. */
export const MANIFEST_TYPES: readonly string[] = [...INDEX_TYPES, ...IMAGE_TYPES]

const SCHEMA_1 = 'application/vnd.docker.distribution.manifest.v1+'
const CONFIG_TYPES = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]
const FOREIGN_LAYER =
  /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.|docker\.image\.rootfs\.foreign\.)/
const LAYER =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)(?:[+.](?:gzip|zstd))?$/

/** Overlay takes no more lower directories in one mount. */
const MAX_LAYERS = 128
/** Platforms and attestations; the largest public indexes have some dozens. */
const MAX_ENTRIES = 1000
const MAX_URLS = 8

type Json = Readonly<Record<string, unknown>>

/**
 * Reads a manifest or index. A document that could pass for both, or contradicts how it was served, is refused: two
 * readers must not see two images behind one digest.
 *
 * @param contentType the Content-Type header
 * @throws Error saying what is wrong with the document
 */
export function parseManifest(bytes: Buffer, contentType: string): Manifest {
  const document = parseDocument(bytes)
  const mediaType = mediaTypeOf(document, contentType)
  if (document.schemaVersion !== 2) {
    throw new Error(`the manifest has schemaVersion ${shown(document.schemaVersion)}; expected 2`)
  }
  const isIndex = INDEX_TYPES.includes(mediaType)
  const foreign = (isIndex ? ['config', 'layers', 'fsLayers'] : ['manifests', 'fsLayers']).find(
    member => member in document,
  )
  if (foreign !== undefined)
    throw new Error(`a document of type ${mediaType} must not have ${shown(foreign)}`)
  return isIndex
    ? { kind: 'index', mediaType, entries: entriesOf(document) }
    : { kind: 'image', mediaType, ...imageOf(document) }
}

/** A layer of something that is attached to an image: what it is, is for the reader to know. */
export type Attachment = Descriptor & { readonly annotations: ReadonlyMap<string, string> }

/**
 * The layers of an OCI manifest that is no container image.
 *
 * @throws Error saying what is wrong with the document
 */
export function parseAttachments(bytes: Buffer): readonly Attachment[] {
  const document = parseDocument(bytes)
  if (document.schemaVersion !== 2 || 'manifests' in document)
    throw new Error('expected an OCI image manifest')
  return listOf(document.layers, 'layers', MAX_ENTRIES).map((value, index) => {
    const field = `layers[${index}]`
    return { ...descriptorOf(value, field), annotations: annotationsOf((value as Json).annotations, field) }
  })
}

function annotationsOf(value: unknown, field: string): ReadonlyMap<string, string> {
  if (value === undefined || value === null) return new Map()
  const entries = isObject(value) ? Object.entries(value) : undefined
  if (entries === undefined || entries.some(([, text]) => typeof text !== 'string')) {
    throw new Error(`${field}.annotations: expected texts by name`)
  }
  return new Map(entries as Array<[string, string]>)
}

function parseDocument(bytes: Buffer): Json {
  let document: unknown
  try {
    document = parseStrictJson(bytes)
  } catch (error) {
    throw new Error(`the manifest is not valid JSON: ${messageOf(error)}`)
  }
  if (!isObject(document)) throw new Error('the manifest is no JSON object')
  return document
}

function mediaTypeOf(document: Json, contentType: string): string {
  const served = contentType.split(';')[0]!.trim().toLowerCase()
  const declared = document.mediaType
  if (served.startsWith(SCHEMA_1) || document.schemaVersion === 1) {
    throw new Error(
      'the image has only a schema 1 manifest, a format that was withdrawn; it must be pushed again',
    )
  }
  if (declared !== undefined && typeof declared !== 'string') throw new Error('mediaType is no string')
  // Some servers say application/json or nothing; then the document's own word counts.
  const isPrecise = MANIFEST_TYPES.includes(served)
  if (declared !== undefined && isPrecise && declared !== served) {
    throw new Error(`the manifest says it is ${shown(declared)} but was served as ${shown(served)}`)
  }
  const mediaType = declared ?? served
  if (!MANIFEST_TYPES.includes(mediaType)) {
    throw new Error(
      `the manifest's media type is ${shown(mediaType)}; expected one of ${MANIFEST_TYPES.join(', ')}`,
    )
  }
  return mediaType
}

function imageOf(document: Json): { config: Descriptor; layers: readonly Descriptor[] } {
  const config = descriptorOf(document.config, 'config')
  if (!CONFIG_TYPES.includes(config.mediaType)) {
    throw new Error(
      `not a container image but an artifact: its configuration is of type ${shown(config.mediaType)}`,
    )
  }
  const layers = listOf(document.layers, 'layers', MAX_LAYERS).map((value, index) => {
    const field = `layers[${index}]`
    const layer = descriptorOf(value, field)
    if (!LAYER.test(layer.mediaType)) {
      throw new Error(
        `${field} is of type ${shown(layer.mediaType)}, which is no layer a container can run from`,
      )
    }
    return FOREIGN_LAYER.test(layer.mediaType) ? { ...layer, ...urlsOf(value, field) } : layer
  })
  return { config, layers }
}

function entriesOf(document: Json): readonly IndexEntry[] {
  return listOf(document.manifests, 'manifests', MAX_ENTRIES).map((value, index) => {
    const field = `manifests[${index}]`
    const platform = (value as Json).platform
    return {
      ...descriptorOf(value, field),
      ...(platform === undefined ? {} : { platform: platformOf(platform, field) }),
    }
  })
}

function descriptorOf(value: unknown, field: string): Descriptor {
  if (!isObject(value)) throw new Error(`${field}: expected a descriptor, got ${shown(value)}`)
  const { mediaType, digest, size } = value
  if (typeof mediaType !== 'string')
    throw new Error(`${field}.mediaType: expected a string, got ${shown(mediaType)}`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new Error(`${field}.size: expected a number of bytes, got ${shown(size)}`)
  }
  return { mediaType, digest: parseDigest(digest, `${field}.digest`), size }
}

function platformOf(value: unknown, field: string): Platform {
  if (!isObject(value)) throw new Error(`${field}.platform: expected an object, got ${shown(value)}`)
  const { os, architecture, variant } = value
  const isText = typeof os === 'string' && typeof architecture === 'string'
  if (!isText || (variant !== undefined && typeof variant !== 'string')) {
    throw new Error(`${field}.platform: expected os and architecture, got ${shown(value)}`)
  }
  return variant === undefined ? { os, architecture } : { os, architecture, variant }
}

function urlsOf(value: unknown, field: string): { urls?: string[] } {
  const { urls } = value as Json
  if (urls === undefined) return {}
  return {
    urls: listOf(urls, `${field}.urls`, MAX_URLS).map(url => {
      if (typeof url !== 'string') throw new Error(`${field}.urls: expected strings`)
      return url
    }),
  }
}

function listOf(value: unknown, field: string, limit: number): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${field}: expected a list, got ${shown(value)}`)
  if (value.length > limit) throw new Error(`${field}: ${value.length} entries; at most ${limit} are allowed`)
  return value
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A foreign value in a message: quoted, so without control characters, and short. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}
