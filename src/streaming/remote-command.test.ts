import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { type ClientStream, SpdyClient } from '../../test/support/spdy-client.ts'
import { serveStreams } from '../../test/support/streaming.ts'
import { until } from '../../test/support/wait.ts'
import { WebSocketClient } from '../../test/support/websocket-client.ts'
import { BerthError, precondition } from '../base/errors.ts'
import type { TerminalSize } from '../runtime/channels.ts'
import type { StreamBackend } from './backend.ts'

const exec = { containerId: 'c', command: ['x'], tty: false, stdin: true, stdout: true, stderr: true }
const terminal = { ...exec, tty: true, stderr: false }

type Name = 'error' | 'stdin' | 'stdout' | 'stderr' | 'resize'

async function openAll(client: SpdyClient, ...names: readonly Name[]): Promise<Record<Name, ClientStream>> {
  const streams: Partial<Record<Name, ClientStream>> = {}
  for (const name of names) streams[name] = await client.open({ streamtype: name })
  return streams as Record<Name, ClientStream>
}

/** Copies stdin to stdout and ends with a code. */
const echo =
  (code: number): StreamBackend['exec'] =>
  async (_id, _command, _tty, { stdin, stdout, stderr }) => {
    stderr?.end('to stderr')
    await pipeline(stdin ?? Readable.from([]), stdout!)
    return code
  }

const failing: StreamBackend['exec'] = async () => {
  throw precondition('container c is exited')
}

test('exec over SPDY, version by version: bytes both ways, what is said of the end', async context => {
  const bytes = randomBytes(300_000)
  const exit = (message: string, code: number) => ({
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  })
  const cases = [
    ['v4.channel.k8s.io', echo(0), { status: 'Success' }],
    ['v4.channel.k8s.io', echo(137), exit('command terminated with exit code 137', 137)],
    [
      'v4.channel.k8s.io',
      failing,
      { status: 'Failure', reason: 'InternalError', message: 'container c is exited', code: 500 },
    ],
    ['v3.channel.k8s.io', echo(0), ''],
    ['v3.channel.k8s.io', echo(7), 'command terminated with exit code 7'],
    ['v2.channel.k8s.io', failing, 'container c is exited'],
  ] as const
  for (const [version, run, expected] of cases) {
    const { server } = await serveStreams(context, { exec: run })
    const client = await SpdyClient.connect(server.exec(exec), { versions: ['v5.channel.k8s.io', version] })
    assert.equal(client.answer.status, 101)
    assert.equal(client.answer.headers.get('upgrade'), 'SPDY/3.1')
    assert.equal(client.answer.headers.get('x-stream-protocol-version'), version)
    const { error, stdin, stdout, stderr } = await openAll(client, 'stderr', 'error', 'stdout', 'stdin')
    client.data(stdin.id, bytes)
    client.end(stdin.id)
    await client.untilClosed()
    if (run !== failing) {
      assert.ok(stdout.received.equals(bytes))
      assert.equal(stderr.received.toString(), 'to stderr')
    }
    const said = error.received.toString()
    assert.deepEqual(typeof expected === 'string' ? said : JSON.parse(said), expected)
    for (const stream of [error, stdin, stdout, stderr])
      assert.ok(stream.ended, `stream ${stream.id} has no end`)
    assert.equal(client.goaway, 0)
  }
})

test('the first version: stdin has no way back, and the error stream is reset', async context => {
  const gate = Promise.withResolvers<void>()
  const { server } = await serveStreams(context, {
    exec: async (_id, _command, _tty, { stdout }) => {
      await gate.promise
      stdout!.end('out')
      return 7
    },
  })
  const client = await SpdyClient.connect(server.exec({ ...exec, stderr: false }), {
    versions: ['channel.k8s.io'],
  })
  const { error, stdin, stdout } = await openAll(client, 'error', 'stdin', 'stdout')
  await until('the first version shows', () => stdin.ended && error.reset !== undefined)
  gate.resolve()
  await client.untilClosed()
  assert.equal(stdout.received.toString(), 'out')
})

