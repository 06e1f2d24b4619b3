import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { makeCertificate } from '../../test/support/certificate.ts'
import { SpdyClient } from '../../test/support/spdy-client.ts'
import { serveStreams } from '../../test/support/streaming.ts'
import { until } from '../../test/support/wait.ts'
import { WebSocketClient } from '../../test/support/websocket-client.ts'
import { sleep } from '../base/clock.ts'
import { BerthError, notFound } from '../base/errors.ts'
import { StreamingServer } from './streaming-server.ts'

const exec = { containerId: 'c', command: ['x'], tty: false, stdin: false, stdout: true, stderr: false }
const versions = ['v4.channel.k8s.io']

test('the URL: kind, address, a token of 128 bits', async context => {
  const asked: unknown[] = []
  const { server } = await serveStreams(context, {
    requireStreamable: (id, use, tty) => {
      asked.push([id, use, tty])
      if (id === 'gone') throw notFound('container', id)
      return { id: `${id}-whole`, podId: 'pod' }
    },
    requireReadyPod: id => {
      if (id === 'gone') throw notFound('pod sandbox', id)
      return { id }
    },
  })
  assert.match(server.exec(exec), /^http:\/\/127\.0\.0\.1:[0-9]+\/exec\/[A-Za-z0-9_-]{22}$/)
  assert.match(server.attach({ ...exec, tty: true }), /\/attach\/[A-Za-z0-9_-]{22}$/)
  assert.match(server.portForward({ podId: 'p', ports: [] }), /\/portforward\/[A-Za-z0-9_-]{22}$/)
  assert.deepEqual(asked, [
    ['c', 'exec', false],
    ['c', 'attach', true],
  ])
  assert.throws(() => server.exec({ ...exec, containerId: 'gone' }), { code: 'not-found' })
  assert.throws(() => server.portForward({ podId: 'gone', ports: [] }), { code: 'not-found' })
})

test('an address that stands for all: kubelet is sent to this node', async context => {
  const all = await serveStreams(context, {}, { address: '0.0.0.0' })
  assert.match(all.server.exec(exec), /^http:\/\/127\.0\.0\.1:/)
  const six = await serveStreams(context, {}, { address: '::' })
  const url = six.server.exec(exec)
  assert.match(url, /^http:\/\/\[::1\]:/)
  const client = await SpdyClient.connect(url, { versions })
  assert.equal(client.answer.status, 101)
  client.socket.destroy()
})

test('a token is good for one request, of its kind', async context => {
  const { server } = await serveStreams(context)
  const url = server.exec(exec)
  const first = await SpdyClient.connect(url, { versions })
  assert.equal(first.answer.status, 101)
  first.socket.destroy()
  assert.equal((await SpdyClient.connect(url, { versions })).answer.status, 404)
  const attach = server.exec(exec).replace('/exec/', '/attach/')
  assert.equal((await SpdyClient.connect(attach, { versions })).answer.status, 404)
})

