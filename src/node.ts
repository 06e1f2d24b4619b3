import { readdirSync } from 'node:fs'
import { setEffectHook } from './base/effects.ts'
import { messageOf } from './base/errors.ts'
import { KeyedMutex } from './base/keyed-mutex.ts'
import { Retries } from './base/retries.ts'
import { Semaphore } from './base/semaphore.ts'
import { NodeCheck } from './check/node-check.ts'
import type { Config } from './config/config.ts'
import { NodePaths } from './config/paths.ts'
import { ContainerEvents } from './containers/container-events.ts'
import { ContainerService } from './containers/container-service.ts'
import type { ContainerContext } from './containers/context.ts'
import { Exits } from './containers/exits.ts'
import { ContainerStatsReader } from './containers/stats.ts'
import type { ImageService } from './images/image-service.ts'
import type { Network } from './network/network.ts'
import {
  canMapMounts,
  handlerOptionsOf,
  hostFacts,
  initProgram,
  makeDirectories,
  openCgroupsFor,
  openHandlers,
  openImages,
  openNetwork,
  openPartials,
  openRegistry,
  prepareConfinement,
  specDefaultsOf,
} from './node-parts.ts'
import { FaultHook, parseFaultPlan } from './observe/fault-plan.ts'
import type { RootLog } from './observe/log.ts'
import { Metrics } from './observe/metrics.ts'
import { Timeline } from './observe/timeline.ts'
import type { Cgroups } from './os/cgroup/cgroup.ts'
import { confinements } from './os/confinement.ts'
import { FileLock } from './os/files.ts'
import { makePrivateMountPoint, removePrivateMountPoint, unmount } from './os/mounts.ts'
import { NamespacePins } from './os/namespaces.ts'
import { closeOnExecAll, raiseFileLimit, warmThreadPool } from './os/node.ts'
import { checkExitNotices } from './os/pidfd.ts'
import { adoptOrphans } from './os/processes.ts'
import type { PodContext } from './pods/context.ts'
import { PodInits } from './pods/pod-inits.ts'
import type { Handlers } from './runtime/handlers.ts'
import { Catalog } from './state/catalog.ts'
import { Database } from './state/database.ts'
import { createSnapshots } from './storage/overlay.ts'
import type { Snapshots } from './storage/snapshots.ts'

/** Undone in reverse when the process is done with them, or when a later part does not start. */
export class Parts {
  readonly #closers: Array<() => void | Promise<void>> = []

  add<T>(part: T, close: (part: T) => void | Promise<void>): T {
    this.#closers.push(() => close(part))
    return part
  }

  async close(log: RootLog): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close()
      } catch (error) {
        log.error({ error: messageOf(error) }, 'a part of the daemon did not close')
      }
    }
  }
}

/** What a process that works on pods needs of itself; before anything else. */
export async function prepareProcess(config: Config): Promise<void> {
  process.umask(0o077)
  closeOnExecAll()
  raiseFileLimit()
  await warmThreadPool()
  await checkExitNotices()
  adoptOrphans()
  if (config.faults !== '') setEffectHook(new FaultHook(parseFaultPlan(config.faults)))
}

/**
 * `serve`: for the daemon. `repair`: for a command that works in its place. `look`: takes no lock, makes nothing and
 * can write no row.
 */
export type NodeMode = 'serve' | 'repair' | 'look'

/** Pods, containers and images of this node, without anybody who asks for them. */
export type Node = {
  readonly paths: NodePaths
  readonly db: Database
  readonly catalog: Catalog
  readonly metrics: Metrics
  readonly timeline: Timeline
  readonly cgroups: Cgroups
  readonly handlers: Handlers
  readonly pins: NamespacePins
  readonly snapshots: Snapshots
  readonly images: ImageService
  readonly network: Network
  readonly events: ContainerEvents
  readonly exits: Exits
  readonly containers: ContainerService
  readonly containerStats: ContainerStatsReader
  readonly containerContext: ContainerContext
  readonly podContext: PodContext
  readonly confinementWarnings: readonly string[]
}

/**
 * Builds every object once. Nothing is recovered yet.
 * @throws BerthError with one sentence about what is missing
 */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: the composition reads better in one piece than in several that pass parts around
