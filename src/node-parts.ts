import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { messageOf } from './base/errors.ts'
import { VERSION } from './base/version.ts'
import type { Config } from './config/config.ts'
import { installedPath } from './config/installation.ts'
import { NodePaths } from './config/paths.ts'
import { findProgram } from './config/programs.ts'
import type { HandlerOptions } from './containers/context.ts'
import type { Selinux } from './containers/selinux.ts'
import { parseSeccompProfile } from './containers/spec/seccomp-profile.ts'
import type { HostFacts, SpecDefaults } from './containers/spec/spec.ts'
import { type ImageObserver, ImageService } from './images/image-service.ts'
import { Policies } from './images/policy/policies.ts'
import { createCni } from './network/cni.ts'
import type { Network } from './network/network.ts'
import type { Log } from './observe/log.ts'
import { loadApparmor } from './os/apparmor.ts'
import type { Cgroups } from './os/cgroup/cgroup.ts'
import { cgroupFeatures, openCgroups } from './os/cgroup/open-cgroups.ts'
import { SystemdCgroups } from './os/cgroup/systemd.ts'
import { ensureDir, writeFileAtomic } from './os/files.ts'
import {
  boundingCapabilities,
  groupId,
  hardLimit,
  hasX32,
  kernelFeatures,
  kernelRelease,
  oomScoreAdj,
} from './os/node.ts'
import { isValidContext, selinuxPolicy, setContext } from './os/selinux.ts'
import { mapsMountIds } from './os/user-namespace.ts'
import { createRegistry, type RegistryOptions } from './registry/client.ts'
import type { Registry } from './registry/registry.ts'
import { Handlers } from './runtime/handlers.ts'
import { createRuntime } from './runtime/runc.ts'
import type { Database } from './state/database.ts'
import { PartialBlobs } from './storage/partial-blobs.ts'
import type { Snapshots } from './storage/snapshots.ts'

/*
 * The parts that follow from the configuration alone, for the composition root.
 */

/** Where credentials are by convention (containers-auth.json(5), docker login). */
const AUTH_FILES = [
  '/etc/containers/auth.json',
  '/run/containers/0/auth.json',
  '/root/.config/containers/auth.json',
  '/root/.docker/config.json',
]

const SYSTEM_POLICY = '/etc/containers/policy.json'

/** Bytes: a layer of zeros up to this is no danger to a node that runs containers. */
const RATIO_FLOOR = 4 * 2 ** 30

const PLUGIN_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Private whatever the umask and whoever made them: images hold setuid programs (CVE-2021-41103). */
export function makeDirectories(paths: NodePaths): void {
  // Two ways lead through: to the socket, which its group may use, and to the root file systems and pods of user
  // namespaces, whose roots may use those. Everything else below is private by itself.
  for (const directory of [paths.root, paths.runRoot, paths.pods]) ensureDir(directory, 0o711)
  const directories = [paths.bundles, paths.exits, paths.sockets, paths.execs, paths.temporary]
  for (const directory of [...directories, paths.persistent, paths.cni]) ensureDir(directory, 0o700)
}

/** Where somebody has emptied the run directory: what new pods, containers and clients need there. */
export function remakeDirectories(paths: NodePaths, log: Log): void {
  if (existsSync(paths.exits)) return
  log.error({ directory: paths.runRoot }, 'the run directory was emptied: its directories are made again')
  try {
    makeDirectories(paths)
  } catch (error) {
    log.error({ error: messageOf(error) }, 'the run directory cannot be made again')
  }
}

/** @throws BerthError precondition if the configured driver has no systemd to talk to */
export function openCgroupsFor(config: Config): Cgroups {
  const cgroups = openCgroups()
  return config.runtime.cgroupManager === 'systemd' ? SystemdCgroups.open(cgroups) : cgroups
}

export async function openHandlers(
  config: Config,
  paths: NodePaths,
  cgroups: Cgroups,
  log: Log,
): Promise<Handlers> {
  const runtimes = await Promise.all(
    Object.values(config.runtime.runtimes).map(handler => {
      ensureDir(handler.root, 0o700)
      return createRuntime({
        handler: handler.name,
        runtimePath: handler.path,
        // Packages put it where they like: one that is installed later may be elsewhere.
        ...(handler.isPathGiven
          ? {}
          : { findRuntime: () => findProgram(handler.name, { PATH: dirname(handler.path) }) }),
        runtimeRoot: handler.root,
        conmonPath: handler.monitorPath,
        ...(handler.isMonitorPathGiven
          ? {}
          : { findConmon: () => findProgram('conmon', { PATH: dirname(handler.monitorPath) }) }),
        exitsDir: paths.exits,
        socketsDir: paths.sockets,
        env: { TMPDIR: paths.temporary, ...handler.monitorEnv },
        systemdCgroup: config.runtime.cgroupManager === 'systemd',
        noSyncLog: handler.noSyncLog,
        cgroups,
        log,
      })
    }),
  )
  return new Handlers(runtimes, config.runtime.defaultRuntime)
}

