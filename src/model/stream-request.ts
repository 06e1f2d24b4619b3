/*
 * What the calls of the CRI ask for, kept with a token until the client comes for it.
 */

/** Which streams the client of an exec or attach is going to open: at least one, and no stderr with a terminal. */
export type WantedStreams = {
  readonly tty: boolean
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
}

export type ExecRequest = WantedStreams & {
  readonly containerId: string
  readonly command: readonly string[]
}

export type AttachRequest = WantedStreams & { readonly containerId: string }

/** `ports` are those that the client has announced; over SPDY it may use any. */
export type PortForwardRequest = { readonly podId: string; readonly ports: readonly number[] }

/** With whole ids. */
export type StreamRequest =
  | ({ readonly kind: 'exec'; readonly podId: string } & ExecRequest)
  | ({ readonly kind: 'attach'; readonly podId: string } & AttachRequest)
  | ({ readonly kind: 'portforward' } & PortForwardRequest)

export type StreamKind = StreamRequest['kind']
