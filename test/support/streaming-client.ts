import { type ChildProcess, spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const checkout = join(import.meta.dirname, '../..')

/** Of `scripts/setup.sh test`; '' when Go was missing there. */
export function streamingClientPath(): string {
  return globSync(join(checkout, '.cache/streaming-client-*/client'))[0] ?? ''
}

/** A reason to skip what needs the client, or false. */
export const withoutStreamingClient =
  streamingClientPath() === '' ? 'the streaming client is not built: Go was missing at set-up' : false

/** What a session sends: text, then so many random bytes; then the end, unless it is kept open. */
export type Input = { readonly text?: string; readonly bytes?: number; readonly open?: boolean }

export type Output = {
  /** Bytes a second that are read; 0 reads nothing. As fast as they come unless given. */
  readonly rate?: number
  /** Default true; without it is faster. */
  readonly digest?: boolean
}

export type ExecOptions = {
  readonly url: string
  /** `spdy` and `websocket` are client-go's executors, `channels` is a bare WebSocket. */
  readonly transport: 'spdy' | 'websocket' | 'channels'
  /** Offered in this order. */
  readonly protocols: readonly string[]
  readonly tty?: boolean
  readonly stdin?: Input | undefined
  readonly stdout?: Output | undefined
  readonly stderr?: Output | undefined
}

export type ForwardOptions = {
  readonly url: string
  /**
   * `spdy` and `tunnel` are client-go's port-forward; with `-streams` its dialers with streams of our own, since it
   * closes everything when one connection is refused; `channels` is a bare WebSocket.
   */
  readonly transport: 'spdy' | 'tunnel' | 'spdy-streams' | 'tunnel-streams' | 'channels'
  readonly protocols?: readonly string[]
  readonly ports: readonly number[]
}

/** A frame of SPDY as a test writes and reads it; see `raw.go` beside the client. */
export type Frame = {
  readonly type: string
  readonly stream?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly text?: string
  readonly fin?: boolean
  readonly number?: number
}

export type Sent = { readonly bytes: number; readonly sha256: string }
/** `text` is the beginning, at most 64 KiB. */
export type Received = { readonly bytes: number; readonly text: string; readonly sha256?: string }

/** A session as it is, or as it was at its end. */
export type Look = {
  readonly error?: string
  readonly exitCode?: number
  readonly stdin?: Sent
  readonly stdout?: Received
  readonly stderr?: Received
  /** What came on the error stream of a connection, or on the error channel. */
  readonly status?: string
  /** Of a bare WebSocket. */
  readonly protocol?: string
  readonly closeCode?: number
  readonly firstMessage?: string
  /** How many bytes of standard output came before each pong. */
  readonly pongs?: readonly number[]
  /** Of a raw connection. */
  readonly response?: string
  readonly frames?: readonly Frame[]
  readonly reason?: string
}

type Event = Look & { readonly session: number; readonly event: 'open' | 'first' | 'look' | 'done' | 'end' }

/** A process with real clients; everything it has open goes with it. */
export class StreamingClient implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  readonly #sessions = new Map<number, StreamingSession>()
  #last = 0

  constructor() {
    this.#process = spawn(streamingClientPath(), { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#process.stdin!.on('error', () => undefined) // it was killed, which its sessions say
    createInterface({ input: this.#process.stdout! }).on('line', line => {
      const event: Event = JSON.parse(line)
      this.#sessions.get(event.session)?.take(event)
      if (event.event === 'end') this.#sessions.delete(event.session)
    })
    this.#ended = new Promise(resolve => {
      this.#process.once('close', () => {
        for (const [session, { take }] of this.#sessions)
          take({ session, event: 'end', error: 'the client was killed' })
        resolve()
      })
    })
  }

  exec({ stdout, stderr, ...options }: ExecOptions): StreamingSession {
    return this.#start('exec', { ...options, ...sinks({ stdout, stderr }) })
  }

  forward(options: ForwardOptions): StreamingSession {
    return this.#start('forward', options)
  }

  /** One connection to a port through a forward that is open. */
  connect(forward: StreamingSession, port: number, stdin: Input, stdout: Output = {}): StreamingSession {
    return this.#start('connect', { forward: forward.id, port, stdin, ...sinks({ stdout }) })
  }

  /** An upgrade to SPDY with nothing that keeps to its rules; the frames come with the request. */
  raw(url: string, protocols: readonly string[], frames: readonly Frame[] = []): StreamingSession {
    return this.#start('raw', { url, protocols, frames })
  }

  #start(op: string, fields: object): StreamingSession {
    const id = ++this.#last
    const session = new StreamingSession(id, request => {
      this.#process.stdin!.write(`${JSON.stringify({ session: id, ...request })}\n`)
    })
    this.#sessions.set(id, session)
    session.request({ op, ...fields })
    return session
  }

  /** Ends every connection as it is, without a farewell. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}

const UNLIMITED = -1

function sinks(outputs: Readonly<Record<string, Output | undefined>>): object {
  const asked = Object.entries(outputs).filter(([, output]) => output !== undefined)
  return Object.fromEntries(
    asked.map(([name, output]) => [
      name,
      { rate: output?.rate ?? UNLIMITED, digest: output?.digest ?? true },
    ]),
  )
}

export class StreamingSession {
  readonly id: number
  readonly request: (request: object) => void
  /** How it was at the end. Never rejects. */
  readonly ended: Promise<Look>
  /** Rejects when the session could not be opened. */
  readonly opened: Promise<Look>
  /** When the first byte of output came, as performance.now(). */
  readonly first: Promise<number>
  readonly take: (event: Event) => void
  #answers: Array<(look: Look) => void> = []
  #over = false

  constructor(id: number, request: (request: object) => void) {
    this.id = id
    this.request = request
    const [ended, opened, first] = [
      Promise.withResolvers<Look>(),
      Promise.withResolvers<Look>(),
      Promise.withResolvers<number>(),
    ]
    opened.promise.catch(() => undefined) // whoever asks gets it; many only wait for the end
    this.ended = ended.promise
    this.opened = opened.promise
    this.first = first.promise
    this.take = ({ session: _, event, ...look }) => {
      switch (event) {
        case 'open':
          opened.resolve(look)
          break
        case 'first':
          first.resolve(performance.now())
          break
        case 'end':
          this.#over = true
          opened.reject(new Error(look.error ?? 'the session ended at once'))
          for (const answer of this.#answers) answer({ error: 'the session has ended' })
          ended.resolve(look)
          break
        default:
          this.#answers.shift()?.(look)
      }
    }
  }

  /** As it is now. */
  look(): Promise<Look> {
    return this.#ask({ op: 'look' })
  }

  write(text: string): Promise<Look> {
    return this.#ask({ op: 'write', text })
  }

  closeStdin(): Promise<Look> {
    return this.#ask({ op: 'close' })
  }

  /** Bytes a second from now on; without, as fast as they come. */
  rate(rate: number = UNLIMITED): Promise<Look> {
    return this.#ask({ op: 'rate', rate })
  }

  resize(width: number, height: number): Promise<Look> {
    return this.#ask({ op: 'resize', width, height })
  }

  /** Of a WebSocket. */
  ping(text: string): Promise<Look> {
    return this.#ask({ op: 'ping', text })
  }

  /** Of a raw connection; in pieces of so many bytes, or whole. */
  send(frames: readonly Frame[], piece = 0): Promise<Look> {
    return this.#ask({ op: 'send', frames, piece })
  }

  /** Gives the session up. @returns how it ended */
  cancel(): Promise<Look> {
    if (!this.#over) this.request({ op: 'cancel' })
    return this.ended
  }

  /** Answers come in the order of the requests. */
  async #ask(request: object): Promise<Look> {
    await this.opened
    if (this.#over) throw new Error('the session has ended')
    const { promise, resolve } = Promise.withResolvers<Look>()
    this.#answers.push(resolve)
    this.request(request)
    const { error, ...look } = await promise
    if (error !== undefined) throw new Error(error)
    return look
  }
}
