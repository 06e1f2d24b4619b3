import { nowNs } from './base/clock.ts'
import { messageOf } from './base/errors.ts'
import { VERSION } from './base/version.ts'
import type { Config } from './config/config.ts'
import { installedPath } from './config/installation.ts'
import type { Loaded } from './config/load-config.ts'
import { reloadConfig } from './config/reload-config.ts'
import type { ContainerService } from './containers/container-service.ts'
import type { ContainerContext } from './containers/context.ts'
import type { Exits } from './containers/exits.ts'
import { recoverContainers, sweepContainers } from './containers/recover-containers.ts'
import { adminBackend, containerCounts, type NodeOptions, nodeView, podCounts } from './cri/node.ts'
import { CriServer } from './cri/server.ts'
import type { ImageService } from './images/image-service.ts'
import { nodeCheck, openNode, Parts, prepareProcess } from './node.ts'
import { remakeDirectories, socketOptionsOf, streamingOptionsOf } from './node-parts.ts'
import { createLog, type RootLog } from './observe/log.ts'
import type { Timeline } from './observe/timeline.ts'
import { cgroupFeatures } from './os/cgroup/open-cgroups.ts'
import { checkPackets } from './os/handles.ts'
import { notifySystemd, peerOf } from './os/node.ts'
import type { PodContext } from './pods/context.ts'
import { PodMetricsReader } from './pods/pod-metrics.ts'
import { PodNetworkReader } from './pods/pod-network-usage.ts'
import { PodService } from './pods/pod-service.ts'
import { PodStatsReader } from './pods/pod-stats.ts'
import { checkPods, recoverPods, sweepPods } from './pods/recover-pods.ts'
import { watchExits } from './runtime/exits.ts'
import type { Handlers } from './runtime/handlers.ts'
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

/** Lost hints about ended containers, and what somebody has taken away, are made good for at this interval. */
const SCAN_MS = 10_000

/** While a runtime handler has a problem, this is how soon it is known to be over without anybody asking. */
const HANDLER_RETRY_MS = 10_000

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
    await checkPackets()
    return await compose(config, options.warnings, log, parts)
  } catch (error) {
    await parts.close(log)
    throw error
  }
}

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: the composition reads better in one piece than in several that pass parts around
async function compose(
  config: Config,
  configWarnings: readonly string[],
  log: RootLog,
  parts: Parts,
): Promise<Daemon> {
  const startedAt = nowNs()
  const node = await openNode(config, log, parts, { mode: 'serve' })
  const { paths, catalog, metrics, timeline, cgroups, handlers, pins, images, network, events } = node
  const { exits, containers, containerStats, containerContext, podContext, confinementWarnings } = node
  for (const row of catalog.unreadable) log.error(row, 'a row of the database cannot be read in full')
  metrics.watchStates(
    () => podCounts(catalog),
    () => containerCounts(catalog),
  )
  const check = nodeCheck(node, true)
  const podNetwork = new PodNetworkReader({ catalog, namespaces: pins, paths, log })
  const podStats = new PodStatsReader({ catalog, cgroups, containers: containerStats, network: podNetwork })
  const podMetrics = new PodMetricsReader({
    catalog,
    cgroups,
    writable: id => containerStats.writable(id),
    network: podNetwork,
    counted: { version: cgroups.version, ...cgroupFeatures(cgroups) },
  })
  const pods = new PodService(podContext, podStats, podMetrics)

  const streaming = new StreamingServer({
    ...streamingOptionsOf(config),
    backend: streamBackend(containers, pods),
    log,
    observer: metrics,
  })
  const options: NodeOptions = {
    databaseProblem: () => node.db.problem(),
    config,
    catalog,
    images,
    network,
    handlers,
    mappedMounts: podContext.mappedMounts,
    timeline,
    check: (repair, signal) => check.run(repair, signal),
    sessions: () => streaming.counts(),
    startedAt,
    warnings: [...configWarnings, ...confinementWarnings],
  }
  const server = parts.add(
    new CriServer({
      services: { pods, containers, images, events, streams: streaming, node: nodeView(options) },
      admin: adminBackend(options),
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
  const scan = setInterval(() => {
    exits.scan()
    checkPods(podContext)
    remakeDirectories(paths, log)
    server.keepReachable()
  }, SCAN_MS)
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
  await sweepContainers(containerContext, podContext.defaultCgroup)
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
