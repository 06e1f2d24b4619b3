import type { TestContext } from 'node:test'
import type { StreamKind } from '../../src/model/stream-request.ts'
import type { Log, LogFields } from '../../src/observe/log.ts'
import type { StreamBackend } from '../../src/streaming/backend.ts'
import type { SessionObserver, SessionOutcome } from '../../src/streaming/sessions.ts'
import { type StreamingOptions, StreamingServer } from '../../src/streaming/streaming-server.ts'

export type Line = { readonly level: string; readonly fields: LogFields; readonly message: string }

/** Keeps what is logged and counted. */
export class RecordedSessions implements SessionObserver {
  readonly lines: Line[] = []
  readonly outcomes: Array<readonly [StreamKind, SessionOutcome]> = []
  count: () => Readonly<Record<StreamKind, number>> = () => ({ exec: 0, attach: 0, portforward: 0 })
  readonly log: Log

  constructor() {
    const write = (level: string) => (fields: LogFields, message: string) => {
      this.lines.push({ level, fields, message })
    }
    this.log = {
      trace: write('trace'),
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      fatal: write('fatal'),
      child: () => this.log,
    }
  }

  watchSessions(count: () => Readonly<Record<StreamKind, number>>): void {
    this.count = count
  }

  onSessionEnd(kind: StreamKind, outcome: SessionOutcome): void {
    this.outcomes.push([kind, outcome])
  }

  /** Lines about ended sessions. */
  sessions(): LogFields[] {
    return this.lines.filter(({ message }) => message === 'stream session ended').map(({ fields }) => fields)
  }
}

/** Containers and pods that do nothing, with what a test gives in their place. */
function fakeBackend(given: Partial<StreamBackend> = {}): StreamBackend {
  return {
    requireStreamable: id => ({ id, podId: 'pod' }),
    exec: async () => 0,
    attach: async () => undefined,
    requireReadyPod: id => ({ id }),
    connect: async () => {
      throw new Error('nothing listens')
    },
    ...given,
  }
}

export type StreamingHost = { readonly server: StreamingServer; readonly recorded: RecordedSessions }

/** A streaming server on a port of its own, for one test. */
export async function serveStreams(
  context: TestContext,
  backend: Partial<StreamBackend> = {},
  changes: Partial<StreamingOptions> = {},
): Promise<StreamingHost> {
  const recorded = new RecordedSessions()
  const server = new StreamingServer({
    address: '127.0.0.1',
    port: 0,
    idleMs: 0,
    allowedOrigins: [],
    backend: fakeBackend(backend),
    log: recorded.log,
    observer: recorded,
    ...changes,
  })
  await server.listen()
  context.after(() => server.close())
  return { server, recorded }
}