export async function openNode(
  config: Config,
  log: RootLog,
  parts: Parts,
  { mode }: { readonly mode: NodeMode },
): Promise<Node> {
  const paths = new NodePaths(config.root, config.runroot)
  const isLook = mode === 'look'
  if (!isLook) holdDirectories(paths, parts)
  const open = isLook ? Database.openReadOnly : Database.open
  const db = parts.add(open(paths.database), database => database.close())
  const catalog = new Catalog(db)

  const metrics = new Metrics()
  const timeline = new Timeline({
    log,
    observer: metrics,
    maxEntries: config.observe.timelineEntries,
    slowMs: config.observe.slowStep,
  })
  const cgroups = openCgroupsFor(config)
  const handlers = await openHandlers(config, paths, cgroups, log)
  const { apparmorProfile, selinux, warnings } = await prepareConfinement(config, isLook)
  for (const warning of mode === 'serve' ? [...warnings, ...confinements()] : []) log.warn({}, warning)

  if (!isLook) {
    makePrivateMountPoint(paths.pods)
    parts.add(paths.pods, async pods => {
      if ([...catalog.pods()].length > 0) return
      unmount(pods)
      await cgroups.remove(config.runtime.podCgroupParent)
    })
  }
  const pins = parts.add(await NamespacePins.open(), opened => opened.close())
  const snapshots = parts.add(
    createSnapshots({
      root: config.root,
      workers: config.image.unpackWorkers,
      gzipProgram: config.image.gzipProgram,
      log,
      isReadOnly: isLook,
    }),
    opened => opened.close(),
  )
  const registry = parts.add(openRegistry(config, log), opened => opened.close())
  const partials = parts.add(openPartials(config, paths, log), opened => opened.close())
  const images = parts.add(openImages(config, db, registry, snapshots, partials, metrics, log), opened =>
    opened.close(),
  )
  const network = parts.add(openNetwork(config, log), opened => opened.close())

  const events = parts.add(new ContainerEvents(catalog, metrics), opened => opened.close())
  const retries = parts.add(new Retries({ log }), waiting => waiting.close())
  const shared = {
    catalog,
    paths,
    handlers,
    handlerOptions: handlerOptionsOf(config),
    events,
    cgroups,
    timeline,
    log,
    locks: new KeyedMutex(),
    heavy: new Semaphore('runtime', config.runtime.maxParallelOperations),
    retries,
    host: hostFacts(cgroups),
    selinux,
    specDefaults: specDefaultsOf(config, apparmorProfile),
  }
  const containerContext: ContainerContext = {
    ...shared,
    images,
    snapshots,
    execKillAfterMs: config.runtime.execHangupTimeout,
    cdiSpecDirs: config.runtime.cdiSpecDirs,
  }
  const exits = parts.add(new Exits(containerContext), opened => opened.close())
  const containerStats = new ContainerStatsReader({
    catalog,
    cgroups,
    snapshots,
    mountpoint: config.root,
    log,
  })
  const containers = new ContainerService(containerContext, exits, containerStats)
  const inits = parts.add(new PodInits({ catalog, events, log }), watches => watches[Symbol.dispose]())
  const podContext: PodContext = {
    ...shared,
    inits,
    containers,
    network,
    pins,
    networkSlots: new Semaphore('network', config.runtime.maxParallelOperations),
    initPath: isLook ? config.runtime.initPath : initProgram(config, paths, selinux),
    logDirectory: config.logDir,
    defaultCgroup: config.runtime.podCgroupParent,
    defaultSysctls: config.runtime.sysctls,
    // Only what makes pods asks.
    mappedMounts: mode === 'serve' && (await canMapMounts(handlers, paths)),
  }
  return {
    paths,
    db,
    catalog,
    metrics,
    timeline,
    cgroups,
    handlers,
    pins,
    snapshots,
    images,
    network,
    events,
    exits,
    containers,
    containerStats,
    containerContext,
    podContext,
    confinementWarnings: warnings,
  }
}

/** For this process alone, until it ends. */
function holdDirectories(paths: NodePaths, parts: Parts): void {
  makeDirectories(paths)
  parts.add(FileLock.acquire(paths.lock), lock => lock.release())
  // A root file system that spread into other mount namespaces would stay busy there after it is gone here.
  makePrivateMountPoint(paths.root)
  parts.add(paths, ({ root, pods }) => {
    if (readdirSync(pods).length === 0) removePrivateMountPoint(root)
  })
}

/** @param isServing it is the daemon that looks; otherwise there is none */
export function nodeCheck(node: Node, isServing: boolean): NodeCheck {
  const { paths, db, containerContext, podContext, exits, pins, images } = node
  return new NodeCheck({
    paths,
    db,
    containerContext,
    podContext,
    exits,
    pins,
    images: images.admin,
    makeDirectories: () => makeDirectories(paths),
    isServing,
  })
}
