import { lstatSync, readFileSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { errnoOf, inStep, internal, invalid, messageOf, precondition } from '../base/errors.ts'
import { sameContent } from '../base/same-content.ts'
import type { Container, ContainerConfig, Device, Mount } from '../model/container.ts'
import type { Image } from '../model/image.ts'
import type { OciSpec } from '../model/oci.ts'
import { type Pod, podUserOf } from '../model/pod.ts'
import { isApparmorLoaded } from '../os/apparmor.ts'
import { mkdirInRoot, readInRoot, resolveInRoot, resolveOnNode } from '../os/files.ts'
import { propagationOf } from '../os/mounts.ts'
import { isAlive } from '../os/processes.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type ContainerContext, mappedIds, ociCgroupsPath } from './context.ts'
import { containerLabels, type Relabelled, type SelinuxLabels } from './selinux.ts'
import { buildSpec } from './spec/build-spec.ts'
import { listHostDevices, resolveDevice } from './spec/host-devices.ts'
import { localhostSeccompPath } from './spec/seccomp.ts'
import { parseSeccompProfile, type SeccompRules } from './spec/seccomp-profile.ts'
import type { PodPaths, ProcessUser, ResolvedMount } from './spec/spec.ts'
import { resolveUser } from './spec/user.ts'

/** /etc/passwd and /etc/group come from the image; no real one is larger. */
const MAX_USER_FILE = 10 * 2 ** 20

/** A seccomp profile is some 100 KB. */
const MAX_SECCOMP_FILE = 4 * 2 ** 20

/** What the runtime mounts over in every root: a symlink here would lead it out of the root (CVE-2026-41579). */
const MUST_BE_DIRECTORIES = ['dev', 'proc', 'sys', 'etc']

export type ContainerSpec = {
  readonly spec: OciSpec
  readonly user: ProcessUser
  /** What has to be labelled before the container may see it. */
  readonly relabelled: readonly Relabelled[]
}

/** The images a container stands on, looked up before anything is made. */
export type ContainerImages = {
  readonly root: Image
  /** By index of the mount. */
  readonly volumes: ReadonlyMap<number, Image>
}

/** @throws BerthError not-found or invalid, naming the field */
export function requireImages(
  context: ContainerContext,
  container: Pick<Container, 'config'>,
): ContainerImages {
  const { image, mounts } = container.config
  const root = context.images.require(image)
  const volumes = new Map<number, Image>()
  mounts.forEach((mount, index) => {
    if (mount.image === undefined) return
    volumes.set(index, requireVolume(context, mount.image.ref, index))
  })
  return { root, volumes }
}

function requireVolume({ images }: ContainerContext, reference: string, index: number): Image {
  try {
    return images.require(reference)
  } catch (error) {
    throw inStep(`ImageVolumeMountFailed: config.mounts[${index}].image`, error)
  }
}

/**
 * The labels of a container; the modes of its namespaces are the pod's.
 * @throws BerthError invalid, naming the field
 */
export function labelsOf(
  context: ContainerContext,
  pod: Pod,
  { config }: Pick<Container, 'config'>,
): SelinuxLabels | undefined {
  return containerLabels(context.selinux, pod, withPodNamespaces(config, pod))
}

/** Looks up everything the spec depends on in the mounted root and on the node, then builds it. */
export function specOf(
  context: ContainerContext,
  pod: Pod,
  container: Container,
  images: ContainerImages,
  runtime: Runtime,
  labels: SelinuxLabels | undefined,
): ContainerSpec {
  const config = withPodNamespaces(container.config, pod)
  const rootfs = context.snapshots.rootfsPath(container.id)
  checkRoot(rootfs)
  const root = podUserOf(pod.config.namespaces)
  const owner = { uid: root?.uid.hostId ?? 0, gid: root?.gid.hostId ?? 0 }
  for (const volume of images.root.config.volumes) makeVolume(rootfs, volume, owner)
  const user = resolveUser(config.security, images.root.config.user, {
    passwd: textInRoot(rootfs, '/etc/passwd'),
    group: textInRoot(rootfs, '/etc/group'),
  })
  const localhostSeccomp = readLocalhostSeccomp(container)
  const mounts = config.mounts.map((mount, index) =>
    resolveMount(context, container, mount, index, images, labels),
  )
  const spec = buildSpec({
    containerId: container.id,
    config,
    podId: pod.id,
    pod: pod.config,
    hostname: pod.config.namespaces.network === 'node' ? hostname() : pod.config.hostname,
    image: images.root.config,
    imageName: container.imageName,
    rootfs,
    podPaths: podPathsOf(context, pod, config),
    user,
    host: { ...context.host, devices: config.security.privileged ? listHostDevices() : [] },
    defaults: {
      ...context.specDefaults,
      allowedAnnotations: context.handlerOptions(pod.runtimeHandler).allowedAnnotations,
    },
    features: runtime.features,
    cgroupsPath: ociCgroupsPath(container.cgroup),
    mounts,
    devices: config.devices.flatMap((device, index) => {
      const field = `config.devices[${index}]`
      if (root !== undefined) checkSamePath(device, field)
      return resolveDevice(device, field)
    }),
    ...(localhostSeccomp === undefined ? {} : { localhostSeccomp }),
    ...(labels === undefined ? {} : { selinux: labels }),
    notice: message => context.log.warn({ podId: pod.id, containerId: container.id }, message),
  })
  requireApparmor(spec)
  const relabelled = mounts.flatMap(({ mount, source }, index) =>
    labels !== undefined && mount.selinuxRelabel && mount.image === undefined
      ? { field: `config.mounts[${index}]`, source }
      : [],
  )
  return { spec, user, relabelled }
}

function makeVolume(rootfs: string, path: string, owner: { uid: number; gid: number }): void {
  try {
    mkdirInRoot(rootfs, path, 0o755, owner)
  } catch (error) {
    throw invalid('config.image', `volume ${JSON.stringify(path)} cannot be made in it: ${messageOf(error)}`)
  }
}

/** Nobody makes device nodes in a user namespace: runtimes bind the node's own, from the path it has inside. */
function checkSamePath({ hostPath, containerPath }: Device, field: string): void {
  if (containerPath === '' || containerPath === hostPath) return
  throw precondition(
    `${field}.container_path: in a user namespace a device has the path it has on the node, ${hostPath}`,
  )
}

function checkRoot(rootfs: string): void {
  for (const name of MUST_BE_DIRECTORIES) {
    const stats = lstatSync(join(rootfs, name), { throwIfNoEntry: false })
    if (stats !== undefined && !stats.isDirectory()) {
      throw invalid(
        'config.image',
        `/${name} of the image is no directory; a container could not be confined to it`,
      )
    }
  }
}

function textInRoot(rootfs: string, path: string): string {
  return readInRoot(rootfs, path, MAX_USER_FILE)?.toString('utf8') ?? ''
}

/** The runtime's own words for a profile that is missing name no profile. */
function requireApparmor({ process }: OciSpec): void {
  const profile = process.apparmorProfile
  if (profile === undefined || profile === 'unconfined' || isApparmorLoaded(profile)) return
  const name = JSON.stringify(profile)
  throw precondition(`config.linux.security_context.apparmor: profile ${name} is not loaded on this node`)
}

function readLocalhostSeccomp({ config }: Container): SeccompRules | undefined {
  if (config.security.privileged) return undefined
  const path = localhostSeccompPath(config.security.seccomp)
  if (path === undefined) return undefined
  const field = 'config.linux.security_context.seccomp.localhost_ref'
  try {
    const { size } = statSync(path)
    if (size > MAX_SECCOMP_FILE)
      throw invalid(field, `${path} has ${size} bytes, at most ${MAX_SECCOMP_FILE}`)
    return parseSeccompProfile(readFileSync(path, 'utf8'), path)
  } catch (error) {
    throw errnoOf(error) === undefined ? error : invalid(field, `${path} cannot be read: ${messageOf(error)}`)
  }
}

/**
 * Network and IPC namespaces are the pod's whatever the container says. A PID namespace of mode POD is what the pod
 * has: one for all, one for each, or the node's.
 */
function withPodNamespaces(config: ContainerConfig, pod: Pod): ContainerConfig {
  const { network, ipc, pid: podPid, user } = pod.config.namespaces
  const asked = config.security.namespaces
  if (asked.user?.mode === 'pod' && !sameContent(asked.user, user)) {
    throw invalid(
      'config.linux.security_context.namespace_options.userns_options',
      "expected the pod's own mappings",
    )
  }
  const pid = asked.pid === 'pod' ? podPid : asked.pid
  return { ...config, security: { ...config.security, namespaces: { ...asked, network, ipc, pid } } }
}

/** A namespace that the pod shares with the node is left out. */
function podPathsOf(context: ContainerContext, pod: Pod, config: ContainerConfig): PodPaths {
  const paths = context.paths.pod(pod.id)
  const { network, ipc } = pod.config.namespaces
  const pidns = pidNamespace(context, pod, config)
  return {
    ...(network === 'node' ? {} : { netns: paths.namespace('net'), utsns: paths.namespace('uts') }),
    ...(ipc === 'node' ? {} : { ipcns: paths.namespace('ipc') }),
    ...(pidns === undefined ? {} : { pidns }),
    ...(podUserOf(pod.config.namespaces) === undefined ? {} : { userns: paths.namespace('user') }),
    shmPath: ipc === 'node' ? '/dev/shm' : paths.shm,
    resolvConfPath: paths.resolvConf,
    hostnamePath: paths.hostname,
    hostsPath: paths.hosts,
  }
}

function pidNamespace(context: ContainerContext, pod: Pod, config: ContainerConfig): string | undefined {
  const { pid, targetId } = config.security.namespaces
  if (pid === 'target') {
    const target = context.catalog.findContainer(targetId)
    if (target === undefined || target.podId !== pod.id) {
      throw invalid(
        'config.linux.security_context.namespace_options.target_id',
        `no container ${JSON.stringify(targetId)} in this pod`,
      )
    }
    if (target.init === undefined || target.phase !== 'running' || !isAlive(target.init)) {
      throw precondition(`the target container ${target.id} is not running`)
    }
    return `/proc/${target.init.pid}/ns/pid`
  }
  if (pid !== 'pod') return undefined
  if (pod.init === undefined) {
    throw precondition(
      'config.linux.security_context.namespace_options.pid: the pod was made without a shared PID namespace',
    )
  }
  if (!isAlive(pod.init)) throw precondition(`the init process of pod ${pod.id} is gone`)
  return `/proc/${pod.init.pid}/ns/pid`
}

function resolveMount(
  context: ContainerContext,
  container: Container,
  mount: Mount,
  index: number,
  images: ContainerImages,
  labels: SelinuxLabels | undefined,
): ResolvedMount {
  const field = `config.mounts[${index}]`
  if (mount.image !== undefined) {
    const image = images.volumes.get(index)
    if (image === undefined) throw internal(`${field}: its image was not looked up`)
    const source = imageVolume(context, container, mount, index, image, labels)
    return { mount, source, shared: false, slave: false }
  }
  const source = hostSource(mount.hostPath, field)
  if (mount.propagation === 'private') return { mount, source, shared: false, slave: false }
  const { shared, slave } = propagationOf(source)
  return { mount, source, shared, slave }
}

function hostSource(path: string, field: string): string {
  try {
    return resolveOnNode(path)
  } catch (error) {
    const why = errnoOf(error) === 'ENOENT' ? 'does not exist' : `cannot be resolved (${errnoOf(error)})`
    throw invalid(`${field}.host_path`, `${JSON.stringify(path)} ${why}`)
  }
}

function imageVolume(
  context: ContainerContext,
  container: Container,
  mount: Mount,
  index: number,
  image: Image,
  labels: SelinuxLabels | undefined,
): string {
  const layers = volumeLayers(context, image)
  const ids = mappedIds(context, container.podId)
  const view = context.snapshots.mountImageView(container.id, index, layers, { ids, label: labels?.mount })
  const subPath = mount.image?.subPath ?? ''
  if (subPath === '') return view
  const source = resolveInRoot(view, subPath)
  if (source !== undefined) return source
  throw invalid(
    `config.mounts[${index}].image_sub_path`,
    `ImageVolumeMountFailed: ${JSON.stringify(subPath)} does not exist in the image`,
  )
}

function volumeLayers({ images }: ContainerContext, image: Image): string[] {
  try {
    return images.layersOf(image)
  } catch (error) {
    throw inStep('ImageVolumeMountFailed', error)
  }
}
