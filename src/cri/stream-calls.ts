import { invalid } from '../base/errors.ts'
import type { WantedStreams } from '../model/stream-request.ts'
import type { Calls } from './call.ts'
import { argument, each, integer, nonEmptyLine } from './convert/fields.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import type { Streams } from './services.ts'

type StreamCalls = Pick<RuntimeServiceHandlers, 'Exec' | 'Attach' | 'PortForward'>

/** What execve(2) takes with the usual stack of 8 MiB: a command is kept until its client comes. */
const MAX_COMMAND = 2 * 2 ** 20

/** Each answers with a URL of the streaming server, to which the client comes next. */
export function streamCalls(calls: Calls, streams: Streams): StreamCalls {
  return {
    Exec: calls.write(({ container_id, cmd, ...wanted }) => {
      const containerId = nonEmptyLine('container_id', container_id)
      if (cmd.length === 0) throw invalid('cmd', 'must not be empty')
      const command = each('cmd', cmd, argument)
      const bytes = command.reduce((sum, word) => sum + word.length, 0)
      if (bytes > MAX_COMMAND)
        throw invalid('cmd', `${bytes} characters; Linux passes at most ${MAX_COMMAND} bytes`)
      return { url: streams.exec({ containerId, command, ...toWanted(wanted) }) }
    }),

    Attach: calls.write(({ container_id, ...wanted }) => {
      const containerId = nonEmptyLine('container_id', container_id)
      return { url: streams.attach({ containerId, ...toWanted(wanted) }) }
    }),

    PortForward: calls.write(({ pod_sandbox_id, port }) => {
      const podId = nonEmptyLine('pod_sandbox_id', pod_sandbox_id)
      const ports = each('port', port, (field, value) => integer(field, value, 1, 65_535))
      return { url: streams.portForward({ podId, ports }) }
    }),
  }
}

function toWanted({ tty, stdin, stdout, stderr }: WantedStreams): WantedStreams {
  if (tty && stderr) throw invalid('stderr', 'must not be set together with tty: a terminal has one output')
  if (!stdin && !stdout && !stderr) throw invalid('stdin', 'one of stdin, stdout and stderr must be set')
  return { tty, stdin, stdout, stderr }
}
