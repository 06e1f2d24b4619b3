import { mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { BerthClient } from '../src/cri/client.ts'
import type { ContainerConfig } from '../src/cri/generated/runtime/v1/ContainerConfig.ts'
import type { ExecRequest } from '../src/cri/generated/runtime/v1/ExecRequest.ts'
import type { PodSandboxConfig } from '../src/cri/generated/runtime/v1/PodSandboxConfig.ts'
import { Daemon, type DaemonOptions } from './daemon.ts'
import { type Handler, type Peer, type PeerName, type Steps, StepTimer } from './peer.ts'
import { placesOf } from './places.ts'
import { findProcesses, treeCpuMs } from './processes.ts'

type CriPod = { readonly podId: string; readonly containerId: string }

export type CriPeerOptions = DaemonOptions & {
  readonly name: PeerName
  /** What all pods run; pulled at the start. */
  readonly image: string
  /** Tells the daemon's monitors and pauses by their command lines. */
  readonly helpers: (commandLine: string) => boolean
}

/** A daemon, asked as kubelet asks it. */
export class CriPeer implements Peer {
  readonly name: PeerName
  readonly daemon: Daemon
  readonly #options: CriPeerOptions
  readonly #pods = new Map<number, CriPod>()
  #imageRef = ''

  constructor(options: CriPeerOptions) {
    this.name = options.name
    this.#options = options
    this.daemon = new Daemon(options)
  }

  get storage(): string {
    return placesOf(this.name).data
  }

  async open(): Promise<void> {
    await this.daemon.start(async client => {
      const { status } = await client.runtime('Status', {})
      return status?.conditions.every(condition => condition.status) ?? false
    })
    const { image } = this.#options
    const pulled = await this.daemon.client.image('PullImage', { image: { image } })
    this.#imageRef = pulled.image_ref
  }

  async close(): Promise<void> {
    await this.daemon.end('SIGTERM')
  }

  /** @param programs that the container gets from the machine, each below /mnt */
  async up(pod: number, handler: Handler, programs: readonly string[] = []): Promise<Steps> {
    const { client } = this.daemon
    const timer = new StepTimer()
    const config = this.#podConfig(pod)
    mkdirSync(config.log_directory!, { recursive: true })
    const { pod_sandbox_id: podId } = await timer.time('RunPodSandbox', () =>
      client.runtime('RunPodSandbox', { config, runtime_handler: handler }),
    )
    const { container_id: containerId } = await timer.time('CreateContainer', () =>
      client.runtime('CreateContainer', {
        pod_sandbox_id: podId,
        config: this.#containerConfig(programs),
        sandbox_config: config,
      }),
    )
    await timer.time('StartContainer', () => client.runtime('StartContainer', { container_id: containerId }))
    this.#pods.set(pod, { podId, containerId })
    return timer.steps
  }

  /** In kubelet's order. The pod's process ignores SIGTERM, so it is killed at once. */
  async down(pod: number): Promise<Steps> {
    const { client } = this.daemon
    const timer = new StepTimer()
    const { podId, containerId } = this.#pods.get(pod)!
    const [ofPod, ofContainer] = [{ pod_sandbox_id: podId }, { container_id: containerId }]
    await timer.time('StopContainer', () => client.runtime('StopContainer', { ...ofContainer, timeout: 0 }))
    await timer.time('StopPodSandbox', () => client.runtime('StopPodSandbox', ofPod))
    await timer.time('RemoveContainer', () => client.runtime('RemoveContainer', ofContainer))
    await timer.time('RemovePodSandbox', () => client.runtime('RemovePodSandbox', ofPod))
    this.#pods.delete(pod)
    return timer.steps
  }

  async exec(pod: number, cmd: string[] = ['true']): Promise<void> {
    const container_id = this.#pods.get(pod)!.containerId
    const reply = await this.daemon.client.runtime('ExecSync', { container_id, cmd, timeout: 60 })
    if (reply.exit_code !== 0) throw new Error(`${this.name}: exec of ${cmd[0]} gave ${reply.exit_code}`)
  }

  /** Where a client of the pod connects to. */
  async execUrl(pod: number, request: Omit<ExecRequest, 'container_id'>): Promise<string> {
    const { containerId } = this.#pods.get(pod)!
    return (await this.daemon.client.runtime('Exec', { ...request, container_id: containerId })).url
  }

  async forwardUrl(pod: number, port: number): Promise<string> {
    const { podId } = this.#pods.get(pod)!
    return (await this.daemon.client.runtime('PortForward', { pod_sandbox_id: podId, port: [port] })).url
  }

  processes(): number[] {
    return [this.daemon.pid, ...findProcesses(this.#options.helpers)]
  }

  async pull(image: string): Promise<void> {
    await this.daemon.client.image('PullImage', { image: { image } })
  }

  cpuMs(): number {
    return treeCpuMs(this.daemon.pid)
  }

  async removeImage(image: string): Promise<void> {
    await this.daemon.client.image('RemoveImage', { image: { image } })
  }

  /** When the container was started, by id. */
  async startTimes(): Promise<Map<string, string>> {
    const times = new Map<string, string>()
    for (const { containerId } of this.#pods.values()) {
      const { status } = await this.daemon.client.runtime('ContainerStatus', { container_id: containerId })
      times.set(containerId, status?.started_at ?? '')
    }
    return times
  }

  /** Kills the daemon and starts it again. @returns ms until it lists all its pods as running */
  async restart(): Promise<number> {
    const started = performance.now()
    await this.daemon.end('SIGKILL')
    await this.daemon.start(client => this.#listsAll(client))
    return performance.now() - started
  }

  async #listsAll(client: BerthClient): Promise<boolean> {
    const { containers } = await client.runtime('ListContainers', {})
    const { items } = await client.runtime('ListPodSandbox', {})
    const running = containers.filter(container => container.state === 'CONTAINER_RUNNING')
    const ready = items.filter(item => item.state === 'SANDBOX_READY')
    return running.length === this.#pods.size && ready.length === this.#pods.size
  }

  #podConfig(pod: number): PodSandboxConfig {
    const { data, cgroup } = placesOf(this.name)
    const uid = `00000000-0000-4000-8000-${String(pod).padStart(12, '0')}`
    const metadata = { name: `pod-${pod}`, uid, namespace: 'bench', attempt: 0 }
    return {
      metadata,
      hostname: metadata.name,
      log_directory: join(data, 'logs', metadata.name),
      dns_config: { servers: ['10.96.0.10'], searches: ['svc.cluster.local'], options: ['ndots:5'] },
      labels: {
        'io.kubernetes.pod.name': metadata.name,
        'io.kubernetes.pod.namespace': metadata.namespace,
        'io.kubernetes.pod.uid': uid,
      },
      annotations: { 'kubernetes.io/config.source': 'api' },
      linux: { cgroup_parent: join(cgroup, `pod${pod}`), security_context: this.#security },
    }
  }

  #containerConfig(programs: readonly string[]): ContainerConfig {
    return {
      metadata: { name: 'main', attempt: 0 },
      image: { image: this.#imageRef, user_specified_image: this.#options.image },
      command: ['sleep', '1000000'],
      log_path: 'main.log',
      mounts: programs.map(program => ({
        host_path: program,
        container_path: join('/mnt', basename(program)),
        readonly: true,
      })),
      labels: { 'io.kubernetes.container.name': 'main' },
      annotations: { 'io.kubernetes.container.restartCount': '0' },
      linux: { security_context: this.#security },
    }
  }

  readonly #security = {
    namespace_options: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' },
    seccomp: { profile_type: 'Unconfined' },
  } as const
}
