/**
 * Calls that were given up while something slow was at work, and made again, as kubelet does: each has one effect and
 * one answer, and nothing is left of it.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { beforeEach, test } from 'node:test'
import type { BerthClient } from '../../src/cri/client.ts'
import { failure } from '../support/cni.ts'
import { busyboxImage } from '../support/images.ts'
import { ImpatientClients } from '../support/impatience.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

/** ms after which the same call is given up each time, while what is slow is held. */
const PATIENCE = [1, 5, 20, 100, 400]

const files = { held: '', calls: '' }

/** Shell: notes the verb, and waits while there is a file that holds it. */
const held = (verb: string) =>
  `echo ${verb} >> ${files.calls}; while [ -e ${files.held}-${verb} ]; do sleep 0.05; done`

/** Writes a program that becomes another one when nothing holds the first of these arguments that it has. */
function program(path: string, becomes: string, verbs: readonly string[]): string {
  const cases = verbs.map(verb => `${verb}) ${held(verb)};;`).join('\n')
  const script = `#!/bin/sh\nfor argument; do case "$argument" in\n${cases}\nesac; done\nexec ${becomes} "$@"\n`
  writeFileSync(path, script, { mode: 0o755 })
  return path
}

const kubelet = useDaemon({
  config: directory => {
    files.held = join(directory, 'held')
    files.calls = join(directory, 'calls')
    const runtime = program(join(directory, 'slow-runc'), '/usr/sbin/runc', ['create', 'start', 'delete'])
    const monitor = program(join(directory, 'slow-conmon'), '/usr/bin/conmon', ['--persist-dir'])
    return `[crio.runtime.runtimes.slow]\nruntime_path = "${runtime}"\nmonitor_path = "${monitor}"\n`
  },
})

beforeEach(() => {
  const { daemon } = kubelet()
  writeFileSync(files.calls, '')
  const plugin = daemon.networkPlugin(
    'slow',
    `case $CNI_COMMAND in ADD) ${held('ADD')};; DEL) ${held('DEL')};; esac`,
  )
  daemon.configureNetwork({ plugins: [plugin] })
})

function hold(verb: string): Disposable {
  const file = `${files.held}-${verb}`
  writeFileSync(file, '')
  return { [Symbol.dispose]: () => rmSync(file, { force: true }) }
}

/** How often the slow program was started with this verb. */
function calls(verb: string): number {
  return readFileSync(files.calls, 'utf8')
    .split('\n')
    .filter(line => line === verb).length
}

/** Makes the call with one client after the other, each of which has to give it up. */
async function givenUp(call: (client: BerthClient) => Promise<unknown>): Promise<void> {
  using impatient = await ImpatientClients.connect(kubelet().daemon.socket, PATIENCE)
  for (const client of impatient.all) await assert.rejects(call(client), failure('deadline'))
}

/** Processes of the slow programs that have both words in their command line. */
function running(...words: string[]): number {
  const commands = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(pid => commandOf(pid))
  return commands.filter(command => command.includes('/slow-') && words.every(word => command.includes(word)))
    .length
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // it has ended
  }
}

async function pods() {
  return (await kubelet().daemon.client.runtime('ListPodSandbox', {})).items
}

async function containers() {
  return (await kubelet().daemon.client.runtime('ListContainers', {})).containers
}

function addresses(): string[] {
  return readdirSync(join(kubelet().daemon.ipamDir, 'pods')).filter(isIPv4)
}

test('RunPodSandbox with a slow network: one pod, one attachment, one answer', async () => {
  const config = kubelet().podConfig({ port_mappings: [{ container_port: 80, host_port: 18090 }] })
  let made: Promise<string>
  {
    using _held = hold('ADD')
    await givenUp(async client => {
      // kubelet looks first: there is no pod that it could have another attempt of.
      assert.deepEqual(await pods(), [])
      await client.runtime('RunPodSandbox', { config })
    })
    made = kubelet().runPodAs(config)
  }
  const id = await made
  assert.deepEqual(
    (await pods()).map(pod => [pod.id, pod.state]),
    [[id, 'SANDBOX_READY']],
  )
  assert.equal(calls('ADD'), 1)
  assert.deepEqual(addresses(), [(await kubelet().podStatus(id)).network?.ip])
  await assert.rejects(kubelet().runPodAs(config), failure('exists', new RegExp(id)))
  const next = { ...config, metadata: { ...config.metadata, attempt: 1 } }
  await kubelet().stopPod(id)
  const second = await kubelet().runPodAs(next)
  assert.equal((await kubelet().podStatus(second)).state, 'SANDBOX_READY')
  await Promise.all([id, second].map(pod => kubelet().removePod(pod)))
  assert.equal(calls('DEL') > 0, true)
})

