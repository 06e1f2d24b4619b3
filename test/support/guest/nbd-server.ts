import { createServer, type Server, type Socket } from 'node:net'

/** What a server of one disk stands for; all of it is synchronous, so requests are done in the order they came in. */
export type NbdDisk = {
  readonly bytes: number
  read(offset: number, length: number): Buffer
  /** `durable`: it may not be lost from here on (FUA). */
  write(offset: number, data: Buffer, durable: boolean): void
  /** Nothing that was written before may be lost from here on. */
  flush(): void
}

// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
const GREETING = Buffer.from('NBDMAGICIHAVEOPT')
const [FIXED_NEWSTYLE, NO_ZEROES] = [1, 2]
const OPTION_REPLY = 0x3e889045565a9n
const [OPT_ABORT, OPT_INFO, OPT_GO] = [2, 6, 7]
const [REP_ACK, REP_INFO, REP_UNSUPPORTED] = [1, 3, 0x80000001]
const INFO_EXPORT = 0
const SIMPLE_REPLY = 0x67446698
const [CMD_READ, CMD_WRITE, CMD_DISCONNECT, CMD_FLUSH] = [0, 1, 2, 3]
const CMD_FLAG_FUA = 1
const EINVAL = 22

/** Has flags, flush, FUA: neither trim nor write zeroes, so that everything which changes the disk is a write. */
const TRANSMISSION_FLAGS = 1 | 4 | 8

/** Serves a disk to QEMU on a unix socket (Network Block Device, the fixed newstyle handshake without TLS). */
export async function serveNbd(disk: NbdDisk, path: string): Promise<Server> {
  const server = createServer(socket => new Connection(disk, socket))
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
  return server
}

class Connection {
  readonly #disk: NbdDisk
  readonly #socket: Socket
  #chunks: Buffer[] = []
  #length = 0
  #step: () => boolean = () => this.#takeFlags()

  constructor(disk: NbdDisk, socket: Socket) {
    this.#disk = disk
    this.#socket = socket
    const flags = Buffer.alloc(2)
    flags.writeUInt16BE(FIXED_NEWSTYLE | NO_ZEROES)
    socket.write(Buffer.concat([GREETING, flags]))
    socket.on('error', () => undefined) // a guest that is cut off
    socket.on('data', data => {
      this.#chunks.push(data)
      this.#length += data.length
      while (this.#step());
    })
  }

  /** The first bytes of what has come, without taking them. */
  #peek(length: number): Buffer | undefined {
    if (this.#length < length) return undefined
    if ((this.#chunks[0]?.length ?? 0) < length) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0]?.subarray(0, length) ?? Buffer.alloc(0)
  }

  #drop(length: number): void {
    const [first, ...rest] = this.#chunks
    const left = first?.subarray(length)
    this.#chunks = left === undefined || left.length === 0 ? rest : [left, ...rest]
    this.#length -= length
  }

  #takeFlags(): boolean {
    if (this.#peek(4) === undefined) return false
    this.#drop(4)
    this.#step = () => this.#takeOption()
    return true
  }

  #takeOption(): boolean {
    const head = this.#peek(16)
    if (head === undefined) return false
    const [option, length] = [head.readUInt32BE(8), head.readUInt32BE(12)]
    if (this.#peek(16 + length) === undefined) return false
    this.#drop(16 + length)
    if (option === OPT_GO || option === OPT_INFO) {
      const info = Buffer.alloc(12)
      info.writeUInt16BE(INFO_EXPORT, 0)
      info.writeBigUInt64BE(BigInt(this.#disk.bytes), 2)
      info.writeUInt16BE(TRANSMISSION_FLAGS, 10)
      this.#answerOption(option, REP_INFO, info)
      this.#answerOption(option, REP_ACK)
      if (option === OPT_GO) this.#step = () => this.#takeRequest()
    } else if (option === OPT_ABORT) {
      this.#answerOption(option, REP_ACK)
      this.#socket.end()
    } else {
      this.#answerOption(option, REP_UNSUPPORTED)
    }
    return true
  }

  #answerOption(option: number, type: number, data: Buffer = Buffer.alloc(0)): void {
    const head = Buffer.alloc(20)
    head.writeBigUInt64BE(OPTION_REPLY, 0)
    head.writeUInt32BE(option, 8)
    head.writeUInt32BE(type, 12)
    head.writeUInt32BE(data.length, 16)
    this.#socket.write(Buffer.concat([head, data]))
  }

  #takeRequest(): boolean {
    const head = this.#peek(28)
    if (head === undefined) return false
    const flags = head.readUInt16BE(4)
    const type = head.readUInt16BE(6)
    const handle = Buffer.from(head.subarray(8, 16))
    const offset = Number(head.readBigUInt64BE(16))
    const length = head.readUInt32BE(24)
    const bytes = 28 + (type === CMD_WRITE ? length : 0)
    const request = this.#peek(bytes)
    if (request === undefined) return false
    const data = Buffer.from(request.subarray(28))
    this.#drop(bytes)
    if (type === CMD_DISCONNECT) {
      this.#socket.end()
    } else if (type === CMD_READ) {
      this.#answer(handle, 0, this.#disk.read(offset, length))
    } else if (type === CMD_WRITE) {
      this.#disk.write(offset, data, (flags & CMD_FLAG_FUA) !== 0)
      this.#answer(handle, 0)
    } else if (type === CMD_FLUSH) {
      this.#disk.flush()
      this.#answer(handle, 0)
    } else {
      this.#answer(handle, EINVAL)
    }
    return true
  }

  #answer(handle: Buffer, error: number, data: Buffer = Buffer.alloc(0)): void {
    const head = Buffer.alloc(16)
    head.writeUInt32BE(SIMPLE_REPLY, 0)
    head.writeUInt32BE(error, 4)
    handle.copy(head, 8)
    this.#socket.write(head)
    if (data.length > 0) this.#socket.write(data)
  }
}
