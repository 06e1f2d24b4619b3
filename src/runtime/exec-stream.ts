import type net from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { BerthError } from '../base/errors.ts'
import { growPipe } from '../os/handles.ts'
import { resizeTerminal } from '../os/terminals.ts'
import type { Channels, TerminalSize } from './channels.ts'
import { Departure } from './departure.ts'
import { DRAIN_MS, type Exec, type Started } from './exec.ts'
import { Forward } from './forward.ts'
import { within } from './within.ts'

/** With the kernel's 64 KiB writer and reader wait for each other after each chunk. */
const PIPE_SIZE = 256 * 1024

/** The size of the client's terminal. */
export class WindowSize {
  #size: TerminalSize | undefined
  #terminal: net.Socket | undefined

  constructor(channels: Channels) {
    channels.onResize(size => {
      this.#size = size
      this.#apply()
    })
  }

  /** What it has announced last. */
  get current(): TerminalSize | undefined {
    return this.#size
  }

  /** From now on this terminal has that size. */
  follow(terminal: net.Socket): void {
    this.#terminal = terminal
    this.#apply()
  }

  #apply(): void {
    if (this.#terminal === undefined || this.#size === undefined) return
    resizeTerminal(this.#terminal, this.#size.width, this.#size.height)
  }
}

/**
 * Runs a process for a client that is connected to it. When the client leaves (`signal`) it is hung up, and killed
 * with all its children if it still runs `killAfterMs` later; 0 lets it run.
 * @returns its exit code, after all output was handed on; also of one that was killed with its container
 * @throws BerthError cancelled if the client has left; that of `Exec.start`
 */
export async function runFor(
  exec: Exec,
  channels: Channels,
  size: WindowSize,
  killAfterMs: number,
  signal: AbortSignal,
): Promise<number> {
  const started = await startFor(exec, channels, signal)
  using client = new Departure(signal)
  const session = new Session(started, channels, size)
  try {
    const first = await Promise.race([client.gone, started.exited, exec.stopped])
    if (client.isGone) return await hangUp(exec, session, started, killAfterMs, signal)
    if (first instanceof BerthError) await exec.kill()
    const code = await started.exited
    await Promise.race([session.finish(), client.gone])
    return code
  } finally {
    session.close()
  }
}

async function startFor(exec: Exec, { stdin, stdout }: Channels, signal: AbortSignal): Promise<Started> {
  const stop = () => exec.stop(hasLeft(signal))
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop, { once: true })
  try {
    return await exec.start(stdin !== undefined, stdout !== undefined)
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

async function hangUp(
  exec: Exec,
  session: Session,
  started: Started,
  killAfterMs: number,
  signal: AbortSignal,
): Promise<never> {
  if (started.terminal === undefined) exec.hangUp()
  session.close()
  if (killAfterMs > 0) {
    await within(killAfterMs, Promise.race([started.exited, exec.stopped]))
    await exec.kill()
  }
  throw hasLeft(signal)
}

function hasLeft(signal: AbortSignal): BerthError {
  return new BerthError('cancelled', 'exec: the client has left', signal.reason)
}

/** The streams of a process and those of its client, joined. */
class Session {
  readonly #input: Writable | undefined
  readonly #outputs: readonly Forward[]

  constructor({ terminal, stdin, stdout, stderr }: Started, channels: Channels, size: WindowSize) {
    this.#input = terminal ?? stdin
    if (terminal === undefined) {
      for (const pipe of [stdin, stdout]) if (pipe !== undefined) growPipe(pipe, PIPE_SIZE)
      const out = stdout === undefined ? [] : [new Forward(stdout, channels.stdout)]
      this.#outputs = [...out, new Forward(stderr, channels.stderr)]
    } else {
      size.follow(terminal)
      stderr.destroy() // the runtime's own, and that has ended
      this.#outputs = [new Forward(terminal, channels.stdout)]
    }
    // The end of what a client types is no end of the terminal.
    if (channels.stdin !== undefined && this.#input !== undefined) {
      feed(channels.stdin, this.#input, terminal === undefined)
    }
  }

  /** After the process has ended. */
  async finish(): Promise<void> {
    await Promise.all(this.#outputs.map(output => output.finish(DRAIN_MS)))
  }

  close(): void {
    this.#input?.destroy()
    for (const output of this.#outputs) output.close()
  }
}

/** What nobody takes any more is read all the same: other streams may wait behind it in the client's connection. */
function feed(source: Readable, sink: Writable, endsIt: boolean): void {
  source.pipe(sink, { end: endsIt })
  source.on('error', () => sink.destroy()) // the client has left, as its signal tells
  sink.on('error', () => undefined) // EPIPE: the process does not read; that it ends is known otherwise
  sink.on('close', () => {
    source.unpipe(sink)
    source.resume()
  })
}
