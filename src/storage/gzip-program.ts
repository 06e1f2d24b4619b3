import { constants, statSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import { BerthError, messageOf, precondition } from '../base/errors.ts'
import { confined } from '../os/confine.ts'
import { type Child, start, within } from '../os/spawn.ts'
import { drained } from './backpressure.ts'

/** Of what the program says about damaged data. */
const MAX_MESSAGE = 1024

/** What it wrote before its end is there at once. */
const DRAIN_MS = 1000

/**
 * A program that decompresses gzip (igzip, pigz) in a process of its own: igzip needs less than half of the time of
 * Node's zlib. It runs outside of the layer's directory with nothing but three pipes, its stdin, stdout and stderr, as
 * a user who owns nothing and without a capability.
 */
export class GzipProgram {
  readonly #file: string
  readonly #child: Child
  readonly #exited: Promise<number>
  #hasExited = false

  /** @throws BerthError precondition if it cannot be started */
  constructor(file: string) {
    this.#file = file
    requireForEverybody(file)
    const [program, ...args] = confined([file, '-d', '-c'], { capabilities: [], asNobody: true })
    this.#child = start(program!, {
      args,
      env: {},
      cwd: '/',
      fds: ['pipe-write', 'pipe-read', 'pipe-read'],
    })
    this.#exited = this.#child.exited.then(code => {
      this.#hasExited = true
      return code
    })
  }

  /**
   * Gives `output` everything that is in `source`, which it reads to its end. The program is gone afterwards.
   * @throws BerthError invalid if the program refuses the data; whatever `source` or `output` throws
   */
  async decompress(source: AsyncIterable<Buffer>, output: (chunk: Buffer) => void): Promise<void> {
    const [stdin, stdout, stderr] = this.#child.streams.map(stream => stream!) as [Socket, Socket, Socket]
    let said = ''
    stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(0, MAX_MESSAGE)
    })
    const saidAll = new Promise<void>(resolve => stderr.once('close', () => resolve()))
    const reading = async () => {
      for await (const chunk of stdout) output(chunk as Buffer)
    }
    const writing = async () => {
      // What follows the compressed data belongs to the blob, and is read by whoever meters the source.
      for await (const chunk of source) if (!stdin.destroyed && !stdin.write(chunk)) await drained(stdin)
      stdin.end()
    }
    try {
      await Promise.all([reading(), writing()])
      const code = await this.#exited
      if (code === 0) return
      await within(DRAIN_MS, saidAll)
      const why = said.trim() === '' ? `ended with code ${code}` : said.trim()
      throw new BerthError('invalid', `gzip: ${this.#file}: ${why}`)
    } finally {
      this.kill()
    }
  }

  /** Nothing happens when it has ended. */
  kill(): void {
    if (!this.#hasExited) this.#child.kill('SIGKILL')
    for (const stream of this.#child.streams) stream?.destroy()
  }
}

/** Who owns nothing may execute only what everybody may. */
function requireForEverybody(file: string): void {
  const problem = (why: string) => precondition(`cannot start ${file}: ${why}`)
  const stat = statSync(file, { throwIfNoEntry: false })
  if (stat === undefined) throw problem('no such program')
  const { S_IXOTH } = constants
  if (!stat.isFile() || (stat.mode & S_IXOTH) === 0) throw problem('not a program that everybody may execute')
  for (let path = dirname(file); ; path = dirname(path)) {
    if ((statSync(path).mode & S_IXOTH) === 0) throw problem(`${path} lets not everybody through`)
    if (path === dirname(path)) return
  }
}

/** @returns undefined, and why, if it cannot be started: it may have been removed since the daemon began */
export function startGzipProgram(file: string): GzipProgram | { readonly problem: string } {
  try {
    return new GzipProgram(file)
  } catch (error) {
    return { problem: messageOf(error) }
  }
}
