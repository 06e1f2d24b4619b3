import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isCode } from '../../src/base/errors.ts'
import { lsetxattr, mknod } from '../../src/os/syscalls.ts'
import { ArchiveProcess } from '../../src/storage/archive-process.ts'
import type { LayerFiles } from '../../src/storage/archive-protocol.ts'
import { SnapshotStore } from '../support/snapshot-store.ts'
import { type TarFixture, tar } from '../support/tar.ts'

const store = new SnapshotStore()
const { signal } = new AbortController()
let reader = new ArchiveProcess()
after(() => reader[Symbol.asyncDispose]())

const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex')

const everything: TarFixture[] = [
  { name: 'bin/', mode: 0o755, mtime: 1_600_000_000 },
  { name: 'bin/tool', content: 'tool'.repeat(100_000), mode: 0o4755, mtime: 1_600_000_001 },
  { name: 'bin/other', link: 'bin/tool' },
  { name: 'bin/capable', content: 'x', xattrs: { 'security.capability': CAPABILITY, 'user.note': 'hello' } },
  { name: 'bin/short', symlink: 'tool' },
  { name: 'bin/long', symlink: 'a/'.repeat(60) },
  { name: 'dev/', uid: 7, gid: 8 },
  { name: 'dev/null', type: '3', major: 1, minor: 3, mode: 0o666 },
  { name: 'dev/loop', type: '4', major: 7, minor: 300 },
  { name: 'dev/pipe', type: '6' },
  { name: 'implied/deep/file', content: '', pax: { mtime: '1500000000.123456789' } },
  { name: Buffer.from('odd-\xff\xfe', 'latin1'), content: 'bytes' },
  { name: `${'long/'.repeat(40)}name`, content: 'long' },
  { name: 'gone/.wh.file' },
  { name: 'opaque/.wh..wh..opq' },
  { name: 'opaque/new', content: 'new' },
  { name: 'late/.wh.child' },
  { name: 'linked', link: 'below/target' },
  { name: '.wh..wh.plnk/1.2', content: 'what builders of old left in' },
]
const below: TarFixture[] = [
  { name: 'below/', mode: 0o1777, uid: 3 },
  { name: 'below/target', content: 'target', xattrs: { 'user.x': 'y' } },
  { name: 'gone/file', content: '1' },
  { name: 'opaque/old', content: '1' },
  { name: 'implied/', mode: 0o700, uid: 9, xattrs: { 'user.from': 'below' } },
]

/** A layer of its own to damage: its directory and what reads it. */
async function made(...contents: ReadonlyArray<readonly TarFixture[]>): Promise<LayerFiles> {
  const [top] = await store.layers(...contents)
  return store.files.get(top!)!
}

async function differences(files: LayerFiles): Promise<string[]> {
  const found = await reader.verify(files, signal, () => undefined)
  assert.equal(found.count, found.differences.length)
  return found.differences.map(({ path, what }) => `${path}: ${what}`)
}

async function recreated(files: LayerFiles): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of reader.recreate(files, signal)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test('a layer with everything in it is what its record says, and makes its archive again', async () => {
  const layers = await store.layers(below, everything)
  for (const [index, content] of [everything, below].entries()) {
    const files = store.files.get(layers[index]!)!
    assert.deepEqual(await differences(files), [])
    const archive = await recreated(files)
    assert.deepEqual(archive, tar(content))
    const { digest, size } = await reader.measure(files, signal)
    assert.deepEqual([digest, size], [files.diffId, archive.length])
  }
})

