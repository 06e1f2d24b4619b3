import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { FOREVER, type Kubelet } from '../support/kubelet.ts'
import { deafClient, framed, type RawCall, RawClient } from '../support/raw-client.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

/*
 * Clients gone wrong, on bare sockets, at a daemon with its own limits: what they cost is bounded, and a client that
 * does nothing wrong notices nothing.
 */

const MIB = 2 ** 20
const RUNTIME = '/runtime.v1.RuntimeService'
const EMPTY = framed(Buffer.alloc(0))
const CALM = constants.NGHTTP2_ENHANCE_YOUR_CALM

/**
 * What the worst of clients may add to the daemon, in MiB: 128 of messages, as much again for their copies on the way
 * through the library and the collector's slack, and 64 KiB each of a thousand calls.
 */
const MAX_GROWTH = 320

const kubelet = useDaemon()

function memory(node: Kubelet, field: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${node.daemon.pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1]) / 1024
}

/** Does the work; the daemon's memory may have grown by so much at most, at any moment of it. */
async function bounded(
  work: (node: Kubelet) => Promise<void>,
  report: (text: string) => void,
): Promise<void> {
  const node = kubelet()
  // The high-water mark from now on (proc(5), clear_refs).
  writeFileSync(`/proc/${node.daemon.pid}/clear_refs`, '5')
  const before = memory(node, 'VmRSS')
  await work(node)
  const peak = memory(node, 'VmHWM')
  report(
    `${before.toFixed(0)} MiB before, at most ${peak.toFixed(0)}, ${memory(node, 'VmRSS').toFixed(0)} after`,
  )
  assert.ok(peak - before < MAX_GROWTH, `the daemon grew from ${before.toFixed(0)} to ${peak.toFixed(0)} MiB`)
}

/** What a kubelet does, on the connection it has, and what somebody does who connects now. */
async function othersAreServed(node: Kubelet): Promise<void> {
  const { client } = node.daemon
  await client.runtime('Version', {})
  await client.runtime('ListPodSandbox', {})
  const pod = await node.runPod()
  const container = await node.run(pod, FOREVER)
  assert.equal((await node.exec(container, 'echo hello')).stdout, 'hello\n')
  const status = await node.daemon.berth('status')
  assert.equal(status.code, 0, status.stderr)
  await node.removePod(pod.id)
}

async function disposing(clients: readonly Disposable[], work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } finally {
    for (const client of clients) client[Symbol.dispose]()
  }
}

function ended(calls: readonly RawCall[]): number {
  return calls.filter(({ end }) => end !== undefined).length
}

test('four clients that read none of four hundred replies of a MiB', async t => {
  await bounded(
    async node => {
      const big = await node.runPod({ annotations: { big: 'x'.repeat(MIB - 10) } })
      const clients = await Promise.all(
        [0, 1, 2, 3].map(() => RawClient.connect(node.daemon.socket, { initialWindowSize: 0 })),
      )
      await disposing(clients, async () => {
        const calls = clients.flatMap(raw =>
          Array.from({ length: 100 }, () => raw.call(`${RUNTIME}/ListPodSandbox`, EMPTY)),
        )
        // Of 128 MiB a fifth is left if all are served alike, a sixteenth if one comes after the other.
        await until('nearly all are reset', () => ended(calls) > 260)
        assert.ok(calls.every(({ end }) => end === undefined || end.reset === CALM))
        await othersAreServed(node)
      })
      await node.removePod(big.id)
    },
    text => t.diagnostic(text),
  )
})

test('a client that subscribes to events a hundred times, and reads none of those of 64', async t => {
  await bounded(
    async node => {
      const raw = await RawClient.connect(node.daemon.socket, { initialWindowSize: 0 })
      await disposing([raw], async () => {
        const calls = Array.from({ length: 100 }, () => raw.call(`${RUNTIME}/GetContainerEvents`, EMPTY))
        await until('those beyond 64 are refused', () => ended(calls) === 36)
        assert.deepEqual(calls.at(-1)!.end, {
          status: 8,
          message: '64 clients are subscribed to events already',
        })
        await othersAreServed(node)
        await othersAreServed(node)
      })
    },
    text => t.diagnostic(text),
  )
})