test('what is answered instead of an upgrade', async context => {
  const { server, recorded } = await serveStreams(context)
  const host = new URL(server.exec(exec)).host
  const spdy = [`Host: ${host}`, 'Connection: keep-alive, Upgrade', 'Upgrade: spdy/3.1']
  const v4 = 'X-Stream-Protocol-Version: v4.channel.k8s.io'
  const cases: ReadonlyArray<readonly [number, RegExp, readonly string[], string?, string?]> = [
    [101, /^$/, [...spdy, v4]],
    [101, /^$/, [...spdy, 'X-Stream-Protocol-Version: v5.channel.k8s.io, v4.channel.k8s.io']],
    [101, /^$/, [...spdy, v4], 'GET'],
    [405, /GET or POST/, [...spdy, v4], 'PUT'],
    [400, /X-Stream-Protocol-Version/, spdy],
    [400, /X-Stream-Protocol-Version/, [...spdy, 'X-Stream-Protocol-Version: ,']],
    [403, /v4\.channel\.k8s\.io/, [...spdy, 'X-Stream-Protocol-Version: v9.channel.k8s.io']],
    [
      403,
      /portforward\.k8s\.io is served|but v4/,
      [...spdy, 'X-Stream-Protocol-Version: portforward.k8s.io'],
    ],
    [400, /upgrade/, [`Host: ${host}`, v4]],
    [400, /upgrade/, [`Host: ${host}`, 'Connection: Upgrade', 'Upgrade: h2c', v4]],
    [400, /upgrade/, [`Host: ${host}`, 'Upgrade: SPDY/3.1', v4]],
    [400, /Host/, ['Host: a b', 'Connection: Upgrade', 'Upgrade: SPDY/3.1', v4]],
    [400, /Host/, [...spdy, 'Host: other', v4]],
    [403, /Origin/, [...spdy, v4, 'Origin: https://evil.example']],
    [404, /not found/, [...spdy, v4], 'POST', '/exec/'],
    [404, /not found/, [...spdy, v4], 'POST', '/exec/AAAAAAAAAAAAAAAAAAAAAA'],
    [404, /not found/, [...spdy, v4], 'POST', '/metrics'],
    [404, /not found/, [`Host: ${host}`], 'GET', '/'],
    [404, /not found/, [...spdy, v4], 'POST', '//exec/../exec/x'],
  ]
  for (const [status, body, headers, method, path] of cases) {
    const url = new URL(server.exec(exec))
    if (path !== undefined) url.pathname = path
    const client = await SpdyClient.connect(url.href, {
      headers,
      ...(method === undefined ? {} : { method }),
    })
    const { answer } = client
    assert.equal(answer.status, status, `${headers.join(' ')}: ${answer.body}`)
    assert.match(answer.body, body)
    if (status === 403 && !answer.body.includes('Origin')) {
      assert.match(
        answer.headers.get('x-accepted-stream-protocol-versions') ?? '',
        /^v4\.channel\.k8s\.io, v3/,
      )
    }
    if (status === 101) client.socket.destroy()
    else await client.untilClosed()
  }
  const tokens = recorded.lines.filter(({ fields }) => /exec\/[\w-]{22}/.test(JSON.stringify(fields)))
  assert.deepEqual(tokens, [], 'tokens do not stand in the log')
})

test('parameters mean nothing, bytes behind the request are the first frame', async context => {
  const { server } = await serveStreams(context, {
    exec: async (_id, _command, tty, { stdout }) => {
      stdout!.end(String(tty))
      return 0
    },
  })
  // Frames of one connection, made with the compression of another that is not used any further.
  const maker = await SpdyClient.connect(server.exec(exec), { versions })
  const head = Buffer.concat([
    await maker.synStream(1, { streamtype: 'error' }),
    await maker.synStream(3, { streamtype: 'stdout' }),
  ])
  maker.socket.destroy()
  const client = await SpdyClient.connect(`${server.exec(exec)}?tty=true`, {
    versions,
    head: head.subarray(0, 9),
  })
  const stdout = { id: 3, replied: false, received: Buffer.alloc(0), ended: false, reset: undefined }
  client.streams.set(1, { ...stdout, id: 1 }).set(3, stdout)
  for (let at = 9; at < head.length; at++) {
    client.socket.write(head.subarray(at, at + 1))
    await new Promise(resolve => setImmediate(resolve))
  }
  await client.untilClosed()
  assert.equal(client.streams.get(3)?.received.toString(), 'false')
})

test('WebSocket upgrades: what is refused', async context => {
  const { server } = await serveStreams(context, {}, { allowedOrigins: ['https://console.example'] })
  const connectTo = (url: string, protocols: readonly string[], headers = {}) =>
    WebSocketClient.connect(url, protocols, headers)
  await assert.rejects(connectTo(server.exec(exec), ['v9.channel.k8s.io']), /refused with 403/)
  await assert.rejects(connectTo(server.exec(exec), ['SPDY/3.1+portforward.k8s.io']), /refused with 403/)
  await assert.rejects(
    connectTo(server.exec(exec), [], { Origin: 'https://evil.example' }),
    /refused with 403/,
  )
  await assert.rejects(connectTo(server.exec(exec), [], { 'Sec-WebSocket-Version': '7' }), /refused with 400/)
  const allowed = await connectTo(server.exec(exec), [], { Origin: 'https://console.example' })
  allowed.socket.destroy()
})

