import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { lgetxattr, llistxattr } from '../../src/os/syscalls.ts'
import { SnapshotStore } from '../support/snapshot-store.ts'
import { type TarFixture, tar } from '../support/tar.ts'

/*
 * Random stacks of random layers: what a container sees of them is what GNU tar makes of the same archives, one after
 * the other in one directory, to the last attribute and nanosecond. Whiteouts, which tar does not know, are applied by
 * hand before each archive. Directories that nothing describes are the subject of storage-model.test.ts.
 */

type Meta = {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: string
  readonly xattrs: Readonly<Record<string, Buffer>>
}
type Node =
  | { readonly kind: 'file'; readonly meta: Meta; readonly content: Buffer }
  | { readonly kind: 'symlink'; readonly meta: Meta; readonly target: string }
  | { readonly kind: 'device' | 'fifo'; readonly meta: Meta; readonly minor: number }
  | { readonly kind: 'whiteout' }
  | Directory
type Directory = {
  readonly kind: 'directory'
  readonly meta: Meta
  readonly opaque: boolean
  /** Names and what they are. Bytes as latin1 text. */
  readonly children: ReadonlyArray<readonly [name: string, node: Node]>
}
/** One layer: its tree, and hard links to whatever is there then. */
type LayerPlan = { readonly top: Directory; readonly links: readonly number[] }

const CAPABILITY = Buffer.from('0100000200ff8000c0000000ff00000080000000', 'hex')
// Few, so that layers meet; odd ones among them.
const NAMES = ['a', 'b', 'c d', 'e\nf', '-r', 'g\\h', '\xff\xfe', '*', 'l'.repeat(120)]

const meta: fc.Arbitrary<Meta> = fc.record({
  mode: fc.constantFrom(0o644, 0o755, 0o700, 0o4755, 0o2750, 0o1777, 0o6711, 0),
  uid: fc.constantFrom(0, 1, 1000, 3_000_000_000),
  gid: fc.constantFrom(0, 5, 100_000),
  mtime: fc.constantFrom('0', '1700000000', '1700000000.123456789', '1.000000001', '-1.5', '4294967296.25'),
  xattrs: fc.constantFrom<Meta['xattrs'][]>(
    {},
    {},
    { 'user.note': Buffer.from([0, 0x80, 0xff, 0x0a, 0x3d]) },
  ),
})
const fileMeta = fc
  .tuple(meta, fc.boolean())
  .map(([one, capable]) =>
    capable ? { ...one, xattrs: { ...one.xattrs, 'security.capability': CAPABILITY } } : one,
  )
const plainMeta = meta.map(one => ({ ...one, xattrs: {} }))

const { directory } = fc.letrec<{ node: Node; directory: Directory }>(tie => ({
  node: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.record({
      kind: fc.constant('file' as const),
      meta: fileMeta,
      content: fc.uint8Array({ maxLength: 1200 }).map(bytes => Buffer.from(bytes)),
    }),
    fc.record({ kind: fc.constant('whiteout' as const) }),
    fc.record({
      kind: fc.constant('symlink' as const),
      meta: plainMeta,
      target: fc.constantFrom('a', '../b', '/x/y'),
    }),
    fc.record({
      kind: fc.constantFrom('device' as const, 'fifo' as const),
      meta: plainMeta,
      minor: fc.constantFrom(1, 300),
    }),
    tie('directory'),
  ),
  directory: fc.record({
    kind: fc.constant('directory' as const),
    meta,
    opaque: fc.integer({ min: 0, max: 9 }).map(n => n === 0),
    children: fc.uniqueArray(fc.tuple(fc.constantFrom(...NAMES), tie('node')), {
      maxLength: 5,
      selector: ([name]) => name,
    }),
  }),
}))
const layer: fc.Arbitrary<LayerPlan> = fc.record({
  top: directory.map(one => ({ ...one, opaque: false })),
  links: fc.array(fc.nat(1000), { maxLength: 3 }),
})

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

function inside(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), bytes(path)])
}

function* walk(directory: Directory, path = ''): Iterable<readonly [path: string, node: Node]> {
  for (const [name, node] of directory.children) {
    const at = path === '' ? name : `${path}/${name}`
    yield [at, node]
    if (node.kind === 'directory') yield* walk(node, at)
  }
}

function fixture(path: string, node: Exclude<Node, { kind: 'whiteout' }>): TarFixture {
  const { mode, uid, gid, mtime, xattrs } = node.meta
  const common = { name: bytes(path), mode, uid, gid, xattrs, mtime: 1, pax: { mtime } }
  switch (node.kind) {
    case 'directory':
      return { ...common, name: bytes(`${path}/`), type: '5' }
    case 'file':
      return { ...common, type: '0', content: node.content }
    case 'symlink':
      return { ...common, symlink: node.target }
    case 'device':
      return { ...common, type: '3', major: 10, minor: node.minor }
    case 'fifo':
      return { ...common, type: '6' }
  }
}

