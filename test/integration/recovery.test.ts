import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { BerthClient } from '../../src/cri/client.ts'
import { differences } from '../support/check.ts'
import { failure } from '../support/cni.ts'
import { command } from '../support/command.ts'
import { crashed } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { FOREVER } from '../support/kubelet.ts'
import { processesWith, uniqueSleep } from '../support/runtime-host.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

/** Everything that clients see of pods and containers. */
async function everything() {
  const { client } = kubelet().daemon
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  return {
    pods: await Promise.all(items.map(({ id }) => kubelet().podStatus(id))),
    containers: await Promise.all(containers.map(({ id }) => kubelet().status(id))),
  }
}

const labels = { 'io.kubernetes.pod.name': 'web', odd: 'ü "x"' }
const annotations = { 'io.kubernetes.container.hash': 'a1b2', text: 'two\nlines' }

test('16: SIGKILL with pods running: the same ids, states, addresses and processes, and all of it works', async () => {
  const pod = await kubelet().runPod({
    labels,
    annotations,
    port_mappings: [{ container_port: 80, host_port: 18070 }],
  })
  const shared = await kubelet().runPodWith({ pid: 'POD' })
  const running = await kubelet().run(pod, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done', {
    labels,
    annotations,
  })
  const ended = await kubelet().run(pod, 'exit 3')
  const created = await kubelet().create(pod, 'exit 4')
  const member = await kubelet().run(shared, FOREVER)
  await kubelet().exited(ended)
  await kubelet().prints(running, '3')
  const before = await everything()
  const { pid } = await kubelet().containerInfo(running)
  await kubelet().daemon.restart()
  assert.deepEqual(await everything(), before)
  assert.equal((await kubelet().containerInfo(running)).pid, pid)
  assert.equal((await kubelet().exec(running, 'echo alive')).stdout, 'alive\n')
  assert.match((await kubelet().exec(member, 'cat /proc/1/cmdline')).stdout, /catatonit/)
  const lines = (await kubelet().logOf(running)).length
  await until('the log goes on', async () => (await kubelet().logOf(running)).length > lines)
  const numbers = (await kubelet().logOf(running)).map(line => line.text)
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => String(index + 1)),
    'without a gap',
  )
  await kubelet().start(created)
  assert.equal((await kubelet().exited(created)).exit_code, 4)
  await kubelet().stop(running)
  assert.equal((await kubelet().status(running)).exit_code, 137)
  await kubelet().run(pod, FOREVER)
})

test('what ends while no daemon is there is found out', async () => {
  const { daemon } = kubelet()
  const signal = join(daemon.directory, 'signal')
  mkdirSync(signal)
  const pod = await kubelet().runPod()
  const mounts = [{ container_path: '/signal', host_path: signal }]
  const wait = 'until [ -e /signal/go ]; do sleep 0.05; done'
  const limit = { memory_limit_in_bytes: 15 << 20, memory_swap_limit_in_bytes: 15 << 20 }
  const hungry = `${wait}; exec dd if=/dev/zero of=/dev/null bs=40M`
  const ids = await Promise.all([
    kubelet().run(pod, `${wait}; echo last words; exit 6`, { mounts }),
    kubelet().run(pod, FOREVER),
    kubelet().run(pod, hungry, { mounts, linux: { resources: limit } }),
  ])
  const pids = await Promise.all(ids.map(async id => (await kubelet().containerInfo(id)).pid))
  const log = (await kubelet().status(ids[0])).log_path
  await daemon.kill9()
  writeFileSync(join(signal, 'go'), '')
  process.kill(pids[1]!, 'SIGKILL')
  for (const pid of pids) await until('it ends', () => !existsSync(`/proc/${pid}`))
  await daemon.up()
  const ends = await Promise.all(ids.map(id => kubelet().exited(id)))
  assert.deepEqual(
    ends.map(({ exit_code, reason }) => [exit_code, reason]),
    [
      [6, 'Error'],
      [137, 'Error'],
      [137, 'OOMKilled'],
    ],
  )
  for (const { started_at, finished_at } of ends) assert.ok(BigInt(finished_at) >= BigInt(started_at))
  assert.match(readFileSync(log, 'utf8'), /last words/)
})

