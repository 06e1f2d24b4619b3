import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import { parseStrictJson } from '../base/strict-json.ts'
import { type Descriptor, type Manifest, parseManifest } from '../registry/manifest.ts'
import { choosePlatform, type Platform, platformName } from '../registry/platform.ts'
import type { SpooledFile } from '../storage/archive-protocol.ts'

/** An image in an archive: everything of it was found there, and hashes to what it is called. */
export type ArchivedImage = {
  /** As the archive has them; they need not be names of images. */
  readonly names: readonly string[]
  /** What a registry would have under the name: the index, if there is one around the manifest. */
  readonly digest: Digest
  readonly manifestDigest: Digest
  readonly manifestBytes: Buffer
  readonly mediaType: string
  readonly config: Descriptor
  readonly configBytes: Buffer
  /** Lowest first. */
  readonly layers: readonly Descriptor[]
}

/** Documents are read whole: manifests may have 4 MiB, configurations some KiB. */
const MAX_DOCUMENT = 4 * 1024 * 1024
/** Of one archive, in memory at once: a thousand images of real ones have some tens of MiB. */
const MAX_DOCUMENTS = 128 * 1024 * 1024

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar'

// An index within an index; what is deeper was not made by a builder.
const MAX_DEPTH = 2
// docker save links layers to layers, never links to links to links.
const MAX_LINKS = 4
const MAX_IMAGES = 1000

type Plain = Extract<SpooledFile, { readonly file: string }>

/** The files of an archive, by name and by digest. */
export class ArchiveFiles {
  readonly #byName = new Map<string, SpooledFile>()
  readonly #byDigest = new Map<string, Plain>()
  readonly #documents = new Map<string, Buffer>()
  #documentBytes = 0

  constructor(files: readonly SpooledFile[]) {
    for (const file of files) {
      this.#byName.set(file.name, file)
      if ('file' in file) this.#byDigest.set(file.digest, file)
    }
  }

  named(name: string): Plain | undefined {
    let file = this.#byName.get(name)
    for (let links = 0; file !== undefined && 'target' in file; links++) {
      if (links === MAX_LINKS) return undefined
      file = this.#byName.get(file.target)
    }
    return file
  }

