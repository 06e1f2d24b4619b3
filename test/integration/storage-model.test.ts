import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { ArchiveProcess } from '../../src/storage/archive-process.ts'
import { SnapshotStore } from '../support/snapshot-store.ts'
import type { TarFixture } from '../support/tar.ts'

/*
 * Layers of random entries in random order, unpacked side by side, must show what the text of the OCI image spec
 * ("Layer Filesystem Changeset") says about one applied after the other. The model knows no overlayfs.
 */

type Entry = {
  readonly kind: 'file' | 'directory' | 'whiteout' | 'opaque'
  readonly path: string
  /** Of files and directories. */
  readonly mode: number
}

/** Path → mode and type, as `ls` would say it. */
type Tree = ReadonlyMap<string, string>

const IMPLIED = 'd755'

function ancestors(path: string): string[] {
  const parts = path.split('/')
  return parts.slice(1).map((_, i) => parts.slice(0, i + 1).join('/'))
}

function isBelow(path: string, dir: string): boolean {
  return path.startsWith(`${dir}/`)
}

/** undefined if an entry is in a directory that its own layer says is a file. */
function apply(lower: Tree, entries: readonly Entry[]): Tree | undefined {
  const own = new Map<string, string>()
  const described = new Set<string>()
  /** Lower objects at these paths and below them are gone; below the others only what is below. */
  const gone = new Set<string>()
  const opaque = new Set<string>()
  for (const entry of entries) {
    const { path } = entry
    for (const dir of entry.kind === 'opaque' ? [...ancestors(path), path] : ancestors(path)) {
      if (own.get(dir)?.startsWith('f') === true) return undefined
      if (!own.has(dir)) own.set(dir, IMPLIED)
    }
    if (entry.kind === 'whiteout') gone.add(path)
    if (entry.kind === 'opaque') opaque.add(path)
    if (entry.kind === 'file') {
      gone.add(path)
      for (const other of own.keys()) {
        if (!isBelow(other, path)) continue
        own.delete(other)
        described.delete(other)
      }
      own.set(path, `f${entry.mode.toString(8)}`)
    }
    if (entry.kind === 'directory') {
      own.set(path, `d${entry.mode.toString(8)}`)
      described.add(path)
    }
  }
  const shows = (path: string) =>
    ![path, ...ancestors(path)].some(at => gone.has(at)) && !ancestors(path).some(at => opaque.has(at))
  const result = new Map([...lower].filter(([path]) => shows(path)))
  for (const [path, node] of own) {
    const isInherited = !described.has(path) && result.get(path)?.startsWith('d') === true
    if (node !== IMPLIED || !isInherited) result.set(path, node)
  }
  return result
}

function fixture(entry: Entry): TarFixture {
  const { path } = entry
  const slash = path.lastIndexOf('/') + 1
  if (entry.kind === 'whiteout') return { name: `${path.slice(0, slash)}.wh.${path.slice(slash)}` }
  if (entry.kind === 'opaque') return { name: `${path}/.wh..wh..opq` }
  if (entry.kind === 'directory') return { name: `${path}/`, mode: entry.mode }
  return { name: path, mode: entry.mode, content: 'x' }
}

function treeOf(root: string): Tree {
  return new Map(
    readdirSync(root, { recursive: true, encoding: 'utf8' })
      .sort()
      .map(path => {
        const stat = lstatSync(join(root, path))
        return [path, `${stat.isDirectory() ? 'd' : 'f'}${(stat.mode & 0o7777).toString(8)}`]
      }),
  )
}

const path = fc.array(fc.constantFrom('a', 'b'), { minLength: 1, maxLength: 3 }).map(parts => parts.join('/'))
const entry: fc.Arbitrary<Entry> = fc.record({
  kind: fc.constantFrom('file', 'directory', 'whiteout', 'opaque'),
  path,
  mode: fc.constantFrom(0o700, 0o1777, 0o2750),
})
const layers = fc.array(fc.array(entry, { maxLength: 7 }), { minLength: 2, maxLength: 4 })

test('layers show what the specification says, in any shape', async () => {
  const store = new SnapshotStore()
  await using reader = new ArchiveProcess()
  const { signal } = new AbortController()
  let [shown, exact, lossy] = [0, 0, 0]
  await fc.assert(
    fc.asyncProperty(layers, async stack => {
      const expected = stack.reduce<Tree | undefined>(
        (lower, entries) => lower && apply(lower, entries),
        new Map(),
      )
      const pulling = store.layers(...stack.map(entries => entries.map(fixture)))
      if (expected === undefined) {
        await assert.rejects(pulling, { code: 'invalid', message: /in the way/ })
        return
      }
      shown++
      const id = store.newId()
      const root = store.snapshots.mountRootfs(id, await pulling)
      assert.deepEqual(treeOf(root), new Map([...expected].sort(([a], [b]) => (a < b ? -1 : 1))))
      await store.snapshots.removeRootfs(id)
      // Whatever its shape, a layer is what its record says, and makes its archive again unless it lost content.
      for (const [path, files] of [...store.files].slice(-stack.length)) {
        const { differences } = await reader.verify(files, signal, () => undefined)
        assert.deepEqual(differences, [], path)
        const measured = await reader.measure(files, signal)
        const hash = createHash('sha256')
        for await (const chunk of reader.recreate(files, signal)) hash.update(chunk)
        assert.equal(measured.digest, `sha256:${hash.digest('hex')}`)
        if (measured.digest === files.diffId) exact++
        else lossy++
      }
    }),
    { numRuns: 60 },
  )
  assert.ok(shown > 10)
  assert.ok(exact > lossy, `${exact} layers made the same archive, ${lossy} another`)
})
