import { join } from 'node:path'
import { nowAfter } from '../base/clock.ts'
import { dict } from '../base/dict.ts'
import type { Digest } from '../base/digest.ts'
import { BerthError, inStep, messageOf, notFound, precondition } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import type { Container, ContainerConfig } from '../model/container.ts'
import type { Image } from '../model/image.ts'
import { type Pod, podName } from '../model/pod.ts'
import { parseSignal } from '../os/signals.ts'
import { applyCdiEdits } from './cdi/apply-edits.ts'
import { findCdiEdits } from './cdi/find-devices.ts'
import type { ContainerEdits } from './cdi/parse-spec.ts'
import { type ContainerImages, labelsOf, requireImages, specOf } from './container-spec.ts'
import {
  type ContainerContext,
  containerCgroup,
  mappedIds,
  monitorCgroup,
  pathsOf,
  stepOf,
} from './context.ts'
import type { Exits } from './exits.ts'
import { prepareLog } from './log-directory.ts'
import { undoContainer, undoLater } from './remove-container.ts'
import { createFailure } from './runtime-errors.ts'
import { relabelMounts } from './selinux.ts'

/**
 * CreateContainer: intent row → root mounted → spec → monitor and runtime → `created`. Whatever fails in between is
 * undone by what recovery would do after a crash; if that fails too, the row stays for it.
 */
export async function createContainer(
  context: ContainerContext,
  exits: Exits,
  podIdOrPrefix: string,
  config: ContainerConfig,
): Promise<string> {
  const edits = await findCdiEdits(config, context.cdiSpecDirs)
  await admitImages(context, requireReadyPod(context, podIdOrPrefix), config)
  // What is looked up from here on is in the row before anything else can happen.
  const pod = requireReadyPod(context, podIdOrPrefix)
  const images = requireImages(context, { config })
  const container = intentOf(context, pod, config, images)
  return await context.locks.run(container.id, async () => {
    context.catalog.insertContainer(container, layersHeld(images))
    try {
      await make(context, exits, pod, container, images, edits)
      return container.id
    } catch (error) {
      await undo(context, container, error)
      throw createFailure(error, config.resources?.unified)
    }
  })
}

/** The policy is asked here as well: an image may be here because another namespace pulled it. */
async function admitImages(context: ContainerContext, pod: Pod, config: ContainerConfig): Promise<void> {
  const { namespace } = pod.config.metadata
  const wanted = () => {
    const { root, volumes } = requireImages(context, { config })
    return [root, ...volumes.values()]
  }
  // A name may be given to another image while a registry is asked about this one.
  for (let images = wanted(), before: readonly Image[] = []; !isSame(images, before); images = wanted()) {
    before = images
    const [root, ...volumes] = images
    await context.images.admit(root!, config.userSpecifiedImage || config.image, namespace)
    const mounts = config.mounts.filter(mount => mount.image !== undefined)
    for (const [index, image] of volumes.entries()) {
      try {
        await context.images.admit(image, mounts[index]?.image?.ref ?? '', namespace)
      } catch (error) {
        throw inStep(`ImageVolumeMountFailed: ${mounts[index]?.containerPath}`, error)
      }
    }
  }
}

function isSame(a: readonly Image[], b: readonly Image[]): boolean {
  return a.length === b.length && a.every(({ id }, index) => id === b[index]?.id)
}

function requireReadyPod(context: ContainerContext, idOrPrefix: string): Pod {
  const pod = context.catalog.findPod(idOrPrefix)
  if (pod === undefined || pod.phase === 'creating') throw notFound('pod sandbox', idOrPrefix)
  if (pod.phase !== 'ready')
    throw precondition(`pod ${podName(pod.config.metadata)} (${pod.id}) is not ready`)
  return pod
}

/** When containers of that name were made in any sandbox of the same pod, and when this sandbox was. */
function earlierAttempts({ catalog }: ContainerContext, pod: Pod, config: ContainerConfig): bigint[] {
  const { uid, name, namespace } = pod.config.metadata
  const times = [...catalog.containers()].flatMap(container => {
    if (container.config.metadata.name !== config.metadata.name) return []
    const other = catalog.pod(container.podId)?.config.metadata
    const isSame = other?.uid === uid && other.name === name && other.namespace === namespace
    return isSame ? [container.createdAt] : []
  })
  return [pod.createdAt, ...times]
}

