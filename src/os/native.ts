/**
 * The one fence round native code: system calls and the C library's functions under fixed prototypes, none built from
 * input. A wrong prototype corrupts memory, so a test calls every function that is declared through here.
 *
 * System calls are made without the C library: its functions leave the error in the thread's `errno`, and before
 * JavaScript could read that, V8 may have made calls of its own (it waits for its helper threads at any function
 * call), so that now and then ENOENT or ENODATA would be read as EAGAIN. The kernel's own answer has the error in it.
 *
 * Linux on x86-64 or arm64 with glibc ≥ 2.34.
 */
import { constants as os } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import koffi, { type LibraryHandle } from 'koffi'
import { SYSCALL_NUMBERS } from './syscall-numbers.ts'

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
 * `long call(long number, long a1 … a6)`: moves its arguments to where the kernel expects them, enters it, and returns
 * what it returns. The C library's syscall(2) does the same and then moves the error to `errno`.
 */
const CALL_CODE: Partial<Record<NodeJS.Architecture, string>> = {
  x64: [
    '4889f8', // mov rax, rdi
    '4889f7', // mov rdi, rsi
    '4889d6', // mov rsi, rdx
    '4889ca', // mov rdx, rcx
    '4d89c2', // mov r10, r8
    '4d89c8', // mov r8, r9
    '4c8b4c2408', // mov r9, [rsp + 8]
    '0f05', // syscall
    'c3', // ret
  ].join(''),
  arm64: [
    'e80300aa', // mov x8, x0
    'e00301aa', // mov x0, x1
    'e10302aa', // mov x1, x2
    'e20303aa', // mov x2, x3
    'e30304aa', // mov x3, x4
    'e40305aa', // mov x4, x5
    'e50306aa', // mov x5, x6
    '010000d4', // svc #0
    'c0035fd6', // ret
  ].join(''),
}

/** A page of memory with the code in it, which can be run and not written. */
function mapCallCode(): unknown {
  const code = CALL_CODE[process.arch]
  if (code === undefined) {
    throw new Error(`berth runs on x86-64 and arm64 processors; this is ${process.arch}`)
  }
  const [PROT_READ, PROT_WRITE, PROT_EXEC, MAP_PRIVATE, MAP_ANONYMOUS] = [1, 2, 4, 2, 32]
  const size = 4096
  const mmap = libc.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'long'])
  const mprotect = libc.func('mprotect', 'int', ['void *', 'size_t', 'int'])
  const page = mmap(null, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
  if (koffi.address(page) === 2n ** 64n - 1n) throw new Error('no memory for the code of system calls (mmap)')
  Buffer.from(koffi.view(page, size)).write(code, 'hex')
  if (mprotect(page, size, PROT_READ | PROT_EXEC) !== 0) {
    throw new Error(
      'the code of system calls may not be run (mprotect): executable memory is denied to this process',
    )
  }
  return page
}

const callCode = mapCallCode()

function enterKernel(args: readonly string[]): NativeFunction {
  return koffi.decode(callCode, koffi.proto('long', ['long', ...args]))
}

/** Of a number that no processor's table has by that name. @returns what `systemCall` does */
export function numberedCall(number: number, ...args: string[]): (...values: unknown[]) => number {
  const call = enterKernel(args)
  return (...values) => call(number, ...values)
}

type SyscallName = keyof typeof SYSCALL_NUMBERS

function numberOf(name: SyscallName): number {
  const [x64, arm64] = SYSCALL_NUMBERS[name]
  return process.arch === 'arm64' ? arm64 : x64
}

/** @returns what the kernel returns: at least 0, or an errno with its sign changed */
export function systemCall(name: SyscallName, ...args: string[]): (...values: unknown[]) => number {
  return numberedCall(numberOf(name), ...args)
}

/** The same, on a thread of libuv's pool. */
export function waitingCall(name: SyscallName, ...args: string[]): (...values: unknown[]) => Promise<number> {
  const call = enterKernel(args)
  const number = numberOf(name)
  return (...values) => {
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    call.async(number, ...values, (error: unknown, result: number) => {
      if (error === null) resolve(result)
      else reject(error)
    })
    return promise
  }
}

/** NUL-terminated; a NUL inside would silently cut the text short. */
export function cstring(text: PathLike, syscall: string): Buffer {
  const buffer = typeof text === 'string' ? Buffer.from(`${text}\0`) : Buffer.concat([text, Buffer.alloc(1)])
  if (buffer.indexOf(0) !== buffer.length - 1) {
    throw new SyscallError(os.errno.EINVAL, syscall, text, 'contains a NUL byte')
  }
  return buffer
}

/** Of what a system call returned. */
export function check(result: number, syscall: string, path?: PathLike): number {
  if (result < 0) throw new SyscallError(-result, syscall, path)
  return result
}

/** For functions of the C library that return the errno itself. */
export function checkCode(code: number, syscall: string, path?: PathLike): void {
  if (code !== 0) throw new SyscallError(code, syscall, path)
}
