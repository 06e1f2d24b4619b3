import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, FOREVER, Kubelet } from '../support/kubelet.ts'
import { type Frame, type StreamingSession, withoutStreamingClient } from '../support/streaming-client.ts'
import { Streams, succeeded, useStreams } from '../support/streams.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20
const skip = withoutStreamingClient

/** Limits of half a minute and of a minute, waited for on a daemon of their own while the other tests run. */
type SlowLimits = {
  readonly daemon: BerthDaemon
  readonly streams: Streams
  readonly container: string
  readonly oldToken: string
  /** Connections with one stream too few. */
  readonly command: StreamingSession
  readonly pair: StreamingSession
}
const V4 = ['v4.channel.k8s.io']
const FORWARD = ['portforward.k8s.io']

const kubelet = useDaemon()
const streams = useStreams(kubelet)

async function sleeping(): Promise<string> {
  return kubelet().run(await kubelet().runPod(), FOREVER)
}

function syn(stream: number, headers: Readonly<Record<string, string>>): Frame {
  return { type: 'syn', stream, headers }
}

/** How many files and sockets the daemon has open. */
function descriptors(): number {
  return readdirSync(`/proc/${kubelet().daemon.pid}/fd`).length
}

function residentMiB(): number {
  const status = readFileSync(`/proc/${kubelet().daemon.pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024
}

/** Runs the work and waits until the daemon has no more open than before. */
async function closingAll(work: () => Promise<void>): Promise<void> {
  const before = descriptors()
  await work()
  await until('every descriptor is closed', () => descriptors() <= before)
}

/** The command lines of all processes in a container. */
async function commandsIn(container: string): Promise<string> {
  return (await kubelet().exec(container, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')).stdout
}

async function download(container: string, megabytes: number, rate?: number): Promise<StreamingSession> {
  const stdout = { digest: false, ...(rate === undefined ? {} : { rate }) }
  return streams().exec(container, `dd if=/dev/zero bs=1M count=${megabytes} 2>/dev/null`, { stdout })
}

let slow: SlowLimits | undefined
after(async () => {
  await slow?.streams[Symbol.asyncDispose]()
  await slow?.daemon[Symbol.asyncDispose]()
})

test('a session and a connection that lack a stream, and a token, are left alone for now', {
  skip,
}, async () => {
  const daemon = await BerthDaemon.start({ label: 'slow' })
  const node = new Kubelet(daemon)
  const clients = new Streams(() => node)
  daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
  await node.pull(BUSYBOX)
  const pod = await node.runPod()
  const container = await node.run(pod, FOREVER)
  const oldToken = await clients.execUrl(container, 'true')
  const command = clients.client.raw(await clients.execUrl(container, 'true'), V4, [
    syn(1, { streamType: 'error' }),
  ])
  const half = { streamType: 'error', port: '80', requestID: '1' }
  const pair = clients.client.raw(await clients.forwardUrl(pod, [80]), FORWARD, [syn(1, half)])
  slow = { daemon, streams: clients, container, oldToken, command, pair }
  await Promise.all([command.opened, pair.opened])
  // Its bridge and its pod's interface are nothing that the other daemon has left.
  await kubelet().daemon.forgetLeftovers()
})

test('memory: 1 GiB to a reader that stops, crawls and runs', { skip }, async t => {
  const container = await sleeping()
  await succeeded(await download(container, 64)) // what the first download needs once
  const before = residentMiB()
  let peak = before
  const watch = setInterval(() => {
    peak = Math.max(peak, residentMiB())
  }, 20)
  const session = await download(container, 1024, 0)
  await until('the download has begun', async () => (await commandsIn(container)).includes('dd if'))
  await sleep(500) // the pipes fill up
  await session.rate(8 * MIB)
  await until('it crawls', async () => ((await session.look()).stdout?.bytes ?? 0) > 8 * MIB)
  await session.rate()
  const { stdout } = await succeeded(session)
  clearInterval(watch)
  assert.equal(stdout?.bytes, 1024 * MIB)
  t.diagnostic(`resident: ${before.toFixed(0)} MiB before, at most ${peak.toFixed(0)}`)
  assert.ok(peak - before < 20, `the daemon grew from ${before.toFixed(0)} to ${peak.toFixed(0)} MiB`)
})

test('50 sessions at once', { skip }, async () => {
  const container = await sleeping()
  await closingAll(async () => {
    const all = Array.from({ length: 50 }, async (_, index) => {
      const version = (['SPDY v4', 'WebSocket v5', 'SPDY v3'] as const)[index % 3]!
      const session = await streams().exec(container, 'cat', { stdin: { bytes: MIB + index } }, version)
      const { stdin, stdout } = await succeeded(session)
      assert.deepEqual([stdout?.bytes, stdout?.sha256], [MIB + index, stdin?.sha256])
    })
    await Promise.all(all)
  })
})

test('200 streams at once on one session', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=:80')
  for (const transport of ['spdy-streams', 'tunnel-streams'] as const) {
    await closingAll(async () => {
      const forward = await streams().forward(pod, [80], transport)
      const connections = Array.from({ length: 100 }, (_, index) =>
        streams().client.connect(forward, 80, { text: `hello ${index} `, bytes: 100_000, open: true }),
      )
      for (const connection of connections) await connection.first
      for (const connection of connections) await connection.closeStdin()
      for (const [index, connection] of connections.entries()) {
        const { stdin, stdout } = await succeeded(connection)
        assert.ok(stdout?.text.startsWith(`hello ${index} `))
        assert.equal(stdout?.sha256, stdin?.sha256)
      }
      await forward.cancel()
    })
  }
})

test('a stream that is reset midway leaves the session usable', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=:80', 'pour=:81', 'deaf=:82')
  await closingAll(async () => {
    const forward = await streams().forward(pod, [80, 81, 82])
    for (let round = 0; round < 10; round++) {
      const pouring = streams().client.connect(forward, 81, { text: `${1024 * MIB}\n`, open: true })
      await pouring.first
      await pouring.cancel()
      const { stdout } = await succeeded(streams().client.connect(forward, 80, { text: 'still here' }))
      assert.equal(stdout?.text, 'still here')
    }
    await forward.cancel()
  })
})

test('pings are answered while a download stalls, before what was not sent yet', { skip }, async () => {
  const session = await streams().exec(
    await sleeping(),
    'dd if=/dev/zero bs=1M count=64 2>/dev/null',
    { stdout: { rate: 0 } },
    'WebSocket v4',
  )
  await session.opened
  await sleep(300) // the sockets fill up
  for (let i = 0; i < 5; i++) await session.ping(String(i))
  await session.rate()
  const { pongs, stdout } = await session.ended
  assert.equal(stdout?.bytes, 64 * MIB)
  // A client may take the answer to its last ping for that to all before.
  assert.ok((pongs?.length ?? 0) > 0)
  assert.ok(pongs![0]! < 32 * MIB, `the first pong came after ${pongs![0]} bytes`)
})

test('clients that vanish in the midst of everything leave nothing', { skip }, async () => {
  const pod = await kubelet().runPod()
  const container = await kubelet().run(pod, 'while :; do echo line; sleep 0.01; done', { stdin: true })
  await streams().serve(pod, 'pour=:81', 'deaf=:82')
  await closingAll(async () => {
    await using vanishing = new Streams(kubelet)
    const forwards = await Promise.all(
      (['spdy-streams', 'tunnel-streams', 'spdy'] as const).map(transport =>
        vanishing.forward(pod, [81, 82], transport),
      ),
    )
    const open = { stdin: { open: true } }
    const all = await Promise.all([
      ...Array.from({ length: 10 }, () => vanishing.exec(container, 'echo up; sleep 54321', open)),
      vanishing.exec(container, 'echo up; sleep 54321', { ...open, tty: true }),
      vanishing.exec(container, 'cat /dev/zero', open, 'WebSocket v5'),
      vanishing.attach(container),
      vanishing.attach(container, open, 'WebSocket v5'),
      ...forwards.map(async forward =>
        vanishing.client.connect(forward, 81, { text: `${1024 * MIB}\n`, open: true }),
      ),
    ])
    for (const session of all) await session.first
    assert.match(await commandsIn(container), /sleep 54321/)
    for (const forward of forwards) vanishing.client.connect(forward, 82, { bytes: 512 * MIB })
    await vanishing.client.kill()
    await until(
      'their processes are gone',
      async () => !/sleep 54321|cat \/dev/.test(await commandsIn(container)),
    )
  })
  assert.equal((await kubelet().status(container)).state, 'CONTAINER_RUNNING')
})

for (const how of ['SIGTERM', 'SIGKILL'] as const) {
  test(`${how} of the daemon ends every session, and leaves their containers alone`, { skip }, async () => {
    const pod = await kubelet().runPod()
    const container = await kubelet().run(pod, 'while :; do echo line; sleep 0.01; done')
    await streams().serve(pod, 'echo=:80')
    const forward = await streams().forward(pod, [80])
    const open = { stdin: { open: true } }
    const sessions = await Promise.all([
      streams().exec(container, 'echo up; sleep 54321', open),
      streams().exec(container, 'echo up; sleep 54321', open, 'WebSocket v5'),
      streams().exec(container, 'echo up; sleep 54321', { ...open, tty: true }),
      streams().exec(container, 'cat /dev/zero'),
      streams().attach(container),
      streams().attach(container, {}, 'WebSocket v5'),
      streams().client.connect(forward, 80, { text: 'hello', open: true }),
    ])
    for (const session of sessions) await session.first
    const { daemon } = kubelet()
    if (how === 'SIGKILL') await daemon.kill9()
    else assert.equal(await daemon.stop(), 0)
    await daemon.up()
    const ends = await Promise.all(sessions.map(({ ended }) => ended))
    await forward.ended
    // What was cut off without a word, clients of SPDY take for an end.
    if (how === 'SIGTERM') {
      for (const { error } of ends.slice(0, 3)) assert.match(error ?? 'none', /shutting down/)
    }
    await until(
      'their processes are gone',
      async () => !/sleep 54321|cat \/dev/.test(await commandsIn(container)),
    )
    assert.equal((await kubelet().status(container)).state, 'CONTAINER_RUNNING')
    const again = await streams().attach(container)
    await again.first
    await again.cancel()
  })
}

test('a token is good once, and for its own kind', { skip }, async () => {
  const container = await sleeping()
  const url = await streams().execUrl(container, 'true')
  const opened = (address: string) => streams().client.raw(address, V4).opened
  await assert.rejects(opened(url.replace('/exec/', '/attach/')), /404/)
  const other = await streams().execUrl(container, 'true')
  await opened(other)
  await assert.rejects(opened(other), /404/)
  await assert.rejects(opened(other.replace(/.$/, '')), /404/)
  await assert.rejects(opened(new URL('/', other).href), /404/)
})

test('frames in pieces, in the request, and out of place', { skip }, async () => {
  const container = await sleeping()
  const script = 'read line; echo "got $line"'
  const url = await streams().execUrl(container, script, { stdin: { open: true } })
  const session = streams().client.raw(url, V4, [
    syn(1, { streamType: 'error' }),
    { type: 'ping', number: 1 },
    syn(3, { streamType: 'stdin' }),
  ])
  await session.opened
  const strange: Frame[] = [
    { type: 'settings' },
    { type: 'window', stream: 1, number: 1000 },
    { type: 'data', stream: 77, text: 'nobody' },
    { type: 'rst', stream: 79, number: 5 },
    syn(3, { streamType: 'stdout' }),
    syn(5, { streamType: 'nonsense' }),
  ]
  await session.send([...strange, syn(7, { streamType: 'stderr' }), syn(9, { streamType: 'stdout' })], 1)
  await session.send([{ type: 'data', stream: 3, text: 'this\n' }], 1)
  const { frames = [], reason } = await session.ended
  const of = (stream: number) => frames.filter(frame => frame.stream === stream)
  assert.equal(reason, 'EOF')
  assert.ok(frames.some(({ type, number }) => type === 'ping' && number === 1))
  assert.deepEqual(of(5), [{ type: 'rst', stream: 5, number: 3 }])
  assert.ok(of(3).some(({ type, number }) => type === 'rst' && number === 1))
  assert.equal(of(9)[0]?.type, 'reply')
  const said = of(9).map(({ text = '' }) => text)
  assert.equal(said.join(''), 'got this\n')
  assert.ok(of(9).some(({ fin }) => fin))
  assert.match(
    of(1)
      .map(({ text = '' }) => text)
      .join(''),
    /"status":"Success"/,
  )
  assert.equal(frames.at(-1)?.type, 'goaway')
})

test('streams that never come are given up after 30 s, tokens after a minute; there are 1000 at most', {
  skip,
}, async () => {
  const { streams, container, oldToken, command, pair } = slow!
  const url = () => streams.execUrl(container, 'true')
  // The one at the start of this file may still be there.
  const issue = async () => {
    for (let issued = 0; ; issued++) {
      try {
        await url()
      } catch (error) {
        return { issued, error }
      }
      if (issued > 1000) throw new Error('there is no end of tokens')
    }
  }
  const { issued, error } = await issue()
  assert.ok(issued === 1000 || issued === 999, `${issued} tokens`)
  assert.equal((error as { code?: string }).code, 'exhausted')

  const given = await command.ended
  assert.match(textOf(given.frames, 1), /stdout.*30 s/)
  await until('the half pair is given up', async () => /30 s/.test(textOf((await pair.look()).frames, 1)))
  await untilLate('tokens are issued again', () =>
    url().then(
      () => true,
      () => false,
    ),
  )
  await assert.rejects(streams.client.raw(oldToken, V4).opened, /404/)
})

function textOf(frames: readonly Frame[] | undefined, stream: number): string {
  return (frames ?? [])
    .filter(frame => frame.stream === stream)
    .map(({ text = '' }) => text)
    .join('')
}

/** `until` for what takes a minute. */
async function untilLate(what: string, look: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 900; tries++) {
    if (await look()) return
    await sleep(100)
  }
  throw new Error(`it never came to pass that ${what}`)
}
