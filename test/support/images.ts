import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { runtimeFilesOf } from './elf.ts'
import { type Blob, blobOf, type Compression, type Layer, layerOf, type ManifestFormat } from './layers.ts'
import type { TarFixture } from './tar.ts'

/** An image, or an index of images, as a registry holds it. */
export type TestImage = {
  readonly manifest: Buffer
  readonly mediaType: string
  /** Digest of `manifest`. */
  readonly digest: string
  /** Digest of the configuration: the image id. '' for an index. */
  readonly id: string
  readonly config: Blob | undefined
  readonly layers: readonly Layer[]
  /** The images of an index. */
  readonly children: readonly TestImage[]
}

export type Platform = { readonly os: string; readonly architecture: string; readonly variant?: string }

export type ImageOptions = {
  readonly entrypoint?: readonly string[]
  readonly cmd?: readonly string[]
  readonly env?: readonly string[]
  readonly user?: string
  readonly workingDir?: string
  readonly volumes?: readonly string[]
  readonly labels?: Readonly<Record<string, string>>
  readonly stopSignal?: string
  readonly manifest?: ManifestFormat
  /** OCI architecture name; default: this machine's. The files are always this machine's. */
  readonly architecture?: string
  readonly os?: string
}

export type BusyboxOptions = ImageOptions & {
  /** Text, bytes or a whole entry by absolute path; they make one further layer. */
  readonly files?: Readonly<Record<string, string | Buffer | Omit<TarFixture, 'name'>>>
  /** Layers above the base, lowest first. */
  readonly extraLayers?: ReadonlyArray<Layer | readonly TarFixture[]>
  /** Of every layer that isn't given ready-made; default gzip. */
  readonly compression?: Compression
}

const hostArchitecture: string = { x64: 'amd64', arm64: 'arm64' }[process.arch as string] ?? process.arch

const MEDIA_TYPES = {
  oci: {
    index: 'application/vnd.oci.image.index.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
    zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
    none: 'application/vnd.oci.image.layer.v1.tar',
  },
  docker: {
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    zstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
    none: 'application/vnd.docker.image.rootfs.diff.tar',
  },
} as const

/** Busybox with a shell, hard-linked applets, users and a sticky /tmp; CMD `sh`. The same options give the same image. */
export async function busyboxImage(options: BusyboxOptions = {}): Promise<TestImage> {
  const compression = options.compression ?? 'gzip'
  const layers = [await busyboxLayer(compression)]
  if (options.files !== undefined) layers.push(await layerOf(entriesOf(options.files), compression))
  for (const layer of options.extraLayers ?? []) {
    layers.push('blob' in layer ? layer : await layerOf(layer, compression))
  }
  return imageOf(layers, { cmd: ['sh'], ...options })
}

/** An image of exactly these layers, lowest first. */
export function imageOf(layers: readonly Layer[], options: ImageOptions = {}): TestImage {
  const format = options.manifest ?? 'oci'
  const config = blobOf(json(configOf(layers, options)))
  const types = MEDIA_TYPES[format]
  return sealed(
    {
      schemaVersion: 2,
      mediaType: types.manifest,
      config: { mediaType: types.config, digest: config.digest, size: config.size },
      layers: layers.map(layer => ({
        mediaType: types[layer.compression],
        digest: layer.blob.digest,
        size: layer.blob.size,
      })),
    },
    { mediaType: types.manifest, id: config.digest, config, layers, children: [] },
  )
}

/** An index (or Docker manifest list) of images, or of other indexes. */
export function indexOf(
  members: ReadonlyArray<{ readonly image: TestImage; readonly platform?: Platform }>,
  format: ManifestFormat = 'oci',
): TestImage {
  const mediaType = MEDIA_TYPES[format].index
  const document = {
    schemaVersion: 2,
    mediaType,
    manifests: members.map(({ image, platform }) => ({
      mediaType: image.mediaType,
      digest: image.digest,
      size: image.manifest.length,
      ...(platform === undefined ? {} : { platform }),
    })),
  }
  return sealed(document, {
    mediaType,
    id: '',
    config: undefined,
    layers: [],
    children: members.map(m => m.image),
  })
}

/** The image under another manifest document: for manifests that are wrong on purpose. */
export function withManifest(image: TestImage, document: unknown, mediaType = image.mediaType): TestImage {
  const { manifest: _manifest, digest: _digest, ...rest } = image
  return sealed(document, { ...rest, mediaType })
}