/** Starts a daemon that kills itself at this point of the call, then one that doesn't. */
async function dieAt(point: string, call: () => Promise<unknown>): Promise<void> {
  const { daemon } = kubelet()
  await daemon.restart({ BERTH_FAULTS: `kill@${point}` })
  await assert.rejects(call(), failure('unavailable'))
  await crashed(daemon)
  await daemon.up()
}

async function noPodLeft(): Promise<void> {
  // With no pods this only removes the cgroups that the client named.
  await kubelet().removeAll()
  assert.deepEqual(await kubelet().daemon.leftovers(), [])
}

for (const point of [
  'state.commit',
  'os.write-file#2',
  'os.pin-namespaces',
  'network.cni-add',
  'network.cni-add#2',
  'os.write-file#4',
  'runtime.write-bundle',
  'runtime.release-monitor',
  'runtime.write-processes',
  'state.commit#2',
]) {
  test(`SIGKILL in RunPodSandbox, at ${point}: nothing is left, and the same call succeeds`, async () => {
    const security_context = { namespace_options: { pid: 'POD' } } as const
    const config = kubelet().podConfig({ port_mappings: [{ container_port: 80, host_port: 18060 }] })
    const shared = { ...config, linux: { ...config.linux, security_context } }
    await dieAt(point, () => kubelet().runPodAs(shared))
    assert.deepEqual((await kubelet().daemon.client.runtime('ListPodSandbox', {})).items, [])
    await noPodLeft()
    const id = await kubelet().runPodAs(shared)
    assert.equal((await kubelet().podStatus(id)).state, 'SANDBOX_READY')
    await kubelet().removePod(id)
  })
}

test('SIGKILL while a network plugin is at work: what it does afterwards is not left', async () => {
  const { daemon } = kubelet()
  const held = join(daemon.directory, 'held')
  mkdirSync(held)
  const mark = `${held}/$CNI_CONTAINERID`
  const slow = daemon.networkPlugin(
    'slow',
    `[ "$CNI_COMMAND" = ADD ] && { touch ${held}/begun; sleep 2; touch ${mark}; }; [ "$CNI_COMMAND" = DEL ] && rm -f ${mark}`,
  )
  daemon.configureNetwork({ plugins: [slow] })
  const outcome = assert.rejects(kubelet().runPod(), failure('unavailable'))
  await until('the plugin is at work', () => existsSync(join(held, 'begun')))
  await daemon.restart()
  await outcome
  await noPodLeft()
  const plugin = join(daemon.cniPluginDir, 'slow')
  await until('no plugin is at work', async () => (await command('pgrep', ['-f', plugin])).code === 1)
  assert.deepEqual(readdirSync(held), ['begun'])
})

for (const point of [
  'state.commit',
  'storage.make-upper',
  'os.mount-overlay',
  'os.make-cgroup#4',
  'runtime.write-bundle',
  'runtime.release-monitor',
  'runtime.write-processes',
  'state.commit#2',
]) {
  test(`SIGKILL in CreateContainer, at ${point}: the same call succeeds, once`, async () => {
    const pod = await kubelet().runPod()
    const neighbour = await kubelet().run(pod, FOREVER)
    const config = kubelet().containerConfig(pod, 'echo here')
    await dieAt(point, () => kubelet().createAs(pod, config))
    const list = async () => (await kubelet().daemon.client.runtime('ListContainers', {})).containers
    assert.deepEqual(
      (await list()).map(({ id, state }) => [id, state]),
      [[neighbour, 'CONTAINER_RUNNING']],
    )
    const id = await kubelet().createAs(pod, config)
    assert.equal((await list()).length, 2)
    await kubelet().start(id)
    assert.equal((await kubelet().exited(id)).exit_code, 0)
    assert.deepEqual(
      (await kubelet().logOf(id)).map(line => line.text),
      ['here'],
    )
  })
}

