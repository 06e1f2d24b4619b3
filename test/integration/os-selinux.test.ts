import assert from 'node:assert/strict'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setEffectHook } from '../../src/base/effects.ts'
import { bindMount, unmount } from '../../src/os/mounts.ts'
import { relabelTree, setContext } from '../../src/os/selinux.ts'
import { lgetxattr, lsetxattr } from '../../src/os/syscalls.ts'
import { ScratchMount } from '../support/scratch-mount.ts'

/*
 * Labels as the file system has them; that needs no SELinux in the kernel.
 */

const scratch = new ScratchMount()
const LIMITS = { maxEntries: 1000, maxDepth: 10 }
const OLD = 'system_u:object_r:old_t:s0'
const NEW = 'system_u:object_r:container_file_t:s0:c1,c2'

const labelOf = (path: string) => lgetxattr(path, 'security.selinux')?.toString().replace(/\0$/, '')

function write(...paths: string[]): void {
  for (const path of paths) writeFileSync(path, '')
}

test('a volume is labelled with all that is in it, whatever its name, and only what differs is touched', async () => {
  const top = scratch.directory('volume')
  mkdirSync(join(top, 'a/b/c'), { recursive: true })
  write(join(top, 'file'), join(top, 'a/b/c/deep'), join(top, 'a/line\nbreak'))
  const odd = Buffer.concat([Buffer.from(`${top}/a/`), Buffer.from([0xff, 0xfe])])
  writeFileSync(odd, '')
  await relabelTree(top, NEW, LIMITS, false)
  for (const path of ['', 'file', 'a', 'a/b', 'a/b/c', 'a/b/c/deep', 'a/line\nbreak']) {
    assert.equal(labelOf(join(top, path)), NEW, path)
  }
  assert.equal(lgetxattr(odd, 'security.selinux')?.toString(), `${NEW}\0`)
  await relabelTree(join(top, 'file'), OLD, LIMITS, false)
  assert.equal(labelOf(join(top, 'file')), OLD)
})

test('no symlink leads out of a volume, not even one that takes the place of a directory meanwhile', async () => {
  const outside = scratch.directory('outside')
  write(join(outside, 'secret'))
  for (const path of [outside, join(outside, 'secret')]) setContext(path, OLD)
  const top = scratch.directory('hostile')
  symlinkSync(outside, join(top, 'link'))
  symlinkSync(join(outside, 'secret'), join(top, 'file'))
  // The walk gives way to others after some hundred entries: then the directories it has not yet seen are symlinks.
  const victims = Array.from({ length: 600 }, (_, n) => join(top, `dir-${n}`))
  for (const path of victims) mkdirSync(path)
  const walk = relabelTree(top, NEW, LIMITS, false)
  for (const path of victims) {
    rmSync(path, { recursive: true })
    symlinkSync(outside, path)
  }
  await walk
  assert.equal(labelOf(join(top, 'link')), NEW)
  assert.equal(labelOf(join(top, 'file')), NEW)
  for (const path of [outside, join(outside, 'secret')]) assert.equal(labelOf(path), OLD)
})

test('what is mounted in a volume keeps its labels', async () => {
  const outside = scratch.directory('other')
  write(join(outside, 'inner'), scratch.path('single'))
  for (const path of [outside, join(outside, 'inner'), scratch.path('single')]) setContext(path, OLD)
  const top = scratch.directory('with-mounts')
  const [directory, file] = [join(top, 'mounted'), join(top, 'mounted-file')]
  mkdirSync(directory)
  write(file)
  bindMount(outside, directory)
  bindMount(scratch.path('single'), file)
  await relabelTree(top, NEW, LIMITS, false)
  for (const path of [outside, join(outside, 'inner'), scratch.path('single')])
    assert.equal(labelOf(path), OLD)
  for (const path of [directory, file]) unmount(path)
  assert.equal(labelOf(top), NEW)
})

test('beyond the limits it ends with an error, and the top does not say that it is done', async () => {
  const top = scratch.directory('large')
  for (let n = 0; n < 20; n++) write(join(top, `${n}`))
  await assert.rejects(relabelTree(top, NEW, { maxEntries: 19, maxDepth: 1 }, false), { code: 'exhausted' })
  assert.equal(labelOf(top), undefined)
  mkdirSync(join(top, 'a/b/c'), { recursive: true })
  await assert.rejects(relabelTree(top, NEW, { maxEntries: 99, maxDepth: 2 }, false), /nested more than 2/)
  await relabelTree(top, NEW, LIMITS, false)
  assert.equal(labelOf(join(top, '7')), NEW)
})

test('where asked for, a top that is labelled already stands for all of it', async () => {
  const top = scratch.directory('skipped')
  write(join(top, 'file'))
  setContext(top, NEW)
  await relabelTree(top, NEW, LIMITS, true)
  assert.equal(labelOf(join(top, 'file')), undefined)
  lsetxattr(top, 'security.selinux', Buffer.from(`${OLD}\0`))
  await relabelTree(top, NEW, LIMITS, true)
  assert.equal(labelOf(join(top, 'file')), NEW)
})

test('a relabelling that cannot begin changes nothing', async t => {
  const top = scratch.directory('hooked')
  t.after(() => setEffectHook(undefined))
  setEffectHook({ sync: () => undefined, async: () => Promise.reject(new Error('planned')) })
  await assert.rejects(relabelTree(top, NEW, LIMITS, false), /planned/)
  assert.equal(labelOf(top), undefined)
})
