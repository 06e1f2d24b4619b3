import type { LayerReport } from './fetch-layer.ts'

export type PullTimes = {
  /** ms of the monotonic clock: when it began, when the layers were known, when the image was there. */
  readonly startedAt: number
  readonly resolvedAt: number
  readonly endedAt: number
  readonly reports: readonly LayerReport[]
}

export type PullSummary = {
  /** Bytes from the network, and from what an earlier try left. */
  readonly downloaded: number
  readonly resumed: number
  /** Where the layers came from; several are separated by commas, '' when all were there. */
  readonly endpoint: string
  /**
   * Together the whole time: until the layers were known, then until the last byte was there, then until the last layer
   * was unpacked, then until the image was on disk. Layers are unpacked while they come, so what unpacking took in all
   * is hidden in the second; a pull that is unpacked long after its last byte has too few workers for its network.
   */
  readonly resolveMs: number
  readonly downloadMs: number
  readonly unpackMs: number
  readonly commitMs: number
  readonly ms: number
}

/** What the log says about a pull. */
export function summarize({ startedAt, resolvedAt, endedAt, reports }: PullTimes): PullSummary {
  const downloadedAt = Math.max(resolvedAt, ...reports.map(report => report.downloadedAt))
  const unpackedAt = Math.max(downloadedAt, ...reports.map(report => report.unpackedAt))
  const sum = (of: (report: LayerReport) => number) =>
    reports.reduce((total, report) => total + of(report), 0)
  return {
    downloaded: sum(report => report.received),
    resumed: sum(report => report.resumed),
    endpoint: [...new Set(reports.map(report => report.endpoint))].join(', '),
    resolveMs: Math.round(resolvedAt - startedAt),
    downloadMs: Math.round(downloadedAt - resolvedAt),
    unpackMs: Math.round(unpackedAt - downloadedAt),
    commitMs: Math.round(endedAt - unpackedAt),
    ms: Math.round(endedAt - startedAt),
  }
}
