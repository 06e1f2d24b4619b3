import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, FOREVER, Kubelet, type TestNode } from '../support/kubelet.ts'
import { otherBuild } from '../support/other-build.ts'
import { StubbornClient } from '../support/stubborn-client.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

/** How often the socket is tried: a handover is not measured finer than this. */
const PROBE_MS = 2

/** When a connection succeeded last and when first again, while somebody is replaced. */
class SocketProbe {
  readonly #path: string
  readonly #stop = new AbortController()
  readonly #running: Promise<void>
  #last = performance.now()
  /** ms without a daemon that takes connections: the longest time so far. */
  longest = 0
  readonly codes = new Set<string>()

  constructor(path: string) {
    this.#path = path
    this.#running = this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const code = await this.#knock()
      if (code === undefined) {
        this.longest = Math.max(this.longest, performance.now() - this.#last)
        this.#last = performance.now()
      } else this.codes.add(code)
      await sleep(PROBE_MS)
    }
  }

  #knock(): Promise<string | undefined> {
    const { promise, resolve } = Promise.withResolvers<string | undefined>()
    const socket = connect(this.#path, () => {
      socket.destroy()
      resolve(undefined)
    })
    socket.once('error', error => resolve((error as { code?: string }).code ?? 'error'))
    return promise
  }

  async end(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }
}

/** What kubelet does all the time, again and again until `stop`, each with its own connection. */
class Load {
  readonly rounds = { pods: 0, commands: 0, lists: 0, pulls: 0, events: 0 }
  readonly #clients: StubbornClient[] = []
  readonly #stop = new AbortController()
  readonly #work: Promise<unknown>

  constructor(witness: string) {
    this.#work = Promise.all([
      this.#repeat('pods', node => this.#onePod(node)),
      this.#repeat('pods', node => this.#onePod(node)),
      this.#repeat('commands', async node => {
        assert.deepEqual(await node.exec(witness, 'echo here'), { code: 0, stdout: 'here\n', stderr: '' })
      }),
      this.#repeat('lists', async node => {
        const { items } = await node.daemon.client.runtime('ListPodSandbox', {})
        assert.ok(items.length > 0, 'the pod that is always there')
        const { containers } = await node.daemon.client.runtime('ListContainers', { filter: { id: witness } })
        assert.deepEqual(
          containers.map(container => container.state),
          ['CONTAINER_RUNNING'],
        )
      }),
      this.#repeat('pulls', async node => {
        await node.pull('docker.io/library/slow:1')
        await node.daemon.client.image('RemoveImage', { image: { image: 'docker.io/library/slow:1' } })
      }),
      this.#watch(),
    ])
    this.#work.catch(() => this.#stop.abort())
  }

  /** Every loop has got further by a round, so through whatever was under way. */
  async progress(): Promise<void> {
    const before = { ...this.rounds }
    const names = ['pods', 'commands', 'lists', 'pulls'] as const
    await Promise.race([
      this.#work,
      until('all clients get on', () => names.every(name => this.rounds[name] > before[name] + 1), 240_000),
    ])
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#work
    for (const client of this.#clients) client[Symbol.dispose]()
  }

  get refusals(): Map<string, number> {
    const sum = new Map<string, number>()
    for (const [words, count] of this.#clients.flatMap(client => [...client.refusals])) {
      sum.set(words, (sum.get(words) ?? 0) + count)
    }
    return sum
  }

  #node(): Kubelet<TestNode> {
    const { socket, logs, cgroup, registry } = kubelet().daemon
    const client = new StubbornClient(socket)
    this.#clients.push(client)
    return new Kubelet({ client: client as unknown as TestNode['client'], logs, cgroup, registry })
  }

  async #repeat(
    name: keyof Load['rounds'],
    round: (node: Kubelet<TestNode>) => Promise<void>,
  ): Promise<void> {
    const node = this.#node()
    while (!this.#stop.signal.aborted) {
      await round(node)
      this.rounds[name]++
    }
  }

  async #onePod(node: Kubelet<TestNode>): Promise<void> {
    const pod = await node.runPod()
    const id = await node.run(pod, FOREVER)
    assert.equal((await node.exec(id, 'echo up')).stdout, 'up\n')
    const ended = await node.run(pod, 'exit 5')
    assert.equal((await node.exited(ended)).exit_code, 5)
    await node.remove(ended)
    await node.stop(id)
    assert.equal((await node.status(id)).exit_code, 137)
    await node.removePod(pod.id)
  }

  async #watch(): Promise<void> {
    const client = new StubbornClient(kubelet().daemon.socket)
    this.#clients.push(client)
    for await (const _ of client.events(this.#stop.signal)) this.rounds.events++
  }
}

test('another version takes over five times while kubelet is at work: every call is served in the end', async t => {
  const { daemon } = kubelet()
  daemon.registry.push(
    await busyboxImage({
      files: { '/big': Buffer.alloc(300_000, 'not compressible?') },
      compression: 'none',
    }),
    'docker.io/library/slow',
    '1',
  )
  daemon.registry.faults({ match: /GET .*\/slow\/blobs\//, delayMs: 200 })
  const directory = join(daemon.directory, 'other')
  mkdirSync(directory)
  const programs = [daemon.program, otherBuild(directory, '9.9.9')]
  const pod = await kubelet().runPod()
  const witness = await kubelet().run(pod, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done')
  const { pid } = await kubelet().containerInfo(witness)
  const load = new Load(witness)
  try {
    for (const [index, signal] of (['TERM', 'KILL', 'TERM', 'KILL', 'TERM'] as const).entries()) {
      await load.progress()
      const probe = new SocketProbe(daemon.socket)
      const began = performance.now()
      if (signal === 'TERM') assert.equal(await daemon.stop(), 0)
      else await daemon.kill9()
      const gone = performance.now()
      daemon.program = programs[(index + 1) % 2]!
      await daemon.up()
      const served = performance.now()
      await probe.end()
      const { runtime_version } = await daemon.client.runtime('Version', {})
      assert.equal(runtime_version === '9.9.9', index % 2 === 0, runtime_version)
      const ms = (from: number, to: number) => `${Math.round(to - from)} ms`
      t.diagnostic(
        `SIG${signal}: ended after ${ms(began, gone)}, served again ${ms(gone, served)} later; ` +
          `no connections (${[...probe.codes]}) for ${ms(0, probe.longest)}`,
      )
    }
    await load.progress()
  } finally {
    await load.stop()
    daemon.program = programs[0]!
  }
  t.diagnostic(JSON.stringify(load.rounds))
  for (const [words, count] of load.refusals) t.diagnostic(`${count} × ${words}`)
  assert.ok(load.rounds.events > 0)
  assert.equal((await kubelet().containerInfo(witness)).pid, pid)
  const numbers = (await kubelet().logOf(witness)).map(line => line.text)
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => String(index + 1)),
    'its log has no gap',
  )
  await kubelet().pull(BUSYBOX)
  await daemon.stop()
  await daemon.up()
})
