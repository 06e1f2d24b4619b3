import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../../src/base/clock.ts'
import type { CommandResult } from '../command.ts'

/** A guest that was just booted is busy; its sshd needs seconds for the handshake. */
const CONNECT_MS = 60_000

/** Everything inside is about ten times slower than on the host. */
const LIMIT_MS = 600_000

const OPTIONS = [
  'StrictHostKeyChecking=no',
  'UserKnownHostsFile=/dev/null',
  'GlobalKnownHostsFile=/dev/null',
  'IdentitiesOnly=yes',
  'BatchMode=yes',
  'PreferredAuthentications=publickey',
  'ServerAliveInterval=5',
  'ServerAliveCountMax=12',
  'StreamLocalBindUnlink=yes',
]

/** One ssh connection into a guest: commands, and sockets that lead in and out. */
export class Shell {
  readonly #master: ChildProcess
  readonly #control: string

  /** `directory` is for its control socket; `port` of 127.0.0.1 leads to the guest's sshd. */
  static async connect(directory: string, port: number, key: string): Promise<Shell> {
    const control = join(directory, 'ssh')
    const end = performance.now() + CONNECT_MS
    for (;;) {
      rmSync(control, { force: true })
      const options = [...OPTIONS, `ControlPath=${control}`, 'ConnectTimeout=20'].flatMap(word => [
        '-o',
        word,
      ])
      const args = ['-q', '-F', 'none', '-M', '-N', '-i', key, '-p', `${port}`, ...options, 'root@127.0.0.1']
      const master = spawn('ssh', args, { stdio: 'ignore' })
      while (master.exitCode === null && !existsSync(control)) await sleep(20)
      if (master.exitCode === null) return new Shell(master, control)
      if (performance.now() > end) throw new Error('the guest lets nobody in by ssh')
      await sleep(200)
    }
  }

  private constructor(master: ChildProcess, control: string) {
    this.#master = master
    this.#control = control
  }

  /** Runs a line of shell. */
  async run(line: string, stdin?: string | Buffer, limitMs = LIMIT_MS): Promise<CommandResult> {
    const child = spawn('ssh', ['-q', '-F', 'none', '-S', this.#control, 'guest', line], {
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: limitMs,
      killSignal: 'SIGKILL',
    })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.stdin.on('error', () => undefined).end(stdin ?? '')
    const code = await new Promise<number>(resolve => child.once('close', exit => resolve(exit ?? 128)))
    return { code, stdout, stderr }
  }

  /** `-L /host.sock:/guest.sock`, `-R 5000:127.0.0.1:5000`: see ssh(1). */
  async forward(...words: readonly string[]): Promise<void> {
    const args = ['-q', '-F', 'none', '-S', this.#control, '-O', 'forward', ...words, 'guest']
    const child = spawn('ssh', args, { stdio: 'ignore' })
    const code = await new Promise<number | null>(resolve => child.once('close', resolve))
    if (code !== 0) throw new Error(`ssh ${words.join(' ')} ended with ${code}`)
  }

  async close(): Promise<void> {
    if (this.#master.exitCode !== null || this.#master.signalCode !== null) return
    const ended = new Promise(resolve => this.#master.once('exit', resolve))
    this.#master.kill('SIGKILL')
    await ended
    rmSync(this.#control, { force: true })
  }
}
