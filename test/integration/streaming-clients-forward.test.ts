import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withoutStreamingClient } from '../support/streaming-client.ts'
import { succeeded, useStreams } from '../support/streams.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20

const kubelet = useDaemon()
const streams = useStreams(kubelet)
const skip = withoutStreamingClient

test('bytes both ways, unchanged; the end of each side is seen by the other', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=127.0.0.1:80', 'digest=:81')
  const transports = { spdy: 256, tunnel: 256, 'spdy-streams': 4, 'tunnel-streams': 4 } as const
  for (const [transport, megabytes] of Object.entries(transports)) {
    const forward = await streams().forward(pod, [80, 81], transport as keyof typeof transports)
    const bytes = megabytes * MIB + 13
    const { stdin, stdout } = await succeeded(streams().client.connect(forward, 80, { bytes }))
    assert.deepEqual([stdout?.bytes, stdout?.sha256], [bytes, stdin?.sha256], transport)
    const other = await succeeded(streams().client.connect(forward, 81, { bytes: MIB }))
    assert.equal(other.stdout?.text, `${MIB} ${other.stdin?.sha256}\n`, transport)
    await forward.cancel()
  }
})

test('channels of a WebSocket: a connection for each port', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=:80', 'pour=:81')
  for (const protocols of [['v4.channel.k8s.io'], ['v4.base64.channel.k8s.io'], []]) {
    const forward = await streams().forward(pod, [80, 81], 'channels', protocols)
    assert.equal((await forward.look()).protocol, protocols[0] ?? '')
    const echo = streams().client.connect(forward, 80, { text: 'hello', open: true })
    const pour = streams().client.connect(forward, 81, { text: `${MIB}\n`, open: true })
    await until('all has come', async () => {
      const [said, poured] = await Promise.all([echo.look(), pour.look()])
      return said.stdout?.text === 'hello' && poured.stdout?.bytes === MIB
    })
    await forward.cancel()
  }
})

test('many ports and many connections on one session', { skip }, async () => {
  const pod = await kubelet().runPod()
  const ports = Array.from({ length: 10 }, (_, index) => 8000 + index)
  await streams().serve(pod, ...ports.map(port => `echo=:${port}`))
  for (const transport of ['spdy', 'tunnel'] as const) {
    const forward = await streams().forward(pod, ports, transport)
    await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const session = streams().client.connect(forward, ports[index % 10]!, { bytes: 50_000 + index })
        const { stdin, stdout } = await succeeded(session)
        assert.deepEqual([stdout?.bytes, stdout?.sha256], [50_000 + index, stdin?.sha256])
      }),
    )
    await forward.cancel()
  }
})

test('a server that ends first still hears what the client sends', { skip }, async () => {
  const pod = await kubelet().runPod()
  const server = await streams().serve(pod, 'farewell=:80')
  const forward = await streams().forward(pod, [80])
  const { stdout } = await succeeded(streams().client.connect(forward, 80, { bytes: 100_000 }))
  assert.equal(stdout?.text, 'bye\n')
  await kubelet().prints(server, 'heard 100000')
  await forward.cancel()
})

test('a refused port says so on its error stream, and the session goes on', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=:80')
  for (const transport of ['spdy-streams', 'tunnel-streams'] as const) {
    const forward = await streams().forward(pod, [80, 81], transport)
    const refused = await streams().client.connect(forward, 81, { text: 'anyone?' }).ended
    assert.match(refused.status ?? '', /port 81 .*refused/is)
    const { stdout } = await succeeded(streams().client.connect(forward, 80, { text: 'hello' }))
    assert.equal(stdout?.text, 'hello')
    await forward.cancel()
  }
})

test('a server on IPv6 only is reached', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=[::1]:80')
  const forward = await streams().forward(pod, [80], 'spdy')
  const { stdout } = await succeeded(streams().client.connect(forward, 80, { text: 'six' }))
  assert.equal(stdout?.text, 'six')
  await forward.cancel()
})

test("a pod on the host's network", { skip }, async () => {
  const pod = await kubelet().runPodWith({ network: 'NODE' })
  await streams().serve(pod, 'echo=127.0.0.1:18080')
  const forward = await streams().forward(pod, [18080], 'spdy')
  const { stdout } = await succeeded(streams().client.connect(forward, 18080, { text: 'node' }))
  assert.equal(stdout?.text, 'node')
  await forward.cancel()
})

test('a pod that has stopped is refused, and one that stops ends its connections', { skip }, async () => {
  const pod = await kubelet().runPod()
  await streams().serve(pod, 'echo=:80')
  const forward = await streams().forward(pod, [80])
  const session = streams().client.connect(forward, 80, { text: 'hello', open: true })
  await session.first
  await kubelet().stopPod(pod.id)
  await session.ended
  const late = await streams().client.connect(forward, 80, { text: 'late' }).ended
  assert.match(`${late.status}${late.error}`, /not ready|stopped|no longer|refused/i)
  await forward.cancel()
  await assert.rejects(streams().forwardUrl(pod, [80]), { code: 'precondition' })
})