test('the log line and the counts of a session', async context => {
  const gate = Promise.withResolvers<number>()
  const { server, recorded } = await serveStreams(context, { exec: () => gate.promise })
  const client = await SpdyClient.connect(server.exec(exec), { versions })
  await client.open({ streamtype: 'error' })
  await client.open({ streamtype: 'stdout' })
  assert.deepEqual(recorded.count(), { exec: 1, attach: 0, portforward: 0 })
  assert.deepEqual(server.counts(), recorded.count())
  gate.resolve(3)
  await client.untilClosed()
  await until('it is counted', () => recorded.count().exec === 0)
  const [line] = recorded.sessions()
  const { ms, client: address, bytesOut, ...fields } = line ?? {}
  assert.deepEqual(fields, {
    kind: 'exec',
    podId: 'pod',
    containerId: 'c',
    protocol: 'v4.channel.k8s.io',
    outcome: 'done',
    bytesIn: 0,
    exitCode: 3,
  })
  assert.match(String(address), /^127\.0\.0\.1:[0-9]+$/)
  assert.ok(typeof ms === 'number' && (bytesOut as number) > 100)
  assert.deepEqual(recorded.outcomes, [['exec', 'done']])
})

test('the state is looked at again when the client comes', async context => {
  let running = true
  const { server } = await serveStreams(context, {
    requireStreamable: id => {
      if (!running) throw new BerthError('precondition', `container ${id} is exited`)
      return { id, podId: 'pod' }
    },
  })
  const url = server.exec(exec)
  running = false
  const client = await SpdyClient.connect(url, { versions })
  const error = await client.open({ streamtype: 'error' })
  await client.open({ streamtype: 'stdout' })
  await client.untilClosed()
  assert.match(error.received.toString(), /container c is exited/)
})

test('a session is ended when it was idle for the whole limit; data starts it anew, pings do not', async context => {
  let lastWrite = 0
  let ended = 0
  const { server, recorded } = await serveStreams(
    context,
    {
      exec: async (_id, _command, _tty, { stdout }, signal) => {
        for (let round = 0; round < 20 && !signal.aborted; round++) {
          lastWrite = performance.now()
          stdout!.write('.')
          await sleep(20)
        }
        if (!signal.aborted) await once(signal, 'abort')
        ended = performance.now()
        throw signal.reason
      },
    },
    { idleMs: 300 },
  )
  const client = await SpdyClient.connect(server.exec(exec), { versions })
  const error = await client.open({ streamtype: 'error' })
  const stdout = await client.open({ streamtype: 'stdout' })
  const ping = setInterval(() => client.ping(1), 50)
  await client.untilClosed()
  clearInterval(ping)
  assert.ok(stdout.received.length > 0)
  assert.ok(ended - lastWrite >= 300, `it was ended ${ended - lastWrite} ms after its last data`)
  assert.match(error.received.toString(), /no data for 0\.3 s/)
  await until('it is logged', () => recorded.outcomes.length === 1)
  assert.deepEqual(recorded.outcomes, [['exec', 'idle']])
})

test('closing tells every client why, and leaves nothing open', async context => {
  let running = 0
  const { server, recorded } = await serveStreams(context, {
    exec: async (_id, _command, _tty, _channels, signal) => {
      running++
      await once(signal, 'abort')
      throw signal.reason
    },
  })
  const spdy = await SpdyClient.connect(server.exec(exec), { versions })
  const error = await spdy.open({ streamtype: 'error' })
  await spdy.open({ streamtype: 'stdout' })
  const ws = await WebSocketClient.connect(server.exec(exec), ['v5.channel.k8s.io'])
  const forward = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), {
    versions: ['portforward.k8s.io'],
  })
  const { port } = new URL(server.exec(exec))
  const silent = connect(Number(port), '127.0.0.1')
  await once(silent, 'connect')
  const late = new URL(server.exec(exec))
  await until('both commands run', () => running === 2)
  const closed = server.close()
  const answer = once(silent, 'data')
  const upgrade = 'Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io'
  silent.write(`POST ${late.pathname} HTTP/1.1\r\nHost: ${late.host}\r\n${upgrade}\r\n\r\n`)
  const end = once(silent, 'close')
  assert.match(String(await answer), /^HTTP\/1\.1 404 /, 'who comes late gets no session')
  await closed
  await Promise.all([spdy.untilClosed(), ws.untilClosed(), forward.untilClosed()])
  assert.match(error.received.toString(), /shutting down/)
  assert.deepEqual([spdy.goaway, forward.goaway, ws.closeCode], [0, 0, 1000])
  assert.match(ws.on(3).toString(), /shutting down/)
  assert.deepEqual(
    recorded.outcomes.map(([, outcome]) => outcome),
    ['stopped', 'stopped', 'stopped'],
  )
  await end
})