test('requests of 16 MiB that never end, on four connections', async t => {
  await bounded(
    async node => {
      const clients = await Promise.all([0, 1, 2, 3].map(() => RawClient.connect(node.daemon.socket)))
      await disposing(clients, async () => {
        const part = framed(Buffer.alloc(16 * MIB)).subarray(0, 15 * MIB)
        const calls = clients.flatMap(raw =>
          Array.from({ length: 8 }, () => {
            const call = raw.call(`${RUNTIME}/RunPodSandbox`)
            call.stream.write(part)
            return call
          }),
        )
        await until('those beyond the shares are refused', () => ended(calls) >= 24, 120_000)
        await othersAreServed(node)
      })
    },
    text => t.diagnostic(text),
  )
})

test('sixteen MiB of empty mounts', async t => {
  await bounded(
    async node => {
      using raw = await RawClient.connect(node.daemon.socket)
      const mounts = Buffer.alloc(15 * MIB, Buffer.from([(7 << 3) | 2, 0]))
      const length = [
        (mounts.length & 0x7f) | 0x80,
        ((mounts.length >> 7) & 0x7f) | 0x80,
        ((mounts.length >> 14) & 0x7f) | 0x80,
        mounts.length >> 21,
      ]
      const request = Buffer.concat([Buffer.from([(2 << 3) | 2, ...length]), mounts])
      const { status, message } = await raw.call(`${RUNTIME}/CreateContainer`, framed(request)).ended
      assert.deepEqual(
        [status, message],
        [8, 'the request has more than 50000 elements of lists and messages'],
      )
      await othersAreServed(node)
    },
    text => t.diagnostic(text),
  )
})

test('a thousand connections and a thousand calls that say nothing', async t => {
  await bounded(
    async node => {
      const sockets: Socket[] = []
      let closed = 0
      try {
        for (let i = 0; i < 1000; i++) {
          sockets.push(
            connect(node.daemon.socket)
              .on('error', () => undefined)
              .on('close', () => closed++),
          )
        }
        // Half of 512 for this process, of which the test's own client has one.
        await until('those beyond its share are closed', () => closed === 745)
        await othersAreServed(node)
      } finally {
        for (const socket of sockets) socket.destroy()
      }
      const clients = await Promise.all([0, 1].map(() => RawClient.connect(node.daemon.socket)))
      await disposing(clients, async () => {
        for (const raw of clients) for (let i = 0; i < 500; i++) raw.call(`${RUNTIME}/Version`)
        await othersAreServed(node)
      })
    },
    text => t.diagnostic(text),
  )
})

test('a client that asks and asks, and reads nothing from its socket', async t => {
  await bounded(
    async node => {
      // What the interface does not have is refused with a few headers, which no window holds back.
      const socket = await deafClient(node.daemon.socket, '/nobody/Knows', 20_000)
      try {
        await othersAreServed(node)
      } finally {
        socket.destroy()
      }
    },
    text => t.diagnostic(text),
  )
})

test('imports: two at once, sixteen wait, one more is refused', async () => {
  const { client } = kubelet().daemon
  const over = Promise.withResolvers<void>()
  // What is sent is no archive, and its end does not come before the test wants it.
  async function* archive(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(512, 'x')
    await over.promise
  }
  const failures: string[] = []
  const imports = Array.from({ length: 19 }, async () => {
    try {
      for await (const _ of client.importImages('', archive()));
    } catch (error) {
      failures.push((error as Error).message)
    }
  })
  await until('one is refused', () => failures.length > 0)
  assert.deepEqual(failures, ['imports, exports and checks of images: 16 operations are waiting already'])
  over.resolve()
  await Promise.all(imports)
  assert.equal(failures.filter(message => message.includes('are waiting already')).length, 1)
})
