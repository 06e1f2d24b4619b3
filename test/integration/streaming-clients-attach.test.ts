import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FOREVER } from '../support/kubelet.ts'
import {
  StreamingClient,
  type StreamingSession,
  withoutStreamingClient,
} from '../support/streaming-client.ts'
import { succeeded, useStreams, VERSIONS, type VersionName } from '../support/streams.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const ALL = Object.keys(VERSIONS) as VersionName[]

const kubelet = useDaemon()
const streams = useStreams(kubelet)
const skip = withoutStreamingClient

async function sleeping(): Promise<string> {
  return kubelet().run(await kubelet().runPod(), FOREVER)
}

test('two clients see what is printed from then on; one leaves, the other goes on', { skip }, async () => {
  const script = 'echo before; while read line; do echo "$line"; echo "e $line" >&2; done; exit 9'
  const id = await kubelet().run(await kubelet().runPod(), script, { stdin: true, stdin_once: true })
  await kubelet().prints(id, 'before')
  await using leaving = new StreamingClient()
  const first = await streams().attach(id, { stdin: { open: true } }, 'SPDY v4')
  const second = await streams().attach(id, { client: leaving }, 'WebSocket v5')
  // The clients say nothing when they have been attached: lines are sent until both have seen one.
  const saw = async (session: StreamingSession, text: string) =>
    (await session.look()).stdout?.text.includes(text)
  await until('both have seen a line', async () => {
    await first.write('one\n')
    return (await saw(first, 'one')) && (await saw(second, 'one'))
  })
  await leaving.kill()
  await first.write('two\n')
  await until('the first sees on', () => saw(first, 'two'))
  await first.closeStdin()
  const end = await succeeded(first)
  assert.equal(end.exitCode, 0)
  assert.match(end.stdout?.text ?? '', /^(one\n)+two\n$/)
  assert.match(end.stderr?.text ?? '', /^(e one\n)+e two\n$/)
  assert.equal((await kubelet().exited(id)).exit_code, 9)
})

test('every version: input, output, and the end with the container', { skip }, async () => {
  const pod = await kubelet().runPod()
  await Promise.all(
    ALL.map(async version => {
      const id = await kubelet().run(pod, 'read line; echo "got $line"; exit 4', { stdin: true })
      const session = await streams().attach(id, { stdin: { text: 'this\n', open: true } }, version)
      const end = await session.ended
      assert.equal(end.error, undefined, version)
      assert.equal(end.stdout?.text, 'got this\n', version)
      assert.equal((await kubelet().exited(id)).exit_code, 4)
    }),
  )
})

test('input of a container that is not for one client only survives a client', { skip }, async () => {
  const script = 'while read line; do echo "$line"; done'
  const id = await kubelet().run(await kubelet().runPod(), script, { stdin: true })
  for (const word of ['one', 'two']) {
    const session = await streams().attach(id, { stdin: { text: `${word}\n` } })
    await kubelet().prints(id, word)
    await session.cancel()
  }
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
})

test('terminal: size, input and output', { skip }, async () => {
  const script = 'while :; do stty size; sleep 0.05; done'
  const id = await kubelet().run(await kubelet().runPod(), script, { stdin: true, tty: true })
  for (const [version, width, height] of [
    ['SPDY v4', 91, 31],
    ['WebSocket v5', 92, 32],
    ['WebSocket v4', 93, 33],
  ] as const) {
    const session = await streams().attach(id, { tty: true, stdin: { open: true } }, version)
    await session.opened
    await session.resize(width, height)
    const size = `${height} ${width}\r\n`
    await until('the terminal has that size', async () => (await session.look()).stdout?.text.includes(size))
    await session.cancel()
  }
  const last = await streams().attach(id, { tty: true, stdin: { open: true } })
  await last.first
  await last.write('\x03')
  await last.ended
  assert.equal((await kubelet().exited(id)).exit_code, 130)
})

test('a terminal must be asked for where there is one, and only there', { skip }, async () => {
  const id = await sleeping()
  await assert.rejects(streams().attachUrl(id, { tty: true }), /tty|terminal/)
})

test('a client that does not read is dropped; the container, its log and the others go on', {
  skip,
}, async () => {
  const lines = 150_000
  const script = `read go; i=0; while [ $i -lt ${lines} ]; do
    echo "$i ------------------------------------------------------------------------------"
    i=$((i+1)); done; echo end`
  const id = await kubelet().run(await kubelet().runPod(), script, { stdin: true })
  const stuck = await streams().attach(id, { stdout: { rate: 0 } })
  const reading = await streams().attach(id, { stdin: { open: true } })
  await Promise.all([stuck.opened, reading.opened])
  await until('the container has begun', async () => {
    await reading.write('go\n')
    return ((await reading.look()).stdout?.bytes ?? 0) > 0
  })
  const { stdout } = await succeeded(reading)
  assert.match(stdout?.text ?? '', /^0 ---/)
  assert.equal((await kubelet().exited(id)).exit_code, 0)
  const logged = (await kubelet().logOf(id)).filter(({ tag }) => tag === 'F')
  assert.equal(logged.length, lines + 1)
  await stuck.rate()
  const dropped = await stuck.ended
  assert.ok((dropped.stdout?.bytes ?? 0) < (stdout?.bytes ?? 0))
  assert.match(dropped.error ?? '', /dropped.*waiting for this client/)
})
