// biome-ignore-all lint/style/noExcessiveLinesPerFile: one function for each system call, nothing else
/**
 * System calls, one function each: every one checks the return value and throws a SyscallError. What opens a
 * descriptor opens it close-on-exec.
 */
import { closeSync } from 'node:fs'
import { constants as os } from 'node:os'
import {
  check,
  cstring,
  numberedCall,
  OUT,
  type PathLike,
  PTR,
  SyscallError,
  systemCall,
  waitingCall,
} from './native.ts'

const AT_FDCWD = -100
const O_CLOEXEC = 0o2000000
const SOCK_CLOEXEC = 0o2000000
const AF_INET = 2
const SOCK_DGRAM = 2

const native = {
  mount: systemCall('mount', PTR, PTR, PTR, 'ulong', PTR),
  umount2: systemCall('umount2', PTR, 'int'),
  unshare: systemCall('unshare', 'int'),
  setns: systemCall('setns', 'int', 'int'),
  sethostname: systemCall('sethostname', PTR, 'size_t'),
  ioctl: systemCall('ioctl', 'int', 'ulong', OUT),
  socket: systemCall('socket', 'int', 'int', 'int'),
  pipe2: systemCall('pipe2', OUT, 'int'),
  fcntl: systemCall('fcntl', 'int', 'int', 'long'),
  flock: systemCall('flock', 'int', 'int'),
  syncfs: waitingCall('syncfs', 'int'),
  syslog: waitingCall('syslog', 'int', OUT, 'int'),
  fadvise: systemCall('fadvise64', 'int', 'long', 'long', 'int'),
  chroot: systemCall('chroot', PTR),
  fchdir: systemCall('fchdir', 'int'),
  mknodat: systemCall('mknodat', 'int', PTR, 'uint', 'uint'),
  utimensat: systemCall('utimensat', 'int', PTR, PTR, 'int'),
  linkat: systemCall('linkat', 'int', PTR, 'int', PTR, 'int'),
  lsetxattr: systemCall('lsetxattr', PTR, PTR, PTR, 'size_t', 'int'),
  lgetxattr: systemCall('lgetxattr', PTR, PTR, OUT, 'size_t'),
  llistxattr: systemCall('llistxattr', PTR, OUT, 'size_t'),
  prctl: systemCall('prctl', 'int', 'ulong', 'ulong', 'ulong', 'ulong'),
  prlimit: systemCall('prlimit64', 'int', 'int', PTR, OUT),
  waitid: systemCall('waitid', 'int', 'uint', OUT, 'int', OUT),
  wait4: systemCall('wait4', 'int', OUT, 'int', OUT),
  setresuid: systemCall('setresuid', 'uint', 'uint', 'uint'),
  setresgid: systemCall('setresgid', 'uint', 'uint', 'uint'),
  pidfdSendSignal: systemCall('pidfd_send_signal', 'int', 'int', PTR, 'uint'),
  openTree: systemCall('open_tree', 'int', PTR, 'uint'),
  moveMount: systemCall('move_mount', 'int', PTR, 'int', PTR, 'uint'),
  fsopen: systemCall('fsopen', PTR, 'uint'),
  fsconfig: systemCall('fsconfig', 'int', 'uint', PTR, PTR, 'int'),
  fsmount: systemCall('fsmount', 'int', 'uint', 'uint'),
  pidfdOpen: systemCall('pidfd_open', 'int', 'uint'),
  openat2: systemCall('openat2', 'int', PTR, PTR, 'size_t'),
  mountSetattr: systemCall('mount_setattr', 'int', PTR, 'uint', PTR, 'size_t'),
}

// Mounts

export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  const call = 'mount'
  const [s, t, y, d] = [
    cstring(source, call),
    cstring(target, call),
    cstring(type, call),
    cstring(data, call),
  ]
  check(native.mount(s, t, y, flags, d), call, target)
}

export function umount(target: string, flags: number): void {
  check(native.umount2(cstring(target, 'umount'), flags), 'umount', target)
}

/** A configuration context for one new file system (fsopen(2)); `fsmount` consumes it, `close` it either way. */
export function fsopen(type: string): number {
  return check(native.fsopen(cstring(type, 'fsopen'), 1), 'fsopen', type)
}

/** `value` undefined sets a flag. The kernel takes values of at most 255 bytes. */
export function fsconfigSet(fd: number, key: string, value: string | undefined): void {
  const call = 'fsconfig'
  const name = cstring(key, call)
  const result =
    value === undefined
      ? native.fsconfig(fd, 0, name, null, 0)
      : native.fsconfig(fd, 1, name, cstring(value, call), 0)
  check(result, call, value === undefined ? key : `${key}=${value}`)
}

