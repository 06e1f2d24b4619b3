/** Calls on sockets that Node does not have. All are close-on-exec; those that are handed out do not block. */
import { closeSync } from 'node:fs'
import { constants as os } from 'node:os'
import { addressOf, check, cstring, OUT, PTR, SyscallError, systemCall } from './native.ts'

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_SEQPACKET = 5
const SOCK_CLOEXEC = 0o2000000
const SOCK_NONBLOCK = 0o4000
const FLAGS = SOCK_CLOEXEC | SOCK_NONBLOCK

const native = {
  socket: systemCall('socket', 'int', 'int', 'int'),
  sendto: systemCall('sendto', 'int', PTR, 'size_t', 'int', PTR, 'uint'),
  getsockopt: systemCall('getsockopt', 'int', 'int', 'int', OUT, OUT),
  socketpair: systemCall('socketpair', 'int', 'int', 'int', OUT),
  connect: systemCall('connect', 'int', PTR, 'uint'),
  bind: systemCall('bind', 'int', PTR, 'uint'),
  listen: systemCall('listen', 'int', 'int'),
  accept4: systemCall('accept4', 'int', OUT, OUT, 'int'),
  recvmsg: systemCall('recvmsg', 'int', OUT, 'int'),
}

/** A connected pair of stream sockets. */
export function socketPair(): [number, number] {
  return connectedPair(SOCK_STREAM)
}

/** A connected pair of sockets that keep packets apart. */
export function packetSocketPair(): [number, number] {
  return connectedPair(SOCK_SEQPACKET)
}

function connectedPair(type: number): [number, number] {
  const fds = Buffer.alloc(8)
  check(native.socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 'socketpair')
  return [fds.readInt32LE(0), fds.readInt32LE(4)]
}

/** A socket in the network namespace of the calling thread; it stays there whoever uses it. */
export function tcpSocket(family: 4 | 6): number {
  return check(native.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM | FLAGS, 0), 'socket')
}

/** Connects to a unix socket that keeps packets apart. EAGAIN: as many as may are waiting to be accepted. */
export function connectPackets(path: string): number {
  return opened(SOCK_SEQPACKET, fd => {
    const address = unixAddress(path, 'connect')
    check(native.connect(fd, address, address.length), 'connect', path)
  })
}

/** A unix socket that listens at `path`, which must not exist. */
export function listenAt(path: string): number {
  return opened(SOCK_STREAM, fd => {
    const address = unixAddress(path, 'bind')
    check(native.bind(fd, address, address.length), 'bind', path)
    check(native.listen(fd, 1), 'listen', path)
  })
}

function opened(type: number, use: (fd: number) => void): number {
  const fd = check(native.socket(AF_UNIX, type | FLAGS, 0), 'socket')
  try {
    use(fd)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The descriptor that a peer has connected and sent (SCM_RIGHTS); undefined if none has. */
export function takeDescriptor(listener: number): number | undefined {
  const peer = native.accept4(listener, null, null, FLAGS)
  if (peer === -os.errno.EAGAIN) return undefined
  check(peer, 'accept4')
  try {
    return receiveDescriptor(peer)
  } finally {
    closeSync(peer)
  }
}

const MSG_CMSG_CLOEXEC = 0x40000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1

/** recvmsg(2) with structs msghdr, iovec and cmsghdr as they are on 64 bit. */
function receiveDescriptor(peer: number): number | undefined {
  const data = Buffer.alloc(4096)
  const control = Buffer.alloc(24) // one cmsghdr with one descriptor
  const vector = Buffer.alloc(16)
  vector.writeBigUInt64LE(addressOf(data), 0)
  vector.writeBigUInt64LE(BigInt(data.length), 8)
  const message = Buffer.alloc(56)
  message.writeBigUInt64LE(addressOf(vector), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(addressOf(control), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  const length = native.recvmsg(peer, message, MSG_CMSG_CLOEXEC)
  if (length === -os.errno.EAGAIN) return undefined
  check(length, 'recvmsg')
  const hasOne =
    message.readBigUInt64LE(40) >= 20n &&
    control.readInt32LE(8) === SOL_SOCKET &&
    control.readInt32LE(12) === SCM_RIGHTS
  return hasOne ? control.readInt32LE(16) : undefined
}

/** One datagram to a unix socket; a leading '@' names the abstract name space. */
export function sendDatagram(path: string, message: string): void {
  const fd = check(native.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket')
  try {
    const MSG_NOSIGNAL = 0x4000
    const [address, data] = [unixAddress(path, 'sendto'), Buffer.from(message)]
    check(native.sendto(fd, data, data.length, MSG_NOSIGNAL, address, address.length), 'sendto', path)
  } finally {
    closeSync(fd)
  }
}

/** struct sockaddr_un, as long as the name: abstract names are compared with their length. */
function unixAddress(path: string, syscall: string): Buffer {
  const name = path.startsWith('@') ? Buffer.from(`\0${path.slice(1)}`) : cstring(path, syscall)
  if (name.length > 108) throw new SyscallError(os.errno.ENAMETOOLONG, syscall, path)
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, name])
}

/** SO_PEERCRED of a connected unix socket: who connected. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const SO_PEERCRED = 17
  const cred = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(cred.length)
  check(native.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, cred, length), 'getsockopt', 'SO_PEERCRED')
  return { pid: cred.readInt32LE(0), uid: cred.readUInt32LE(4), gid: cred.readUInt32LE(8) }
}

/** SO_PEERGROUPS of a connected unix socket: the supplementary groups of who connected. */
export function peerGroups(fd: number): number[] {
  const SO_PEERGROUPS = 59
  const MAX_GROUPS = 65_536 // NGROUPS_MAX
  const groups = Buffer.alloc(4 * MAX_GROUPS)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(groups.length)
  check(native.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, length), 'getsockopt', 'SO_PEERGROUPS')
  return Array.from({ length: length.readUInt32LE(0) / 4 }, (_, index) => groups.readUInt32LE(4 * index))
}
