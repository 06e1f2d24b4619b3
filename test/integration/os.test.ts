import assert from 'node:assert/strict'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { isCode } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import { exitOf } from '../../src/os/children.ts'
import * as files from '../../src/os/files.ts'
import * as mounts from '../../src/os/mounts.ts'
import * as node from '../../src/os/node.ts'
import { adoptOrphans } from '../../src/os/processes.ts'
import { run, start } from '../../src/os/spawn.ts'
import * as sys from '../../src/os/syscalls.ts'
import { ScratchMount } from '../support/scratch-mount.ts'
import { until } from '../support/wait.ts'

const scratch = new ScratchMount()

test('mounts: bound, read-only with all below, unmounted, and again', () => {
  const source = scratch.directory('bind/source')
  mounts.mount(
    'tmpfs',
    scratch.directory('bind/source/sub'),
    'tmpfs',
    mounts.MS_NOSUID | mounts.MS_NODEV,
    'size=64k',
  )
  writeFileSync(join(source, 'sub/file'), 'x')
  const flat = scratch.directory('bind/flat')
  mounts.bindMount(source, flat, { readonly: true })
  assert.equal(existsSync(join(flat, 'sub/file')), false)
  assert.throws(() => writeFileSync(join(flat, 'new'), ''), /EROFS/)
  const deep = scratch.directory('bind/deep')
  mounts.bindMount(source, deep, { readonly: true, recursive: true })
  assert.throws(() => writeFileSync(join(deep, 'sub/file'), ''), /EROFS/)
  assert.equal(mounts.isMountPoint(deep), true)
  assert.deepEqual(mounts.mountPointsBelow(deep), [join(deep, 'sub'), deep])
  mounts.bindMount(source, deep)
  mounts.unmountAll(deep)
  assert.deepEqual(mounts.mountPointsBelow(deep), [])
  assert.equal(mounts.unmount(deep), false)
  assert.equal(mounts.unmount(scratch.path('none')), false)
  assert.equal(mounts.unmount(flat), true)
})

test('a symlink is not unmounted through', () => {
  const target = scratch.directory('link/target')
  mounts.bindMount(target, target)
  symlinkSync(target, scratch.path('link/link'))
  assert.equal(mounts.unmount(scratch.path('link/link')), false)
  assert.equal(mounts.unmount(target), true)
})

test('errors of mount name the call, the target and the reason', () => {
  assert.throws(() => mounts.mount('none', scratch.path('none'), 'tmpfs', 0, ''), {
    code: 'ENOENT',
    syscall: 'mount',
    message: /ENOENT: no such file or directory, mount '.*none'/,
  })
})

test('the end of a private mount point leaves what somebody else had mounted there', () => {
  const dir = scratch.directory('own')
  mounts.makePrivateMountPoint(dir)
  mounts.removePrivateMountPoint(dir)
  assert.equal(mounts.isMountPoint(dir), false)
  for (const mountIt of [
    () => mounts.mount('tmpfs', dir, 'tmpfs', 0, ''),
    () => mounts.bindMount(scratch.directory('else'), dir),
  ]) {
    mountIt()
    mounts.makePrivateMountPoint(dir)
    mounts.removePrivateMountPoint(dir)
    assert.equal(mounts.isMountPoint(dir), true)
    mounts.unmount(dir)
  }
})

test('propagation is set and read back', () => {
  const dir = scratch.directory('spread')
  mounts.makePrivateMountPoint(dir)
  mounts.makePrivateMountPoint(dir)
  assert.deepEqual(mounts.mountPointsBelow(dir), [dir])
  assert.deepEqual(mounts.propagationOf(join(dir)), { mountPoint: dir, shared: false, slave: false })
  mounts.makeShared(dir)
  assert.equal(mounts.propagationOf(dir).shared, true)
  mounts.makeSlave(dir)
  mounts.makePrivate(dir, true)
  assert.deepEqual(mounts.propagationOf(dir), { mountPoint: dir, shared: false, slave: false })
})

/** 128 layers with long names, as many as an image may have. */
function layers(name: string): string[] {
  const base = scratch.directory(`${name}/a-directory-with-quite-a-long-name/for/the/layers`)
  return Array.from({ length: 128 }, (_, i) => {
    const dir = join(base, `layer-${i}`)
    mkdirSync(dir)
    writeFileSync(join(dir, `from-${i}`), '')
    writeFileSync(join(dir, 'top'), `${i}`)
    return dir
  })
}

