import assert from 'node:assert/strict'
import { existsSync, readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import type { BerthClient } from '../../src/cri/client.ts'
import type { NamespaceOption } from '../../src/cri/generated/runtime/v1/NamespaceOption.ts'
import type { PodSandboxConfig } from '../../src/cri/generated/runtime/v1/PodSandboxConfig.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { findTools } from '../support/tools.ts'
import { until } from '../support/wait.ts'
import { pushImage } from './push-image.ts'
import { repair } from './repair.ts'
import type { FaultRig } from './rig.ts'
import { startAfterKill } from './start.ts'
import { wipe } from './wipe.ts'

/** One try of an operation, on things of its own. */
export type Attempt = {
  /** The call starts the daemon, which may give up; the next start has no excuse. */
  readonly isStart?: true
  /** The call ends the daemon and works in its place. */
  readonly isOffline?: true
  /** Until the call succeeds, there is what belongs to nobody. */
  readonly isRepair?: true
  /** The call, the same each time. */
  call(client: BerthClient): Promise<void>
  /** The call again, where a client that finds out what the first one did would send another one, or none. */
  retry?(): Promise<void>
  /** Of a kubelet that has lost all memory of the call: it looks at the lists and makes what is missing. */
  relist?(): Promise<void>
  /** What the call was to bring about. */
  check(): Promise<void>
}

export type Operation = {
  readonly name: string
  /** Why it cannot be tried here. */
  readonly skip: string | false
  /** A client that has lost all memory of the call would send another one. */
  readonly relists: boolean
  prepare(rig: FaultRig): Promise<Attempt>
}

/** The operations that have no daemon to call. */
export const START = 'a start after a kill'
export const WIPE = 'berth wipe --containers'

export const OPERATIONS: readonly Operation[] = [
  operation('RunPodSandbox', rig => runPod(rig, {})),
  operation('RunPodSandbox with host ports', rig =>
    runPod(rig, { port_mappings: [{ container_port: 80, host_port: 18_060 }] }),
  ),
  operation('RunPodSandbox with a shared PID namespace', rig => runPod(rig, security({ pid: 'POD' }))),
  operation('RunPodSandbox below the default cgroup', rig =>
    runPod(rig, { linux: { ...security({}).linux, cgroup_parent: '', resources: { cpu_shares: 512 } } }),
  ),
  operation(
    'RunPodSandbox with a user namespace',
    rig => runPod(rig, security({ userns_options: USER }), 'mapping'),
    findTools() === undefined ? 'no runc that maps mounts was built: Go was missing at set-up' : false,
  ),
  operation('CreateContainer', createContainer),
  operation('CreateContainer in a user namespace', rig => createContainer(rig, USER), userSkip()),
  operation('StartContainer', startContainer),
  operation('StopContainer', rig => stopContainer(rig, FOREVER, 0, 137)),
  operation('StopContainer in time', rig =>
    stopContainer(rig, 'trap "exit 5" TERM; sleep 100000 & echo set; wait', 20, 5),
  ),
  operation('RemoveContainer that runs', rig => removeContainer(rig, FOREVER)),
  operation('RemoveContainer that has exited', rig => removeContainer(rig, 'exit 3')),
  operation('StopPodSandbox', rig => stopPod(rig, { pid: 'CONTAINER' })),
  operation('StopPodSandbox with a shared PID namespace', rig => stopPod(rig, { pid: 'POD' })),
  operation('RemovePodSandbox', removePod),
  operation('PullImage', pullImage),
  operation('RemoveImage', removeImage),
  operation('UpdateContainerResources', updateContainer),
  operation('UpdatePodSandboxResources', updatePod),
  operation('ExecSync', execSync),
  operation('ReopenContainerLog', reopenLog),
  operation(START, startAfterKill),
  operation('berth check --repair', repair),
  operation(WIPE, wipe),
]

function operation(name: string, prepare: Operation['prepare'], skip: string | false = false): Operation {
  return { name, prepare, skip, relists: /^(RunPodSandbox|CreateContainer)/.test(name) }
}

const IDS = [{ container_id: 0, host_id: 300_000, length: 65_536 }]
const USER = { mode: 'POD', uids: IDS, gids: IDS } as const

function userSkip(): string | false {
  return findTools() === undefined ? 'no runc that maps mounts was built: Go was missing at set-up' : false
}

function security(options: NamespaceOption): { linux: NonNullable<PodSandboxConfig['linux']> } {
  return { linux: { security_context: { namespace_options: { pid: 'CONTAINER', ...options } } } }
}

async function runPod(
  { daemon, kubelet }: FaultRig,
  changes: PodSandboxConfig,
  handler = '',
): Promise<Attempt> {
  const config = kubelet.podConfig(changes)
  let id = ''
  return {
    async call(client) {
      id = (await client.runtime('RunPodSandbox', { config, runtime_handler: handler })).pod_sandbox_id
    },
    async relist() {
      const { items } = await daemon.client.runtime('ListPodSandbox', {})
      const ready = items.find(
        ({ metadata, state }) => metadata?.uid === config.metadata?.uid && state === 'SANDBOX_READY',
      )
      if (ready !== undefined) id = ready.id
      else id = await kubelet.runPodAs({ ...config, metadata: { ...config.metadata, attempt: 1 } }, handler)
    },
    async check() {
      const status = await kubelet.podStatus(id)
      assert.equal(status.state, 'SANDBOX_READY')
      assert.match(status.network?.ip ?? '', /^10\.66\.\d+\.\d+$/)
    },
  }
}

async function createContainer({ daemon, kubelet }: FaultRig, user?: typeof USER): Promise<Attempt> {
  const pod =
    user === undefined
      ? await kubelet.runPod()
      : await kubelet.runPod(security({ userns_options: user }), 'mapping')
  const config = kubelet.containerConfig(pod, 'exit 7')
  let id = ''
  return {
    async call(client) {
      const reply = await client.runtime('CreateContainer', {
        pod_sandbox_id: pod.id,
        config,
        sandbox_config: pod.config,
      })
      id = reply.container_id
    },
    async relist() {
      const { containers } = await daemon.client.runtime('ListContainers', {})
      for (const container of containers) await kubelet.remove(container.id)
      id = await kubelet.createAs(pod, { ...config, metadata: { ...config.metadata, attempt: 1 } })
    },
    async check() {
      assert.equal((await kubelet.status(id)).state, 'CONTAINER_CREATED')
      await kubelet.start(id)
      assert.equal((await kubelet.exited(id)).exit_code, 7)
    },
  }
}

async function startContainer({ kubelet }: FaultRig): Promise<Attempt> {
  const pod = await kubelet.runPod()
  const config = kubelet.containerConfig(pod, FOREVER)
  let id = await kubelet.createAs(pod, config)
  let attempt = 0
  const again = async () => {
    const { state } = await kubelet.status(id)
    if (state === 'CONTAINER_RUNNING') return
    if (state === 'CONTAINER_CREATED') return await kubelet.start(id)
    // A start that failed is the container's end, as CRI has it: kubelet makes another one.
    assert.equal(state, 'CONTAINER_EXITED')
    id = await kubelet.createAs(pod, { ...config, metadata: { ...config.metadata, attempt: ++attempt } })
    await kubelet.start(id)
  }
  return {
    async call(client) {
      await client.runtime('StartContainer', { container_id: id })
    },
    retry: again,
    async check() {
      assert.equal((await kubelet.status(id)).state, 'CONTAINER_RUNNING')
      assert.equal((await kubelet.exec(id, 'echo runs')).stdout, 'runs\n')
    },
  }
}

async function stopContainer(
  { kubelet }: FaultRig,
  script: string,
  timeout: number,
  code: number,
): Promise<Attempt> {
  const id = await kubelet.run(await kubelet.runPod(), script)
  if (script.includes('echo set')) await kubelet.prints(id, 'set')
  return {
    async call(client) {
      await client.runtime('StopContainer', { container_id: id, timeout })
    },
    async check() {
      const status = await kubelet.status(id)
      assert.deepEqual([status.state, status.exit_code], ['CONTAINER_EXITED', code])
    },
  }
}

async function removeContainer(rig: FaultRig, script: string): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const id = await kubelet.run(await kubelet.runPod(), script)
  if (script !== FOREVER) await kubelet.exited(id)
  // What is cleaned up after an exit is no effect of the removal.
  if (script !== FOREVER) await rig.quiet()
  return {
    async call(client) {
      await client.runtime('RemoveContainer', { container_id: id })
    },
    async check() {
      assert.deepEqual((await daemon.client.runtime('ListContainers', {})).containers, [])
    },
  }
}

