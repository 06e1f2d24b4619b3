import assert from 'node:assert/strict'
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { errnoOf, isCode } from '../base/errors.ts'
import * as files from './files.ts'
import { run } from './spawn.ts'

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'berth-files-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

function modeOf(path: string): string {
  return (statSync(path).mode & 0o7777).toString(8)
}

test('a file is replaced whole, with its mode whatever the umask', t => {
  const dir = scratch(t)
  const path = join(dir, 'f')
  const umask = process.umask(0o077)
  t.after(() => process.umask(umask))
  writeFileSync(`${path}.tmp`, 'left by a crash, longer than what comes')
  files.writeFileAtomic(path, 'one', 0o644)
  files.writeFileAtomic(path, Buffer.from('two'), 0o640, { sync: true })
  assert.equal(readFileSync(path, 'utf8'), 'two')
  assert.equal(modeOf(path), '640')
  assert.deepEqual(readdirSync(dir), ['f'])
})

test('a temporary file that is a symlink is not followed', t => {
  const dir = scratch(t)
  symlinkSync(join(dir, 'victim'), join(dir, 'f.tmp'))
  assert.throws(
    () => files.writeFileAtomic(join(dir, 'f'), 'x', 0o600),
    error => errnoOf(error) === 'ELOOP',
  )
  assert.equal(existsSync(join(dir, 'victim')), false)
})

test('a directory gets its mode also when it exists', t => {
  const dir = join(scratch(t), 'a/b')
  files.ensureDir(dir, 0o711)
  assert.equal(modeOf(dir), '711')
  files.ensureDir(dir, 0o700)
  assert.deepEqual([modeOf(dir), modeOf(join(dir, '..'))], ['700', '700'])
})

