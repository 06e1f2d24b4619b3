import { readdirSync } from 'node:fs'
import { nowNs } from './base/clock.ts'
import { setEffectHook } from './base/effects.ts'
import { messageOf } from './base/errors.ts'
import { KeyedMutex } from './base/keyed-mutex.ts'
import { Retries } from './base/retries.ts'
import { Semaphore } from './base/semaphore.ts'
import { VERSION } from './base/version.ts'
import type { Config } from './config/config.ts'
import { installedPath } from './config/installation.ts'
import type { Loaded } from './config/load-config.ts'
import { NodePaths } from './config/paths.ts'
import { reloadConfig } from './config/reload-config.ts'
import { ContainerEvents } from './containers/container-events.ts'
import { ContainerService } from './containers/container-service.ts'
import type { ContainerContext } from './containers/context.ts'
import { Exits } from './containers/exits.ts'
import { recoverContainers, sweepContainers } from './containers/recover-containers.ts'
import { ContainerStatsReader } from './containers/stats.ts'
import { adminBackend, containerCounts, type NodeOptions, nodeView, podCounts } from './cri/node.ts'
import { CriServer } from './cri/server.ts'
import type { ImageService } from './images/image-service.ts'
import {
  canMapMounts,
  handlerOptionsOf,
  hostFacts,
  makeDirectories,
  openCgroupsFor,
  openHandlers,
  openImages,
  openNetwork,
  openPartials,
  openRegistry,
  prepareApparmor,
  socketOptionsOf,
  specDefaultsOf,
  streamingOptionsOf,
} from './node-parts.ts'
import { FaultHook, parseFaultPlan } from './observe/fault-plan.ts'
import { createLog, type RootLog } from './observe/log.ts'
import { Metrics } from './observe/metrics.ts'
import { Timeline } from './observe/timeline.ts'
import { cgroupFeatures } from './os/cgroup/open-cgroups.ts'
import { confinements } from './os/confinement.ts'
import { FileLock } from './os/files.ts'
import { checkPackets } from './os/handles.ts'
import { makePrivateMountPoint, unmount } from './os/mounts.ts'
import { NamespacePins } from './os/namespaces.ts'
import { closeOnExecAll, notifySystemd, peerOf, raiseFileLimit, warmThreadPool } from './os/node.ts'
import { checkExitNotices } from './os/pidfd.ts'
import { adoptOrphans } from './os/processes.ts'
import type { PodContext } from './pods/context.ts'
import { PodInits } from './pods/pod-inits.ts'
import { PodMetricsReader } from './pods/pod-metrics.ts'
import { PodNetworkReader } from './pods/pod-network-usage.ts'
import { PodService } from './pods/pod-service.ts'
import { PodStatsReader } from './pods/pod-stats.ts'
import { recoverPods, sweepPods } from './pods/recover-pods.ts'
import { watchExits } from './runtime/exits.ts'
import type { Handlers } from './runtime/handlers.ts'
import { Catalog } from './state/catalog.ts'
import { Database } from './state/database.ts'
import { createSnapshots } from './storage/overlay.ts'
import type { StreamBackend } from './streaming/backend.ts'
import { StreamingServer } from './streaming/streaming-server.ts'

export type Daemon = {
  /** Resolves when it has stopped. */
  readonly closed: Promise<void>
  /** Finishes what is under way, then lets go of everything but the containers, which go on. */
  stop(): Promise<void>
  /** A SIGHUP's answer: takes over what can be taken over, says what cannot, and looks at the runtimes again. */
  reload(next: Loaded | { readonly problem: string }): void
}

/** How long a stop waits for calls at work: well below the 30 s after which the unit has systemd kill the daemon. */
const STOP_GRACE_MS = 15_000

/** Lost hints about ended containers are made good for at this interval. */
const EXIT_SCAN_MS = 10_000

/** While a runtime handler has a problem, this is how soon it is known to be over without anybody asking. */
const HANDLER_RETRY_MS = 10_000

