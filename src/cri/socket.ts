import { chmodSync, chownSync, lstatSync, mkdirSync, renameSync, rmSync, type Stats } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { basename, dirname, isAbsolute, join } from 'node:path'
import { invalid, messageOf, precondition } from '../base/errors.ts'

/** What fits into sockaddr_un.sun_path with its NUL. */
const MAX_PATH = 107

export type SocketOptions = {
  /** Absolute. The directory is made if need be. */
  readonly path: string
  readonly mode: number
  /** Group of the socket; undefined leaves the daemon's. */
  readonly gid?: number
}

/** A listening unix socket that appears under its path in one step and removes only itself. */
export class UnixListener {
  readonly #server: Server
  readonly #path: string
  readonly #own: Stats

  private constructor(server: Server, path: string, own: Stats) {
    this.#server = server
    this.#path = path
    this.#own = own
  }

  /**
   * Replaces a socket that an earlier process left behind. That no other daemon is alive is the caller's to know.
   * @throws BerthError when the path is unusable or something else stands there
   */
  static async listen(options: SocketOptions, onConnection: (socket: Socket) => void): Promise<UnixListener> {
    const { path, mode, gid } = options
    checkPath(path)
    mkdirSync(dirname(path), { recursive: true })
    checkOccupant(path)
    // Bound under another name: it is complete when it appears, and libuv, which unlinks the name it bound when the
    // server closes, cannot take away a successor's socket.
    const bound = hiddenName(path)
    checkOccupant(bound)
    rmSync(bound, { force: true })
    const server = createServer(onConnection)
    try {
      await listening(server, bound)
      chmodSync(bound, mode)
      if (gid !== undefined) chownSync(bound, -1, gid)
      renameSync(bound, path)
    } catch (error) {
      server.close()
      throw precondition(`cannot listen on ${path}: ${messageOf(error)}`)
    }
    return new UnixListener(server, path, lstatSync(path))
  }

  /** Nobody has removed the socket, or put something else in its place. */
  isReachable(): boolean {
    return lstatSync(this.#path, { throwIfNoEntry: false }) !== undefined
  }

  /** Takes no more connections; resolves when those that exist have ended. */
  close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#server.close(() => resolve())
    const now = lstatSync(this.#path, { throwIfNoEntry: false })
    if (now?.ino === this.#own.ino && now.dev === this.#own.dev) rmSync(this.#path, { force: true })
    return promise
  }
}

function checkPath(path: string): void {
  if (!isAbsolute(path)) throw invalid('socket', `must be an absolute path, got ${JSON.stringify(path)}`)
  const length = Buffer.byteLength(path)
  if (length > MAX_PATH)
    throw invalid('socket', `a path of a socket has at most ${MAX_PATH} bytes, this has ${length}`)
}

function checkOccupant(path: string): void {
  const occupant = lstatSync(path, { throwIfNoEntry: false })
  if (occupant !== undefined && !occupant.isSocket()) {
    throw precondition(`${path} exists and is not a socket; it is left alone`)
  }
}

/** As long as the path itself, so that it fits wherever that fits. */
function hiddenName(path: string): string {
  const name = basename(path)
  return join(dirname(path), `${name.startsWith('~') ? '.' : '~'}${name.slice(1)}`)
}

function listening(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(path, () => {
    server.off('error', reject)
    resolve()
  })
  return promise
}
