type Stream = {
  write(text: string): unknown
  readonly isTTY?: boolean
  /** Of a terminal. */
  readonly columns?: number
  readonly rows?: number
}

/** Where a command prints: results to stdout, everything else to stderr. */
export type Streams = { readonly stdout: Stream; readonly stderr: Stream }