/** Undone in reverse when the daemon stops, or when a later part does not start. */
class Parts {
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

/**
 * Builds every object once, recovers, serves.
 * @throws BerthError with one sentence about what is missing; nothing is left behind then
 */
export async function startDaemon(
  config: Config,
  options: { readonly warnings: readonly string[] },
): Promise<Daemon> {
  const log = createLog({ level: config.runtime.logLevel, format: config.runtime.logFormat })
  for (const warning of options.warnings) log.warn({}, warning)
  const parts = new Parts()
  try {
    await prepareProcess(config)
    return await compose(config, options.warnings, log, parts)
  } catch (error) {
    await parts.close(log)
    throw error
  }
}

async function prepareProcess(config: Config): Promise<void> {
  process.umask(0o077)
  closeOnExecAll()
  raiseFileLimit()
  await warmThreadPool()
  await checkExitNotices()
  await checkPackets()
  adoptOrphans()
  if (config.faults !== '') setEffectHook(new FaultHook(parseFaultPlan(config.faults)))
}

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: the composition reads better in one piece than in several that pass parts around
async function compose(
  config: Config,
  configWarnings: readonly string[],
  log: RootLog,
  parts: Parts,
): Promise<Daemon> {
  const startedAt = nowNs()
  const paths = new NodePaths(config.root, config.runroot)
  makeDirectories(paths)
  parts.add(FileLock.acquire(paths.lock), lock => lock.release())
  // A root file system that spread into other mount namespaces would stay busy there after it is gone here.
  makePrivateMountPoint(paths.root)
  parts.add(paths, ({ root, pods }) => {
    if (readdirSync(pods).length === 0) unmount(root, { detach: true })
  })
  const db = parts.add(Database.open(paths.database), database => database.close())
  const catalog = new Catalog(db)
  for (const row of catalog.unreadable) log.error(row, 'a row of the database cannot be read in full')

  const metrics = new Metrics()
  metrics.watchStates(
    () => podCounts(catalog),
    () => containerCounts(catalog),
  )
  const timeline = new Timeline({
    log,
    observer: metrics,
    maxEntries: config.observe.timelineEntries,
    slowMs: config.observe.slowStep,
  })
  const cgroups = openCgroupsFor(config)
  const handlers = await openHandlers(config, paths, cgroups, log)
  const apparmor = await prepareApparmor(config)
  for (const warning of [...apparmor.warnings, ...confinements()]) log.warn({}, warning)

  makePrivateMountPoint(paths.pods)
  parts.add(paths.pods, async pods => {
    if ([...catalog.pods()].length > 0) return
    unmount(pods)
    await cgroups.remove(config.runtime.podCgroupParent)
  })
  const pins = parts.add(await NamespacePins.open(), opened => opened.close())
  const snapshots = parts.add(
    createSnapshots({
      root: config.root,
      workers: config.image.unpackWorkers,
      gzipProgram: config.image.gzipProgram,
      log,
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
    specDefaults: specDefaultsOf(config, apparmor.profile),
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
    initPath: config.runtime.initPath,
    logDirectory: config.logDir,
    defaultCgroup: config.runtime.podCgroupParent,
    defaultSysctls: config.runtime.sysctls,
    mappedMounts: await canMapMounts(handlers, paths),
  }
  const podNetwork = new PodNetworkReader({ catalog, namespaces: pins, paths, log })
  const podStats = new PodStatsReader({ catalog, cgroups, containers: containerStats, network: podNetwork })
  const podMetrics = new PodMetricsReader({
    catalog,
    cgroups,
    writable: id => containerStats.writable(id),
    network: podNetwork,
    pressure: cgroupFeatures(cgroups).pressure,
  })
  const pods = new PodService(podContext, podStats, podMetrics)

  const streaming = new StreamingServer({
    ...streamingOptionsOf(config),
    backend: streamBackend(containers, pods),
    log,
    observer: metrics,
  })
  const node: NodeOptions = {
    config,
    catalog,
    images,
    network,
    handlers,
    mappedMounts: podContext.mappedMounts,
    timeline,
    sessions: () => streaming.counts(),
    startedAt,
    warnings: [...configWarnings, ...apparmor.warnings],
  }
  const server = parts.add(
    new CriServer({
      services: { pods, containers, images, events, streams: streaming, node: nodeView(node) },
      admin: adminBackend(node),
      imageAdmin: images.admin,
      log,
      metrics,
      protoDir: installedPath('proto'),
      ...socketOptionsOf(config),
      peerOf,
    }),
    async opened => {
      await opened.close(STOP_GRACE_MS)
      // What a client gave up on is finished too: its effects and its rows belong together.
      await Promise.all([pods.settled(), containers.settled()])
    },
  )
  await server.listen()
  // Sessions end before calls are waited for: none of them ends by itself.
  parts.add(streaming, opened => opened.close())
  await streaming.listen()

  await recover(containerContext, podContext, exits, images)
  parts.add(
    watchExits(
      paths.exits,
      id => exits.look(id),
      error => log.warn({ error: messageOf(error) }, 'exit files could not be looked for'),
    ),
    watch => watch[Symbol.dispose](),
  )
  const scan = setInterval(() => exits.scan(), EXIT_SCAN_MS)
  parts.add(scan, clearInterval)
  const retry = setInterval(() => void handlers.retry(), HANDLER_RETRY_MS)
  parts.add(retry, clearInterval)
  server.open()
  images.preload()
  parts.add(announce(config), stopAnnouncing => stopAnnouncing())
  const { gzipProgram } = config.image
  log.info(
    { version: VERSION, pid: process.pid, socket: config.api.listen, gzip: gzipProgram || 'built in' },
    'berth is serving',
  )
  return daemonOf(config, log, timeline, handlers, parts)
}

function streamBackend(containers: ContainerService, pods: PodService): StreamBackend {
  return {
    requireStreamable: (id, use, tty) => containers.requireStreamable(id, use, tty),
    exec: (...exec) => containers.exec(...exec),
    attach: (...attach) => containers.attach(...attach),
    requireReadyPod: id => pods.requireReady(id),
    connect: (...connect) => pods.connect(...connect),
  }
}

function daemonOf(
  config: Config,
  log: RootLog,
  timeline: Timeline,
  handlers: Handlers,
  parts: Parts,
): Daemon {
  const { promise: closed, resolve } = Promise.withResolvers<void>()
  let running = config
  return {
    closed,
    stop: async () => {
      log.info({}, 'berth is stopping; containers go on')
      await parts.close(log)
      resolve()
    },
    reload: next => {
      void handlers.probe()
      if ('problem' in next) {
        log.error({ problem: next.problem }, 'the configuration was not reloaded')
        return
      }
      for (const warning of next.warnings) log.warn({}, warning)
      const { config: reloaded, applied, needRestart } = reloadConfig(running, next.config)
      running = reloaded
      log.level = reloaded.runtime.logLevel
      timeline.slowMs = reloaded.observe.slowStep
      log.info({ applied, needRestart }, 'configuration reloaded')
    },
  }
}

/** Containers first: a pod that is undone has none left. */
async function recover(
  containerContext: ContainerContext,
  podContext: PodContext,
  exits: Exits,
  images: ImageService,
): Promise<void> {
  const began = performance.now()
  await recoverContainers(containerContext, exits)
  await recoverPods(podContext)
  await sweepContainers(containerContext)
  await sweepPods(podContext)
  await images.recover()
  const { log, catalog } = containerContext
  log.info(
    {
      ms: Math.round(performance.now() - began),
      pods: podCounts(catalog),
      containers: containerCounts(catalog),
    },
    'recovered',
  )
}

/** Tells systemd that it is ready, then at half the watchdog's interval that the event loop still turns. */
function announce(config: Config): () => void {
  const { notifySocket, watchdogMs } = config.systemd
  if (notifySocket === '') return () => undefined
  notifySystemd('READY=1', notifySocket)
  const timer =
    watchdogMs > 0 ? setInterval(() => notifySystemd('WATCHDOG=1', notifySocket), watchdogMs / 2) : undefined
  return () => {
    clearInterval(timer)
    notifySystemd('STOPPING=1', notifySocket)
  }
}
