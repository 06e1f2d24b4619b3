import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { lgetxattr, llistxattr } from '../../src/os/syscalls.ts'
import { SnapshotStore } from '../support/snapshot-store.ts'
import type { TarFixture } from '../support/tar.ts'

const store = new SnapshotStore()

/** Every path below `dir` with its content, sorted; directories end in a slash. */
function tree(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .map(entry => {
      const path = join(entry.parentPath, entry.name)
      const name = path.slice(dir.length + 1)
      if (entry.isDirectory()) return `${name}/`
      return entry.isFile() ? `${name}=${readFileSync(path, 'utf8')}` : name
    })
    .sort()
}

function facts(path: string): object {
  const { mode, uid, gid, mtimeMs } = lstatSync(path)
  return { mode: (mode & 0o7777).toString(8), uid, gid, mtime: mtimeMs / 1000 }
}

const base: TarFixture[] = [
  { name: 'd/', mtime: 1000 },
  { name: 'd/one', content: '1' },
  { name: 'd/two', content: '2' },
  { name: 'd/sub/', mtime: 1000 },
  { name: 'd/sub/three', content: '3' },
]

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]]
  return items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map(rest => [item, ...rest]))
}

test('a whiteout hides what is below, not what its own layer brings, in any order', async () => {
  const entries: TarFixture[] = [
    { name: 'd/.wh.one' },
    { name: 'd/.wh.sub' },
    { name: 'd/sub/new', content: 'n' },
    { name: 'd/.wh.two' },
    { name: 'd/two', content: 'new' },
    { name: '.wh.nothing' },
  ]
  for (const order of permutations(entries.slice(1, 5))) {
    const root = await store.mounted(base, [...order, entries[0]!, entries[5]!])
    assert.deepEqual(tree(root), ['d/', 'd/sub/', 'd/sub/new=n', 'd/two=new'])
  }
})

test('an opaque directory shows only its own layer, wherever the marker stands', async () => {
  const entries: TarFixture[] = [
    { name: 'd/.wh..wh..opq' },
    { name: 'd/', mtime: 2000 },
    { name: 'd/sub/new', content: 'n' },
    { name: 'd/.wh..wh.plnk', content: 'bookkeeping of AUFS' },
  ]
  for (const order of permutations(entries)) {
    assert.deepEqual(tree(await store.mounted(base, order)), ['d/', 'd/sub/', 'd/sub/new=n'])
  }
})

test('another type of object hides the directory below it, and the other way round', async () => {
  const asFile = await store.mounted(base, [{ name: 'd', content: 'file' }])
  assert.deepEqual(tree(asFile), ['d=file'])
  const again = await store.mounted(base, [{ name: 'd', content: 'file' }], [{ name: 'd/new', content: 'n' }])
  assert.deepEqual(tree(again), ['d/', 'd/new=n'])
  const inOne = await store.mounted(base, [
    { name: 'd', content: 'file' },
    { name: 'd/', mode: 0o700 },
    { name: 'd/new', content: 'n' },
  ])
  assert.deepEqual(tree(inOne), ['d/', 'd/new=n'])
})

test('an implied directory looks as it does below', async () => {
  const lower: TarFixture[] = [
    { name: './', mode: 0o750, uid: 3, mtime: 500 },
    { name: 'tmp/', mode: 0o1777, mtime: 1000, xattrs: { 'user.note': Buffer.from([0, 0x80, 0xff]) } },
    { name: 'group/', mode: 0o2775, uid: 7, gid: 8, pax: { mtime: '1000.25' } },
    { name: 'group/in/', mode: 0o700, mtime: 1000 },
  ]
  const [top = ''] = await store.layers(lower, [
    { name: 'tmp/x', content: 'x' },
    { name: 'group/in/x', content: 'x' },
    { name: 'group/new/x', content: 'x' },
  ])
  assert.deepEqual(facts(top), { mode: '750', uid: 3, gid: 0, mtime: 500 })
  assert.deepEqual(facts(join(top, 'tmp')), { mode: '1777', uid: 0, gid: 0, mtime: 1000 })
  assert.deepEqual(lgetxattr(join(top, 'tmp'), 'user.note'), Buffer.from([0, 0x80, 0xff]))
  assert.deepEqual(facts(join(top, 'group')), { mode: '2775', uid: 7, gid: 8, mtime: 1000.25 })
  assert.deepEqual(facts(join(top, 'group/in')), { mode: '700', uid: 0, gid: 0, mtime: 1000 })
  const { mode, uid, gid } = lstatSync(join(top, 'group/new'))
  assert.deepEqual([mode & 0o7777, uid, gid], [0o755, 0, 0])
  assert.deepEqual(llistxattr(join(top, 'tmp')), ['user.note'])
})

