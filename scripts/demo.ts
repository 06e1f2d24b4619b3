/**
 * What `npm run demo` shows: a pod with two containers, from a registry image, on the real kernel; a daemon that is
 * killed meanwhile; and that nothing is left. Every step is checked, so the demo fails where Berth does, and whatever
 * happens, everything it made is removed.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { get } from 'node:http'
import { BerthDaemon } from '../test/support/daemon.ts'
import { footprint } from '../test/support/footprint.ts'
import { busyboxImage } from '../test/support/images.ts'
import { Kubelet, type TestPod } from '../test/support/kubelet.ts'
import { until } from '../test/support/wait.ts'

const IMAGE = 'docker.io/library/hello:1'
const GREETING = 'hello from the pod'
const HOST_PORT = 8088
const SERVER = 'echo "serving on $(hostname -i)"; exec httpd -f -p 8080 -h /www'
const CLIENT = 'while sleep 0.2; do wget -q -O - http://127.0.0.1:8080/; done'

const onTerminal = process.stdout.isTTY === true
const heading = (text: string) => console.log(onTerminal ? `\n\x1b[1m== ${text}\x1b[0m` : `\n== ${text}`)
const show = (text: string) => console.log(text.trimEnd().replace(/^/gm, '   '))
const short = (id: string) => id.replace('sha256:', '').slice(0, 13)

function table(...rows: ReadonlyArray<readonly string[]>): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)))
  const line = (row: readonly string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')
  show(rows.map(row => line(row).trimEnd()).join('\n'))
}

class Demo {
  readonly #daemon: BerthDaemon
  readonly #kubelet: Kubelet

  constructor(daemon: BerthDaemon) {
    this.#daemon = daemon
    this.#kubelet = new Kubelet(daemon)
  }

  async run(): Promise<void> {
    heading('The daemon, in directories and a network namespace of its own')
    await this.#berth('status')
    await this.#pull()
    const pod = await this.#startPod()
    const [server, client] = await this.#startContainers(pod)
    await this.#look(server, client)
    heading('Where the time went')
    await this.#berth('timeline', `default/${pod.config.metadata?.name}`)
    await this.#crash(pod, [server, client])
    await this.#remove()
  }

  /** A command of the product, as an operator types it. */
  async #berth(...args: string[]): Promise<void> {
    show(`$ berth ${args.join(' ')}`)
    const { code, stdout, stderr } = await this.#daemon.berth(...args)
    show(stderr + stdout)
    assert.equal(code, 0, `berth ${args[0]} failed`)
  }

  async #pull(): Promise<void> {
    heading('An image, pulled over the OCI distribution API from a registry of this demo')
    const image = await busyboxImage({ files: { '/www/index.html': `${GREETING}\n` } })
    this.#daemon.registry.push(image, 'docker.io/library/hello', '1')
    await this.#berth('pull', IMAGE)
    const { images } = await this.#daemon.client.image('ListImages', {})
    assert.deepEqual(
      images.map(({ id }) => id),
      [image.id],
    )
    const rows = images.map(({ id, repo_tags, size }) => [
      repo_tags.join(),
      short(id),
      `${Number(size) >> 10} KiB`,
    ])
    table(['IMAGE', 'IMAGE ID', 'SIZE'], ...rows)
  }

  async #startPod(): Promise<TestPod> {
    heading('A pod with an address from CNI and a port of the node')
    const pod = await this.#kubelet.runPod({
      metadata: { name: 'web', uid: '6d4f1a1c', namespace: 'default', attempt: 0 },
      hostname: 'web',
      port_mappings: [{ container_port: 8080, host_port: HOST_PORT }],
    })
    const { state, network, metadata } = await this.#kubelet.podStatus(pod.id)
    assert.equal(state, 'SANDBOX_READY')
    const ip = network?.ip ?? ''
    assert.ok(ip.startsWith(this.#daemon.subnet))
    table(['POD ID', 'NAME', 'STATE', 'IP'], [short(pod.id), metadata!.name, 'Ready', ip])
    return pod
  }

  async #startContainers(pod: TestPod): Promise<[string, string]> {
    heading('Two containers in it: conmon and runc')
    const limits = { resources: { memory_limit_in_bytes: 64 << 20, cpu_shares: 256 } }
    const start = (name: string, script: string) =>
      this.#kubelet.run(pod, script, {
        metadata: { name, attempt: 0 },
        image: { image: IMAGE },
        log_path: `${name}.log`,
        linux: limits,
      })
    const ids: [string, string] = [await start('server', SERVER), await start('client', CLIENT)]
    await this.#showContainers(ids)
    await until('the server answers on a port of the node', () => answers(`http://127.0.0.1:${HOST_PORT}/`))
    show(`\n$ curl http://127.0.0.1:${HOST_PORT}/\n${GREETING}`)
    return ids
  }

  async #showContainers(ids: readonly string[]): Promise<void> {
    const rows = ids.map(async id => {
      const { metadata, state } = await this.#kubelet.status(id)
      assert.equal(state, 'CONTAINER_RUNNING')
      return [short(id), metadata!.name, 'Running', String(await this.#pidOf(id))]
    })
    table(['CONTAINER', 'NAME', 'STATE', 'PID'], ...(await Promise.all(rows)))
  }

  async #pidOf(id: string): Promise<number> {
    return (await this.#kubelet.containerInfo(id)).pid
  }

  async #look(server: string, client: string): Promise<void> {
    heading('Logs, a command inside, and usage')
    await this.#kubelet.prints(client, GREETING)
    for (const id of [server, client]) {
      const { metadata } = await this.#kubelet.status(id)
      const [first] = await this.#kubelet.logOf(id)
      show(`${metadata?.name} | ${first?.text}`)
    }
    const { code, stdout } = await this.#kubelet.exec(server, 'hostname; ps | grep -v ps')
    assert.equal(code, 0)
    show(`\n$ crictl exec -s ${short(server)} sh -c 'hostname; ps'\n${stdout}`)
    const { stats } = await this.#daemon.client.runtime('ListContainerStats', {})
    assert.equal(stats.length, 2)
    const rows = stats.map(({ attributes, cpu, memory }) => [
      attributes?.metadata?.name ?? '',
      `${Math.round(Number(cpu?.usage_core_nano_seconds?.value) / 1e6)} ms`,
      `${Number(memory?.working_set_bytes?.value) >> 10} KiB`,
    ])
    console.log()
    table(['NAME', 'CPU', 'MEMORY'], ...rows)
  }

  async #crash(pod: TestPod, ids: readonly string[]): Promise<void> {
    heading(`kill -9 ${this.#daemon.pid}: the daemon is gone, and started again`)
    const ip = await this.#kubelet.podIp(pod)
    const pids = await Promise.all(ids.map(id => this.#pidOf(id)))
    await this.#daemon.kill9()
    assert.ok(await answers(`http://127.0.0.1:${HOST_PORT}/`), 'the pod serves without the daemon')
    await this.#daemon.up()
    assert.equal(await this.#kubelet.podIp(pod), ip)
    assert.deepEqual(await Promise.all(ids.map(id => this.#pidOf(id))), pids)
    await this.#showContainers(ids)
    const lines = (await this.#kubelet.logOf(ids[1]!)).length
    await until('the log goes on', async () => (await this.#kubelet.logOf(ids[1]!)).length > lines)
    show(
      `\nthe same processes, the same address ${ip}, logs without a gap; it served while there was no daemon`,
    )
  }

  async #remove(): Promise<void> {
    heading('Everything removed, and the daemon stopped')
    const before = await footprint(this.#daemon)
    await this.#kubelet.removeAll()
    await this.#daemon.client.image('RemoveImage', { image: { image: IMAGE } })
    assert.deepEqual(await this.#daemon.leftovers(), [], 'nothing is left')
    assert.equal(await this.#daemon.stop(), 0)
    const after = await footprint(this.#daemon)
    const kinds = ['process', 'mount', 'cgroup', 'address', 'link', 'rule', 'pod row', 'container row']
    const count = (things: ReadonlySet<string>, kind: string) =>
      String([...things].filter(thing => thing.startsWith(`${kind} `)).length)
    table(['', 'BEFORE', 'NOW'], ...kinds.map(kind => [kind, count(before, kind), count(after, kind)]))
    assert.ok(
      kinds.every(kind => count(after, kind) === '0'),
      'nothing is left of the daemon either',
    )
  }
}

function answers(url: string): Promise<boolean> {
  return new Promise(resolve => {
    const request = get(url, async response => {
      resolve((await response.toArray()).join('') === `${GREETING}\n`)
    })
    request.on('error', () => resolve(false))
  })
}

const began = performance.now()
const daemon = await BerthDaemon.start({ label: 'demo' })
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => daemon[Symbol.asyncDispose]().finally(() => process.exit(130)))
}
try {
  await new Demo(daemon).run()
} catch (error) {
  console.error(`\nThe demo failed. The daemon's log:\n${daemon.log}`)
  throw error
} finally {
  await daemon[Symbol.asyncDispose]()
}
assert.ok(!existsSync(daemon.directory) && !existsSync(daemon.runRoot))
heading(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s; nothing is left on this machine`)