export function fsconfigCreate(fd: number): void {
  check(native.fsconfig(fd, 6, null, null, 0), 'fsconfig', 'create')
}

/** @returns the descriptor of a mount that is attached nowhere yet */
export function fsmount(fd: number, attributes: number): number {
  return check(native.fsmount(fd, 1, attributes), 'fsmount')
}

/** @returns the descriptor of a copy of the mount that `path` is on, from `path` down, attached nowhere yet */
export function cloneMount(path: string): number {
  const OPEN_TREE_CLONE = 1
  const result = native.openTree(AT_FDCWD, cstring(path, 'open_tree'), OPEN_TREE_CLONE | O_CLOEXEC)
  return check(result, 'open_tree', path)
}

/** Shows the files of a mount that is attached nowhere with their owners mapped by a user namespace. */
export function mapMountIds(mountFd: number, userNamespaceFd: number): void {
  const AT_EMPTY_PATH = 0x1000
  const MOUNT_ATTR_IDMAP = 0x100000
  const attr = Buffer.alloc(32)
  attr.writeBigUInt64LE(BigInt(MOUNT_ATTR_IDMAP), 0)
  attr.writeBigUInt64LE(BigInt(userNamespaceFd), 24)
  const empty = Buffer.alloc(1)
  check(native.mountSetattr(mountFd, empty, AT_EMPTY_PATH, attr, attr.length), 'mount_setattr', 'idmap')
}

/** Attaches what `fsmount` or `cloneMount` made. */
export function moveMount(mountFd: number, target: string): void {
  const empty = Buffer.alloc(1)
  check(native.moveMount(mountFd, empty, AT_FDCWD, cstring(target, 'move_mount'), 4), 'move_mount', target)
}

/** mount_setattr(2): `set` and `clear` are MOUNT_ATTR_* bits. */
export function mountSetattr(target: string, recursive: boolean, set: number, clear: number): void {
  const attr = Buffer.alloc(32)
  attr.writeBigUInt64LE(BigInt(set), 0)
  attr.writeBigUInt64LE(BigInt(clear), 8)
  const flags = recursive ? 0x8000 : 0
  const result = native.mountSetattr(AT_FDCWD, cstring(target, 'mount_setattr'), flags, attr, attr.length)
  check(result, 'mount_setattr', target)
}

// Namespaces: all of these act on the calling thread only

export function unshare(flags: number): void {
  check(native.unshare(flags), 'unshare')
}

/** `type` is the CLONE_NEW… flag that the descriptor must be of. */
export function setns(fd: number, type: number): void {
  check(native.setns(fd, type), 'setns')
}

export function sethostname(name: string): void {
  const text = Buffer.from(name)
  check(native.sethostname(text, text.length), 'sethostname', name)
}

/**
 * Hardware address of an interface of the thread's network namespace, as `aa:bb:cc:dd:ee:ff` (netdevice(7)).
 * @throws SyscallError ENODEV if there is none
 */