function intentOf(
  context: ContainerContext,
  pod: Pod,
  config: ContainerConfig,
  images: ContainerImages,
): Container {
  const id = newId()
  const { root } = images
  return {
    id,
    podId: pod.id,
    config,
    phase: 'creating',
    createdAt: nowAfter(earlierAttempts(context, pod, config)),
    startedAt: 0n,
    imageId: root.id,
    imageRef: root.repoDigests[0] ?? root.id,
    imageName: nameOf(config, root),
    imageMounts: dict(
      [...images.volumes].map(([index, image]) => [config.mounts[index]!.containerPath, image.id]),
    ),
    logPath:
      pod.config.logDirectory === '' || config.logPath === ''
        ? ''
        : join(pod.config.logDirectory, config.logPath),
    cgroup: containerCgroup(pod, id),
    user: { uid: 0, gid: 0, supplementalGroups: [] },
    stopSignal: stopSignalOf(config, root),
    ...(config.resources === undefined ? {} : { resources: config.resources }),
    delivered: false,
  }
}

/** What people call the image: never an id when there is a name. */
function nameOf(config: ContainerConfig, image: Image): string {
  return config.userSpecifiedImage || image.repoTags[0] || config.image
}

/** What an image says may be nonsense; stopping must work all the same. */
function stopSignalOf(config: ContainerConfig, image: Image): string {
  const asked = config.stopSignal || image.config.stopSignal
  return parseSignal(asked) === undefined ? 'SIGTERM' : asked
}

function layersHeld({ root, volumes }: ContainerImages): Digest[] {
  return [root, ...volumes.values()].flatMap(image => image.topLayer ?? [])
}

async function make(
  context: ContainerContext,
  exits: Exits,
  pod: Pod,
  container: Container,
  images: ContainerImages,
  edits: readonly ContainerEdits[],
): Promise<void> {
  const { timeline, snapshots, cgroups, catalog, heavy } = context
  const at = stepOf(container, 'CreateContainer')
  const runtime = await context.handlers.available(pod.runtimeHandler)
  const labels = labelsOf(context, pod, container)
  await timeline.step(at, 'mount-root', () =>
    snapshots.mountRootfs(container.id, context.images.layersOf(images.root), {
      ids: mappedIds(context, pod.id),
      label: labels?.mount,
    }),
  )
  const { spec, user, relabelled } = await timeline.step(at, 'build-spec', () => {
    const built = specOf(context, pod, container, images, runtime, labels)
    const edited = applyCdiEdits(built.spec, edits)
    const groups = new Set([...built.user.supplementalGroups, ...(edited.process.user.additionalGids ?? [])])
    return { ...built, spec: edited, user: { ...built.user, supplementalGroups: [...groups] } }
  })
  const { selinux } = context
  if (selinux !== undefined && labels !== undefined && relabelled.length > 0) {
    await timeline.step(at, 'relabel-mounts', () => relabelMounts(selinux, pod, relabelled, labels.mount))
  }
  if (container.logPath !== '') prepareLog(pod.config.logDirectory, container.config.logPath)
  const monitor = monitorCgroup(context, pod, container.id)
  if (monitor !== undefined) await cgroups.create(monitor)
  const { config } = container
  const processes = await timeline.step(at, 'runtime-create', () =>
    heavy.run(() =>
      runtime.create({
        id: container.id,
        name: `${pod.config.metadata.name}/${config.metadata.name}`,
        paths: pathsOf(context, container.id),
        spec,
        logPath: container.logPath,
        terminal: config.tty,
        stdin: config.stdin,
        stdinOnce: config.stdinOnce,
        monitorCgroup: monitor,
      }),
    ),
  )
  const { uid, gid, supplementalGroups } = user
  const created = catalog.updateContainer(container.id, {
    phase: 'created',
    init: processes.init,
    monitor: processes.monitor,
    user: { uid, gid, supplementalGroups },
  })
  if (created === undefined)
    throw new BerthError('internal', `container ${container.id} vanished while it was created`)
  exits.follow(created)
  context.events.emit('created', pod.id, created.id)
}

async function undo(context: ContainerContext, container: Container, why: unknown): Promise<void> {
  const { timeline, catalog, log } = context
  try {
    await timeline.step(stepOf(container, 'CreateContainer'), 'undo', () => undoContainer(context, container))
    catalog.deleteContainer(container.id)
  } catch (error) {
    log.error(
      { containerId: container.id, podId: container.podId, error: messageOf(error), why: messageOf(why) },
      'a container that could not be created could not be cleared either; that is tried again',
    )
    undoLater(context, container.id)
  }
}