test('a terminal: sizes from before and after the start, in one frame or several', async context => {
  const sizes: TerminalSize[] = []
  const { server } = await serveStreams(context, {
    exec: async (_id, _command, tty, { stderr, stdin, stdout, onResize }) => {
      assert.deepEqual([tty, stderr], [true, undefined])
      onResize(size => sizes.push(size))
      await buffer(stdin!)
      stdout!.end()
      return 0
    },
  })
  const client = await SpdyClient.connect(server.exec(terminal), { versions: ['v4.channel.k8s.io'] })
  const resize = await client.open({ streamtype: 'resize' })
  client.data(resize.id, '{"Width":80,"Height":24}\n{"Width":81,')
  const { stdin } = await openAll(client, 'stdout', 'stdin', 'error')
  await until('the first size arrives', () => sizes.length === 1)
  client.data(resize.id, '"Height":25}{"Width":0,"Height":0}{"Width":82,"Height":26}')
  await until('the others arrive', () => sizes.length === 3)
  client.end(stdin.id)
  await client.untilClosed()
  assert.deepEqual(
    sizes.map(({ width, height }) => `${width}x${height}`),
    ['80x24', '81x25', '82x26'],
  )
})

test('streams that were not asked for, twice or of no known type, are refused', async context => {
  const { server } = await serveStreams(context, { exec: echo(0) })
  const client = await SpdyClient.connect(server.exec({ ...exec, stderr: false }), {
    versions: ['v4.channel.k8s.io'],
  })
  const refused = [
    await client.open({ streamtype: 'stderr' }),
    await client.open({ streamtype: 'resize' }),
    await client.open({ streamtype: 'nonsense' }),
    await client.open({}),
  ]
  const { stdin } = await openAll(client, 'error', 'stdin')
  refused.push(await client.open({ streamtype: 'stdin' }))
  await openAll(client, 'stdout')
  client.end(stdin.id)
  await client.untilClosed()
  for (const stream of refused) assert.equal(stream.reset, 3)
})

test('attach has no exit code; a failure of it is told', async context => {
  const { server, recorded } = await serveStreams(context, {
    attach: async (_id, _tty, { stdin, stdout }) => {
      if ((await text(stdin!)) === 'fail') throw new BerthError('exhausted', 'the client did not read')
      stdout!.end('done')
    },
  })
  const attach = { containerId: 'c', tty: false, stdin: true, stdout: true, stderr: false }
  for (const [input, status] of [
    ['', 'Success'],
    ['fail', 'Failure'],
  ] as const) {
    const client = await SpdyClient.connect(server.attach(attach), { versions: ['v4.channel.k8s.io'] })
    const { error, stdin } = await openAll(client, 'error', 'stdin', 'stdout')
    client.data(stdin.id, input, { fin: true })
    await client.untilClosed()
    assert.equal(JSON.parse(error.received.toString()).status, status)
  }
  await until('both are logged', () => recorded.sessions().length === 2)
  assert.deepEqual(recorded.outcomes, [
    ['attach', 'done'],
    ['attach', 'failed'],
  ])
  assert.match(String(recorded.sessions()[1]?.error), /did not read/)
})