test('RunPodSandbox that nobody waited for: kubelet finds the pod in its list, and the same call gets it once', async () => {
  const config = kubelet().podConfig()
  {
    using _held = hold('ADD')
    await givenUp(client => client.runtime('RunPodSandbox', { config }))
  }
  const [pod] = await until('the pod comes up', async () => {
    const found = await pods()
    return found.length > 0 && found
  })
  assert.equal(pod!.state, 'SANDBOX_READY')
  assert.equal(await kubelet().runPodAs(config), pod!.id)
  await assert.rejects(kubelet().runPodAs(config), failure('exists', new RegExp(pod!.id)))
  assert.equal(calls('ADD'), 1)
  assert.equal(addresses().length, 1)
  assert.equal(await kubelet().outputOf({ id: pod!.id, config }, 'hostname'), config.hostname)
})

test('attempts side by side while the network is slow: each is a pod of its own', async () => {
  const config = kubelet().podConfig()
  const attempts = [0, 1, 2].map(attempt => ({ ...config, metadata: { ...config.metadata, attempt } }))
  let made: Promise<string>[]
  {
    using _held = hold('ADD')
    for (const config of attempts) await givenUp(client => client.runtime('RunPodSandbox', { config }))
    made = attempts.map(attempt => kubelet().runPodAs(attempt))
  }
  const ids = await Promise.all(made)
  const ips = await Promise.all(ids.map(async id => (await kubelet().podStatus(id)).network?.ip))
  assert.equal(new Set(ips).size, 3)
  assert.equal(calls('ADD'), 3)
  assert.deepEqual(addresses().sort(), ips.sort())
})

test('StopPodSandbox and RemovePodSandbox with a slow network: the address is given back once, then all is gone', async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  let removed: Promise<void>
  {
    using _held = hold('DEL')
    await givenUp(client => client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id }))
    assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
    await givenUp(client => client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id }))
    assert.deepEqual(
      (await pods()).map(({ id }) => id),
      [pod.id],
    )
    removed = kubelet().removePod(pod.id)
  }
  await removed
  assert.equal(calls('DEL'), 1)
  assert.deepEqual(await pods(), [])
  assert.deepEqual(addresses(), [])
  await kubelet().removePod(pod.id)
})

test('RemovePodSandbox that nobody waited for goes on to its end', async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  {
    using _held = hold('DEL')
    await givenUp(client => client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id }))
  }
  await until('the pod is gone', async () => (await pods()).length === 0)
  assert.equal(calls('DEL'), 1)
})

async function slowPod(): Promise<TestPod> {
  const pod = await kubelet().runPod({}, 'slow')
  writeFileSync(files.calls, '')
  return pod
}

test('CreateContainer with a slow runtime: one container, one answer', async () => {
  const pod = await slowPod()
  const config = kubelet().containerConfig(pod, 'echo here')
  const request = { pod_sandbox_id: pod.id, config, sandbox_config: pod.config }
  let made: Promise<string>
  {
    using _held = hold('create')
    await givenUp(async client => {
      assert.deepEqual(await containers(), [])
      await client.runtime('CreateContainer', request)
    })
    made = kubelet().createAs(pod, config)
  }
  const id = await made
  assert.equal(calls('create'), 1)
  assert.deepEqual(
    (await containers()).map(found => [found.id, found.state]),
    [[id, 'CONTAINER_CREATED']],
  )
  await assert.rejects(kubelet().createAs(pod, config), failure('exists', new RegExp(id)))
  await kubelet().start(id)
  await kubelet().exited(id)
  assert.deepEqual(
    (await kubelet().logOf(id)).map(({ text }) => text),
    ['here'],
  )
})

test('CreateContainer that nobody waited for: the next attempt is one more, and the first can be removed', async () => {
  const pod = await slowPod()
  const config = kubelet().containerConfig(pod, FOREVER)
  {
    using _held = hold('create')
    await givenUp(client => client.runtime('CreateContainer', { pod_sandbox_id: pod.id, config }))
  }
  const [first] = await until('the container is there', async () => {
    const found = await containers()
    return found.length > 0 && found
  })
  assert.equal(first!.state, 'CONTAINER_CREATED')
  const second = await kubelet().createAs(pod, { ...config, metadata: { ...config.metadata, attempt: 1 } })
  await kubelet().start(second)
  await kubelet().remove(first!.id)
  assert.deepEqual(
    (await containers()).map(found => [found.id, found.state]),
    [[second, 'CONTAINER_RUNNING']],
  )
})

test('a pod that is removed while the runtime creates a container in it: both go', async () => {
  const pod = await slowPod()
  const config = kubelet().containerConfig(pod, FOREVER)
  let removed: Promise<void>
  {
    using _held = hold('create')
    await givenUp(client => client.runtime('CreateContainer', { pod_sandbox_id: pod.id, config }))
    await givenUp(client => client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id }))
    removed = kubelet().removePod(pod.id)
    await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', /not ready/))
  }
  await removed
  assert.deepEqual(await containers(), [])
})

