import assert from 'node:assert/strict'
import { parseEntryPath } from '../../src/storage/entry-path.ts'
import { type FuzzTarget, mutated } from './target.ts'

const MAX_DEPTH = 64

/** Names of layers' entries, whiteouts among them: whatever they are, they name something inside the layer. */
export const target: FuzzTarget = {
  inputs: mutated(
    [
      'usr/bin/sh',
      './etc/passwd',
      '/abs',
      'dir/',
      'a/.wh.b',
      '.wh..wh..opq',
      'a/.wh..wh.plnk/1',
      'a/../b',
      'é',
    ],
    ['/', '//', '/./', '/../', '..', '.wh.', '.wh..wh..opq', '.wh..wh.', '.wh...', '.wh./'],
  ),
  run(input) {
    const path = parseEntryPath(input.toString('latin1'), MAX_DEPTH)
    if (path.kind === 'ignored') return
    assert.ok(path.parts.length <= MAX_DEPTH)
    assert.ok(path.kind !== 'whiteout' || path.parts.length > 0)
    for (const part of path.parts) {
      assert.ok(
        part !== '' && part !== '.' && part !== '..' && !part.includes('/') && !part.startsWith('.wh.'),
      )
    }
  },
  runs: 5000,
}
