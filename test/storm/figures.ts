import { readdirSync, readFileSync } from 'node:fs'
import { WebSocket } from 'ws'
import { sleep } from '../../src/base/clock.ts'
import { until } from '../support/wait.ts'

/** What a process takes of its node while nothing is asked of it. */
export type Figures = {
  /** MiB. */
  readonly rss: number
  /** MiB of `rss` that are no pages of files: those say what else runs on this machine, and what it has read. */
  readonly anonymous: number
  /** MiB; what is reachable, after a full collection. */
  readonly heap: number
  readonly descriptors: number
  readonly threads: number
}

const MIB = 2 ** 20

/** What connections and timers still hold goes within this time. */
const REST_MS = 5000

/** The medians of so many looks: the kernel counts resident pages in batches. */
const LOOKS = 5

/**
 * Of a Node.js process that was told nothing for some seconds. Its heap is collected first, through the debugger
 * (SIGUSR1), which is closed again before anything is counted; it listens from then on, which is why the figures of
 * two looks compare and those of a process that was never looked at do not.
 */
export async function figuresOf(pid: number): Promise<Figures> {
  await sleep(REST_MS)
  const heap = await collected(pid)
  await sleep(REST_MS)
  const looks: Figures[] = []
  for (let look = 0; look < LOOKS; look++) {
    looks.push({ ...lookAt(pid), heap })
    await sleep(200)
  }
  const middle = (name: keyof Figures) => median(looks.map(figures => figures[name]))
  return {
    rss: middle('rss'),
    anonymous: middle('anonymous'),
    heap,
    descriptors: middle('descriptors'),
    threads: middle('threads'),
  }
}

function lookAt(pid: number): Omit<Figures, 'heap'> {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(rollup)?.[1])
  return {
    rss: kib('Rss') / 1024,
    anonymous: kib('Anonymous') / 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
  }
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

/** Collects all garbage of a process; MiB that are left on its heap. */
async function collected(pid: number): Promise<number> {
  process.kill(pid, 'SIGUSR1')
  const url = await until('the debugger listens', debuggerUrl)
  const socket = new WebSocket(url)
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  try {
    // Twice: what finalizers let go of is garbage only then.
    await command(socket, 'HeapProfiler.collectGarbage', {})
    await command(socket, 'HeapProfiler.collectGarbage', {})
    const { result } = (await command(socket, 'Runtime.evaluate', {
      expression: 'process.memoryUsage().heapUsed',
      returnByValue: true,
    })) as { result: { value: number } }
    return result.value / MIB
  } finally {
    socket.close()
    await new Promise(resolve => socket.once('close', resolve))
  }
}

/** Node's own port: the network namespace is the test's alone. */
async function debuggerUrl(): Promise<string | undefined> {
  try {
    const reply = await fetch('http://127.0.0.1:9229/json/list', { headers: { connection: 'close' } })
    const [target] = (await reply.json()) as Array<{ webSocketDebuggerUrl: string }>
    return target?.webSocketDebuggerUrl
  } catch {
    return undefined
  }
}

let serial = 0

async function command(socket: WebSocket, method: string, params: object): Promise<unknown> {
  const id = ++serial
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  const listen = (data: Buffer) => {
    const message = JSON.parse(data.toString()) as { id?: number; result?: unknown; error?: unknown }
    if (message.id !== id) return
    if (message.error === undefined) resolve(message.result)
    else reject(new Error(`${method}: ${JSON.stringify(message.error)}`))
  }
  socket.on('message', listen)
  socket.send(JSON.stringify({ id, method, params }))
  try {
    return await promise
  } finally {
    socket.off('message', listen)
  }
}