  /** @throws BerthError invalid if the archive has no such content, or of another size */
  blob({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Plain {
    const file = this.#byDigest.get(digest)
    if (file === undefined) throw unusable(`it has no content with digest ${digest}`)
    if (file.size !== size)
      throw unusable(`${file.name} has ${file.size} bytes, not the ${size} that it should have`)
    return file
  }

  /** @throws BerthError invalid */
  read({ file, name, size }: Plain): Buffer {
    const known = this.#documents.get(file)
    if (known !== undefined) return known
    if (size > MAX_DOCUMENT) throw unusable(`${name} has ${size} bytes; at most ${MAX_DOCUMENT} are read`)
    this.#documentBytes += size
    if (this.#documentBytes > MAX_DOCUMENTS)
      throw unusable(`its manifests and configurations have more than ${MAX_DOCUMENTS} bytes`)
    const bytes = readFileSync(file)
    this.#documents.set(file, bytes)
    return bytes
  }
}

/**
 * The images in an archive: an OCI layout (image spec "Image Layout"), or what `docker save` writes.
 * @throws BerthError invalid, saying what is wrong with it
 */
export function imagesOf(files: ArchiveFiles, platform: Platform): ArchivedImage[] {
  const index = files.named('index.json')
  if (index !== undefined) return imagesOfLayout(files, files.read(index), platform)
  const manifest = files.named('manifest.json')
  if (manifest !== undefined) return imagesOfDocker(files, files.read(manifest))
  throw unusable('it is neither an OCI layout (it has no index.json) nor a Docker archive (no manifest.json)')
}

type Entry = {
  readonly descriptor: Descriptor
  readonly platform: Platform | undefined
  readonly names: readonly string[]
}

function imagesOfLayout(files: ArchiveFiles, bytes: Buffer, platform: Platform): ArchivedImage[] {
  const entries = entriesOf(bytes)
  // Several entries under one name are the same image for different machines.
  const groups = [...Map.groupBy(entries, entry => entry.names.join(' ')).values()].flatMap(group =>
    group.length > 1 && group.every(entry => entry.platform === undefined)
      ? group.map(entry => [entry])
      : [group],
  )
  const images = groups.flatMap(group => {
    const chosen =
      group.length === 1
        ? 0
        : choosePlatform(
            group.map(entry => entry.platform),
            platform,
          )
    const entry = chosen === undefined ? undefined : group[chosen]
    return entry === undefined ? [] : [imageOf(files, entry, platform)]
  })
  if (images.length > 0) return images
  throw unusable(`it has no image for ${platformName(platform)}`)
}

function entriesOf(bytes: Buffer): Entry[] {
  const index = parsed('index.json', () => parseManifest(bytes, OCI_INDEX))
  if (index.kind !== 'index') throw unusable('index.json is no index')
  const { manifests } = parsed('index.json', () => parseStrictJson(bytes)) as {
    readonly manifests: ReadonlyArray<{ readonly annotations?: Readonly<Record<string, unknown>> }>
  }
  const entries = index.entries.map(({ platform, ...descriptor }, at) => ({
    descriptor,
    platform,
    names: namesIn(manifests[at]?.annotations ?? {}),
  }))
  return limited(entries.filter(({ platform }) => platform?.os !== 'unknown'))
}

/** containerd and Docker write the whole name, others only one of these two. */
function namesIn(annotations: Readonly<Record<string, unknown>>): string[] {
  const name = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name']
  return typeof name === 'string' && name !== '' ? [name] : []
}

function imageOf(files: ArchiveFiles, { descriptor, names }: Entry, platform: Platform): ArchivedImage {
  let found = descriptor
  for (let depth = 0; ; depth++) {
    const bytes = files.read(files.blob(found))
    const manifest: Manifest = parsed(`manifest ${found.digest}`, () => parseManifest(bytes, found.mediaType))
    if (manifest.kind === 'image') {
      const { mediaType, config, layers } = manifest
      for (const layer of layers) files.blob(layer)
      const configBytes = files.read(files.blob(config))
      return {
        names,
        digest: descriptor.digest,
        manifestDigest: found.digest,
        manifestBytes: bytes,
        mediaType,
        config,
        configBytes,
        layers,
      }
    }
    if (depth === MAX_DEPTH) throw unusable(`index ${descriptor.digest} is nested too deeply`)
    const chosen = choosePlatform(
      manifest.entries.map(entry => entry.platform),
      platform,
    )
    if (chosen === undefined) {
      const offered = manifest.entries.flatMap(entry =>
        entry.platform ? [platformName(entry.platform)] : [],
      )
      throw unusable(
        `${names[0] ?? descriptor.digest} is for ${offered.join(', ')}, not ${platformName(platform)}`,
      )
    }
    found = manifest.entries[chosen]!
  }
}

type DockerImage = { readonly Config?: unknown; readonly RepoTags?: unknown; readonly Layers?: unknown }

/** `docker save`: it has no manifest that a registry would know, so one is made. */
function imagesOfDocker(files: ArchiveFiles, bytes: Buffer): ArchivedImage[] {
  const list = parsed('manifest.json', () => parseStrictJson(bytes))
  if (!Array.isArray(list)) throw unusable('manifest.json is no list')
  return limited(list as readonly unknown[]).map((value, at) => {
    const field = `manifest.json[${at}]`
    const { Config: config, RepoTags: tags, Layers: layers } = (value ?? {}) as DockerImage
    const configFile = fileNamed(files, config, `${field}.Config`)
    const blobs = textsOf(layers, `${field}.Layers`).map(name => fileNamed(files, name, `${field}.Layers`))
    const claimed = /([0-9a-f]{64})(?:\.json)?$/.exec(configFile.name)?.[1]
    if (claimed !== undefined && configFile.digest !== `sha256:${claimed}`) {
      throw unusable(`${configFile.name} has digest ${configFile.digest}`)
    }
    const document = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: OCI_CONFIG, digest: configFile.digest, size: configFile.size },
      layers: blobs.map(blob => ({ mediaType: layerTypeOf(blob), digest: blob.digest, size: blob.size })),
    }
    const manifestBytes = Buffer.from(JSON.stringify(document))
    const digest = digestFromHex(createHash('sha256').update(manifestBytes).digest('hex'))
    return {
      names: tags === undefined || tags === null ? [] : textsOf(tags, `${field}.RepoTags`),
      digest,
      manifestDigest: digest,
      manifestBytes,
      mediaType: OCI_MANIFEST,
      config: document.config,
      configBytes: files.read(configFile),
      layers: document.layers,
    }
  })
}

function layerTypeOf({ file }: Plain): string {
  const magic = Buffer.alloc(4)
  const fd = openSync(file, 'r')
  try {
    readSync(fd, magic, 0, magic.length, 0)
  } finally {
    closeSync(fd)
  }
  if (magic[0] === 0x1f && magic[1] === 0x8b) return `${OCI_LAYER}+gzip`
  return magic.readUInt32LE() === 0xfd2fb528 ? `${OCI_LAYER}+zstd` : OCI_LAYER
}

function fileNamed(files: ArchiveFiles, name: unknown, field: string): Plain {
  const file = typeof name === 'string' ? files.named(name) : undefined
  if (file === undefined) throw unusable(`${field}: there is no file ${JSON.stringify(name)}`)
  return file
}

function textsOf(value: unknown, field: string): readonly string[] {
  if (Array.isArray(value) && value.every(item => typeof item === 'string')) return value
  throw unusable(`${field}: expected a list of strings`)
}

function limited<T>(list: readonly T[]): readonly T[] & T[] {
  if (list.length > MAX_IMAGES) throw unusable(`it has ${list.length} images; at most ${MAX_IMAGES} are read`)
  return [...list]
}

function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    throw unusable(`${what}: ${messageOf(error)}`)
  }
}

function unusable(why: string): BerthError {
  return new BerthError('invalid', `the archive cannot be imported: ${why}`)
}
