import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { RecordedDisk, randomFrom } from './recorded-disk.ts'

const OFFSET = 1 << 20
const page = (byte: number) => Buffer.alloc(4096, byte)

async function contentsAt(
  record: (disk: RecordedDisk) => void,
  points: ReadonlyArray<{ readonly at: number; readonly keep: number }>,
): Promise<number[][]> {
  const directory = mkdtempSync(join(tmpdir(), 'recorded-disk-'))
  try {
    const base = join(directory, 'base.img')
    writeFileSync(base, '')
    truncateSync(base, 2 * OFFSET)
    await using disk = await RecordedDisk.serve(base, join(directory, 'nbd'))
    record(disk)
    const file = join(directory, 'point.img')
    const found: number[][] = []
    for await (const _ of disk.imagesAt(points, file, randomFrom(7))) {
      const image = readFileSync(file)
      found.push([image[OFFSET]!, image[OFFSET + 4096]!])
    }
    return found
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test('what was flushed is there, what was not is there or not, and nothing of later', async () => {
  const found = await contentsAt(
    disk => {
      disk.write(OFFSET, page(1), false)
      disk.flush()
      disk.write(OFFSET, page(2), false)
      disk.write(OFFSET + 4096, page(3), true)
      disk.flush()
      assert.equal(disk.now, 5)
    },
    [
      { at: 1, keep: 0 },
      { at: 1, keep: 1 },
      { at: 2, keep: 0 },
      { at: 4, keep: 0 },
      { at: 4, keep: 1 },
      { at: 5, keep: 0 },
    ],
  )
  assert.deepEqual(found, [
    [0, 0],
    [1, 0],
    [1, 0],
    [1, 3],
    [2, 3],
    [2, 3],
  ])
})

test('a read has what was written last, across the borders of sectors', async () => {
  await contentsAt(disk => {
    disk.write(OFFSET + 4000, Buffer.from('across'.repeat(100)), false)
    assert.equal(disk.read(OFFSET + 4000, 600).toString(), 'across'.repeat(100))
    assert.equal(disk.read(OFFSET + 3999, 2)[0], 0)
  }, [])
})
