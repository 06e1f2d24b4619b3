import { spawn } from 'node:child_process'

export type CommandResult = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** Longer than anything a test runs; what hangs fails instead of holding everything up. */
const LIMIT_MS = 120_000

/** Runs a program to its end, in the network of this process. Its environment is only what is given. */
export async function command(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  limitMs = LIMIT_MS,
): Promise<CommandResult> {
  const child = spawn(file, args, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: limitMs,
    killSignal: 'SIGKILL',
  })
  const [stdout, stderr, code] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    new Promise<number>((resolve, reject) => {
      child
        .once('error', reject)
        .once('close', (exit, signal) => resolve(exit ?? (signal === null ? 1 : 128)))
    }),
  ])
  return { code, stdout, stderr }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

/** Its standard output. @throws Error with what it wrote, unless it ends with 0 */
export async function output(file: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await command(file, args)
  if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${code}: ${stderr}${stdout}`)
  return stdout
}
