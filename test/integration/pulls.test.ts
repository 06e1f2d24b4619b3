/** How layers come to the node: at once, broken off, gone on with, and when the disk is full. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { mount, unmount } from '../../src/os/mounts.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { DockerRegistry, PEER_USER } from '../support/docker-registry.ts'
import { busyboxImage, imageOf, type TestImage } from '../support/images.ts'
import { type Compression, layerOf } from '../support/layers.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon({
  config: () => `[crio.image]
partial_download_after = "0s"
download_chunk_size = "1MiB"
`,
})

const SIZE = 3_000_000

/** Layers of three megabytes in which nothing repeats, with the file `/<index>`. */
async function noiseImage(layers: number, compression: Compression = 'gzip'): Promise<TestImage> {
  const contents = Array.from({ length: layers }, (_, index) =>
    layerOf([{ name: `${index}`, content: randomBytes(SIZE) }], compression),
  )
  return imageOf(await Promise.all(contents), { cmd: ['true'] })
}

/** By the registry's own name: a mirror in trouble is left, not asked again. */
function push(image: TestImage, name: string): string {
  const { registry } = kubelet().daemon
  registry.push(image, name, 'latest')
  return `${registry.address}/${name}:latest`
}

async function pull(image: string, daemon = kubelet().daemon): Promise<string> {
  return (await daemon.client.image('PullImage', { image: { image } })).image_ref
}

/** Bytes of a blob that the registry has sent. */
function sent(image: TestImage, layer = 0): number {
  const { digest } = image.layers[layer]!.blob
  return kubelet()
    .daemon.registry.requestsTo(/^GET /)
    .filter(({ path }) => path.endsWith(digest))
    .reduce((sum, request) => sum + request.sent, 0)
}

function kept(): number {
  const directory = join(kubelet().daemon.root, 'partial')
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0)
}

async function verified(image: string): Promise<void> {
  const { code, stdout, stderr } = await kubelet().daemon.berth('image', 'verify', image)
  assert.equal(code, 0, stdout + stderr)
}

async function isStagingEmpty(daemon = kubelet().daemon): Promise<void> {
  await until('nothing is in staging', () => readdirSync(join(daemon.root, 'staging')).length === 0)
}

test('ten pulls of one image at the same time cost one', async () => {
  const { registry } = kubelet().daemon
  const image = await noiseImage(3)
  const name = push(image, 'ten')
  const before = registry.requests.length
  const ids = await Promise.all(Array.from({ length: 10 }, () => pull(name)))
  assert.deepEqual(new Set(ids), new Set([image.id]))
  const asked = registry.requests.slice(before).filter(({ path }) => path.includes('/blobs/'))
  for (const [index, { blob }] of image.layers.entries()) assert.equal(sent(image, index), blob.size)
  assert.equal(asked.filter(({ path }) => path.endsWith(image.config!.digest)).length, 1)
  await verified(name)
})

test('images that share layers fetch each once, at the same time as well', async () => {
  const image = await noiseImage(4)
  const names = [push(imageOf(image.layers.slice(0, 3), { user: '1' }), 'left'), push(image, 'right')]
  await Promise.all(names.map(name => pull(name)))
  for (const [index, { blob }] of image.layers.entries()) assert.equal(sent(image, index), blob.size)
})

test('a pull that was killed with the daemon goes on where it was', async () => {
  const { daemon } = kubelet()
  const image = await noiseImage(1)
  const { blob } = image.layers[0]!
  const name = push(image, 'killed')
  // The parts before the third come whole; the third stops in its middle.
  daemon.registry.faults({ match: new RegExp(blob.digest), after: 2, stallAt: 500_000 })
  const broken = assert.rejects(pull(name))
  const came = 2 * 2 ** 20 + 500_000
  await until('the third part has stopped', () => kept() === came)
  await daemon.kill9()
  await broken
  daemon.registry.faults()
  await daemon.up()
  const before = sent(image)
  assert.equal(await pull(name), image.id)
  assert.equal(sent(image) - before, blob.size - came)
  assert.equal(kept(), 0)
  await verified(name)
  await isStagingEmpty()
})

test('what is kept and was damaged meanwhile costs another download, no wrong layer', async () => {
  const { daemon } = kubelet()
  const image = await noiseImage(1)
  const { blob } = image.layers[0]!
  const name = push(image, 'spoilt')
  daemon.registry.faults({ match: new RegExp(blob.digest), after: 1, stallAt: 100 })
  const broken = assert.rejects(pull(name))
  await until('the second part has stopped', () => kept() === 2 ** 20 + 100)
  await daemon.kill9()
  await broken
  daemon.registry.faults()
  const [file] = readdirSync(join(daemon.root, 'partial'))
  writeFileSync(join(daemon.root, 'partial', file!), randomBytes(2 ** 20 + 100))
  await daemon.up()
  assert.equal(await pull(name), image.id)
  assert.equal(kept(), 0)
  await verified(name)
})

test('a broken line, a registry that is busy, and one without ranges cost what is missing', async () => {
  const { registry } = kubelet().daemon
  for (const [index, fault] of [
    { cutAt: 300_000, times: 3 },
    { status: 503, after: 1, times: 1 },
    { status: 429, retryAfter: '1', after: 1, times: 1 },
    { ignoreRange: true },
  ].entries()) {
    const image = await noiseImage(1)
    const { digest, size } = image.layers[0]!.blob
    const name = push(image, `fault${index}`)
    registry.faults({ match: new RegExp(digest), ...fault })
    assert.equal(await pull(name), image.id)
    assert.equal(sent(image), size, JSON.stringify(fault))
    await verified(name)
  }
  registry.faults()
})