test('StartContainer with a slow runtime: it starts once, and who asks again hears that it did', async () => {
  const pod = await slowPod()
  const id = await kubelet().create(pod, 'echo started; sleep 100000')
  let started: Promise<void>
  {
    using _held = hold('start')
    await givenUp(client => client.runtime('StartContainer', { container_id: id }))
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_CREATED')
    started = kubelet().start(id)
  }
  await started
  assert.equal(calls('start'), 1)
  await kubelet().prints(id, 'started')
  assert.equal((await kubelet().logOf(id)).length, 1)
  await assert.rejects(kubelet().start(id), failure('precondition', /running/))
})

test('StartContainer that nobody waited for: the same call succeeds once', async () => {
  const pod = await slowPod()
  const id = await kubelet().create(pod, FOREVER)
  {
    using _held = hold('start')
    await givenUp(client => client.runtime('StartContainer', { container_id: id }))
  }
  await until('it runs', async () => (await kubelet().status(id)).state === 'CONTAINER_RUNNING')
  await kubelet().start(id)
  await assert.rejects(kubelet().start(id), failure('precondition', /running/))
  assert.equal(calls('start'), 1)
})

test('StopContainer of one that does not listen: one signal, and the last caller gets its end', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, "trap 'echo signal' TERM; echo ready; while :; do sleep 0.05; done")
  await kubelet().prints(id, 'ready')
  await givenUp(client => client.runtime('StopContainer', { container_id: id, timeout: 100 }))
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  await kubelet().stop(id)
  assert.equal((await kubelet().status(id)).exit_code, 137)
  assert.deepEqual(
    (await kubelet().logOf(id)).map(({ text }) => text),
    ['ready', 'signal'],
  )
})

test('RemoveContainer with a slow runtime: gone, and once more is as good', async () => {
  const pod = await slowPod()
  const id = await kubelet().run(pod, FOREVER)
  let removed: Promise<void>
  {
    using _held = hold('delete')
    await givenUp(client => client.runtime('RemoveContainer', { container_id: id }))
    removed = kubelet().remove(id)
  }
  await removed
  assert.deepEqual(await containers(), [])
  await kubelet().remove(id)
})

test('PullImage from a slow registry: given up and asked for again, the image comes', async () => {
  const { daemon } = kubelet()
  const { registry } = daemon
  const image = await busyboxImage({ files: { '/marker': 'of the slow one' }, labels: { slow: 'yes' } })
  registry.push(image, 'docker.io/library/slow', '1')
  const name = 'docker.io/library/slow:1'
  const layer = image.layers.at(-1)!.blob
  registry.faults({ match: new RegExp(`^GET .*${layer.digest}`), delayMs: 3000 })
  await givenUp(client => client.image('PullImage', { image: { image: name } }))
  assert.deepEqual((await daemon.client.image('ImageStatus', { image: { image: name } })).image, null)
  const ids = await Promise.all([kubelet().pull(name), kubelet().pull(name)])
  assert.deepEqual(ids, [image.id, image.id])
  assert.equal(
    await kubelet().outputOf(await kubelet().runPod(), 'cat /marker', { image: { image: name } }),
    'of the slow one',
  )
  await daemon.client.image('RemoveImage', { image: { image: name } })
})

test('SIGKILL while the runtime starts a container: the same call waits for that start, and gets its answer', async () => {
  const { daemon } = kubelet()
  const pod = await slowPod()
  const [id, other] = [
    await kubelet().create(pod, 'echo started; sleep 100000'),
    await kubelet().create(pod, FOREVER),
  ]
  let made: Promise<void>[]
  {
    using _held = hold('start')
    for (const container_id of [id, other])
      await givenUp(client => client.runtime('StartContainer', { container_id }))
    await daemon.restart()
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_CREATED')
    assert.equal(running('start', id), 1)
    await givenUp(client => client.runtime('StartContainer', { container_id: id }))
    made = [kubelet().start(id), kubelet().remove(other)]
  }
  await Promise.all(made)
  await kubelet().prints(id, 'started')
  assert.deepEqual(
    (await containers()).map(found => [found.id, found.state]),
    [[id, 'CONTAINER_RUNNING']],
  )
  assert.equal((await kubelet().logOf(id)).length, 1)
  await assert.rejects(kubelet().start(id), failure('precondition', /running/))
})

test('SIGKILL while a monitor has not begun: it does not create the container afterwards', async () => {
  const { daemon } = kubelet()
  const pod = await slowPod()
  const config = kubelet().containerConfig(pod, FOREVER)
  {
    using _held = hold('--persist-dir')
    await givenUp(client => client.runtime('CreateContainer', { pod_sandbox_id: pod.id, config }))
    await until('the monitor is being started', () => calls('--persist-dir') === 1)
    await daemon.restart()
    assert.equal(running('--persist-dir', pod.config.metadata!.name!), 0)
  }
  const id = await kubelet().createAs(pod, config)
  await kubelet().start(id)
  assert.deepEqual(
    (await containers()).map(found => [found.id, found.state]),
    [[id, 'CONTAINER_RUNNING']],
  )
})