test('TLS: by configuration, 1.2 or newer, with a certificate that is read again', async context => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-streams-'))
  context.after(() => rmSync(directory, { recursive: true }))
  const authority = makeCertificate('authority')
  const install = (name: string) => {
    const { cert, key } = makeCertificate(name, ['127.0.0.1'], authority)
    for (const [file, pem] of [
      ['cert.pem', cert],
      ['key.pem', key],
    ] as const) {
      writeFileSync(join(directory, `${file}.new`), pem)
      renameSync(join(directory, `${file}.new`), join(directory, file))
    }
  }
  install('first')
  const tls = {
    cert: join(directory, 'cert.pem'),
    key: join(directory, 'key.pem'),
    ca: '',
    minVersion: 'TLSv1.2',
    cipherSuites: ['TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'],
  } as const
  const { server, recorded } = await serveStreams(
    context,
    {
      exec: async (_id, _command, _tty, { stdout }) => {
        stdout!.end('over TLS')
        return 0
      },
    },
    { tls },
  )
  const subject = async (url: string) => {
    assert.match(url, /^https:/)
    const client = await SpdyClient.connect(url, { versions, tls: { ca: authority.cert } })
    await client.open({ streamtype: 'error' })
    const stdout = await client.open({ streamtype: 'stdout' })
    const name = (client.socket as ReturnType<typeof connectTls>).getPeerCertificate().subject.CN
    await client.untilClosed()
    assert.equal(stdout.received.toString(), 'over TLS')
    return name
  }
  assert.equal(await subject(server.exec(exec)), 'first')
  install('second')
  assert.equal(await subject(server.exec(exec)), 'second')
  writeFileSync(tls.key, 'half of a')
  assert.equal(await subject(server.exec(exec)), 'second', 'the old one stays')
  assert.ok(recorded.lines.some(({ level, message }) => level === 'warn' && /not read again/.test(message)))
  const { port } = new URL(server.exec(exec))
  const old = connectTls({
    port: Number(port),
    host: '127.0.0.1',
    ca: authority.cert,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
  })
  const [error] = await once(old, 'error').catch(reason => [reason])
  assert.match(String(error), /protocol|alert/i)
})

test('TLS: clients without a certificate of the authority are refused; files that are none, at once', async context => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-streams-'))
  context.after(() => rmSync(directory, { recursive: true }))
  const authority = makeCertificate('authority')
  const { cert, key } = makeCertificate('node', ['127.0.0.1'], authority)
  for (const [file, pem] of Object.entries({ cert, key, ca: authority.cert }))
    writeFileSync(join(directory, file), pem)
  const tls = {
    cert: join(directory, 'cert'),
    key: join(directory, 'key'),
    ca: join(directory, 'ca'),
    minVersion: 'TLSv1.3',
    cipherSuites: [],
  } as const
  const { server } = await serveStreams(context, {}, { tls })
  const ca = authority.cert
  await assert.rejects(SpdyClient.connect(server.exec(exec), { versions, tls: { ca } }))
  const known = makeCertificate('kubelet', [], authority)
  const client = await SpdyClient.connect(server.exec(exec), {
    versions,
    tls: { ca, cert: known.cert, key: known.key },
  })
  assert.equal(client.answer.status, 101)
  client.socket.destroy()
  const wrong = (changes: object) => serveStreams(context, {}, { tls: { ...tls, ...changes } })
  await assert.rejects(wrong({ cert: '/no/such/file' }), { code: 'invalid', message: /\/no\/such\/file/ })
  await assert.rejects(wrong({ key: tls.cert }), { code: 'invalid', message: /stream_tls_key/ })
  await assert.rejects(wrong({ cipherSuites: ['TLS_NO_SUCH'] }), { code: 'invalid' })
})

test('an address that cannot be used is an error at start', async context => {
  const { server } = await serveStreams(context)
  const { port } = new URL(server.exec(exec))
  await assert.rejects(serveStreams(context, {}, { port: Number(port) }), {
    code: 'unavailable',
    message: /cannot listen: .*EADDRINUSE/,
  })
})

test('requests that never end are cut off', async context => {
  const { server } = await serveStreams(context)
  const { port } = new URL(server.exec(exec))
  const socket = connect(Number(port), '127.0.0.1')
  socket.write(`GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}`)
  assert.match(await text(socket), /^HTTP\/1\.1 431/)
  assert.ok(server instanceof StreamingServer)
})