test('content that is not what the manifest says leaves nothing, however it is wrong', async () => {
  const { registry } = kubelet().daemon
  const cases = [
    [{ corrupt: true }, /digest|gzip/],
    [{ wrongRange: true }, /asked for bytes/],
    [{ extraBytes: 1 }, /asked for bytes/],
    [{ status: 404 }, /404/],
  ] as const
  for (const [index, [fault, message]] of cases.entries()) {
    const image = await noiseImage(1)
    const name = push(image, `wrong${index}`)
    registry.faults({ match: new RegExp(image.layers[0]!.blob.digest), ...fault })
    await assert.rejects(pull(name), message)
    registry.faults()
    await isStagingEmpty()
    assert.equal(await pull(name), image.id)
  }
})

test('a caller that leaves after a millisecond leaves nothing, and the next one gets the image', async () => {
  const { daemon } = kubelet()
  const image = await noiseImage(2)
  const name = push(image, 'left-at-once')
  const abort = new AbortController()
  setTimeout(() => abort.abort(), 1)
  await assert.rejects(async () => {
    for await (const _ of daemon.client.pull({ image: name }, abort.signal)) void _
  })
  await isStagingEmpty()
  assert.equal((await daemon.client.image('ImageStatus', { image: { image: name } })).image, null)
  assert.equal(await pull(name), image.id)
})

test('berth pull and the log say what a pull took', async () => {
  const { daemon } = kubelet()
  const image = await noiseImage(2)
  const name = push(image, 'told')
  daemon.registry.faults({ match: new RegExp(image.layers[1]!.blob.digest), trickle: 100_000 })
  const { code, stdout, stderr } = await daemon.berth('pull', name)
  assert.equal(code, 0, stderr)
  assert.equal(stdout, `${image.id}\n`)
  assert.match(stderr, /^[0-9a-f]{12} downloading \(2\.9 MiB\)$/m)
  assert.match(stderr, /^[0-9a-f]{12} done \(2\.9 MiB\)$/m)
  const line = daemon.log.split('\n').findLast(text => text.includes('image pulled')) ?? ''
  for (const field of [
    'reused',
    'downloaded',
    'resumed',
    'endpoint',
    'resolveMs',
    'downloadMs',
    'unpackMs',
  ]) {
    assert.ok(line.includes(field), `${field} in ${line}`)
  }
  assert.match((await daemon.berth('status')).stdout, /^gzip +\/usr\/bin\/igzip$/m)
  daemon.registry.faults()
})

test('a full disk fails the pull and leaves the disk as it was; with room it succeeds', async () => {
  await using daemon = await BerthDaemon.start({ label: 'full' })
  await daemon.stop()
  mkdirSync(daemon.root, { recursive: true })
  mount('tmpfs', daemon.root, 'tmpfs', 0, 'size=48m,mode=700')
  try {
    await daemon.up()
    const layers = [16, 64].map((megabytes, index) =>
      layerOf([{ name: `${index}`, content: Buffer.alloc(megabytes * 1_000_000, `${index} `) }]),
    )
    const image = imageOf(await Promise.all(layers), { cmd: ['true'] })
    daemon.registry.push(image, 'docker.io/library/large', 'latest')
    const name = 'docker.io/library/large:latest'
    for (let tries = 0; tries < 2; tries++) {
      await assert.rejects(pull(name, daemon), /no space left on device/)
      await isStagingEmpty(daemon)
      await until('the trash is empty', () => readdirSync(join(daemon.root, 'trash')).length === 0)
      assert.equal((await daemon.client.image('ListImages', {})).images.length, 0)
    }
    const MS_REMOUNT = 32
    mount('tmpfs', daemon.root, 'tmpfs', MS_REMOUNT, 'size=256m')
    assert.equal(await pull(name, daemon), image.id)
  } finally {
    await daemon.stop()
    unmount(daemon.root, { detach: true })
  }
})

test('images that skopeo wrote, in every format and compression, from Debian’s registry', async () => {
  await using peer = await DockerRegistry.start()
  const { daemon } = kubelet()
  const file = (name: string) => join(daemon.directory, 'certs.d/peer.test', name)
  mkdirSync(file(''), { recursive: true })
  writeFileSync(file('ca.pem'), peer.authority)
  writeFileSync(file('hosts.toml'), `server = "${peer.url}"\nca = "ca.pem"\n`)
  const image = await busyboxImage({ labels: { from: 'skopeo' } })
  daemon.registry.push(image, 'app', 'v1')
  const forms = {
    v2s2: ['--format=v2s2'],
    oci: ['--format=oci'],
    zstd: ['--format=oci', '--dest-compress-format=zstd'],
    chunked: ['--format=oci', '--dest-compress-format=zstd:chunked'],
  }
  const auth = PEER_USER
  for (const [tag, form] of Object.entries(forms)) {
    await peer.copy(`${daemon.registry.address}/app:v1`, `app:${tag}`, form)
    const name = `peer.test/app:${tag}`
    await daemon.client.image('PullImage', { image: { image: name }, auth })
    const { image: found } = await daemon.client.image('ImageStatus', { image: { image: name } })
    assert.ok(found !== null, tag)
    await verified(name)
  }
})
