/**
 * The one fence round native code: the C library's functions under fixed prototypes, none built from input. A wrong
 * prototype corrupts memory, so a test calls every function that is declared through here.
 *
 * Linux with glibc ≥ 2.34, 64 bit.
 */
import { constants as os } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import koffi, { type LibraryHandle } from 'koffi'

type NativeFunction = ReturnType<LibraryHandle['func']>

/** A path: text, or bytes where names come from an archive. */
export type PathLike = string | Buffer

const ERRNO_NAMES = new Map(
  Object.entries(os.errno)
    // Other names of EAGAIN and EOPNOTSUPP.
    .filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'ENOTSUP')
    .map(([name, value]) => [value, name]),
)

/** Shaped like Node's own file errors: `code` is the errno name. */
export class SyscallError extends Error {
  override readonly name = 'SyscallError'
  readonly code: string
  readonly errno: number
  readonly syscall: string
  readonly path: string | undefined

  constructor(errno: number, syscall: string, path?: PathLike, detail = '') {
    const code = ERRNO_NAMES.get(errno) ?? `E${errno}`
    const text = getSystemErrorMap().get(-errno)?.[1] ?? `errno ${errno}`
    const subject = path === undefined ? '' : ` '${path.toString()}'`
    super(`${code}: ${text}, ${syscall}${subject}${detail === '' ? '' : ` (${detail})`}`)
    this.code = code
    this.errno = errno
    this.syscall = syscall
    this.path = path?.toString()
  }
}

const libc = koffi.load('libc.so.6')
export const PTR = 'const void *'
export const OUT = 'void *'

/** For structs that hold addresses. Valid for as long as the buffer is referred to. */
export function addressOf(buffer: Buffer): bigint {
  return koffi.address(buffer)
}

export function cFunction(name: string, result: string, ...args: string[]): NativeFunction {
  return libc.func(name, result, args)
}

/**
 * syscall(2) under one prototype per call, for those that older C libraries have no function for. Numbers from 424
 * upwards are the same on every architecture.
 */
export function rawCall(number: number, ...args: string[]): (...values: unknown[]) => number {
  const call = libc.func('syscall', 'long', ['long', ...args])
  return (...values) => call(number, ...values)
}

/** NUL-terminated; a NUL inside would silently cut the text short. */
export function cstring(text: PathLike, syscall: string): Buffer {
  const buffer = typeof text === 'string' ? Buffer.from(`${text}\0`) : Buffer.concat([text, Buffer.alloc(1)])
  if (buffer.indexOf(0) !== buffer.length - 1) {
    throw new SyscallError(os.errno.EINVAL, syscall, text, 'contains a NUL byte')
  }
  return buffer
}

export function check(result: number, syscall: string, path?: PathLike): number {
  if (result < 0) throw new SyscallError(koffi.errno(), syscall, path)
  return result
}

/** For functions that return the errno itself. */
export function checkCode(code: number, syscall: string, path?: PathLike): void {
  if (code !== 0) throw new SyscallError(code, syscall, path)
}

/** Of the call that just failed. */
export function lastErrno(): number {
  return koffi.errno()
}
