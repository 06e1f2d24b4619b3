import type { Socket } from 'node:net'
import type { Channels } from '../runtime/channels.ts'

/** What the streaming server needs from the node's containers and pods. Everything throws BerthError. */
export interface StreamBackend {
  /** That the container is in the state for it, and has a terminal if one is attached to. By id or unique prefix. */
  requireStreamable(
    idOrPrefix: string,
    use: 'exec' | 'attach',
    tty: boolean,
  ): { readonly id: string; readonly podId: string }
  /** Resolves with the exit code, after stdout and stderr were ended. The signal aborts when the client has gone. */
  exec(
    containerId: string,
    command: readonly string[],
    tty: boolean,
    channels: Channels,
    signal: AbortSignal,
  ): Promise<number>
  /** Resolves when the container's output has ended or the client has left. */
  attach(containerId: string, tty: boolean, channels: Channels, signal: AbortSignal): Promise<void>
  /** A pod that is ready, by id or unique prefix. */
  requireReadyPod(idOrPrefix: string): { readonly id: string }
  /** A connection to `localhost:port` inside the pod, half-open if need be. */
  connect(podId: string, port: number, signal: AbortSignal): Promise<Socket>
}
