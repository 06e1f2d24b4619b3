import { spawn } from 'node:child_process'
import { setPriority } from 'node:os'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { effectSync } from '../base/effects.ts'
import { confined, type WorkerCapability } from './confine.ts'
import { exitCodeOf } from './signals.ts'
import { within } from './spawn.ts'

/**
 * Where a worker's entry point is: `<name>.ts` beside the module `from` when that is source, `<name>.mjs` in the
 * bundle's folder otherwise. `from` is the caller's `import.meta.url`.
 */
export function workerUrl(name: string, from: string): URL {
  return new URL(from.endsWith('.ts') ? `./${name}.ts` : `./${name}.mjs`, from)
}

export type ForkOptions = {
  /** `import.meta.url` of the module whose neighbour the worker is. */
  readonly from: string
  readonly args?: readonly string[]
  /** MiB of V8's young generation (one semi-space) and old generation: the defaults follow the machine's memory. */
  readonly maxSemiSpace: number
  readonly maxOldSpace: number
  /** 1 to 19: the more, the longer it waits for everybody else; the kernel's I/O priority follows. */
  readonly nice?: number
  /** All that it may ever hold, whatever it runs. */
  readonly capabilities: readonly WorkerCapability[]
  /** Called for each message of the worker. */
  readonly onMessage: (message: unknown) => void
}

/** A Node process of our own. */
export type WorkerProcess = {
  readonly pid: number
  /** Bulk data to and from the worker's descriptor 3, with back-pressure. */
  readonly bulk: Duplex
  /** Structured clone over the IPC channel; rejects when the worker is gone. */
  send(message: unknown): Promise<void>
  /** When the process has ended: 128 + n for a signal, and the last 8 KiB of what it wrote to stderr. */
  readonly exited: Promise<{ readonly code: number; readonly stderr: string }>
  /** SIGKILL; nothing happens when it has ended. */
  kill(): void
}

// Enough for a stack trace; a worker that writes without end must not fill our memory.
const MAX_STDERR = 8192

// What it wrote before its end is there at once; a child of its own may hold the pipe open.
const DRAIN_MS = 1000

/**
 * Starts a worker process with an empty environment, without stdin and stdout, in a network of its own that leads
 * nowhere, with no way to more privileges. When we die its IPC channel closes
 * ('disconnect'): it must end itself then.
 */
export function forkWorker(name: string, options: ForkOptions): WorkerProcess {
  const file = fileURLToPath(workerUrl(name, options.from))
  const flags = [
    `--max-semi-space-size=${options.maxSemiSpace}`,
    `--max-old-space-size=${options.maxOldSpace}`,
  ]
  const command = [process.execPath, ...flags, file, ...(options.args ?? [])]
  const [program, ...args] = confined(command, { capabilities: options.capabilities, ownNetwork: true })
  const child = effectSync('os', 'fork-worker', name, () =>
    spawn(program!, args, {
      env: {},
      cwd: '/',
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'ipc'],
    }),
  )
  const bulk = child.stdio[3] as Duplex
  bulk.on('error', () => undefined) // EPIPE: the exit says why
  if (options.nice !== undefined && child.pid !== undefined) setPriority(child.pid, options.nice)
  let stderr = Buffer.alloc(0)
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = Buffer.concat([stderr, chunk]).subarray(-MAX_STDERR)
  })
  const stderrClosed = new Promise(closed => child.stderr?.once('close', closed))
  const { promise: exited, resolve, reject } = Promise.withResolvers<{ code: number; stderr: string }>()
  child.on('message', options.onMessage)
  child.on('error', reject)
  exited.catch(() => undefined) // whoever waits for it gets it; nobody may be waiting yet
  child.on('exit', async (code, signal) => {
    bulk.destroy()
    await within(DRAIN_MS, stderrClosed)
    resolve({ code: exitCodeOf(code, signal), stderr: stderr.toString() })
  })
  return {
    pid: child.pid ?? 0,
    bulk,
    send: message => {
      const sent = Promise.withResolvers<void>()
      child.send(message as object, error => (error === null ? sent.resolve() : sent.reject(error)))
      return sent.promise
    },
    exited,
    kill: () => void child.kill('SIGKILL'),
  }
}