function sealed(document: unknown, rest: Omit<TestImage, 'manifest' | 'digest'>): TestImage {
  const manifest = Buffer.isBuffer(document) ? document : json(document)
  return { manifest, digest: blobOf(manifest).digest, ...rest }
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}

function configOf(layers: readonly Layer[], options: ImageOptions): unknown {
  const config = {
    Env: options.env ?? ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    Entrypoint: options.entrypoint,
    Cmd: options.cmd,
    User: options.user,
    WorkingDir: options.workingDir,
    Volumes: options.volumes && Object.fromEntries(options.volumes.map(path => [path, {}])),
    Labels: options.labels,
    StopSignal: options.stopSignal,
  }
  return {
    created: '2023-11-14T22:13:20Z',
    architecture: options.architecture ?? hostArchitecture,
    os: options.os ?? 'linux',
    config,
    rootfs: { type: 'layers', diff_ids: layers.map(layer => layer.diffId) },
    history: layers.map((_, index) => ({ created: '2023-11-14T22:13:20Z', created_by: `layer ${index}` })),
  }
}

function entriesOf(files: NonNullable<BusyboxOptions['files']>): TarFixture[] {
  return Object.entries(files)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, file]) => {
      const name = posix.relative('/', path)
      if (typeof file === 'string' || Buffer.isBuffer(file)) return { name, content: file }
      return { name, ...file }
    })
}

const baseLayers = new Map<Compression, Promise<Layer>>()

/** The layer of `busyboxImage`, made once per process. */
function busyboxLayer(compression: Compression = 'gzip'): Promise<Layer> {
  let layer = baseLayers.get(compression)
  if (layer === undefined) {
    layer = layerOf(busyboxEntries(), compression)
    baseLayers.set(compression, layer)
  }
  return layer
}

const BUSYBOX = '/bin/busybox'

// The names of users and groups that image tests of the CRI suite rely on.
const PASSWD = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`
const GROUP = `root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
users:x:100:
nobody:x:65534:
nogroup:x:65533:
`

// Debian's busybox is built without these two.
const SCRIPTS: Readonly<Record<string, string>> = {
  'usr/bin/pgrep': `#!/bin/sh
# pgrep NAME: ids of the processes whose command name contains NAME. Zombies do not count.
found=1
for dir in /proc/[0-9]*; do
  { read -r line < "$dir/stat"; } 2>/dev/null || continue
  case "$line" in
    *") Z "*) ;;
    *"("*"$1"*")"*) echo "\${dir#/proc/}"; found=0 ;;
  esac
done
exit $found
`,
  'usr/bin/ipcs': `#!/bin/sh
# ipcs [-m]: the shared memory segments of this IPC namespace.
cat /proc/sysvipc/shm
`,
}

/**
 * The dynamic busybox with its ELF loader and libraries: the static build runs applets without looking at PATH.
 * Applets are hard links, since masking a symlinked /bin/ls would mask busybox itself.
 */
function busyboxEntries(): TarFixture[] {
  const applets = execFileSync(BUSYBOX, ['--list-full'], { encoding: 'utf8' }).split('\n')
  const links = applets.filter(path => path !== '' && path !== 'bin/busybox' && !(path in SCRIPTS))
  const libraries = runtimeFilesOf(BUSYBOX).map(path => posix.relative('/', path))

  const directories = new Set<string>()
  for (const path of [...DIRECTORIES, ...[...links, ...libraries].map(posix.dirname)]) {
    for (let directory = path; directory !== '.'; directory = posix.dirname(directory))
      directories.add(directory)
  }
  const file = (name: string, content: string | Buffer, mode: number): TarFixture => ({ name, content, mode })
  const byName = (a: string, b: string) => (a < b ? -1 : 1)
  return [
    ...[...directories].sort(byName).map(name => ({ name: `${name}/` })),
    { name: 'root/', mode: 0o700 },
    { name: 'tmp/', mode: 0o1777 },
    file('etc/passwd', PASSWD, 0o644),
    file('etc/group', GROUP, 0o644),
    ...libraries.map(path => file(path, readFileSync(`/${path}`), 0o755)),
    file('bin/busybox', readFileSync(BUSYBOX), 0o755),
    ...links.sort(byName).map(name => ({ name, link: 'bin/busybox', mode: 0o755 })),
    ...Object.entries(SCRIPTS).map(([path, text]) => file(path, text, 0o755)),
  ]
}

const DIRECTORIES = [
  'bin',
  'dev',
  'etc',
  'home',
  'proc',
  'run',
  'sbin',
  'sys',
  'usr/bin',
  'usr/sbin',
  'var/log',
  'var/run',
  'var/www',
]
