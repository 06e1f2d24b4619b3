import { hostname } from 'node:os'
import { join, posix } from 'node:path'
import { nowAfter } from '../base/clock.ts'
import { BerthError, messageOf, precondition } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import { makeLogDirectory } from '../containers/log-directory.ts'
import { levelsInUse, pickLevel } from '../containers/selinux.ts'
import { type Pod, type PodConfig, type PodNetwork, podUserOf } from '../model/pod.ts'
import { isSlice } from '../model/slice.ts'
import { ensureDir, openDirectory } from '../os/files.ts'
import { bootId } from '../os/node.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { hasNetwork, type PodContext, stepOf, targetOf } from './context.ts'
import { mountSharedMemory, writeHosts, writePodFiles } from './pod-files.ts'
import { startPodInit } from './pod-init.ts'
import { applyPodResources } from './pod-resources.ts'
import { undoPod } from './remove-pod.ts'
import { stopPod } from './stop-pod.ts'
import { sysctlsOf } from './sysctls.ts'

/**
 * RunPodSandbox: intent row → files, shared memory, pinned namespaces → CNI ADD → init process if the pod shares its
 * PID namespace → `ready`. Whatever fails is undone as recovery would; if the network cannot be given back the pod
 * stays as not ready, so that StopPodSandbox can try again and no address is lost.
 */
export async function runPod(
  context: PodContext,
  config: PodConfig,
  runtimeHandler: string,
): Promise<string> {
  requireUserNamespaces(context, config, await context.handlers.available(runtimeHandler))
  const intent = intentOf(context, config, runtimeHandler)
  return await context.locks.run(intent.id, async () => {
    // Looked for and taken in one go: nothing else can run in between.
    const pod = { ...intent, ...levelFor(context) }
    context.catalog.insertPod(pod)
    try {
      await make(context, pod)
    } catch (error) {
      await undo(context, pod, error)
      throw error
    }
    return pod.id
  })
}

/** Without mapped mounts the files of images and volumes would belong to nobody in a user namespace. */
function requireUserNamespaces(context: PodContext, config: PodConfig, runtime: Runtime): void {
  if (podUserOf(config.namespaces) === undefined) return
  const field = 'config.linux.security_context.namespace_options.userns_options'
  if (!runtime.features.idmap) {
    const since = 'runc has it since 1.2, crun since 1.9'
    throw precondition(`${field}: ${runtime.version} cannot map the ids of mounts; ${since}`)
  }
  if (!context.mappedMounts) {
    throw precondition(
      `${field}: the kernel, or the file system that images are on, cannot map the ids of mounts`,
    )
  }
}

function intentOf(context: PodContext, config: PodConfig, runtimeHandler: string): Pod {
  const id = newId()
  return {
    id,
    config: completed(context, config, id),
    runtimeHandler,
    phase: 'creating',
    createdAt: nowAfter(earlierAttempts(context, config)),
    bootId: bootId(),
    cgroup: config.cgroupParent || podCgroup(context.defaultCgroup, id),
    // Held from before ADD: after a crash nobody knows how far the plugins came.
    networkHeld: config.namespaces.network !== 'node',
    network: { ips: [] },
    delivered: false,
  }
}

/** When sandboxes of the same pod were made. */
function earlierAttempts({ catalog }: PodContext, { metadata }: PodConfig): bigint[] {
  const { uid, name, namespace } = metadata
  return [...catalog.pods()].flatMap(({ config, createdAt }) => {
    const other = config.metadata
    return other.uid === uid && other.name === name && other.namespace === namespace ? [createdAt] : []
  })
}

function levelFor({ selinux, catalog }: PodContext): Pick<Pod, 'selinuxLevel'> {
  if (selinux === undefined) return {}
  const taken = levelsInUse(catalog.pods(), catalog.containers())
  return { selinuxLevel: pickLevel(selinux.policy, taken) }
}

/** Of a pod whose client named no parent. */
function podCgroup(parent: string, id: string): string {
  return isSlice(parent)
    ? `${parent}/${posix.basename(parent, '.slice')}-pod${id}.slice`
    : `${parent}/pod${id}`
}

/** With the node's answers where the client left one to it. */
function completed(context: PodContext, config: PodConfig, id: string): PodConfig {
  const logs = context.logDirectory === '' ? '' : join(context.logDirectory, id)
  return {
    ...config,
    hostname: config.hostname || hostname(),
    logDirectory: config.logDirectory || logs,
  }
}

async function make(context: PodContext, pod: Pod): Promise<void> {
  const { timeline, catalog } = context
  const at = stepOf(pod, 'RunPodSandbox')
  await timeline.step(at, 'pod-directory', () => makeDirectory(context, pod))
  await applyPodResources(context, pod)
  await timeline.step(at, 'pin-namespaces', () => pinNamespaces(context, pod))
  const network = await attach(context, pod)
  writeHosts(context, pod, network.ips)
  const init =
    pod.config.namespaces.pid === 'pod'
      ? await timeline.step(at, 'start-init', () => startPodInit(context, pod))
      : undefined
  const ready = { phase: 'ready', network, ...(init === undefined ? {} : { init }) } as const
  const made = catalog.updatePod(pod.id, ready)
  if (made === undefined) throw new BerthError('internal', `pod ${pod.id} vanished while it was made`)
  context.inits.follow(made)
  context.events.emit('created', pod.id, pod.id)
  context.events.emit('started', pod.id, pod.id)
}

function makeDirectory(context: PodContext, pod: Pod): void {
  const paths = context.paths.pod(pod.id)
  const user = podUserOf(pod.config.namespaces)
  ensureDir(paths.directory, 0o700)
  if (user !== undefined) openDirectory(paths.directory, user.gid.hostId)
  writePodFiles(context, pod)
  if (pod.config.logDirectory !== '') makeLogDirectory(pod.config.logDirectory)
  if (pod.config.namespaces.ipc !== 'node') mountSharedMemory(context, pod)
}

async function pinNamespaces(context: PodContext, pod: Pod): Promise<void> {
  const network = hasNetwork(pod)
  const ipc = pod.config.namespaces.ipc !== 'node'
  const user = podUserOf(pod.config.namespaces)
  if (!network && !ipc && user === undefined) return
  await context.pins.create({
    dir: context.paths.pod(pod.id).namespaces,
    network,
    ipc,
    // The host name belongs to the network's identity: a pod in the node's network has the node's.
    uts: network,
    user,
    hostname: pod.config.hostname,
    sysctls: sysctlsOf(context.defaultSysctls, pod.config),
  })
}

async function attach(context: PodContext, pod: Pod): Promise<PodNetwork> {
  if (!hasNetwork(pod)) return { ips: [] }
  return await context.timeline.step(stepOf(pod, 'RunPodSandbox'), 'cni-add', () =>
    context.networkSlots.run(() => context.network.attach(targetOf(context, pod, true))),
  )
}

async function undo(context: PodContext, pod: Pod, why: unknown): Promise<void> {
  const { catalog, timeline, log, events } = context
  try {
    await timeline.step(stepOf(pod, 'RunPodSandbox'), 'undo', () => undoPod(context, pod))
    catalog.deletePod(pod.id)
  } catch (error) {
    catalog.updatePod(pod.id, { phase: 'notready' })
    events.emit('created', pod.id, pod.id)
    events.emit('stopped', pod.id, pod.id)
    log.error(
      { podId: pod.id, error: messageOf(error), why: messageOf(why) },
      'a pod that could not be made could not be cleared either; it stays, not ready, until it is stopped and removed',
    )
    context.retries.later(`stopping pod ${pod.id}`, () => stopPod(context, pod.id))
  }
}