const ways = { 'layer by layer': mounts.mountOverlay, 'as one option string': mounts.mountByData }
for (const [way, mountOverlay] of Object.entries(ways)) {
  test(`an overlay of 128 layers, ${way}`, () => {
    const name = `overlay-${way.replaceAll(' ', '-')}`
    const lowers = layers(name)
    const target = scratch.directory(`${name}/merged`)
    const [upper, work] = [scratch.directory(`${name}/upper`), scratch.directory(`${name}/work`)]
    const cwd = process.cwd()
    mountOverlay({ lowers, upper, work, target, volatile: true })
    assert.equal(process.cwd(), cwd)
    assert.equal(readdirSync(target).length, 129)
    assert.equal(readFileSync(join(target, 'top'), 'utf8'), '0')
    writeFileSync(join(target, 'new'), '')
    assert.ok(existsSync(join(upper, 'new')))
    const line = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find(text => text.includes(` ${target} `))
    const options = line?.split(' ').at(-1)?.split(',') ?? []
    assert.ok(options.some(option => option.endsWith('volatile')))
    assert.ok(!options.includes('index=on') && !options.includes('userxattr'))
    assert.equal(mounts.unmount(target), true)
    mountOverlay({ lowers: lowers.slice(0, 2), target, readonly: true })
    assert.throws(() => writeFileSync(join(target, 'new'), ''), /EROFS/)
    mounts.unmount(target)
  })

  test(`directory names that mean something in an option string, ${way}`, () => {
    const name = `odd-${way.replaceAll(' ', '-')}`
    const lowers = ['a:b', 'c,d', 'e\\f'].map(part => scratch.directory(`${name}/${part}`))
    for (const [i, dir] of lowers.entries()) writeFileSync(join(dir, `${i}`), '')
    const [upper, work] = [scratch.directory(`${name}/up,per`), scratch.directory(`${name}/wo\\rk`)]
    const target = scratch.directory(`${name}/merged`)
    mountOverlay({ lowers, upper, work, target })
    assert.deepEqual(readdirSync(target), ['0', '1', '2'])
    mounts.unmount(target)
  })

  test(`an overlay on a layer that is missing says so, ${way}`, () => {
    const lowers = [scratch.directory('missing/a'), scratch.path('missing/none')]
    const target = scratch.directory('missing/merged')
    assert.throws(() => mountOverlay({ lowers, target }), /ENOENT|none/)
    assert.equal(mounts.isMountPoint(target), false)
  })
}

test('a tree with a mount in it is not removed', async () => {
  const dir = scratch.directory('tree')
  writeFileSync(join(scratch.directory('kept'), 'file'), '')
  mounts.bindMount(scratch.path('kept'), scratch.directory('tree/sub'))
  await assert.rejects(files.removeTree(dir), error => {
    return isCode(error, 'precondition') && String(error).includes(join(dir, 'sub'))
  })
  mounts.unmount(join(dir, 'sub'))
  await files.removeTree(dir)
  assert.equal(existsSync(scratch.path('kept/file')), true)
})

test('usage stops at other file systems', async () => {
  const dir = scratch.directory('usage')
  mounts.mount('tmpfs', scratch.directory('usage/other'), 'tmpfs', 0, '')
  writeFileSync(join(dir, 'other/big'), Buffer.alloc(100_000))
  assert.equal((await files.treeUsage(dir)).inodes, 1)
  mounts.unmount(join(dir, 'other'))
  await files.syncFileSystem(dir)
})

test('devices, links to links, and attributes byte for byte', () => {
  const dir = scratch.directory('nodes')
  const path = Buffer.concat([Buffer.from(`${dir}/n`), Buffer.from([0xff])])
  sys.mknod(path, 0o020600, 5, 0x12345)
  const { rdev } = statSync(path)
  // glibc's layout of a 64-bit device number.
  assert.equal(rdev, 0x45 + (5 << 8) + 0x123 * 2 ** 20)
  sys.mknod(join(dir, 'whiteout'), 0o020000, 0, 0)
  assert.equal(statSync(join(dir, 'whiteout')).rdev, 0)
  symlinkSync('nowhere', join(dir, 'symlink'))
  sys.link(join(dir, 'symlink'), join(dir, 'hard'))
  assert.equal(lstatSync(join(dir, 'hard')).ino, lstatSync(join(dir, 'symlink')).ino)
  const file = join(dir, 'file')
  writeFileSync(file, '')
  const value = Buffer.from([0x01, 0x00, 0x00, 0x02, 0x80, 0xff, ...Array(14).fill(0)])
  sys.lsetxattr(file, 'security.capability', value)
  sys.lsetxattr(file, 'trusted.empty', Buffer.alloc(0))
  assert.deepEqual(sys.lgetxattr(file, 'security.capability'), value)
  assert.deepEqual(sys.lgetxattr(file, 'trusted.empty'), Buffer.alloc(0))
  assert.equal(sys.lgetxattr(file, 'trusted.none'), undefined)
  assert.deepEqual(sys.llistxattr(file).toSorted(), ['security.capability', 'trusted.empty'])
  assert.deepEqual(sys.llistxattr(join(dir, 'symlink')), [])
  assert.throws(() => sys.lgetxattr(join(dir, 'none'), 'user.x'), { code: 'ENOENT' })
  assert.throws(() => sys.mknod(`${dir}/cut\0off`, 0o020600, 1, 3), { code: 'EINVAL' })
})

