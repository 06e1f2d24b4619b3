import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import type {
  handleServerStreamingCall,
  handleUnaryCall,
  ServerUnaryCall,
  ServerWritableStream,
} from '@grpc/grpc-js'
import { RecordedCalls } from '../../test/support/cri.ts'
import { BerthError } from '../base/errors.ts'
import { Calls } from './call.ts'

/** A call as the library hands it over. */
class FakeCall<Request> extends EventEmitter {
  readonly request: Request
  readonly written: unknown[] = []
  cancelled = false
  deadline: number = Number.POSITIVE_INFINITY
  /** What `write` answers: false is "wait for drain". */
  writable = true
  ended = false

  constructor(request: Request) {
    super()
    this.request = request
  }

  getPeer(): string {
    return 'kubelet[812]'
  }

  getPath(): string {
    return '/runtime.v1.RuntimeService/StartContainer'
  }

  getDeadline(): number {
    return this.deadline
  }

  cancel(): void {
    this.cancelled = true
    this.emit('cancelled')
  }

  write(message: unknown): boolean {
    this.written.push(message)
    return this.writable
  }

  end(): void {
    this.ended = true
  }
}

type Answer = { readonly error?: { code?: number; details?: string } | null; readonly reply?: unknown }

function callUnary<Request>(
  handler: handleUnaryCall<Request, unknown>,
  call: FakeCall<Request>,
): Promise<Answer> {
  return new Promise(resolve => {
    handler(call as unknown as ServerUnaryCall<Request, unknown>, (error, reply) =>
      resolve({ error: error as Answer['error'] & object, reply }),
    )
  })
}

function callStream<Request>(
  handler: handleServerStreamingCall<Request, unknown>,
  call: FakeCall<Request>,
): void {
  handler(call as unknown as ServerWritableStream<Request, unknown>)
}

function open(maxInFlight?: number) {
  const recorded = new RecordedCalls()
  const calls = new Calls(recorded.log, recorded, maxInFlight)
  calls.open()
  return { calls, recorded }
}

test('a served call is counted and logged with what it was about', async () => {
  const { calls, recorded } = open()
  const run = calls.write((_: { config: unknown }) => ({ pod_sandbox_id: 'p1' }))
  const config = { metadata: { name: 'web', namespace: 'default' } }
  assert.deepEqual((await callUnary(run, new FakeCall({ config }))).reply, { pod_sandbox_id: 'p1' })
  assert.deepEqual(recorded.metrics, ['StartContainer OK'])
  const [{ requestId, ms, ...line } = {} as never] = recorded.lines
  assert.match(String(requestId), /^[0-9a-f]{6}-1$/)
  assert.ok(Number(ms) >= 0)
  assert.deepEqual(line, {
    level: 'info',
    message: 'call served',
    method: 'StartContainer',
    peer: 'kubelet[812]',
    name: 'default/web',
    podId: 'p1',
    code: 'OK',
  })
})

test('a read is logged at debug', async () => {
  const { calls, recorded } = open()
  await callUnary(
    calls.read(() => ({})),
    new FakeCall({ container_id: 'c1', image: { image: 'busybox' } }),
  )
  assert.deepEqual(
    recorded.lines.map(({ level, containerId, image }) => ({ level, containerId, image })),
    [{ level: 'debug', containerId: 'c1', image: 'busybox' }],
  )
})

test('a failure becomes a status, a warning and a metric; a defect an error', async () => {
  const { calls, recorded } = open()
  const failing = (error: unknown) =>
    calls.write(() => {
      throw error
    })
  const missing = await callUnary(failing(new BerthError('not-found', 'no\nsuch')), new FakeCall({}))
  assert.deepEqual(missing.error, { code: 5, details: 'no\\nsuch' })
  const defect = await callUnary(failing(new TypeError('oops')), new FakeCall({}))
  assert.deepEqual(defect.error, { code: 13, details: 'oops' })
  assert.deepEqual(recorded.metrics, ['StartContainer NOT_FOUND', 'StartContainer INTERNAL'])
  assert.deepEqual(
    recorded.lines.map(({ level, code, error }) => [level, code, (error as Error).message]),
    [
      ['warn', 'NOT_FOUND', 'no\nsuch'],
      ['error', 'INTERNAL', 'oops'],
    ],
  )
})

