import { after } from 'node:test'
import type { Kubelet, TestPod } from './kubelet.ts'
import {
  type ExecOptions,
  type ForwardOptions,
  type Look,
  StreamingClient,
  type StreamingSession,
  streamingClientPath,
} from './streaming-client.ts'

type Version = Pick<ExecOptions, 'transport' | 'protocols'>

/** Everything that clients of exec and attach speak. */
export const VERSIONS = {
  'SPDY v4': { transport: 'spdy', protocols: ['v4.channel.k8s.io'] },
  'SPDY v3': { transport: 'spdy', protocols: ['v3.channel.k8s.io'] },
  'SPDY v2': { transport: 'spdy', protocols: ['v2.channel.k8s.io'] },
  'SPDY v1': { transport: 'spdy', protocols: ['channel.k8s.io'] },
  'WebSocket v5': { transport: 'websocket', protocols: ['v5.channel.k8s.io'] },
  'WebSocket v4': { transport: 'channels', protocols: ['v4.channel.k8s.io'] },
  'WebSocket v1': { transport: 'channels', protocols: ['channel.k8s.io'] },
  'WebSocket v4 base64': { transport: 'channels', protocols: ['v4.base64.channel.k8s.io'] },
  'WebSocket v1 base64': { transport: 'channels', protocols: ['base64.channel.k8s.io'] },
  'WebSocket without a name': { transport: 'channels', protocols: [] },
} satisfies Record<string, Version>

export type VersionName = keyof typeof VERSIONS

/** Standard output is always asked for, standard error where there is no terminal. */
type Options = Pick<ExecOptions, 'stdin' | 'stdout' | 'tty'> & { readonly client?: StreamingClient }

/** Where the client's program is in a container that `withClient` configures. */
const PROGRAM = '/mnt/client'

/** Exec, attach and port-forward as kubectl does them: the call to the daemon, then a connection by a real client. */
export class Streams implements AsyncDisposable {
  readonly client = new StreamingClient()
  readonly #kubelet: () => Kubelet

  constructor(kubelet: () => Kubelet) {
    this.#kubelet = kubelet
  }

  async execUrl(container_id: string, script: string, options: Options = {}): Promise<string> {
    const request = { container_id, cmd: ['sh', '-c', script], ...asked(options) }
    return (await this.#kubelet().daemon.client.runtime('Exec', request)).url
  }

  async exec(
    container: string,
    script: string,
    options: Options = {},
    version: VersionName = 'SPDY v4',
  ): Promise<StreamingSession> {
    return this.#open(await this.execUrl(container, script, options), options, version)
  }

  async attachUrl(container_id: string, options: Options = {}): Promise<string> {
    return (await this.#kubelet().daemon.client.runtime('Attach', { container_id, ...asked(options) })).url
  }

  async attach(
    container: string,
    options: Options = {},
    version: VersionName = 'SPDY v4',
  ): Promise<StreamingSession> {
    return this.#open(await this.attachUrl(container, options), options, version)
  }

  #open(url: string, { client, ...options }: Options, version: VersionName): StreamingSession {
    const stderr = options.tty === true ? undefined : {}
    return (client ?? this.client).exec({ url, stdout: {}, stderr, ...options, ...VERSIONS[version] })
  }

  async forwardUrl(pod: TestPod, ports: readonly number[]): Promise<string> {
    const request = { pod_sandbox_id: pod.id, port: [...ports] }
    return (await this.#kubelet().daemon.client.runtime('PortForward', request)).url
  }

  /** Open. */
  async forward(
    pod: TestPod,
    ports: readonly number[],
    transport: ForwardOptions['transport'] = 'spdy-streams',
    protocols: readonly string[] = [],
  ): Promise<StreamingSession> {
    const url = await this.forwardUrl(pod, ports)
    const forward = this.client.forward({ url, ports, transport, protocols })
    await forward.opened
    return forward
  }

  /** A container in which `client serve` listens; its arguments are BEHAVIOUR=ADDRESS:PORT. */
  async serve(pod: TestPod, ...listeners: readonly string[]): Promise<string> {
    const kubelet = this.#kubelet()
    const id = await kubelet.run(pod, `exec ${PROGRAM} serve ${listeners.join(' ')}`, withClient)
    await kubelet.prints(id, 'serving')
    return id
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.kill()
  }
}

const withClient = {
  mounts: [{ host_path: streamingClientPath(), container_path: PROGRAM, readonly: true }],
}

function asked({ stdin, tty = false }: Options) {
  return { tty, stdin: stdin !== undefined, stdout: true, stderr: !tty }
}

/** The end of a session that went as it should. @throws Error with what the client said */
export async function succeeded(session: StreamingSession): Promise<Look> {
  const end = await session.ended
  if (end.error !== undefined) throw new Error(end.error)
  return end
}

/** For a test file: the streams of its daemon, with one client's process for all of its tests. */
export function useStreams(kubelet: () => Kubelet): () => Streams {
  let streams: Streams | undefined
  after(() => streams?.[Symbol.asyncDispose]())
  // Not before it is needed: the client belongs to the daemon's network, which is there by then.
  return () => {
    streams ??= new Streams(kubelet)
    return streams
  }
}
