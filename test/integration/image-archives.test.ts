import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { command } from '../support/command.ts'
import { busyboxImage, imageOf } from '../support/images.ts'
import { BUSYBOX } from '../support/kubelet.ts'
import { layerOf } from '../support/layers.ts'
import { tar } from '../support/tar.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

async function berth(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubelet().daemon.berth('image', ...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout
}

/** A file of this test, away with the daemon. */
function at(name: string): string {
  const directory = join(kubelet().daemon.directory, 'archives')
  mkdirSync(directory, { recursive: true })
  return join(directory, name)
}

async function skopeo(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await command('/usr/bin/skopeo', ['--insecure-policy', ...args], {
    TMPDIR: kubelet().daemon.directory,
    HOME: kubelet().daemon.directory,
  })
  assert.equal(code, 0, stderr)
  return stdout
}

async function imageId(name: string): Promise<string | undefined> {
  const { image } = await kubelet().daemon.client.image('ImageStatus', { image: { image: name } })
  return image?.id
}

/** Nothing of an import or export stays but the images. */
function checkClean(): void {
  const { root } = kubelet().daemon
  assert.deepEqual(readdirSync(join(root, 'staging')), [])
  assert.equal(readdirSync(join(root, 'layers')).length, readdirSync(join(root, 'records')).length)
}

async function exportOnce(name: string, file: string): Promise<Buffer> {
  await berth('export', name, '-o', file)
  return readFileSync(file)
}

test('an export is the same bytes each time, and imported again the same image', async () => {
  const { id } = await busyboxImage()
  const first = await exportOnce(BUSYBOX, at('one.tar'))
  const second = await exportOnce('busybox', at('two.tar'))
  assert.ok(first.equals(second))
  await berth('rm', BUSYBOX)
  assert.equal(await imageId(BUSYBOX), undefined)
  assert.equal(await berth('import', at('one.tar')), `${await importedLine(id, first)}\n`)
  assert.equal(await imageId(BUSYBOX), id)
  assert.ok((await exportOnce(id, at('three.tar'))).equals(first))

  // An air-gapped node: a container of it, and the image under its digest too.
  const { image } = await kubelet().daemon.client.image('ImageStatus', { image: { image: BUSYBOX } })
  assert.deepEqual(image?.repo_tags, [BUSYBOX])
  assert.equal(image?.repo_digests.length, 1)
  assert.equal(await imageId(image!.repo_digests[0]!), id)
  const pod = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(pod, 'echo here'), 'here')
  assert.match(await berth('verify'), /: whole/)
  checkClean()
})

/** What `berth image import` prints. */
async function importedLine(id: string, archive: Buffer): Promise<string> {
  const digest = /"digest":"(sha256:[0-9a-f]{64})"/.exec(archive.toString('latin1'))?.[1]
  return `${id} docker.io/library/busybox@${digest} ${BUSYBOX}`
}

test('skopeo reads what is exported, and what skopeo writes is imported', async () => {
  const { id } = await busyboxImage()
  const archive = at('exported.tar')
  await berth('export', BUSYBOX, '-o', archive)
  const config = await skopeo('inspect', '--config', '--raw', `oci-archive:${archive}:${BUSYBOX}`)
  assert.equal(`sha256:${createHash('sha256').update(config).digest('hex')}`, id)
  assert.equal(await skopeo('inspect', '--config', '--raw', `docker-archive:${archive}:${BUSYBOX}`), config)

  const written: Array<readonly [target: string, path: string, args: readonly string[]]> = [
    [`docker-archive:${at('d.tar')}:example.org/d:1`, at('d.tar'), []],
    [`oci-archive:${at('o.tar')}:example.org/o:1`, at('o.tar'), []],
    [`oci:${at('layout')}:example.org/l:1`, at('layout'), []],
    [`oci:${at('zstd')}:example.org/z:1`, at('zstd'), ['--dest-compress-format', 'zstd']],
  ]
  for (const [target, path, args] of written) {
    await skopeo('copy', ...args, `oci-archive:${archive}:${BUSYBOX}`, target)
    const name = `example.org/${target.split('/').at(-1)}`
    assert.match(await berth('import', path), new RegExp(`^${id} .* ?${name}$`, 'm'))
    assert.equal(await imageId(name), id, name)
  }
  for (const [form, compress] of [
    ['gz', gzipSync],
    ['zst', zstdCompressSync],
  ] as const) {
    writeFileSync(at(`d.tar.${form}`), compress(readFileSync(at('d.tar'))))
    await berth('import', '--tag', `example.org/compressed:${form}`, at(`d.tar.${form}`))
    assert.equal(await imageId(`example.org/compressed:${form}`), id)
  }
  checkClean()
})

test('an archive comes from standard input and goes to standard output', async () => {
  const { daemon } = kubelet()
  const { id } = await busyboxImage()
  const script = `"$0" image export --listen=${daemon.socket} busybox |
    "$0" image import --listen=${daemon.socket} --tag example.org/piped:1 -`
  const { code, stdout, stderr } = await command('/bin/bash', ['-o', 'pipefail', '-c', script, berthPath()], {
    PATH: process.env.PATH ?? '',
  })
  assert.equal(code, 0, stderr)
  assert.match(stdout, new RegExp(`^${id} `))
  assert.equal(await imageId('example.org/piped:1'), id)
})

function berthPath(): string {
  return join(import.meta.dirname, '../../bin/berth')
}

