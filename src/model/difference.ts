/** What kinds of differences there can be between what the rows say and what is on the node. */
export type DifferenceKind =
  | 'database'
  | 'directory-missing'
  | 'row-unreadable'
  | 'pod-unfinished'
  | 'pod-lost'
  | 'pod-namespaces'
  | 'pod-files'
  | 'pod-stray'
  | 'container-unfinished'
  | 'container-ended'
  | 'container-not-cleared'
  | 'container-stray'
  | 'bundle-missing'
  | 'monitor-gone'
  | 'runtime-state-missing'
  | 'cgroup-left'
  | 'root-unmounted'
  | 'writable-layer-missing'
  | 'exec-left'
  | 'mount-unknown'
  | 'attachment-stray'
  | 'attachment-unrecorded'
  | 'lease-stray'
  | 'lease-missing'
  | 'lease-taken'
  | 'rules-stray'
  | 'rules-missing'
  | 'network-broken'
  | 'layer-unfinished'
  | 'layer-stray'
  | 'layer-damaged'
  | 'record-stray'
  | 'staging-left'

/** One thing on the node that is not as the rows say, or that no row knows. */
export type Difference = {
  readonly kind: DifferenceKind
  /** What differs: an id, a path, an address. With the kind it names the difference. */
  readonly subject: string
  /** '' for what belongs to none. */
  readonly podId?: string
  readonly containerId?: string
  /** What is there, and what should be. */
  readonly found: string
  /** How it most likely came about. */
  readonly cause: string
  /** What `fix` does; without one, what is left to the operator. */
  readonly remedy: string
  /** Makes both agree. May be called twice. @throws what prevents it */
  readonly fix?: () => Promise<void>
  /** The row as it was when this was found: a difference from one that has changed since is none. */
  readonly row?: unknown
}

/** What is not compared now, since an operation is under way on it. */
export type Busy = Set<string>