for (const point of [
  'registry.get-manifest#2',
  'registry.get-blob#2',
  'storage.unpack#2',
  'state.commit',
  'os.syncfs',
  'storage.rename-layer',
  'state.commit#2',
  'storage.rename-layer#2',
  'state.commit=image',
]) {
  test(`SIGKILL in PullImage, at ${point}: the next pull succeeds`, async () => {
    const { daemon } = kubelet()
    const file = (name: string) => [{ name, content: `${name} of this image` }]
    const image = await busyboxImage({ extraLayers: [file('one'), file('two')], labels: { point } })
    daemon.registry.push(image, 'quay.io/killed/image', '1')
    const name = 'quay.io/killed/image:1'
    await dieAt(point, () => kubelet().pull(name))
    const absent = await daemon.client.image('ImageStatus', { image: { image: name } })
    assert.equal(absent.image, null)
    assert.deepEqual(await daemon.leftovers(), [])
    assert.equal(await kubelet().pull(name), image.id)
    const pod = await kubelet().runPod()
    const files = await kubelet().outputOf(pod, 'cat /one; echo; cat /two', { image: { image: name } })
    assert.equal(files, 'one of this image\ntwo of this image')
    await daemon.client.image('RemoveImage', { image: { image: name } })
  })
}

test('SIGKILL between the start of a container and its record: it runs', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().create(pod, FOREVER)
  await dieAt('state.commit', () => kubelet().start(id))
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.ok(BigInt((await kubelet().status(id)).started_at) > 0n)
  assert.equal((await kubelet().exec(id, 'echo runs')).stdout, 'runs\n')
})

for (const point of [
  'state.commit',
  'network.cni-del',
  'network.cni-del#2',
  'state.commit#2',
  'os.remove-pins',
]) {
  test(`SIGKILL in StopPodSandbox, at ${point}: stopping it again succeeds`, async () => {
    const pod = await kubelet().runPod({ port_mappings: [{ container_port: 80, host_port: 18061 }] })
    await dieAt(point, () => kubelet().stopPod(pod.id))
    await kubelet().stopPod(pod.id)
    assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
    assert.deepEqual(await kubelet().daemon.leftovers(/^(address|link|rule|mount)/), [])
  })
}

test('SIGKILL in RemovePodSandbox: the pod is gone after the start', async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  await kubelet().stopPod(pod.id)
  await dieAt('state.commit#3', () => kubelet().removePod(pod.id))
  await kubelet().removePod(pod.id)
  await noPodLeft()
})

test('31: a call that was given up, a daemon that died, the same call again: one pod, its id, then a duplicate', async () => {
  const { daemon } = kubelet()
  const slow = daemon.networkPlugin('slow', '[ "$CNI_COMMAND" = ADD ] && sleep 1')
  daemon.configureNetwork({ plugins: [slow] })
  const config = kubelet().podConfig()
  const protoDir = join(import.meta.dirname, '../../proto')
  using impatient = await BerthClient.connect(daemon.socket, protoDir, { timeoutMs: 200 })
  await assert.rejects(impatient.runtime('RunPodSandbox', { config }), failure('deadline'))
  const pods = async () => (await daemon.client.runtime('ListPodSandbox', {})).items
  await until('the pod comes up', async () => (await pods()).length === 1)
  const [made] = await pods()
  await daemon.restart()
  assert.equal(await kubelet().runPodAs(config), made?.id)
  assert.equal((await pods()).length, 1)
  await until('the answer is on record', async () => {
    const outcome = await kubelet()
      .runPodAs(config)
      .catch((error: Error) => error.message)
    return outcome.includes('exists')
  })
  await daemon.restart()
  await assert.rejects(kubelet().runPodAs(config), failure('exists', new RegExp(made!.id)))
})

test('16: after a reboot pods are not ready and containers have exited, with all that was known of them', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod({ labels, annotations })
  const running = await kubelet().run(pod, 'echo before; sleep 100000', { labels, annotations })
  const ended = await kubelet().run(pod, 'exit 3')
  const created = await kubelet().create(pod, FOREVER)
  await kubelet().exited(ended)
  await kubelet().prints(running, 'before')
  const before = await kubelet().status(running)
  await daemon.reboot()
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
  const after = await kubelet().status(running)
  assert.deepEqual([after.state, after.exit_code], ['CONTAINER_EXITED', 255])
  assert.notEqual(after.reason, '')
  for (const field of ['labels', 'annotations', 'log_path', 'created_at', 'image_ref', 'metadata'] as const) {
    assert.deepEqual(after[field], before[field])
  }
  assert.match(readFileSync(after.log_path, 'utf8'), /before/)
  assert.equal((await kubelet().status(ended)).exit_code, 3)
  assert.equal((await kubelet().status(created)).state, 'CONTAINER_EXITED')
  const again = { ...pod.config, metadata: { ...pod.config.metadata, attempt: 1 } }
  const next = await kubelet().runPodAs(again)
  assert.equal((await kubelet().podStatus(next)).state, 'SANDBOX_READY')
  assert.equal(await kubelet().outputOf({ id: next, config: again }, 'echo up again'), 'up again')
  await kubelet().removePod(pod.id)
  assert.equal(existsSync(after.log_path), true)
})