export function handlerOptionsOf(config: Config): (name: string) => HandlerOptions {
  const { runtimes, defaultRuntime, conmonCgroup } = config.runtime
  return name => runtimes[name || defaultRuntime] ?? { monitorCgroup: conmonCgroup, allowedAnnotations: [] }
}

export function openRegistry(config: Config, log: Log): Registry {
  return createRegistry({ ...registryOptionsOf(config), log })
}

/** What decides where images come from; `berth registry explain` uses the same. */
export function registryOptionsOf(config: Config): RegistryOptions {
  const { image } = config
  return {
    registriesConf: image.registriesConf,
    registriesConfDir: image.registriesConfDir,
    insecureRegistries: image.insecureRegistries,
    authFiles: image.globalAuthFile === '' ? AUTH_FILES : [image.globalAuthFile],
    namespacedAuthDir: image.namespacedAuthDir,
    helperEnv: { PATH: PLUGIN_PATH, HOME: '/root', ...proxyVariables(config) },
    certDirs: image.certsDirs,
    proxy: config.proxy,
    userAgent: `berth/${VERSION}`,
    progressTimeoutMs: image.pullProgressTimeout,
    chunkSize: image.downloadChunkSize,
    chunkConnections: image.downloadConnections,
  }
}

/** Credential helpers ask the same networks as we do. */
function proxyVariables({ proxy }: Config): Record<string, string> {
  const { http, https, noProxy } = proxy
  const variables = { HTTP_PROXY: http, HTTPS_PROXY: https, NO_PROXY: noProxy }
  return Object.fromEntries(Object.entries(variables).filter(([, value]) => value !== ''))
}

export function openPartials(config: Config, paths: NodePaths, log: Log): PartialBlobs {
  return new PartialBlobs({
    directory: paths.partials,
    afterMs: config.image.partialDownloadAfter,
    ttlMs: config.image.partialDownloadTtl,
    log,
  })
}

export function policiesOf({ image }: Config): Policies {
  return new Policies({
    file: image.signaturePolicy || SYSTEM_POLICY,
    isOptional: image.signaturePolicy === '',
    directory: image.signaturePolicyDir,
  })
}

export function openImages(
  config: Config,
  db: Database,
  registry: Registry,
  snapshots: Snapshots,
  partials: PartialBlobs,
  observer: ImageObserver,
  log: Log,
): ImageService {
  const { image } = config
  return new ImageService({
    db,
    registry,
    policies: policiesOf(config),
    snapshots,
    log,
    limits: {
      maxEntries: image.unpackMaxEntries,
      maxDepth: image.unpackMaxDepth,
      maxBytes: image.unpackMaxSize,
      maxRatio: image.unpackMaxRatio,
      ratioFloor: RATIO_FLOOR,
    },
    maxParallelDownloads: image.maxParallelDownloads,
    maxNodeDownloads: image.maxNodeDownloads,
    partials,
    observer,
    pinnedImages: image.pinnedImages,
    ...(image.preloadDir === '' ? {} : { preloadDir: image.preloadDir }),
    gc: {
      intervalMs: image.gcInterval,
      highThreshold: image.imageGcHighThreshold,
      lowThreshold: image.imageGcLowThreshold,
      minimumAgeMs: image.imageMinimumGcAge,
    },
  })
}

export function openNetwork(config: Config, log: Log): Network {
  const { networkDir, pluginDirs, cniDefaultNetwork } = config.network
  return createCni({
    confDir: networkDir,
    pluginDirs,
    ...(cniDefaultNetwork === '' ? {} : { defaultNetwork: cniDefaultNetwork }),
    cacheDir: new NodePaths(config.root, config.runroot).cni,
    path: PLUGIN_PATH,
    log,
  })
}

/** Tried only if a runtime can make use of it, or might once its problem is over: that takes a process. */
export async function canMapMounts(handlers: Handlers, paths: NodePaths): Promise<boolean> {
  const isOfUse = handlers.all().some(({ features, problem }) => features.idmap || problem !== undefined)
  return isOfUse && (await mapsMountIds(paths.root))
}

export function hostFacts(cgroups: Cgroups): Omit<HostFacts, 'devices'> {
  return {
    capabilities: boundingCapabilities(),
    oomScoreAdj: oomScoreAdj(),
    hardLimit,
    cgroupVersion: cgroups.version,
    ...cgroupFeatures(cgroups),
    ...kernelFeatures(),
    arch: process.arch === 'arm64' ? 'arm64' : 'amd64',
    x32: hasX32(),
    kernel: kernelRelease(),
  }
}