async function podWithEverything({ kubelet }: FaultRig, options: NamespaceOption): Promise<TestPod> {
  const pod = await kubelet.runPod({
    ...security(options),
    port_mappings: [{ container_port: 80, host_port: 18_061 }],
  })
  await kubelet.run(pod, FOREVER)
  return pod
}

async function stopPod(rig: FaultRig, options: NamespaceOption): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const pod = await podWithEverything(rig, options)
  return {
    async call(client) {
      await client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id })
    },
    async check() {
      assert.equal((await kubelet.podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
      assert.deepEqual(await daemon.leftovers(/^(address|link|rule|mount \/run)/), [])
    },
  }
}

async function removePod(rig: FaultRig): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const pod = await podWithEverything(rig, { pid: 'CONTAINER' })
  const ended = await kubelet.run(pod, 'exit 3')
  await kubelet.exited(ended)
  await rig.quiet()
  return {
    async call(client) {
      await client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id })
    },
    async check() {
      assert.deepEqual((await daemon.client.runtime('ListPodSandbox', {})).items, [])
      assert.deepEqual((await daemon.client.runtime('ListContainers', {})).containers, [])
    },
  }
}

async function pullImage(rig: FaultRig): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const { name, id } = await pushImage(rig)
  return {
    async call(client) {
      const { image_ref } = await client.image('PullImage', { image: { image: name } })
      assert.equal(image_ref, id)
    },
    async check() {
      const { image } = await daemon.client.image('ImageStatus', { image: { image: name } })
      assert.equal(image?.id, id)
      const script = 'cat /d/one /d/linked /d/two /three; ls /d'
      const pod = await kubelet.runPod()
      const files = await kubelet.outputOf(pod, script, { image: { image: name } })
      const number = name.slice(name.lastIndexOf(':') + 1)
      assert.equal(files, `one ${number}one ${number}two ${number}three ${number}linked\none\ntwo`)
    },
  }
}