test('exec over WebSocket, protocol by protocol', async context => {
  const bytes = randomBytes(200_000)
  const ran: string[] = []
  const { server } = await serveStreams(context, {
    exec: async (_id, _command, _tty, { stdin, stdout, stderr }) => {
      stderr!.end('to stderr')
      let left = bytes.length
      for await (const chunk of stdin!) {
        stdout!.write(chunk)
        left -= chunk.length
        if (left === 0) break
      }
      ran.push(left === 0 ? 'all' : 'some')
      stdout!.end()
      return 7
    },
  })
  for (const [offered, base64, json] of [
    [['v5.channel.k8s.io', 'v4.channel.k8s.io'], false, true],
    [['v9.channel.k8s.io', 'v4.channel.k8s.io'], false, true],
    [['v4.base64.channel.k8s.io'], true, true],
    [['base64.channel.k8s.io'], true, false],
    [['channel.k8s.io'], false, false],
    [[], false, false],
  ] as const) {
    const client = await WebSocketClient.connect(server.exec(exec), offered)
    assert.equal(
      client.protocol,
      offered.find(name => name !== 'v9.channel.k8s.io'),
    )
    for (let at = 0; at < bytes.length; at += 50_000) {
      const piece = bytes.subarray(at, at + 50_000)
      if (base64) client.text(`0${piece.toString('base64')}`)
      else client.binary([0], piece)
    }
    await client.untilClosed()
    assert.equal(client.closeCode, 1000)
    if (base64) {
      const on = (digit: string) =>
        client.messages
          .map(message => message.toString())
          .filter(message => message[0] === digit)
          .map(message => Buffer.from(message.slice(1), 'base64'))
      assert.ok(Buffer.concat(on('1')).equals(bytes))
      assert.deepEqual(client.messages[0], Buffer.from('1'), 'an empty message comes first')
      assert.match(Buffer.concat(on('3')).toString(), /exit code 7/)
      continue
    }
    assert.ok(client.on(1).equals(bytes))
    assert.equal(client.on(2).toString(), 'to stderr')
    assert.deepEqual(client.messages[0], Buffer.from([1]), 'an empty message comes first')
    const said = client.on(3).toString()
    if (json) assert.equal(JSON.parse(said).details.causes[0].message, '7')
    else assert.equal(said, 'command terminated with exit code 7')
  }
  assert.deepEqual(ran, Array(6).fill('all'))
})

test('v5 ends stdin alone; sizes come on channel 4', async context => {
  const sizes: TerminalSize[] = []
  const { server } = await serveStreams(context, {
    exec: async (_id, _command, _tty, { stdin, stdout, onResize }) => {
      onResize(size => sizes.push(size))
      stdout!.end(await text(stdin!))
      return 0
    },
  })
  const client = await WebSocketClient.connect(server.exec(terminal), ['v5.channel.k8s.io'])
  client.binary([4], '{"Width":100,"Height":50}')
  client.binary([9], 'unknown channels are dropped')
  client.binary([2], 'and those that were not asked for')
  client.binary([])
  client.binary([0], 'input')
  client.binary([255, 0])
  client.binary([0], 'after its end')
  await client.untilClosed()
  assert.equal(client.on(1).toString(), 'input')
  assert.deepEqual(sizes, [{ width: 100, height: 50 }])
  assert.equal(client.closeCode, 1000)
})

test('WebSocket messages that break the protocol end the session', async context => {
  const left: unknown[] = []
  const { server, recorded } = await serveStreams(context, {
    exec: async (_id, _command, _tty, _channels, signal) => {
      await new Promise(resolve => signal.addEventListener('abort', resolve))
      left.push(signal.reason)
      return 0
    },
  })
  for (const [protocol, send] of [
    ['v5.channel.k8s.io', (client: WebSocketClient) => client.binary([255])],
    ['v5.channel.k8s.io', (client: WebSocketClient) => client.text('0text')],
    ['v4.base64.channel.k8s.io', (client: WebSocketClient) => client.binary([0])],
    ['v4.base64.channel.k8s.io', (client: WebSocketClient) => client.text('x')],
    ['v4.channel.k8s.io', (client: WebSocketClient) => client.frame(3, Buffer.alloc(1))],
    ['v4.channel.k8s.io', (client: WebSocketClient) => client.frame(2, Buffer.alloc(5 << 20))],
    ['v4.channel.k8s.io', (client: WebSocketClient) => client.socket.write(Buffer.alloc(1000, 0xff))],
  ] as const) {
    const client = await WebSocketClient.connect(server.exec(exec), [protocol])
    send(client)
    await client.untilClosed()
    assert.notEqual(client.closeCode, 1000)
  }
  await until('all are over', () => recorded.outcomes.length === 7)
  assert.ok(recorded.outcomes.every(([, outcome]) => outcome === 'protocol-error'))
  assert.equal(left.length, 7)
})
