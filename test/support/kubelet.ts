import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ContainerConfig } from '../../src/cri/generated/runtime/v1/ContainerConfig.ts'
import type { ContainerStatus__Output } from '../../src/cri/generated/runtime/v1/ContainerStatus.ts'
import type { LinuxContainerSecurityContext } from '../../src/cri/generated/runtime/v1/LinuxContainerSecurityContext.ts'
import type { NamespaceOption } from '../../src/cri/generated/runtime/v1/NamespaceOption.ts'
import type { PodSandboxConfig } from '../../src/cri/generated/runtime/v1/PodSandboxConfig.ts'
import type { PodSandboxStatus__Output } from '../../src/cri/generated/runtime/v1/PodSandboxStatus.ts'
import type { BerthDaemon } from './daemon.ts'
import { removePodCgroup } from './footprint.ts'
import { type BusyboxOptions, busyboxImage } from './images.ts'
import { until } from './wait.ts'

/** The image of every container that names none; pushed by `useDaemon`. */
export const BUSYBOX = 'docker.io/library/busybox:latest'

export type TestPod = { readonly id: string; readonly config: PodSandboxConfig }

/** Long enough never to end by itself. */
export const FOREVER = 'sleep 100000'

let serial = 0

/** What there must be of a daemon: it may run on another machine. */
export type TestNode = Pick<BerthDaemon, 'client' | 'logs' | 'cgroup' | 'registry'> & {
  /** The text of a file of that machine; without it, this one's. */
  readonly readText?: (path: string) => Promise<string>
}

/** Asks a daemon for pods and containers as kubelet does, with as little as kubelet sends. */
export class Kubelet<Node extends TestNode = BerthDaemon> {
  readonly daemon: Node

  constructor(daemon: Node) {
    this.daemon = daemon
  }

  /** A pod of its own key, with a log directory and a cgroup. `linux` is merged, the rest replaced. */
  podConfig(changes: PodSandboxConfig = {}): PodSandboxConfig {
    const name = `pod-${process.pid}-${++serial}`
    const uid = `uid-${name}`
    return {
      metadata: { name, uid, namespace: 'default', attempt: 0 },
      hostname: name,
      log_directory: join(this.daemon.logs, `default_${name}_${uid}`),
      ...changes,
      linux: {
        cgroup_parent: `${this.daemon.cgroup}/pod${uid}`,
        security_context: { namespace_options: { pid: 'CONTAINER' } },
        ...changes.linux,
      },
    }
  }

  async runPod(changes: PodSandboxConfig = {}, handler = ''): Promise<TestPod> {
    const config = this.podConfig(changes)
    return { id: await this.runPodAs(config, handler), config }
  }

  /** RunPodSandbox with exactly this configuration. */
  async runPodAs(config: PodSandboxConfig, handler = ''): Promise<string> {
    const reply = await this.daemon.client.runtime('RunPodSandbox', { config, runtime_handler: handler })
    return reply.pod_sandbox_id
  }

  /** A pod with these modes, `pid` being CONTAINER unless given. */
  runPodWith(options: NamespaceOption, changes: PodSandboxConfig = {}): Promise<TestPod> {
    const security_context = { namespace_options: { pid: 'CONTAINER', ...options } as const }
    return this.runPod({ ...changes, linux: { ...changes.linux, security_context } })
  }

  /** Its namespaces are those that the pod asked for. `linux` and its security context are merged. */
  containerConfig(pod: TestPod, script: string, changes: ContainerConfig = {}): ContainerConfig {
    const name = `c${++serial}`
    const namespaces = pod.config.linux?.security_context?.namespace_options ?? null
    return {
      metadata: { name, attempt: 0 },
      image: { image: BUSYBOX },
      command: ['sh', '-c', script],
      log_path: `${name}/0.log`,
      ...changes,
      linux: {
        ...changes.linux,
        security_context: { namespace_options: namespaces, ...changes.linux?.security_context },
      },
    }
  }

  create(pod: TestPod, script: string, changes: ContainerConfig = {}): Promise<string> {
    return this.createAs(pod, this.containerConfig(pod, script, changes))
  }

  /** CreateContainer with exactly this configuration. */
  async createAs(pod: TestPod, config: ContainerConfig): Promise<string> {
    const reply = await this.daemon.client.runtime('CreateContainer', {
      pod_sandbox_id: pod.id,
      config,
      sandbox_config: pod.config,
    })
    return reply.container_id
  }

  async start(id: string): Promise<void> {
    await this.daemon.client.runtime('StartContainer', { container_id: id })
  }

  /** Created and started. */
  async run(pod: TestPod, script: string, changes: ContainerConfig = {}): Promise<string> {
    const id = await this.create(pod, script, changes)
    await this.start(id)
    return id
  }