test('the topmost layer that has the directory decides, unless it is hidden in between', async () => {
  const dir = (mode: number): TarFixture[] => [{ name: 'a/' }, { name: 'a/b/', mode }]
  const top: TarFixture[] = [{ name: 'a/b/x', content: 'x' }]
  const modeOf = (path: string) => (lstatSync(join(path, 'a/b')).mode & 0o7777).toString(8)
  const cases: Array<readonly [expected: string, ...layers: TarFixture[][]]> = [
    ['711', dir(0o700), dir(0o711), top],
    ['700', dir(0o700), [{ name: 'a/other', content: '' }], top],
    ['700', dir(0o700), [{ name: 'a/b/.wh..wh..opq' }], top],
    ['755', dir(0o700), [{ name: 'a/.wh.b' }], top],
    ['755', dir(0o700), [{ name: '.wh.a' }], top],
    ['755', dir(0o700), [{ name: 'a/.wh..wh..opq' }], top],
    ['755', dir(0o700), [{ name: 'a/b', content: 'file' }], top],
    ['755', dir(0o700), [{ name: 'a', symlink: 'elsewhere' }], top],
    ['755', dir(0o700), [{ name: 'a/.wh..wh..opq' }, ...top]],
    ['755', dir(0o700), [{ name: 'a/.wh.b' }, ...top]],
    ['755', dir(0o700), [...top, { name: 'a/.wh.b' }]],
    ['700', dir(0o700), [...top, { name: 'a/b/.wh..wh..opq' }]],
  ]
  for (const [expected, ...layers] of cases) {
    const [path = ''] = await store.layers(...layers)
    assert.equal(modeOf(path), expected, JSON.stringify(layers))
  }
})

test('hard links are one object, also when the target is in a layer below', async () => {
  const root = await store.mounted(
    [
      { name: 'bin/', mtime: 1000 },
      { name: 'bin/busybox', content: 'program', mode: 0o4755, uid: 3, xattrs: { 'user.a': 'b' } },
      { name: 'bin/sh', link: 'bin/busybox' },
      { name: 'bin/ln', symlink: 'busybox' },
    ],
    [
      { name: 'usr/', mtime: 2000 },
      { name: 'usr/one', link: 'bin/busybox' },
      { name: 'usr/two', link: '/bin/busybox' },
      { name: 'usr/three', link: 'usr/two' },
      { name: 'usr/ln', link: 'bin/ln' },
      { name: 'usr/ahead', link: 'usr/later' },
      { name: 'usr/later', content: 'later' },
    ],
  )
  const at = (name: string) => lstatSync(join(root, name))
  for (const name of ['usr/one', 'usr/two', 'usr/three']) {
    assert.equal(at(name).ino, at('bin/busybox').ino, name)
    assert.equal(readFileSync(join(root, name), 'utf8'), 'program')
  }
  assert.deepEqual(facts(join(root, 'usr/one')), { mode: '4755', uid: 3, gid: 0, mtime: 1_700_000_000 })
  assert.equal(lgetxattr(join(root, 'usr/one'), 'user.a')?.toString(), 'b')
  assert.equal(readlinkSync(join(root, 'usr/ln')), 'busybox')
  assert.equal(at('usr/ahead').ino, at('usr/later').ino)
  // A link does not change the directories it is made in or copied up to.
  assert.deepEqual(
    [facts(join(root, 'bin')), facts(join(root, 'usr'))].map(f => (f as { mtime: number }).mtime),
    [1000, 2000],
  )
})

test('a hard link keeps what its own layer takes away', async () => {
  const lower: TarFixture[] = [{ name: 'd/' }, { name: 'd/f', content: 'old' }]
  const moved: TarFixture[][] = [
    [{ name: 'g', link: 'd/f' }, { name: 'd/.wh.f' }],
    [{ name: 'd/.wh.f' }, { name: 'g', link: 'd/f' }],
    [{ name: 'g', link: 'd/f' }, { name: 'd/.wh..wh..opq' }],
  ]
  for (const layer of moved) assert.deepEqual(tree(await store.mounted(lower, layer)), ['d/', 'g=old'])
})

test('hard links to what is not there, or to a directory, are refused', async () => {
  const cases: Array<readonly [RegExp, TarFixture[]]> = [
    [
      /hard link "x" to "d\/none": .*neither in this layer nor in those below/,
      [{ name: 'x', link: 'd/none' }],
    ],
    [/hard link "x" to "d\/sub": .*is a directory/, [{ name: 'x', link: 'd/sub' }]],
    [
      /hard link "x" to "g": .*neither/,
      [
        { name: 'x', link: 'g' },
        { name: 'g', link: 'd/one' },
      ],
    ],
    [/layer entry "x": .*directory/, [{ name: 'e/' }, { name: 'x', link: 'e' }]],
  ]
  for (const [message, layer] of cases) {
    await assert.rejects(store.layers(base, layer), { code: 'invalid', message })
  }
})

