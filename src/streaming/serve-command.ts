import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { WantedStreams } from '../model/stream-request.ts'
import type { Channels } from '../runtime/channels.ts'
import type { CommandProtocol } from './protocols.ts'
import { type CommandStreams, runCommand } from './remote-command.ts'
import type { SessionEnd, Sessions, Subject } from './sessions.ts'
import { SpdyCommandStreams } from './spdy-command.ts'
import { SpdyConnection } from './spdy-connection.ts'
import { WebSocketChannels } from './websocket-channels.ts'

/*
 * One exec or attach, from the upgraded connection to its end.
 */

/** How long a client has to open its streams. */
const OPEN_STREAMS_MS = 30_000

export type Command = {
  readonly subject: Subject
  readonly wanted: WantedStreams
  readonly protocol: CommandProtocol
  /** @returns the exit code, if there is one */
  run(channels: Channels, signal: AbortSignal): Promise<number | undefined>
}

export function serveSpdyCommand(
  sessions: Sessions,
  command: Command,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const { subject, wanted, protocol } = command
  const streams = new SpdyCommandStreams(wanted, protocol, OPEN_STREAMS_MS)
  return sessions.run(
    subject,
    events => new SpdyConnection(socket, head, { ...events, onStream: opening => streams.add(opening) }),
    async (_, signal) => {
      let complete: CommandStreams
      try {
        complete = await streams.complete(signal)
      } catch (failure) {
        const { opened } = streams
        if (opened !== undefined) await runCommand(opened, protocol, () => Promise.reject(failure))
        throw failure
      }
      return await execute(command, complete, signal)
    },
  )
}

/** Channels of the remote command protocols over a WebSocket. */
const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const

export function serveWebSocketCommand(
  sessions: Sessions,
  command: Command,
  ws: WebSocket,
  socket: Duplex,
): Promise<void> {
  const { subject, wanted, protocol } = command
  return sessions.run(
    subject,
    events => new WebSocketChannels(ws, socket, protocol, events),
    async (connection, signal) => {
      const { tty, stdin, stdout, stderr } = wanted
      const streams: CommandStreams = {
        error: connection.open(CHANNEL.error),
        ...(stdin ? { stdin: connection.open(CHANNEL.stdin) } : {}),
        ...(stdout ? { stdout: connection.open(CHANNEL.stdout) } : {}),
        ...(stderr && !tty ? { stderr: connection.open(CHANNEL.stderr) } : {}),
        ...(tty ? { resize: connection.open(CHANNEL.resize) } : {}),
      }
      connection.greet(stdout ? CHANNEL.stdout : stderr ? CHANNEL.stderr : CHANNEL.error)
      return await execute(command, streams, signal)
    },
  )
}

async function execute(
  { subject, protocol, run }: Command,
  streams: CommandStreams,
  signal: AbortSignal,
): Promise<SessionEnd> {
  const end = await runCommand(streams, protocol, async channels => {
    try {
      return await run(channels, signal)
    } catch (error) {
      // Whatever it says of its being broken off: the client is told why it was.
      throw signal.aborted ? signal.reason : error
    }
  })
  if ('failure' in end) return end
  return subject.kind === 'exec' ? { facts: { exitCode: end.exitCode } } : {}
}
