import { BerthError, notFound } from '../base/errors.ts'
import { VERSION } from '../base/version.ts'
import type { Config } from '../config/config.ts'
import { podStateOf, stateOf } from '../containers/container-state.ts'
import type { ImageService } from '../images/image-service.ts'
import type { Pod } from '../model/pod.ts'
import type { Network } from '../network/network.ts'
import type { Timeline } from '../observe/timeline.ts'
import type { Handlers } from '../runtime/handlers.ts'
import type { Catalog } from '../state/catalog.ts'
import type { AdminBackend, NodeStatus, PodTimeline } from './admin-service.ts'
import type { NodeView } from './services.ts'

export type NodeOptions = {
  readonly config: Config
  readonly catalog: Catalog
  readonly images: ImageService
  readonly network: Network
  readonly handlers: Handlers
  /** The node can show files with mapped owners, as user namespaces need. */
  readonly mappedMounts: boolean
  readonly timeline: Timeline
  readonly check: AdminBackend['check']
  /** Why nothing can be recorded any more, if that is so. */
  readonly databaseProblem: () => string | undefined
  /** Open streams by kind. */
  readonly sessions: () => Readonly<Record<string, number>>
  /** ns */
  readonly startedAt: bigint
  /** What an operator should know that is no error, such as ignored keys; handlers add their own. */
  readonly warnings: readonly string[]
}

/** The node as the CRI's Status, Version and RuntimeConfig show it. */
export function nodeView(options: NodeOptions): NodeView {
  const { config, network, handlers, mappedMounts } = options
  return {
    version: VERSION,
    cgroupDriver: config.runtime.cgroupManager,
    features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: mappedMounts },
    runtimeReady: () => runtimeReady(options),
    network: () => network.status(),
    handlers: () =>
      handlers.list().map(({ name, runtime: { features } }) => ({
        name,
        features: {
          recursiveReadOnly: features.recursiveReadOnly,
          userNamespaces: features.idmap && mappedMounts,
        },
      })),
    verboseConfig: () => ({
      sandboxImage: config.image.pauseImage,
      stateDir: config.root,
      runDir: config.runroot,
      listen: config.api.listen,
      cgroupManager: config.runtime.cgroupManager,
      cni: { confDir: config.network.networkDir, pluginDirs: config.network.pluginDirs },
      handlers: handlers.all().map(({ handler, version, problem }) => ({
        name: handler,
        version,
        problem: problem ?? '',
      })),
    }),
    // CNI plugins have their ranges in their configuration.
    setPodCidr: () => undefined,
  }
}

/** The rest of what a daemon needs is there if it serves; a pod of the default handler also needs that. */
function runtimeReady({ handlers, databaseProblem }: NodeOptions): ReturnType<NodeView['runtimeReady']> {
  const problem = databaseProblem()
  if (problem !== undefined) return { ready: false, reason: 'DatabaseNotWritable', message: problem }
  const runtime = handlers.default
  if (runtime.problem === undefined) return { ready: true, reason: '', message: '' }
  return { ready: false, reason: 'RuntimeHandlerUnavailable', message: runtime.problem }
}

/** What `berth status` and `berth timeline` show. */
export function adminBackend(options: NodeOptions): AdminBackend {
  return {
    status: () => nodeStatus(options),
    timeline: pod => podTimeline(options, pod),
    check: options.check,
  }
}

function nodeStatus(options: NodeOptions): NodeStatus {
  const { config, catalog, images, handlers, warnings, startedAt } = options
  const network = options.network.status()
  const runtime = runtimeReady(options)
  const all = images.list('')
  return {
    version: VERSION,
    pid: process.pid,
    startedAt,
    socket: config.api.listen,
    root: config.root,
    pods: podCounts(catalog),
    containers: containerCounts(catalog),
    sessions: options.sessions(),
    images: all.length,
    imageBytes: images.fsUsage().usedBytes,
    conditions: [
      { type: 'RuntimeReady', status: runtime.ready, reason: runtime.reason, message: runtime.message },
      { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
    ],
    handlers: handlers.all().map(({ handler, version }) => ({ name: handler, runtime: version })),
    warnings: [...warnings, ...handlers.warnings()],
    memory: process.memoryUsage.rss(),
    gzipProgram: config.image.gzipProgram,
  }
}

export function podCounts(catalog: Catalog): Record<string, number> {
  return countBy([...catalog.pods()].map(pod => podStateOf(pod) ?? 'creating'))
}

export function containerCounts(catalog: Catalog): Record<string, number> {
  return countBy([...catalog.containers()].map(container => stateOf(container) ?? 'creating'))
}

function countBy(states: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const state of states) counts[state] = (counts[state] ?? 0) + 1
  return counts
}

function podTimeline({ catalog, timeline }: NodeOptions, name: string): PodTimeline {
  const pod = catalog.findPod(name) ?? podNamed(catalog, name)
  const current = timeline.current(pod.id)
  return {
    podId: pod.id,
    podName: `${pod.config.metadata.namespace}/${pod.config.metadata.name}`,
    entries: timeline.of(pod.id),
    ...(current === undefined ? {} : { current }),
  }
}

/** By `namespace/name` or name; of several attempts the latest. */
function podNamed(catalog: Catalog, name: string): Pod {
  const named = [...catalog.pods()].filter(({ config: { metadata } }) => {
    return name === metadata.name || name === `${metadata.namespace}/${metadata.name}`
  })
  const namespaces = new Set(named.map(pod => pod.config.metadata.namespace))
  if (namespaces.size > 1) {
    throw new BerthError(
      'invalid',
      `pod ${JSON.stringify(name)} exists in ${[...namespaces].join(', ')}; give NAMESPACE/NAME`,
    )
  }
  const latest = named.at(-1)
  if (latest === undefined) throw notFound('pod', name)
  return latest
}