/** What is done to a layer, and what is found then. */
const at = (files: LayerFiles, path: string) => join(files.dir, path)
const keepTime = (path: string, change: () => void) => {
  const { mtimeMs } = statSync(path)
  change()
  lutimesSync(path, mtimeMs / 1000, mtimeMs / 1000)
}
const kinds: Array<readonly [damage: (files: LayerFiles) => void, found: readonly RegExp[]]> = [
  [
    files =>
      keepTime(at(files, 'bin/tool'), () => {
        const bytes = readFileSync(at(files, 'bin/tool'))
        bytes[200_000]! ^= 1
        writeFileSync(at(files, 'bin/tool'), bytes)
        chmodSync(at(files, 'bin/tool'), 0o4755)
      }),
    [/^bin\/tool: has other content$/],
  ],
  [
    files => keepTime(at(files, 'bin/tool'), () => truncateSync(at(files, 'bin/tool'), 5)),
    [/^bin\/tool: has 5 bytes instead of 400000$/],
  ],
  [
    files => keepTime(at(files, 'bin'), () => rmSync(at(files, 'bin/capable'))),
    [/^bin\/capable: is missing$/],
  ],
  [
    files => keepTime(at(files, 'dev'), () => mkdirSync(at(files, 'dev/more'))),
    [/^dev\/more: is not part of the layer$/],
  ],
  [files => chmodSync(at(files, 'bin'), 0o700), [/^bin: has mode 0700 instead of 0755$/]],
  [files => chownSync(at(files, 'dev/null'), 1, 2), [/^dev\/null: belongs to 1:2 instead of 0:0$/]],
  [
    files => lsetxattr(at(files, 'bin/capable'), 'user.note', Buffer.from('HELLO')),
    [/^bin\/capable: has another value in the attribute user\.note$/],
  ],
  [
    files => lsetxattr(at(files, 'bin/capable'), 'user.more', Buffer.from('x')),
    [/^bin\/capable: has the attribute user\.more, which is not part of the layer$/],
  ],
  [files => lutimesSync(at(files, 'dev/pipe'), 5, 5), [/^dev\/pipe: was modified at 1970-01-01T00:00:05/]],
  [
    files =>
      keepTime(at(files, 'bin'), () => {
        rmSync(at(files, 'bin/short'))
        symlinkSync('../evil', at(files, 'bin/short'))
      }),
    [/^bin\/short: leads elsewhere$/],
  ],
  [
    files =>
      keepTime(at(files, 'dev'), () => {
        rmSync(at(files, 'dev/null'))
        mknod(at(files, 'dev/null'), 0o20666, 1, 5)
      }),
    [/^dev\/null: (has mode|is device 1:5 instead of 1:3)/],
  ],
  [
    files =>
      keepTime(at(files, 'bin'), () => {
        const bytes = readFileSync(at(files, 'bin/tool'))
        const time = statSync(at(files, 'bin/tool')).mtimeMs / 1000
        rmSync(at(files, 'bin/other'))
        writeFileSync(at(files, 'bin/other'), bytes)
        chmodSync(at(files, 'bin/other'), 0o4755)
        lutimesSync(at(files, 'bin/other'), time, time)
      }),
    [/^bin\/(tool|other): is no hard link any more$/],
  ],
  [files => keepTime(at(files, 'gone'), () => rmSync(at(files, 'gone/file'))), [/^gone\/file: is missing$/]],
  [
    files => {
      renameSync(at(files, 'opaque'), at(files, 'x'))
      mkdirSync(at(files, 'opaque'), 0o755)
      chmodSync(at(files, 'opaque'), 0o755)
      renameSync(at(files, 'x/new'), at(files, 'opaque/new'))
      rmSync(at(files, 'x'), { recursive: true })
    },
    [/^opaque: does not hide what is below it any more$/],
  ],
  [
    files => {
      rmSync(at(files, 'linked'))
      linkSync(at(files, 'bin/capable'), at(files, 'linked'))
    },
    [/^linked: /],
  ],
  [files => chmodSync(at(files, 'implied'), 0o755), [/^implied: has mode 0755 instead of 0700$/]],
  [
    files => rmSync(at(files, 'bin'), { recursive: true }),
    Array.from({ length: 6 }, () => /^bin(\/\w+)?: is missing$/),
  ],
]
test('each kind of damage is found and named', async () => {
  for (const [damage, found] of kinds) {
    const files = await made(below, everything)
    damage(files)
    const list = (await differences(files))
      .filter(line => !/(^: its top directory|: ) ?was modified at 20/.test(line))
      .sort()
    assert.equal(list.length, found.length, list.join('\n'))
    for (const [index, line] of list.entries()) assert.match(line, found[index]!)
    assert.notDeepEqual(await differences(files), [])
  }
})

test('a record that is cut short, changed or gone is told from a good one', async () => {
  const damages: Array<(record: string) => void> = [
    record => truncateSync(record, statSync(record).size - 3),
    record => {
      const bytes = readFileSync(record)
      bytes[60]! ^= 1
      writeFileSync(record, bytes)
    },
    record => rmSync(record),
  ]
  for (const damage of damages) {
    const files = await made(everything.filter(({ name }) => name !== 'linked'))
    damage(files.record)
    await assert.rejects(
      reader.verify(files, signal, () => undefined),
      /record of the layer is damaged|ENOENT/,
    )
    reader = new ArchiveProcess()
  }
  // One that is not damaged as a file but says something else.
  const files = await made(below)
  const bytes = readFileSync(files.record).subarray(0, -1)
  writeFileSync(files.record, bytes)
  const recordDigest = `sha256:${createHash('sha256').update(bytes).digest('hex')}` as never
  await assert.rejects(
    reader.verify({ ...files, recordDigest }, signal, () => undefined),
    error => isCode(error, 'invalid'),
  )
  reader = new ArchiveProcess()
})

test('an archive with a path twice is made again without what is lost, with the same result', async () => {
  const twice: TarFixture[] = [
    { name: 'd/', mtime: 5 },
    { name: 'd/a', content: 'first'.repeat(1000) },
    { name: 'd/b', content: 'b' },
    { name: 'd/a', content: 'second', mode: 0o600 },
    { name: 'e/f', content: 'in a directory that goes' },
    { name: 'e', content: 'a file' },
  ]
  const files = await made(twice)
  assert.deepEqual(await differences(files), [])
  const archive = await recreated(files)
  assert.equal(archive.length, tar([twice[0]!, twice[2]!, twice[3]!, twice[5]!]).length)
  assert.deepEqual(archive, tar([twice[0]!, twice[2]!, twice[3]!, twice[5]!]))
  const again = await store.unpackBytes(archive)
  assert.equal(again.diffId, (await reader.measure(files, signal)).digest)
  writeFileSync(join(files.dir, 'd/b'), 'B')
  lutimesSync(join(files.dir, 'd/b'), 1_700_000_000, 1_700_000_000)
  assert.deepEqual(await differences(files), ['d/b: has other content'])
  assert.deepEqual(readdirSync(store.path('records')).length, store.files.size - 1) // one of them was removed
})

test('damage ends the making of an archive, and a call that is given up ends the process', async () => {
  const files = await made(below)
  writeFileSync(join(files.dir, 'below/target'), 'TARGET')
  await assert.rejects(recreated(files), /the layer is damaged: "below\/target" has other content/)
  const abort = new AbortController()
  await using other = new ArchiveProcess()
  const running = other.verify(files, abort.signal, () => undefined)
  abort.abort(new Error('given up'))
  await assert.rejects(running, /given up/)
  await assert.rejects(
    other.verify(files, signal, () => undefined),
    /archive worker/,
  )
})