test('a tree is removed with all its kinds of names; what is not there is no error', async t => {
  const dir = join(scratch(t), 'tree')
  mkdirSync(join(dir, 'a/b'), { recursive: true })
  symlinkSync('/', join(dir, 'a/root'))
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/a/`), Buffer.from([0xff, 0xfe])]), '')
  await files.removeTree(dir)
  assert.equal(existsSync(dir), false)
  await files.removeTree(dir)
  assert.ok(existsSync('/etc'))
})

test('a lock is held once, says by whom, and is free after the release', t => {
  const path = join(scratch(t), 'lock')
  const lock = files.FileLock.acquire(path)
  assert.throws(
    () => files.FileLock.acquire(path),
    error => isCode(error, 'precondition') && String(error).includes(`process ${process.pid}`),
  )
  lock.release()
  files.FileLock.acquire(path).release()
})

test('usage is what du says: blocks, and each inode once', async t => {
  const dir = scratch(t)
  mkdirSync(join(dir, 'a/b'), { recursive: true })
  for (let i = 0; i < 700; i++) writeFileSync(join(dir, `a/${i}`), 'x'.repeat(i * 10))
  linkSync(join(dir, 'a/600'), join(dir, 'a/b/link'))
  symlinkSync('/usr', join(dir, 'a/usr'))
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff])]), 'y')
  const du = async (...args: string[]) =>
    Number.parseInt(
      (await run('/usr/bin/du', { args: [...args, dir], env: {}, timeoutMs: 10_000 })).stdout.toString(),
      10,
    )
  const usage = await files.treeUsage(dir)
  assert.equal(usage.bytes, await du('-s', '-B1'))
  assert.equal(usage.inodes, await du('-s', '--inodes'))
  assert.deepEqual(await files.treeUsage(join(dir, 'none')), { bytes: 0, inodes: 0 })
})

test('usage of a file system', t => {
  const usage = files.fsUsage(scratch(t))
  assert.ok(usage.bytesFree > 0 && usage.bytesFree <= usage.bytesTotal)
  assert.ok(usage.inodesFree <= usage.inodesTotal)
})

/** What a hostile image may hold, next to a file outside that nobody may reach. */
function hostileRoot(t: TestContext): { root: string; outside: string } {
  const dir = scratch(t)
  const root = join(dir, 'root')
  const outside = join(dir, 'secret')
  writeFileSync(outside, 'secret')
  mkdirSync(join(root, 'etc'), { recursive: true })
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0\n')
  symlinkSync('/etc', join(root, 'abs'))
  symlinkSync('../../secret', join(root, 'up'))
  symlinkSync(outside, join(root, 'host'))
  symlinkSync('/proc/self/root', join(root, 'magic'))
  symlinkSync('loop', join(root, 'loop'))
  return { root, outside }
}

test('a file is read through links that stay inside the root', t => {
  const { root } = hostileRoot(t)
  const text = (path: string) => files.readInRoot(root, path, 100)?.toString()
  assert.equal(text('/etc/passwd'), 'root:x:0:0\n')
  assert.equal(text('abs/passwd'), 'root:x:0:0\n')
  assert.equal(text('../../etc/passwd'), 'root:x:0:0\n')
})

test('links that lead outside lead nowhere', t => {
  const { root, outside } = hostileRoot(t)
  for (const path of ['up', 'host', outside, 'none', 'etc/passwd/x']) {
    assert.equal(files.readInRoot(root, path, 100), undefined, path)
    assert.equal(files.resolveInRoot(root, path), undefined, path)
  }
  assert.throws(
    () => files.readInRoot(root, 'loop', 100),
    error => errnoOf(error) === 'ELOOP',
  )
})

test('magic links are refused even where the root holds /proc', () => {
  assert.throws(
    () => files.openInRoot('/', 'proc/self/root/etc', constants.O_RDONLY),
    error => errnoOf(error) === 'ELOOP',
  )
})

test('only regular files are read, and only so much', async t => {
  const { root } = hostileRoot(t)
  await run('/usr/bin/mkfifo', { args: [join(root, 'fifo')], env: {}, timeoutMs: 10_000 })
  for (const path of ['fifo', 'etc']) {
    assert.throws(
      () => files.readInRoot(root, path, 100),
      error => isCode(error, 'precondition'),
    )
  }
  assert.equal(files.readInRoot(root, 'etc/passwd', 11)?.length, 11)
  assert.throws(
    () => files.readInRoot(root, 'etc/passwd', 10),
    error => isCode(error, 'exhausted'),
  )
})

test('what a path leads to is named by its place on the host', t => {
  const { root } = hostileRoot(t)
  assert.equal(files.resolveInRoot(root, '/abs/passwd'), join(root, 'etc/passwd'))
  assert.equal(files.resolveInRoot(root, '/'), root)
})

test('a file made in the root', t => {
  const { root } = hostileRoot(t)
  const { O_RDWR, O_CREAT, O_EXCL } = constants
  const fd = files.openInRoot(root, 'abs/hosts', O_RDWR | O_CREAT | O_EXCL, 0o640)
  assert.equal(readSync(fd, Buffer.alloc(1)), 0)
  closeSync(fd)
  assert.equal(modeOf(join(root, 'etc/hosts')), '640')
})

test('directories are made inside the root, whatever links say', t => {
  const { root, outside } = hostileRoot(t)
  files.mkdirInRoot(root, '/abs/x/../y/z', 0o751)
  assert.deepEqual([modeOf(join(root, 'etc/y')), modeOf(join(root, 'etc/y/z'))], ['751', '751'])
  files.mkdirInRoot(root, '/etc/y/z', 0o700)
  assert.equal(modeOf(join(root, 'etc/y/z')), '751')
  files.mkdirInRoot(root, '/', 0o700)
  for (const path of ['etc/passwd/x', 'loop/x']) {
    assert.throws(() => files.mkdirInRoot(root, path, 0o755), path)
  }
  assert.equal(readFileSync(outside, 'utf8'), 'secret')
})

test('a symlink to nowhere gets its directory inside the root', t => {
  const { root, outside } = hostileRoot(t)
  symlinkSync('../../nowhere/at', join(root, 'etc/dangling'))
  symlinkSync(`${outside}-new`, join(root, 'away'))
  symlinkSync('again', join(root, 'once'))
  symlinkSync('/etc/deep/er', join(root, 'again'))
  files.mkdirInRoot(root, '/etc/dangling/x', 0o755)
  files.mkdirInRoot(root, '/abs/../away/x', 0o755)
  files.mkdirInRoot(root, '/once', 0o755)
  for (const made of ['nowhere/at/x', `${outside}-new/x`, 'etc/deep/er']) {
    assert.ok(statSync(join(root, made)).isDirectory(), made)
  }
  assert.ok(!existsSync(`${outside}-new`))
  symlinkSync('b/x', join(root, 'a'))
  symlinkSync('a/x', join(root, 'b'))
  assert.throws(() => files.mkdirInRoot(root, 'a/y', 0o755))
})
