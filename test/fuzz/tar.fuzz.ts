import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type TarEntry, TarReader } from '../../src/storage/layer-tar.ts'
import { paxHeader, tar } from '../support/tar.ts'
import { type FuzzTarget, mutated } from './target.ts'

const PIECES = [512, 1, 700, 4096]

/** What the sink is told of one archive, in the reader's words; throws what the reader throws. */
function read(archive: Buffer, pieces: readonly number[]): unknown[] {
  const told: unknown[] = []
  let left = 0
  let open = false
  const reader = new TarReader({
    entry(entry: TarEntry) {
      assert.ok(!open, 'an entry begins inside another')
      assert.ok(Number.isSafeInteger(entry.size) && entry.size >= 0 && entry.uid >= 0 && entry.gid >= 0)
      assert.ok(Number.isFinite(entry.mtime) && entry.mode >= 0 && entry.mode <= 0o7777)
      assert.ok(entry.name.length <= 4096 && entry.linkName.length <= 4096 && !entry.name.includes('\0'))
      open = true
      left = entry.size
      told.push({ ...entry, xattrs: [...entry.xattrs] })
    },
    content(chunk) {
      assert.ok(open && chunk.length > 0)
      left -= chunk.length
      assert.ok(left >= 0, 'more content than the entry said')
    },
    endOfEntry() {
      assert.ok(open && left === 0, 'an entry ends before its content')
      open = false
    },
  })
  for (let at = 0, i = 0; at < archive.length; i++) {
    const size = pieces[i % pieces.length]!
    reader.push(archive.subarray(at, at + size))
    at += size
  }
  reader.end()
  assert.ok(!open)
  return told
}

function outcome(work: () => unknown[]): unknown {
  try {
    return work()
  } catch (error) {
    if ((error as Error).name === 'AssertionError') throw error
    return (error as Error).message
  }
}

const seeds = [
  tar([
    { name: 'd/', mode: 0o1777 },
    { name: 'd/f', content: 'content', xattrs: { 'user.x': Buffer.from([0, 255]) } },
  ]),
  tar([
    { name: 'n'.repeat(120), link: 'd/f' },
    { name: 's', symlink: '../..' },
    { name: 'c', type: '3', major: 1, minor: 3 },
    { name: '././@LongLink', type: 'L', content: `${'g'.repeat(200)}\0` },
    { name: 'long', content: 'x' },
  ]),
  tar([
    paxHeader([
      ['size', '3'],
      ['mtime', '1.5'],
      ['path', 'pax'],
    ]),
    { name: 'p', content: 'abc', claimedSize: 0 },
  ]),
  tar([
    { name: 'g', type: 'g', content: '13 path=evil\n' },
    { name: 'f', pax: { uid: '4000000000' } },
  ]),
]

/** After a mutation the checksums are made right, or every mutation would be found at once. */
function withChecksums(archive: Buffer): Buffer {
  const copy = Buffer.from(archive)
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const block = copy.subarray(at, at + 512)
    if (block.toString('latin1', 257, 262) !== 'ustar') continue
    block.fill(0x20, 148, 156)
    const sum = block.reduce((total, byte) => total + byte, 0)
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  }
  return copy
}

const tokens = [
  'GNU.sparse.map',
  'SCHILY.xattr.',
  'path=',
  'ustar\0',
  '\x80\0\0\0\0\0\0\0\0\0\0\0',
  'x',
  'L',
  'K',
]
const inputs = fc
  .tuple(mutated(seeds, tokens), fc.boolean())
  .map(([archive, right]) => (right ? withChecksums(archive) : archive))

export const target: FuzzTarget = {
  inputs,
  run(input) {
    const inPieces = outcome(() => read(input, PIECES))
    const whole = outcome(() => read(input, [input.length || 1]))
    assert.deepEqual(inPieces, whole, 'pieces make a difference')
    if (typeof whole === 'string') throw new Error(whole)
  },
  runs: 3000,
}
