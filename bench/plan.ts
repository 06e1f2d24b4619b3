/** How much is measured. */
export type Plan = {
  readonly rounds: number
  /** Pods one at a time, per peer and round. */
  readonly serialPods: number
  /** Pods eight at a time, per peer and round. */
  readonly parallelPods: number
  readonly execs: number
  /** Pods on the node when lists, statistics, memory and restarts are measured. */
  readonly standingPods: readonly number[]
  readonly lists: number
  readonly statistics: number
  readonly restarts: number
  readonly pulls: number
  /** Of the image of six layers, compressed. */
  readonly megabytes: number
  /** Of the image during whose pull memory is watched. */
  readonly largeMegabytes: number
  /** MiB through one exec or one forwarded connection. */
  readonly streamMegabytes: number
  /** MiB of the download that stops and crawls on its way. */
  readonly downloadMegabytes: number
}

export const WHOLE: Plan = {
  rounds: 5,
  serialPods: 10,
  parallelPods: 40,
  execs: 40,
  // For the second, as many as kubelet allows on a node by default.
  standingPods: [50, 110],
  lists: 200,
  statistics: 10,
  restarts: 5,
  pulls: 3,
  megabytes: 300,
  largeMegabytes: 5000,
  streamMegabytes: 512,
  downloadMegabytes: 1024,
}

/** To see that all of it works: its figures say little. */
export const QUICK: Plan = {
  rounds: 2,
  serialPods: 3,
  parallelPods: 16,
  execs: 8,
  standingPods: [12],
  lists: 20,
  statistics: 2,
  restarts: 1,
  pulls: 1,
  megabytes: 60,
  largeMegabytes: 200,
  streamMegabytes: 64,
  downloadMegabytes: 64,
}

/** As the reach says it; two processors are busy with four. */
export const WIDTH = 8