export function hardwareAddress(name: string): string {
  const fd = check(native.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket')
  try {
    const SIOCGIFHWADDR = 0x8927
    const [ADDRESS, END] = [18, 24] // behind the name and the family
    const request = Buffer.alloc(40)
    request.write(name.slice(0, 15), 0)
    check(native.ioctl(fd, SIOCGIFHWADDR, request), 'ioctl', `SIOCGIFHWADDR ${name}`)
    return [...request.subarray(ADDRESS, END)].map(byte => byte.toString(16).padStart(2, '0')).join(':')
  } finally {
    closeSync(fd)
  }
}

/** Brings the interface `lo` of the thread's network namespace up. */
export function raiseLoopback(): void {
  const fd = check(native.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket')
  try {
    const SIOCSIFFLAGS = 0x8914
    const request = Buffer.alloc(40)
    request.write('lo', 0)
    request.writeInt16LE(0x41, 16) // IFF_UP | IFF_RUNNING
    check(native.ioctl(fd, SIOCSIFFLAGS, request), 'ioctl', 'SIOCSIFFLAGS lo')
  } finally {
    closeSync(fd)
  }
}

/**
 * Does something with these effective ids, which costs the calling thread its capabilities meanwhile. By the raw
 * calls: those of the C library change every thread of the process.
 */
export function withEffectiveIds<T>(uid: number, gid: number, act: () => T): T {
  const KEEP = 2 ** 32 - 1
  check(native.setresgid(KEEP, gid, KEEP), 'setresgid', `${gid}`)
  try {
    check(native.setresuid(KEEP, uid, KEEP), 'setresuid', `${uid}`)
    try {
      return act()
    } finally {
      check(native.setresuid(KEEP, 0, KEEP), 'setresuid', '0')
    }
  } finally {
    check(native.setresgid(KEEP, 0, KEEP), 'setresgid', '0')
  }
}

// Descriptors

/** @returns read end, write end */
export function pipe(): [number, number] {
  const fds = Buffer.alloc(8)
  check(native.pipe2(fds, O_CLOEXEC), 'pipe2')
  return [fds.readInt32LE(0), fds.readInt32LE(4)]
}

/** Bytes that wait in a pipe or terminal to be read. */
export function unreadBytes(fd: number): number {
  const FIONREAD = 0x541b
  const count = Buffer.alloc(4)
  check(native.ioctl(fd, FIONREAD, count), 'ioctl', 'FIONREAD')
  return count.readInt32LE(0)
}

/** @returns false if it stays as it is, for want of memory or by a limit */
export function setPipeSize(fd: number, bytes: number): boolean {
  const F_SETPIPE_SZ = 1031
  return native.fcntl(fd, F_SETPIPE_SZ, bytes) >= 0
}

/** Of a terminal, in character cells of at most 65535 each. */
export function setWindowSize(fd: number, columns: number, rows: number): void {
  const TIOCSWINSZ = 0x5414
  const size = Buffer.alloc(8)
  size.writeUInt16LE(rows, 0)
  size.writeUInt16LE(columns, 2)
  check(native.ioctl(fd, TIOCSWINSZ, size), 'ioctl', 'TIOCSWINSZ')
}

/** A copy of `fd`, close-on-exec, numbered `lowest` or above. */
export function duplicateAbove(fd: number, lowest: number): number {
  const F_DUPFD_CLOEXEC = 1030
  return check(native.fcntl(fd, F_DUPFD_CLOEXEC, lowest), 'fcntl', `fd ${fd}`)
}

export function setCloseOnExec(fd: number): void {
  const F_SETFD = 2
  check(native.fcntl(fd, F_SETFD, 1), 'fcntl', `fd ${fd}`)
}

/** Takes the exclusive lock without waiting; false if another open file holds it. */
export function tryLock(fd: number): boolean {
  const LOCK_EX = 2
  const LOCK_NB = 4
  const result = native.flock(fd, LOCK_EX | LOCK_NB)
  if (result === -os.errno.EWOULDBLOCK) return false
  check(result, 'flock')
  return true
}

/** syncfs(2), on a thread of libuv's pool. */
export async function syncfs(fd: number, path: string): Promise<void> {
  check(await native.syncfs(fd), 'syncfs', path)
}

/**
 * syslog(2), on a thread of libuv's pool: the newest whole records of the kernel's log that fit into `buffer`.
 * @returns how many bytes they are
 */
export async function readKernelLog(buffer: Buffer): Promise<number> {
  const SYSLOG_ACTION_READ_ALL = 3
  return check(await native.syslog(SYSLOG_ACTION_READ_ALL, buffer, buffer.length), 'syslog')
}

const OPEN_TMPFILE_OR_CREATE = 0o20000000 | 0o100

/** Lets the kernel forget what it has cached of the file, as far as that is on disk: the next read is of the disk. */
export function dropFromCache(fd: number): void {
  const dontNeed = 4
  check(native.fadvise(fd, 0, 0, dontNeed), 'fadvise64')
}

/** openat2(2) from the working directory or from a directory's descriptor. */
export function openat2(
  dir: number | undefined,
  path: PathLike,
  flags: number,
  mode: number,
  resolve: number,
): number {
  const how = Buffer.alloc(24)
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0)
  how.writeBigUInt64LE(BigInt((flags & OPEN_TMPFILE_OR_CREATE) === 0 ? 0 : mode), 8)
  how.writeBigUInt64LE(BigInt(resolve), 16)
  const result = native.openat2(dir ?? AT_FDCWD, cstring(path, 'openat2'), how, how.length)
  return check(result, 'openat2', path)
}

// Files

export function chroot(path: string): void {
  check(native.chroot(cstring(path, 'chroot')), 'chroot', path)
}

export function fchdir(fd: number): void {
  check(native.fchdir(fd), 'fchdir', `fd ${fd}`)
}

/** `mode` includes the file type (S_IFCHR…). */
export function mknod(path: PathLike, mode: number, major: number, minor: number): void {
  if (major >= 2 ** 12 || minor >= 2 ** 20) {
    throw new SyscallError(os.errno.EINVAL, 'mknod', path, `there is no device ${major}:${minor}`)
  }
  // 12 and 20 bits of major and minor, spread so that the 8 and 8 bits of old keep their place.
  const device = ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
  check(native.mknodat(AT_FDCWD, cstring(path, 'mknod'), mode, device), 'mknod', path)
}

/** A hard link; a symlink as `existing` is linked itself, not what it points to. */
export function link(existing: PathLike, path: PathLike): void {
  const [from, to] = [cstring(existing, 'linkat'), cstring(path, 'linkat')]
  check(native.linkat(AT_FDCWD, from, AT_FDCWD, to, 0), 'linkat', path)
}

const AT_SYMLINK_NOFOLLOW = 0x100
const NS_PER_SECOND = 1_000_000_000n

/** Sets both times to `ns` nanoseconds since 1970, which may be before it; of a symlink its own. */
export function setTimes(path: PathLike, ns: bigint): void {
  const nanoseconds = ((ns % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND
  const times = Buffer.alloc(32)
  for (const at of [0, 16]) {
    times.writeBigInt64LE((ns - nanoseconds) / NS_PER_SECOND, at)
    times.writeBigInt64LE(nanoseconds, at + 8)
  }
  const call = 'utimensat'
  check(native.utimensat(AT_FDCWD, cstring(path, call), times, AT_SYMLINK_NOFOLLOW), call, path)
}

export function lsetxattr(path: PathLike, name: string, value: Buffer): void {
  const call = 'lsetxattr'
  check(native.lsetxattr(cstring(path, call), cstring(name, call), value, value.length, 0), call, path)
}

/** undefined if the file has no such attribute. */
export function lgetxattr(path: PathLike, name: string): Buffer | undefined {
  const [file, key] = [cstring(path, 'lgetxattr'), cstring(name, 'lgetxattr')]
  const value = Buffer.allocUnsafe(64 * 1024) // XATTR_SIZE_MAX
  const length = native.lgetxattr(file, key, value, value.length)
  if (length === -os.errno.ENODATA || length === -os.errno.EOPNOTSUPP) return undefined
  return Buffer.from(value.subarray(0, check(length, 'lgetxattr', path)))
}

export function llistxattr(path: PathLike): string[] {
  const names = Buffer.allocUnsafe(64 * 1024) // XATTR_LIST_MAX
  const length = native.llistxattr(cstring(path, 'llistxattr'), names, names.length)
  if (length === -os.errno.EOPNOTSUPP) return []
  check(length, 'llistxattr', path)
  return names.toString('latin1', 0, length).split('\0').slice(0, -1)
}

// Processes

/** RLIMIT_* number → soft and hard limit of this process; 2⁶⁴−1 is unlimited. */
export function getLimit(resource: number): { soft: bigint; hard: bigint } {
  const old = Buffer.alloc(16)
  check(native.prlimit(0, resource, null, old), 'prlimit')
  return { soft: old.readBigUInt64LE(0), hard: old.readBigUInt64LE(8) }
}

export function setLimit(resource: number, soft: bigint, hard: bigint): void {
  const next = Buffer.alloc(16)
  next.writeBigUInt64LE(soft, 0)
  next.writeBigUInt64LE(hard, 8)
  check(native.prlimit(0, resource, next, null), 'prlimit')
}

export function pidfdOpen(pid: number): number {
  return check(native.pidfdOpen(pid, 0), 'pidfd_open', `pid ${pid}`)
}

export function pidfdSendSignal(pidfd: number, signal: number): void {
  check(native.pidfdSendSignal(pidfd, signal, null, 0), 'pidfd_send_signal')
}

/** Reaps one child if it has ended: its code, or 128 + signal. undefined: it runs, or is no child of ours. */
export function reap(pid: number): number | undefined {
  const WNOHANG = 1
  const status = Buffer.alloc(4)
  const result = native.wait4(pid, status, WNOHANG, null)
  if (result === 0) return undefined
  check(result, 'wait4', `pid ${pid}`)
  const word = status.readInt32LE(0)
  const signal = word & 0x7f
  return signal === 0 ? (word >> 8) & 0xff : 128 + signal
}

/** From now on descendants whose parent has ended become children of this process (PR_SET_CHILD_SUBREAPER). */
export function becomeSubreaper(): void {
  const PR_SET_CHILD_SUBREAPER = 36
  check(native.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl')
}

/** Some child of ours has ended and nobody has reaped it yet. */
export function hasEndedChild(): boolean {
  const P_ALL = 0
  const WNOHANG = 1
  const WEXITED = 4
  const WNOWAIT = 0x1000000
  const info = Buffer.alloc(128)
  const SI_PID = 16
  // ECHILD: there are no children.
  return (
    native.waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT, null) === 0 && info.readInt32LE(SI_PID) !== 0
  )
}

const X32_GETPID = 0x40000000 + 39
const x32Getpid = numberedCall(X32_GETPID)

/** getpid(2) by its x32 number: fails with ENOSYS on a kernel without that ABI. */
export function probeX32(): boolean {
  return x32Getpid() > 0
}