/** Takes out of the tree what the layer hides or replaces: tar removes no directories, and keeps their attributes. */
function makeRoom(root: string, { top }: LayerPlan): void {
  for (const [path, node] of walk(top)) {
    const at = inside(root, path)
    const isDirectory = lstatSync(at, { throwIfNoEntry: false })?.isDirectory() === true
    if (node.kind !== 'directory' || node.opaque || !isDirectory) rmSync(at, { recursive: true, force: true })
    else renew(at, join(root, '..', 'old'))
  }
}

/** The same directory without attributes. */
function renew(dir: Buffer, aside: string): void {
  renameSync(dir, aside)
  mkdirSync(dir)
  for (const name of readdirSync(aside, 'latin1')) {
    renameSync(inside(aside, name), Buffer.concat([dir, Buffer.from('/'), bytes(name)]))
  }
  rmdirSync(aside)
}

function pathsIn(root: string): string[] {
  const found: string[] = []
  const look = (path: string) => {
    for (const name of readdirSync(path === '' ? root : inside(root, path), 'latin1').sort()) {
      const at = path === '' ? name : `${path}/${name}`
      found.push(at)
      if (lstatSync(inside(root, at)).isDirectory()) look(at)
    }
  }
  look('')
  return found
}

/** Everything about every object, one line each. */
function describe(root: string): string[] {
  return pathsIn(root).map(path => {
    const at = inside(root, path)
    const stat = lstatSync(at, { bigint: true })
    const content = stat.isFile()
      ? readFileSync(at, 'latin1')
      : stat.isSymbolicLink()
        ? readlinkSync(at, 'latin1')
        : ''
    const attributes = llistxattr(at)
      .filter(name => name.startsWith('user.') || name.startsWith('security.capability'))
      .sort()
      .map(name => `${name}=${lgetxattr(at, name)?.toString('hex')}`)
    const { mode, uid, gid, mtimeNs, rdev } = stat
    return JSON.stringify([
      path,
      mode.toString(8),
      `${uid}:${gid}`,
      `${mtimeNs}`,
      `${rdev}`,
      attributes,
      content,
    ])
  })
}

/** The archive for Berth, and the one for tar, which has neither whiteouts nor a chance to see them. */
function archivesOf(root: string, plan: LayerPlan): { layer: TarFixture[]; plain: TarFixture[] } {
  const entries = [...walk(plan.top)]
  const plain = entries.flatMap(([path, node]) => (node.kind === 'whiteout' ? [] : [fixture(path, node)]))
  const below = pathsIn(root).filter(path => !lstatSync(inside(root, path)).isDirectory())
  const own = entries
    .filter(([, { kind }]) => kind !== 'directory' && kind !== 'whiteout')
    .map(([path]) => path)
  const targets = [...new Set([...below, ...own])]
  const links = plan.links.flatMap((pick, index) => {
    const target = targets[pick % targets.length]
    return target === undefined ? [] : [{ name: `link${index}`, type: '1', link: bytes(target) }]
  })
  const markers = entries.flatMap(([path, node]): TarFixture[] => {
    const slash = path.lastIndexOf('/') + 1
    if (node.kind === 'whiteout') return [{ name: bytes(`${path.slice(0, slash)}.wh.${path.slice(slash)}`) }]
    return node.kind === 'directory' && node.opaque ? [{ name: bytes(`${path}/.wh..wh..opq`) }] : []
  })
  return { layer: [...plain, ...markers, ...links], plain: [...plain, ...links] }
}

const TAR = [
  '--warning=no-timestamp',
  '--xattrs',
  '--xattrs-include=*',
  '--numeric-owner',
  '--same-owner',
  '-xpf',
  '-',
  '-C',
]

test('layers on top of one another are what tar makes of them', async () => {
  const store = new SnapshotStore()
  let objects = 0
  await fc.assert(
    fc.asyncProperty(fc.array(layer, { minLength: 1, maxLength: 4 }), async plans => {
      const root = store.path('reference', 'root')
      rmSync(store.path('reference'), { recursive: true, force: true })
      mkdirSync(root, { recursive: true })
      const layers: TarFixture[][] = []
      for (const plan of plans) {
        for (const [index] of plan.links.entries()) rmSync(join(root, `link${index}`), { force: true })
        makeRoom(root, plan)
        const { layer, plain } = archivesOf(root, plan)
        execFileSync('tar', [...TAR, root], { input: tar(plain) })
        layers.push(layer)
      }
      const id = store.newId()
      const mounted = store.snapshots.mountRootfs(id, await store.layers(...layers))
      const expected = describe(root)
      objects += expected.length
      assert.deepEqual(describe(mounted), expected)
      for (const { name, link } of layers.at(-1)!.filter(({ type }) => type === '1')) {
        const [one, other] = [name, link!].map(
          path => lstatSync(inside(mounted, path.toString('latin1'))).ino,
        )
        assert.equal(one, other, 'a hard link is the same object')
      }
      await store.snapshots.removeRootfs(id)
    }),
    { numRuns: 60, seed: Number(process.env.BERTH_TEST_SEED ?? 1) },
  )
  assert.ok(objects > 300, String(objects))
})