/** The profile in conf/apparmor. */
const OWN_APPARMOR_PROFILE = 'berth-default'

/**
 * Loads Berth's own AppArmor profile where it is the one of the configuration and the kernel has AppArmor.
 * @returns the profile for `RuntimeDefault`, '' for none, and what is wrong with that
 */
async function prepareApparmor({
  runtime,
}: Config): Promise<{ readonly profile: string; readonly warnings: readonly string[] }> {
  const profile = runtime.apparmorProfile
  if (profile !== OWN_APPARMOR_PROFILE || !kernelFeatures().apparmor) return { profile, warnings: [] }
  try {
    await loadApparmor(join(installedPath('conf'), 'apparmor', profile))
    return { profile, warnings: [] }
  } catch (error) {
    const warning = `containers run without an AppArmor profile of their own: ${messageOf(error)}`
    return { profile: '', warnings: [warning] }
  }
}

/** As the configuration wants it and the kernel has it. */
function prepareSelinux({ runtime, root, runroot }: Config): {
  readonly selinux: Selinux | undefined
  readonly warnings: readonly string[]
} {
  if (!runtime.selinux) return { selinux: undefined, warnings: [] }
  const policy = selinuxPolicy()
  if (policy === undefined) {
    const warning =
      'crio.runtime.selinux is true, but the kernel runs no SELinux policy: containers get no labels'
    return { selinux: undefined, warnings: [warning] }
  }
  const selinux = {
    policy,
    isValid: isValidContext,
    freeHostNetwork: runtime.hostnetworkDisableSelinux,
    ownDirectories: [root, runroot],
  }
  return { selinux, warnings: [] }
}

/**
 * What the security modules of the kernel do for containers, and what is wrong with that.
 * @param isLook no profile is loaded
 */
export async function prepareConfinement(
  config: Config,
  isLook: boolean,
): Promise<{
  readonly apparmorProfile: string
  readonly selinux: Selinux | undefined
  readonly warnings: readonly string[]
}> {
  const apparmor = isLook ? { profile: '', warnings: [] } : await prepareApparmor(config)
  const { selinux, warnings } = prepareSelinux(config)
  return { apparmorProfile: apparmor.profile, selinux, warnings: [...apparmor.warnings, ...warnings] }
}

/**
 * What runs as the first process of shared PID namespaces. Under SELinux a copy: a policy lets containers execute only
 * what is labelled as theirs, which a program of the node is not.
 */
export function initProgram(config: Config, paths: NodePaths, selinux: Selinux | undefined): string {
  const { initPath } = config.runtime
  if (selinux === undefined || !existsSync(initPath)) return initPath
  writeFileAtomic(paths.labelledInit, readFileSync(initPath), 0o755)
  setContext(paths.labelledInit, selinux.policy.file)
  return paths.labelledInit
}

export function specDefaultsOf(
  config: Config,
  apparmorProfile: string,
): Omit<SpecDefaults, 'allowedAnnotations'> {
  const { runtime } = config
  const profile = runtime.seccompProfile || join(installedPath('conf'), 'seccomp.json')
  return {
    capabilities: runtime.defaultCapabilities,
    rlimits: runtime.rlimits,
    pidsLimit: runtime.pidsLimit,
    env: runtime.defaultEnv,
    seccomp: parseSeccompProfile(readFileSync(profile, 'utf8'), profile),
    apparmorProfile,
  }
}

export function streamingOptionsOf({ api }: Config) {
  const tls = {
    cert: api.streamTlsCert,
    key: api.streamTlsKey,
    ca: api.streamTlsCa,
    minVersion: api.tlsMinVersion === 'VersionTLS13' ? ('TLSv1.3' as const) : ('TLSv1.2' as const),
    cipherSuites: api.tlsCipherSuites,
  }
  return {
    address: api.streamAddress,
    port: api.streamPort,
    idleMs: api.streamIdleTimeout,
    allowedOrigins: api.streamAllowedOrigins,
    ...(api.streamEnableTls ? { tls } : {}),
  }
}

/** @throws BerthError precondition if the configured group does not exist */
export function socketOptionsOf({ api }: Config) {
  const gid = api.listenGroup === '' ? undefined : groupId(api.listenGroup)
  const uids = api.listenUids.map(Number)
  return {
    socketPath: api.listen,
    // A mode can name no further users: then the peer's credentials alone decide.
    socketMode: uids.length > 0 ? 0o666 : 0o660,
    ...(gid === undefined ? {} : { socketGid: gid }),
    allowedPeers: { uids, gids: gid === undefined ? [] : [gid] },
  }
}
