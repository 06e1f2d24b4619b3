import { connect, type Socket } from 'node:net'

/** QEMU's answer to anything a test asks comes at once, or the emulator hangs. */
const LIMIT_MS = 60_000

type Waiting = { resolve(value: unknown): void; reject(error: Error): void; readonly timer: NodeJS.Timeout }

type Message = {
  readonly QMP?: unknown
  readonly return?: unknown
  readonly error?: { readonly desc: string }
  readonly event?: string
  readonly id?: number
}

/** The monitor of one QEMU (QEMU Machine Protocol): commands and events, a JSON object a line. */
export class Qmp {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Map<string, Array<() => void>>()
  #nextId = 1
  #rest = ''

  static async connect(path: string): Promise<Qmp> {
    const socket = connect(path)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    const qmp = new Qmp(socket)
    await qmp.execute('qmp_capabilities')
    return qmp
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#read(text))
    socket.on('error', () => undefined) // 'close' follows
    socket.on('close', () => this.#end())
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    const id = this.#nextId++
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const timer = setTimeout(() => reject(new Error(`QEMU does not answer ${command}`)), LIMIT_MS)
    this.#waiting.set(id, { resolve, reject, timer })
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(id)
    }
  }

  /** Resolves at the next event of that name. */
  next(event: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), resolve])
    return promise
  }

  close(): void {
    this.#socket.destroy()
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) this.#take(JSON.parse(line) as Message)
  }

  #take({ id, error, event, return: value }: Message): void {
    if (event !== undefined) {
      for (const listener of this.#listeners.get(event) ?? []) listener()
      this.#listeners.delete(event)
    } else if (id !== undefined) {
      if (error === undefined) this.#waiting.get(id)?.resolve(value)
      else this.#waiting.get(id)?.reject(new Error(`QEMU: ${error.desc}`))
    }
  }

  #end(): void {
    for (const { reject } of this.#waiting.values()) reject(new Error('QEMU has ended'))
  }
}