test('an end that only the monitor has written down is known after a reboot, with its reason', async () => {
  const { daemon } = kubelet()
  const signal = join(daemon.directory, 'signal-of-reboot')
  mkdirSync(signal)
  const pod = await kubelet().runPod()
  const mounts = [{ container_path: '/signal', host_path: signal }]
  const wait = 'until [ -e /signal/go ]; do sleep 0.05; done'
  const limit = { memory_limit_in_bytes: 15 << 20, memory_swap_limit_in_bytes: 15 << 20 }
  const ids = await Promise.all([
    kubelet().run(pod, `${wait}; exit 6`, { mounts }),
    kubelet().run(pod, `${wait}; exec dd if=/dev/zero of=/dev/null bs=40M`, {
      mounts,
      linux: { resources: limit },
    }),
  ])
  const processes = await Promise.all(ids.map(async id => (await kubelet().containerInfo(id)).pid))
  await daemon.kill9()
  writeFileSync(join(signal, 'go'), '')
  for (const pid of processes) await until('it ends', () => !existsSync(`/proc/${pid}`))
  for (const id of ids) {
    const exit = join(daemon.root, 'containers', id, 'exit')
    await until('the monitor has written it down', () => existsSync(exit))
  }
  await daemon.reboot()
  const ends = await Promise.all(ids.map(id => kubelet().status(id)))
  assert.deepEqual(
    ends.map(({ exit_code, reason }) => [exit_code, reason]),
    [
      [6, 'Error'],
      [137, 'OOMKilled'],
    ],
  )
  for (const { started_at, finished_at } of ends) assert.ok(BigInt(finished_at) >= BigInt(started_at))
  await kubelet().removePod(pod.id)
})

/** Processes with exactly this command line. */
function running(command: string): number {
  return processesWith(command).length
}

test('a command that runs when the daemon is killed is ended by the next one, at whatever step it was', async () => {
  const { daemon } = kubelet()
  const id = await kubelet().run(await kubelet().runPod(), FOREVER)
  // A shell that keeps none of its clients' signals, with a child in a session of its own.
  const script = (command: string) => `trap '' HUP PIPE; setsid ${command} & ${command}; true`
  const plain = uniqueSleep()
  const dropped = assert.rejects(kubelet().exec(id, script(plain)))
  await until('it runs', () => running(plain) === 2)
  await daemon.kill9()
  await dropped
  assert.equal(running(plain), 2)
  await daemon.up()
  assert.equal(running(plain), 0)
  // Before the runtime is started; before it is known which process it has started.
  for (const point of ['runtime.write-process#2', 'runtime.write-process#3']) {
    const early = uniqueSleep()
    await dieAt(point, () => kubelet().exec(id, script(early)))
    assert.equal(running(early), 0)
  }
  assert.equal((await kubelet().exec(id, 'echo alive')).stdout, 'alive\n')
})

test('a start that could not be recorded: the container runs on, and the next start is told so', async () => {
  const { daemon } = kubelet()
  const id = await kubelet().create(await kubelet().runPod(), FOREVER)
  await daemon.restart({ BERTH_FAULTS: 'fail@state.commit=container running:ENOSPC' })
  await assert.rejects(kubelet().start(id), /injected fault/)
  const { pid } = await kubelet().containerInfo(id)
  await kubelet()
    .start(id)
    .catch(() => undefined)
  process.kill(pid, 0)
  await daemon.restart()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().containerInfo(id)).pid, pid)
})

test('after all of this the node is as its rows say, and stays so through a restart', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod({ port_mappings: [{ container_port: 80, host_port: 18071 }] })
  await kubelet().run(pod, FOREVER)
  await kubelet().exited(await kubelet().run(pod, 'exit 3'))
  assert.deepEqual(await differences(daemon), [])
  await daemon.restart()
  assert.deepEqual(await differences(daemon), [])
})
