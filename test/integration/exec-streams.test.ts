import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestClient } from '../support/channels.ts'
import { eventually, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'

const host = useRuntimeHost()

test('output, errors and exit codes, and what stdin brings', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient({ stdin: true })
  const running = host.execStream(container, ['sh', '-c', 'cat; echo err >&2; exit 7'], client)
  client.type('hello')
  client.endInput()
  assert.equal(await running, 7)
  assert.deepEqual([client.stdout.text, client.stderr?.text], ['hello', 'err\n'])
  assert.ok(client.stdout.writableFinished && client.stderr?.writableFinished)
  for (const [script, code] of [
    ['exit 0', 0],
    ['exit 255', 255],
    ['kill -9 $$', 137],
  ] as const) {
    assert.equal(await host.execStream(container, ['sh', '-c', script], new TestClient()), code)
  }
  await assert.rejects(host.execStream(container, ['no-such-program'], new TestClient()), {
    code: 'internal',
    message: /runc exec: .*no-such-program.* executable file not found/,
  })
})

test('a terminal: its size from the first moment, and changes', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient({ stdin: true, tty: true, size: { width: 90, height: 31 } })
  const script = 'trap "stty size; exit 9" WINCH; tty; stty size; while :; do read x; echo got $x; done'
  const running = host.execStream(container, ['sh', '-c', script], client)
  await eventually('it told its size', () => /\/dev\/pts\/0\r\n31 90\r\n/.test(client.stdout.text))
  client.type('a b\n')
  await eventually('it read', () => /a b\r\ngot a b\r\n$/.test(client.stdout.text))
  client.resize(100, 40)
  client.type('\n')
  assert.equal(await running, 9)
  assert.match(client.stdout.text, /40 100\r\n$/)
})