test('descriptors that were inherited without close-on-exec get it', async () => {
  const script = `
    const { closeOnExecAll } = await import(${JSON.stringify(import.meta.resolve('../../src/os/node.ts'))})
    const { readFileSync } = await import('node:fs')
    const flags = fd => /flags:\\s+([0-7]+)/.exec(readFileSync('/proc/self/fdinfo/' + fd, 'utf8'))[1]
    const before = flags(40)
    closeOnExecAll()
    process.stdout.write([before, flags(40)].map(text => parseInt(text, 8) & 0o2000000 ? 'closed' : 'open').join())`
  const args = ['-c', 'exec "$0" --input-type=module -e "$1" 40</dev/null', process.execPath, script]
  const { stdout, stderr } = await run('/bin/bash', { args, env: {}, timeoutMs: 20_000 })
  assert.deepEqual([stdout.toString(), stderr.toString()], ['open,closed', ''])
})

test('who is at the other end of a socket', async t => {
  const server = createServer()
  t.after(() => server.close())
  const path = scratch.path('peer.sock')
  await new Promise<void>(resolve => server.listen(path, resolve))
  const accepted = new Promise<{ _handle: { fd: number }; destroy(): void }>(resolve => {
    server.once('connection', socket => resolve(socket as never))
  })
  const client = createConnection(path)
  t.after(() => client.destroy())
  const socket = await accepted
  t.after(() => socket.destroy())
  const groups = /^Groups:\t(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]?.trim() ?? ''
  assert.deepEqual(node.peerOf(socket._handle.fd), {
    pid: process.pid,
    uid: 0,
    gid: 0,
    groups: groups === '' ? [] : groups.split(' ').map(Number),
    command: readFileSync('/proc/self/comm', 'utf8').trim(),
  })
})

test('systemd is told, by path and by abstract name', async () => {
  for (const socket of [scratch.path('notify'), `@berth-test-${newId()}`]) {
    const perl = `use Socket; $| = 1; my $name = $ARGV[0]; $name =~ s/^@/\\0/;
      socket(S, PF_UNIX, SOCK_DGRAM, 0) and bind(S, pack_sockaddr_un($name)) or die "$!";
      print "ready\\n"; recv(S, my $text, 100, 0); print "$text\\n";`
    const child = start('/usr/bin/perl', {
      args: ['-e', perl, socket],
      env: {},
      fds: ['null', 'pipe-read', 2],
    })
    const [, out] = child.streams as [undefined, NodeJS.ReadableStream]
    let text = ''
    for await (const chunk of out) {
      text += chunk
      if (text === 'ready\n') node.notifySystemd('READY=1\nSTATUS=up', socket)
    }
    assert.equal(text, 'ready\nREADY=1\nSTATUS=up\n')
    assert.equal(await child.exited, 0)
  }
  assert.throws(() => node.notifySystemd('READY=1', scratch.path('nobody')), { code: 'ENOENT' })
})

test('orphans become ours: one that is waited for tells its exit code, the others are reaped', async () => {
  adoptOrphans()
  const { stdout } = await run('/bin/sh', {
    args: ['-c', 'sleep 0.1 <&- >&- 2>&- & echo $!; sh -c "sleep 0.1; exit 7" <&- >&- 2>&- & echo $!'],
    env: { PATH: '/usr/bin:/bin' },
    timeoutMs: 10_000,
  })
  const [ignored, awaited] = stdout.toString().split('\n').map(Number) as [number, number]
  assert.equal(await exitOf(awaited), 7)
  assert.throws(() => exitOf(awaited), { code: 'ECHILD' })
  await until('the other is gone', () => !existsSync(`/proc/${ignored}`))
})