test('the signal says why the caller left', async () => {
  const { calls, recorded } = open()
  const handler = calls.write((_, { signal }) =>
    once(signal, 'abort').then((): never => {
      throw signal.reason
    }),
  )
  const cancelled = new FakeCall({})
  const first = callUnary(handler, cancelled)
  cancelled.cancel()
  assert.equal((await first).error?.code, 1)
  const late = new FakeCall({})
  late.deadline = Date.now() - 1
  const second = callUnary(handler, late)
  late.cancel()
  assert.equal((await second).error?.code, 4)
  assert.deepEqual(
    recorded.lines.map(({ level, message }) => `${level} ${message}`),
    ['info call given up by its caller', 'warn call failed'],
  )
})

test('a call that was cancelled before it began has its signal aborted', async () => {
  const { calls } = open()
  const call = new FakeCall({})
  call.cancelled = true
  const { reply } = await callUnary(
    calls.write((_, { signal }) => ({ aborted: signal.aborted })),
    call,
  )
  assert.deepEqual(reply, { aborted: true })
})

test('the end of a call leaves its signal alone', async () => {
  const { calls } = open()
  let kept: AbortSignal | undefined
  const call = new FakeCall({})
  await callUnary(
    calls.write((_, { signal }) => {
      kept = signal
      return {}
    }),
    call,
  )
  call.cancel()
  assert.equal(kept?.aborted, false)
})

test('calls beyond the limit are refused, and admitted again when one has ended', async () => {
  const { calls, recorded } = open(2)
  const gate = Promise.withResolvers<object>()
  const handler = calls.write(() => gate.promise)
  const running = [callUnary(handler, new FakeCall({})), callUnary(handler, new FakeCall({}))]
  const refused = await callUnary(handler, new FakeCall({}))
  assert.deepEqual(refused.error, { code: 8, details: '2 calls are at work already' })
  gate.resolve({ done: true })
  assert.deepEqual(
    (await Promise.all(running)).map(({ reply }) => reply),
    [{ done: true }, { done: true }],
  )
  assert.deepEqual((await callUnary(handler, new FakeCall({}))).reply, { done: true })
  assert.equal(recorded.metrics.filter(line => line.endsWith('RESOURCE_EXHAUSTED')).length, 1)
})

test('nothing is served before open and after close, and open does not undo close', async () => {
  const recorded = new RecordedCalls()
  const calls = new Calls(recorded.log, recorded)
  const handler = calls.read(() => ({}))
  assert.deepEqual((await callUnary(handler, new FakeCall({}))).error, {
    code: 14,
    details: 'berth is recovering',
  })
  calls.open()
  assert.deepEqual((await callUnary(handler, new FakeCall({}))).reply, {})
  calls.close()
  calls.open()
  const { error } = await callUnary(handler, new FakeCall({}))
  assert.deepEqual(error, { code: 14, details: 'berth is shutting down' })
})

test('a stream waits for a slow reader', async () => {
  const { calls } = open()
  let made = 0
  const handler = calls.stream('read', function* () {
    for (; made < 3; made++) yield made
  })
  const call = new FakeCall({})
  call.writable = false
  callStream(handler, call)
  for (const expected of [[0], [0, 1], [0, 1, 2]]) {
    await new Promise(setImmediate)
    assert.deepEqual(call.written, expected)
    assert.equal(call.ended, false)
    call.emit('drain')
  }
  await new Promise(setImmediate)
  assert.equal(call.ended, true)
})

test('a reader that leaves while it is waited for ends the stream', async () => {
  const { calls } = open()
  let cleanedUp = false
  const handler = calls.stream('read', function* () {
    try {
      for (;;) yield 1
    } finally {
      cleanedUp = true
    }
  })
  const call = new FakeCall({})
  call.writable = false
  callStream(handler, call)
  await new Promise(setImmediate)
  const failed = once(call, 'error')
  call.cancel()
  assert.equal((await failed)[0].code, 1)
  assert.equal(cleanedUp, true)
  assert.equal(call.listenerCount('drain'), 0)
})

test('a stream that fails says so after what it has written', async () => {
  const { calls, recorded } = open()
  const handler = calls.stream('read', function* () {
    yield 1
    throw new BerthError('unimplemented', 'no more')
  })
  const call = new FakeCall({})
  const failed = once(call, 'error')
  callStream(handler, call)
  assert.deepEqual((await failed)[0], { code: 12, details: 'no more' })
  assert.deepEqual(call.written, [1])
  assert.deepEqual(recorded.metrics, ['StartContainer UNIMPLEMENTED'])
})
