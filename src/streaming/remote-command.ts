import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { Channels, TerminalSize } from '../runtime/channels.ts'
import type { Channel } from './channel.ts'
import { type CommandEnd, statusJson, statusText } from './command-status.ts'
import type { CommandProtocol } from './protocols.ts'
import { ResizeReader } from './resize.ts'

/** The streams of an exec or attach, whatever protocol carries them; those that were not asked for are undefined. */
export type CommandStreams = {
  readonly error: Channel
  readonly stdin?: Channel
  readonly stdout?: Channel
  readonly stderr?: Channel
  readonly resize?: Channel
}

/**
 * Runs what the streams are for, then ends them in the order that clients wait for: output, status, input. A client
 * that leaves meanwhile is no error here: its streams are closed, and nothing is waited for.
 *
 * @param run what it throws is told to the client
 */
export async function runCommand(
  streams: CommandStreams,
  protocol: Pick<CommandProtocol, 'jsonStatus' | 'firstVersion'>,
  run: (channels: Channels) => Promise<number | undefined>,
): Promise<CommandEnd> {
  const { error, stdin, stdout, stderr, resize } = streams
  // What a client sends where we only write is dropped, lest it hold the connection.
  for (const channel of [error, stdout, stderr]) channel?.input.resume()
  if (protocol.firstVersion) {
    stdin?.output.end()
    error.output.destroy()
  }
  const end = await endOf(() => run(channelsOf(streams)))
  await Promise.all([stdout, stderr].map(channel => ended(channel?.output)))
  error.output.write(protocol.jsonStatus ? statusJson(end) : statusText(end))
  await Promise.all([error, stdin, resize].map(channel => ended(channel?.output)))
  return end
}

async function endOf(run: () => Promise<number | undefined>): Promise<CommandEnd> {
  try {
    return { exitCode: (await run()) ?? 0 }
  } catch (failure) {
    return { failure }
  }
}

function channelsOf({ stdin, stdout, stderr, resize }: CommandStreams): Channels {
  return {
    stdin: stdin?.input,
    stdout: stdout?.output,
    stderr: stderr?.output,
    onResize: resize === undefined ? () => undefined : resizes(resize),
  }
}

/** Announces sizes to each listener, the last one at once. */
function resizes(resize: Channel): Channels['onResize'] {
  const reader = new ResizeReader()
  const listeners: Array<(size: TerminalSize) => void> = []
  let last: TerminalSize | undefined
  resize.input.on('data', (chunk: Buffer) => {
    for (const size of reader.push(chunk)) {
      last = size
      for (const listener of listeners) listener(size)
    }
  })
  return listener => {
    listeners.push(listener)
    if (last !== undefined) listener(last)
  }
}

/** Ends it and waits until everything is with the socket, or the client gone. */
async function ended(output: Writable | undefined): Promise<void> {
  if (output === undefined) return
  if (!output.writableEnded) output.end()
  await finished(output).catch(() => undefined)
}