  /** `run` with this security context beside the namespaces. */
  runAs(pod: TestPod, script: string, security: LinuxContainerSecurityContext): Promise<string> {
    return this.run(pod, script, { linux: { security_context: security } })
  }

  /** What the script prints, less the last line break, run by a container that is removed then. */
  async outputOf(pod: TestPod, script: string, changes: ContainerConfig = {}): Promise<string> {
    const id = await this.run(pod, script, changes)
    await this.exited(id)
    const text = (await this.logOf(id))
      .map(line => (line.tag === 'F' ? `${line.text}\n` : line.text))
      .join('')
    await this.remove(id)
    return text.replace(/\n$/, '')
  }

  async status(id: string): Promise<ContainerStatus__Output> {
    const { status } = await this.daemon.client.runtime('ContainerStatus', { container_id: id })
    if (status === null) throw new Error(`no status of container ${id}`)
    return status
  }

  async podStatus(id: string): Promise<PodSandboxStatus__Output> {
    const { status } = await this.daemon.client.runtime('PodSandboxStatus', { pod_sandbox_id: id })
    if (status === null) throw new Error(`no status of pod ${id}`)
    return status
  }

  /** `info["info"]` of the verbose status. */
  async containerInfo(id: string): Promise<{ pid: number; runtimeSpec: { process: { args: string[] } } }> {
    const { info } = await this.daemon.client.runtime('ContainerStatus', { container_id: id, verbose: true })
    return JSON.parse(info.info ?? '{}')
  }

  async podIp(pod: TestPod): Promise<string> {
    return (await this.podStatus(pod.id)).network?.ip ?? ''
  }

  /** The status once the container has ended. */
  async exited(id: string): Promise<ContainerStatus__Output> {
    return until('the container exits', async () => {
      const status = await this.status(id)
      return status.state === 'CONTAINER_EXITED' && status
    })
  }

  /** Waits until the container's standard output has this text. */
  async prints(id: string, text: string): Promise<void> {
    await until(`the container prints ${text}`, async () =>
      (await this.logOf(id)).some(line => line.text.includes(text)),
    )
  }

  async exec(
    id: string,
    script: string,
    timeout = 30,
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    const reply = await this.daemon.client.runtime('ExecSync', {
      container_id: id,
      cmd: ['sh', '-c', script],
      timeout,
    })
    return { code: reply.exit_code, stdout: reply.stdout.toString(), stderr: reply.stderr.toString() }
  }

  /** The lines of its log file, as kubelet reads them. */
  async logOf(id: string): Promise<Array<{ stream: string; tag: string; text: string }>> {
    const { log_path } = await this.status(id)
    return parseLog((await this.daemon.readText?.(log_path)) ?? readFileSync(log_path, 'utf8'))
  }

  async stop(id: string, timeout = 0): Promise<void> {
    await this.daemon.client.runtime('StopContainer', { container_id: id, timeout })
  }

  async remove(id: string): Promise<void> {
    await this.daemon.client.runtime('RemoveContainer', { container_id: id })
  }

  async stopPod(id: string): Promise<void> {
    await this.daemon.client.runtime('StopPodSandbox', { pod_sandbox_id: id })
  }

  async removePod(id: string): Promise<void> {
    await this.stopPod(id)
    await this.daemon.client.runtime('RemovePodSandbox', { pod_sandbox_id: id })
  }

  /** Stops and removes all pods; their cgroups are kubelet's to remove. */
  async removeAll(): Promise<void> {
    const { items } = await this.daemon.client.runtime('ListPodSandbox', {})
    await Promise.all(items.map(pod => this.removePod(pod.id)))
    removePodCgroup(`${this.daemon.cgroup}/*`)
    removePodCgroup(this.daemon.cgroup)
  }

  /** Pushes and pulls a busybox image with these options; its name. */
  async image(name: string, options: BusyboxOptions): Promise<string> {
    this.daemon.registry.push(await busyboxImage(options), `docker.io/library/${name}`, '1')
    const reference = `docker.io/library/${name}:1`
    await this.pull(reference)
    return reference
  }

  /** @returns the image id */
  async pull(image: string): Promise<string> {
    return (await this.daemon.client.image('PullImage', { image: { image } })).image_ref
  }
}

/** @throws Error for a line that kubelet could not read */
export function parseLog(text: string): Array<{ stream: string; tag: string; text: string }> {
  return text
    .split('\n')
    .slice(0, -1)
    .map(line => {
      const match =
        /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) (.*)$/s.exec(line)
      if (match === null) throw new Error(`not a line of a CRI log: ${JSON.stringify(line)}`)
      return { stream: match[1]!, tag: match[2]!, text: match[3]! }
    })
}