test('an export replaces no device by a file, and one that fails leaves the file that was there', async () => {
  const null_ = at('null')
  assert.equal((await command('/usr/bin/mknod', [null_, 'c', '1', '3'])).code, 0)
  await berth('export', BUSYBOX, '-o', null_)
  assert.ok(statSync(null_).isCharacterDevice())
  writeFileSync(at('kept.tar'), 'kept')
  const { code, stderr } = await kubelet().daemon.berth('image', 'export', 'nothing', '-o', at('kept.tar'))
  assert.deepEqual([code, /image "nothing" not found/.test(stderr)], [1, true])
  assert.equal(readFileSync(at('kept.tar'), 'utf8'), 'kept')
  assert.equal(existsSync(at('kept.tar.part')), false)
})

test('an export that a signal ends leaves no part of its file, and the one that was there', async () => {
  const { daemon } = kubelet()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // It gets as far as its file, and waits there for the daemon.
    await daemon.restart({ BERTH_FAULTS: 'hang@os.fork-worker=archive-worker' })
    writeFileSync(at('cut.tar'), 'kept')
    const child = spawn(berthPath(), [
      'image',
      'export',
      `--listen=${daemon.socket}`,
      BUSYBOX,
      '-o',
      at('cut.tar'),
    ])
    const ended = new Promise(resolve => child.once('exit', (_, by) => resolve(by)))
    await until('its file is there', () => existsSync(at('cut.tar.part')))
    child.kill(signal)
    assert.equal(await ended, signal)
    assert.equal(existsSync(at('cut.tar.part')), false, signal)
    assert.equal(readFileSync(at('cut.tar'), 'utf8'), 'kept')
  }
  await daemon.restart()
})

test('an export whose daemon dies leaves no part of its file', async () => {
  const { daemon } = kubelet()
  await daemon.restart({ BERTH_FAULTS: 'kill@os.fork-worker=archive-worker' })
  const { code, stderr } = await daemon.berth('image', 'export', BUSYBOX, '-o', at('lost.tar'))
  assert.notEqual(code, 0, stderr)
  await daemon.restart()
  assert.deepEqual([existsSync(at('lost.tar.part')), existsSync(at('lost.tar'))], [false, false])
  await berth('export', BUSYBOX, '-o', at('lost.tar'))
})

test('names are given and taken, and an archive without a name says so', async () => {
  const { id } = await busyboxImage()
  assert.equal(await berth('tag', 'busybox', 'example.org/other'), 'example.org/other:latest\n')
  assert.equal(await imageId('example.org/other'), id)
  assert.equal(await berth('rm', '--name', 'example.org/other'), 'example.org/other:latest\n')
  assert.equal(await imageId('example.org/other'), undefined)
  assert.equal(await imageId(BUSYBOX), id)
  const layout = at('nameless')
  await berth('export', id, '-o', at('n.tar'))
  await skopeo('copy', `oci-archive:${at('n.tar')}:${BUSYBOX}`, `oci:${layout}:v1`)
  const { stdout, stderr } = await kubelet().daemon.berth('image', 'import', layout)
  assert.equal(stdout, `${id}\n`)
  assert.match(stderr, /the archive calls it "v1", which is no name; give one with --tag/)
})

test('what is no archive of images is said, and leaves nothing', async () => {
  const layer = await layerOf([{ name: 'f', content: 'x' }], 'none')
  const image = imageOf([layer])
  const bad: Array<readonly [content: Buffer, message: RegExp]> = [
    [Buffer.from('no archive at all'.repeat(100)), /tar: no tar archive/],
    [tar([{ name: 'a', content: 'b' }]), /neither an OCI layout .* nor a Docker archive/],
    [
      tar([{ name: 'manifest.json', content: '[{"Config":"c.json","Layers":[]}]' }]),
      /there is no file "c\.json"/,
    ],
    [
      tar([
        {
          name: 'index.json',
          content: JSON.stringify({
            schemaVersion: 2,
            manifests: [{ mediaType: image.mediaType, digest: image.digest, size: 3 }],
          }),
        },
      ]),
      /it has no content with digest sha256:/,
    ],
    [
      gzipSync(tar([{ name: 'a', content: 'b'.repeat(100_000) }])).subarray(0, 100),
      /gzip: unexpected end of file/,
    ],
  ]
  for (const [content, message] of bad) {
    writeFileSync(at('bad.tar'), content)
    const { code, stderr } = await kubelet().daemon.berth('image', 'import', at('bad.tar'))
    assert.equal(code, 1)
    assert.match(stderr, message)
    checkClean()
  }
  const missing = await kubelet().daemon.berth('image', 'import', at('missing.tar'))
  assert.match(missing.stderr, /file: cannot be read: ENOENT/)
  const unknown = await kubelet().daemon.berth('image', 'export', 'nothing', '-o', at('x.tar'))
  assert.match(unknown.stderr, /image "nothing" not found/)
  assert.ok(!existsSync(at('x.tar')) && !existsSync(at('x.tar.part')))
})

test('a damaged image is not exported, and an import mends it', async () => {
  const { root } = kubelet().daemon
  await berth('export', BUSYBOX, '-o', at('good.tar'))
  const [layer] = JSON.parse(await berth('inspect', BUSYBOX)).layers
  writeFileSync(join(root, 'layers', layer.directory, 'bin/busybox'), 'not busybox')
  const { code, stderr } = await kubelet().daemon.berth('image', 'export', BUSYBOX, '-o', at('bad.tar'))
  assert.equal(code, 1)
  assert.match(stderr, /the layer is damaged: "bin\/busybox" has 11 bytes instead of/)
  await kubelet().daemon.berth('image', 'verify')
  kubelet().daemon.registry.faults({ match: /./, status: 500 })
  await berth('import', at('good.tar'))
  kubelet().daemon.registry.faults()
  assert.match(await berth('verify'), /layers: 1 whole/)
})