async function removeImage(rig: FaultRig): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const layers = () => readdirSync(join(daemon.root, 'layers')).length
  const before = layers()
  const { name } = await pushImage(rig)
  await kubelet.pull(name)
  return {
    async call(client) {
      await client.image('RemoveImage', { image: { image: name } })
    },
    async check() {
      const { image } = await daemon.client.image('ImageStatus', { image: { image: name } })
      assert.equal(image, null)
      await until('its layers are gone', () => layers() <= before)
    },
  }
}

async function updateContainer({ kubelet }: FaultRig): Promise<Attempt> {
  const id = await kubelet.run(await kubelet.runPod(), FOREVER)
  return {
    async call(client) {
      await client.runtime('UpdateContainerResources', {
        container_id: id,
        linux: { memory_limit_in_bytes: 64 << 20, cpu_shares: 256 },
      })
    },
    async check() {
      const { resources } = await kubelet.status(id)
      assert.equal(Number(resources?.linux?.memory_limit_in_bytes), 64 << 20)
      assert.equal(Number(resources?.linux?.cpu_shares), 256)
    },
  }
}

async function updatePod({ daemon, kubelet }: FaultRig): Promise<Attempt> {
  const pod = await kubelet.runPod()
  return {
    async call(client) {
      await client.runtime('UpdatePodSandboxResources', {
        pod_sandbox_id: pod.id,
        resources: { memory_limit_in_bytes: 64 << 20, cpu_shares: 256 },
      })
    },
    async check() {
      const { info } = await daemon.client.runtime('PodSandboxStatus', {
        pod_sandbox_id: pod.id,
        verbose: true,
      })
      assert.match(JSON.stringify(info), /67108864/)
    },
  }
}

async function execSync({ kubelet }: FaultRig): Promise<Attempt> {
  const id = await kubelet.run(await kubelet.runPod(), FOREVER)
  let stdout = ''
  return {
    async call(client) {
      const reply = await client.runtime('ExecSync', {
        container_id: id,
        cmd: ['sh', '-c', 'echo here; sleep 0.01'],
        timeout: 20,
      })
      assert.equal(reply.exit_code, 0)
      stdout = reply.stdout.toString()
    },
    async check() {
      assert.equal(stdout, 'here\n')
      assert.equal((await kubelet.status(id)).state, 'CONTAINER_RUNNING')
    },
  }
}

async function reopenLog({ kubelet }: FaultRig): Promise<Attempt> {
  // Always the same processes: what a recovery changes is seen by comparing them.
  const lines = 'i=0; while :; do i=$((i+1)); echo line $i; read -t 0.02 never; done'
  const script = `sleep 100000 | { ${lines}; }`
  const id = await kubelet.run(await kubelet.runPod(), script)
  await kubelet.prints(id, 'line 2')
  const { log_path } = await kubelet.status(id)
  return {
    async call(client) {
      if (existsSync(log_path)) renameSync(log_path, `${log_path}.1`)
      await client.runtime('ReopenContainerLog', { container_id: id })
      assert.ok(existsSync(log_path), 'the new file is there when the call returns')
    },
    async check() {
      await until('the new log grows', async () => (await kubelet.logOf(id)).length > 1)
    },
  }
}