test('no entry gets out of the layer', async t => {
  const outside = store.path('outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'sentinel'), 'safe', { mode: 0o600 })
  const up = `${'../'.repeat(12)}${outside.slice(1)}`
  const attacks: TarFixture[][] = [
    [
      { name: 'a', symlink: outside },
      { name: 'a/x', content: 'x' },
    ],
    [
      { name: 'a/' },
      { name: 'a/in', content: '' },
      { name: 'a', symlink: up },
      { name: 'a/sentinel', content: 'x' },
    ],
    [{ name: 'a', symlink: outside }, { name: 'a/.wh.sentinel' }, { name: 'a/.wh..wh..opq' }],
    [
      { name: 'a', symlink: `${outside}/sentinel` },
      { name: 'a', mode: 0o777, content: 'x' },
    ],
    [
      { name: 'a', symlink: `${outside}/sentinel`, mode: 0o777 },
      { name: 'b', link: 'a' },
      { name: 'b', content: 'x' },
    ],
    [
      { name: 'l', symlink: 'l' },
      { name: 'k', link: `${outside}/sentinel` },
      { name: 'k', content: 'x' },
    ],
    [{ name: `${outside}/sentinel`, content: 'x', mode: 0o777 }],
  ]
  for (const [i, attack] of attacks.entries()) {
    await t.test(`number ${i}`, async () => {
      await store.layers(attack)
      assert.deepEqual(tree(outside), ['sentinel=safe'])
      assert.equal(lstatSync(join(outside, 'sentinel')).mode & 0o777, 0o600)
    })
  }
  const [top = ''] = await store.layers(attacks[0]!)
  assert.equal(readFileSync(join(top, outside, 'x'), 'utf8'), 'x')
})

test('at commit, a symlink in a layer below leads nowhere', async () => {
  const outside = store.path('outside-commit')
  mkdirSync(outside, { mode: 0o700 })
  writeFileSync(join(outside, 'secret'), 'secret')
  const link: TarFixture[] = [{ name: 'a', symlink: outside }]
  await assert.rejects(store.layers(link, [{ name: 'x', link: 'a/secret' }]), { code: 'invalid' })
  const [top = ''] = await store.layers(link, [{ name: 'a/new', content: 'n' }])
  assert.equal(lstatSync(join(top, 'a')).mode & 0o7777, 0o755)
  assert.deepEqual(tree(outside), ['secret=secret'])
})

test('at commit, a symlink that came after what it replaces leads nowhere', async () => {
  const outside = store.path('outside-later')
  mkdirSync(outside, { mode: 0o700 })
  writeFileSync(join(outside, 'secret'), 'secret')
  const attacks: TarFixture[][] = [
    [
      { name: 'x', link: 'a/secret' },
      { name: 'a', symlink: outside },
    ],
    [
      { name: 'a/x', link: 'none' },
      { name: 'a', symlink: outside },
    ],
    [{ name: 'a/secret/x', content: '' }, { name: 'a/.wh.other' }, { name: 'a', symlink: outside }],
    [{ name: 'a/.wh.secret' }, { name: 'a', symlink: outside }],
  ]
  for (const attack of attacks) {
    const lower: TarFixture[] = [{ name: 'a/' }, { name: 'a/b', content: '' }]
    for (const layers of [[attack], [lower, attack]]) {
      await store.layers(...layers).catch(error => assert.equal(error.code, 'invalid'))
      assert.deepEqual(tree(outside), ['secret=secret'])
      assert.equal(lstatSync(join(outside, 'secret')).nlink, 1)
      assert.equal(lstatSync(outside).mode & 0o7777, 0o700)
    }
  }
})

test('names with ".." and whiteouts of nothing are refused', async () => {
  for (const name of ['../x', 'a/../../x', 'a/..', '.wh...', '.wh.', 'a/.wh..']) {
    await assert.rejects(store.layers([{ name, content: 'x' }]), { code: 'invalid' }, name)
  }
  await assert.rejects(store.layers([{ name: 'x', link: '../../etc/passwd' }]), { code: 'invalid' })
})

test('capabilities, set-id bits, owners, times and devices arrive as they were sent', async () => {
  const capability = Buffer.from('0100000200ff8000c0000000ff00000080000000', 'hex')
  const [top = ''] = await store.layers([
    {
      name: 'f',
      content: 'x',
      mode: 0o6755,
      uid: 1_000_000,
      gid: 2_000_000,
      xattrs: { 'security.capability': capability },
    },
    { name: 'sticky/', mode: 0o3777, mtime: 12 },
    { name: 'sticky/in', content: 'x' },
    { name: 'null', type: '3', mode: 0o666, major: 1, minor: 3 },
    { name: 'disk', type: '4', mode: 0o660, gid: 6, major: 259, minor: 70_000 },
    { name: 'pipe', type: '6', mode: 0o622 },
    { name: 'link', symlink: 'f', uid: 5, gid: 6 },
    { name: Buffer.from([0x66, 0xff, 0xfe]), content: 'no UTF-8' },
  ])
  assert.deepEqual(facts(join(top, 'f')), {
    mode: '6755',
    uid: 1_000_000,
    gid: 2_000_000,
    mtime: 1_700_000_000,
  })
  assert.deepEqual(lgetxattr(join(top, 'f'), 'security.capability'), capability)
  assert.deepEqual(facts(join(top, 'sticky')), { mode: '3777', uid: 0, gid: 0, mtime: 12 })
  const device = (name: string) => {
    const { mode, rdev } = lstatSync(join(top, name))
    return [(mode & 0o170000).toString(8), (mode & 0o7777).toString(8), rdev]
  }
  assert.deepEqual(device('null'), ['20000', '666', 0x103])
  assert.deepEqual(device('disk'), ['60000', '660', (70_000 & 0xff) | (259 << 8) | ((70_000 & ~0xff) << 12)])
  assert.deepEqual(device('pipe'), ['10000', '622', 0])
  assert.deepEqual(facts(join(top, 'link')), { mode: '777', uid: 5, gid: 6, mtime: 1_700_000_000 })
  assert.ok(readdirSync(top, 'buffer').some(name => name.equals(Buffer.from([0x66, 0xff, 0xfe]))))
})

test('a copy from a layer below keeps everything', async () => {
  const capability = Buffer.from('0100000200ff8000c0000000ff00000080000000', 'hex')
  const content = randomBytes(1_000_000)
  const [top = ''] = await store.layers(
    [
      { name: 'd/', mode: 0o711, uid: 9, mtime: 77 },
      {
        name: 'd/f',
        content,
        mode: 0o6755,
        uid: 11,
        gid: 12,
        xattrs: { 'security.capability': capability },
        pax: { mtime: '99.125' },
      },
      { name: 'd/disk', type: '4', mode: 0o660, major: 259, minor: 70_000 },
    ],
    [
      { name: 'f', link: 'd/f' },
      { name: 'disk', link: 'd/disk' },
    ],
  )
  assert.deepEqual(readFileSync(join(top, 'f')), content)
  assert.deepEqual(facts(join(top, 'f')), { mode: '6755', uid: 11, gid: 12, mtime: 99.125 })
  assert.deepEqual(lgetxattr(join(top, 'd/f'), 'security.capability'), capability)
  assert.deepEqual(facts(join(top, 'd')), { mode: '711', uid: 9, gid: 0, mtime: 77 })
  assert.equal(lstatSync(join(top, 'disk')).rdev, (70_000 & 0xff) | (259 << 8) | ((70_000 & ~0xff) << 12))
})

test('attributes that steer overlayfs are left out', async () => {
  const [top = ''] = await store.layers([
    {
      name: 'd/',
      xattrs: {
        'trusted.overlay.opaque': 'y',
        'trusted.overlay.redirect': '/etc',
        'user.overlay.opaque': 'y',
        'user.kept': '1',
      },
    },
  ])
  assert.deepEqual(llistxattr(join(top, 'd')), ['user.kept'])
})

test('an attribute that cannot be set is logged', async () => {
  await store.layers([{ name: 'l', symlink: 'x', xattrs: { 'user.a': '1' } }])
  assert.match(JSON.stringify(store.logged), /user\.a.*EPERM/)
})

test('a large image: 130 layers, each implying the directory of the first', async () => {
  const first: TarFixture[] = [{ name: 'd/', mode: 0o1777, mtime: 5 }]
  const rest = Array.from({ length: 129 }, (_, i): TarFixture[] => [{ name: `d/${i}`, content: `${i}` }])
  const root = await store.mounted(first, ...rest)
  assert.equal(readdirSync(join(root, 'd')).length, 129)
  assert.deepEqual(facts(join(root, 'd')), { mode: '1777', uid: 0, gid: 0, mtime: 5 })
  assert.ok(existsSync(join(root, 'd/128')))
})
