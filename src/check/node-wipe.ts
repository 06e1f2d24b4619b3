import { existsSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, messageOf, precondition } from '../base/errors.ts'
import type { NodePaths } from '../config/paths.ts'
import type { ContainerContext } from '../containers/context.ts'
import type { Exits } from '../containers/exits.ts'
import { recoverContainers } from '../containers/recover-containers.ts'
import type { ImageService } from '../images/image-service.ts'
import { podName } from '../model/pod.ts'
import { namesIn, removeTree } from '../os/files.ts'
import { mountsBelow } from '../os/mounts.ts'
import { bootId } from '../os/node.ts'
import { isAlive } from '../os/processes.ts'
import type { PodContext } from '../pods/context.ts'
import { recoverPods } from '../pods/recover-pods.ts'
import { removePod } from '../pods/remove-pod.ts'
import type { NodeCheck } from './node-check.ts'

export type WipeScope = {
  /** Pods with their containers, and what is left of such. */
  readonly containers: boolean
  readonly images: boolean
}

/** What is there now, and would be there no more. */
export type WipePlan = {
  readonly pods: ReadonlyArray<{ readonly id: string; readonly name: string; readonly lives: boolean }>
  readonly containers: ReadonlyArray<{ readonly id: string; readonly name: string; readonly lives: boolean }>
  /** Size in bytes on disk, what it shares with others included. */
  readonly images: ReadonlyArray<{
    readonly id: string
    readonly names: readonly string[]
    readonly size: number
  }>
  /** Bytes of all layers. */
  readonly layerBytes: number
  /** What no row knows, one line each. */
  readonly strays: readonly string[]
  readonly mounts: readonly string[]
  readonly cgroups: readonly string[]
  readonly addresses: readonly string[]
}

export type NodeWipeOptions = {
  readonly paths: NodePaths
  readonly containerContext: ContainerContext
  readonly podContext: PodContext
  readonly exits: Exits
  readonly images: ImageService
  readonly check: NodeCheck
}

/** Seconds that a container gets to end by itself: what Kubernetes gives where nothing else is said. */
const GRACE_S = 30

/** Makes a node empty that has no daemon. Each step may have been done before: what was killed is run again. */
export class NodeWipe {
  readonly #options: NodeWipeOptions

  constructor(options: NodeWipeOptions) {
    this.#options = options
  }

  async plan({ containers, images }: WipeScope, signal: AbortSignal): Promise<WipePlan> {
    const { paths, containerContext, images: service } = this.#options
    const pods = containers ? [...containerContext.catalog.pods()] : []
    const all = containers ? [...containerContext.catalog.containers()] : []
    const living = all.filter(({ init }) => init !== undefined && isAlive(init))
    const hosts = new Set(living.map(({ podId }) => podId))
    const groups = [...pods.map(({ cgroup }) => cgroup), ...all.map(({ cgroup }) => cgroup)]
    return {
      pods: pods.map(pod => ({
        id: pod.id,
        name: podName(pod.config.metadata),
        lives: hosts.has(pod.id) || (pod.phase === 'ready' && pod.bootId === bootId()),
      })),
      containers: all.map(({ id, config, init }) => ({
        id,
        name: config.metadata.name,
        lives: init !== undefined && isAlive(init),
      })),
      images: images
        ? service.admin.list('').map(({ image, disk }) => ({
            id: image.id,
            names: image.repoTags.length > 0 ? image.repoTags : image.repoDigests,
            size: disk,
          }))
        : [],
      layerBytes: images ? Number(service.fsUsage().usedBytes) : 0,
      strays: await this.#strays(containers, signal),
      mounts: containers
        ? [...mountsBelow(paths.pods), ...mountsBelow(join(paths.root, 'rootfs'))].map(m => m.mountPoint)
        : [],
      cgroups: [...new Set(groups)].filter(path => containerContext.cgroups.exists(path)),
      addresses: pods.filter(pod => pod.networkHeld).flatMap(pod => pod.network.ips),
    }
  }

  async #strays(containers: boolean, signal: AbortSignal): Promise<string[]> {
    if (!containers) return []
    const lines: string[] = []
    for await (const event of this.#options.check.run(false, signal)) {
      if (event.kind === 'difference' && STRAYS.has(event.difference.kind)) {
        lines.push(`${event.difference.subject}: ${event.difference.found}`)
      }
    }
    return lines
  }

  /**
   * Stops what lives, as kubelet would, and removes what the scope names.
   * @throws BerthError internal, naming what could not be removed; it can be run again
   */
  async run(scope: WipeScope, signal: AbortSignal, tell: (step: string) => void): Promise<void> {
    if (scope.containers) await this.#removePods(signal, tell)
    if (scope.images) await this.#removeImages(tell)
    // What is only out of the way goes on taking room until the next start.
    const left = await this.#options.containerContext.snapshots.emptied()
    if (left !== undefined) throw new BerthError('internal', left)
  }

  async #removePods(signal: AbortSignal, tell: (step: string) => void): Promise<void> {
    const { containerContext, podContext, exits, check } = this.#options
    const { catalog } = podContext
    // As at a start of the daemon: what lives is followed, what was begun is undone.
    await recoverContainers(containerContext, exits)
    await recoverPods(podContext)
    const containers = [...catalog.containers()]
    tell(`stopping ${containers.length} containers`)
    await Promise.all(containers.map(({ id }) => podContext.containers.stop(id, GRACE_S)))
    const pods = [...catalog.pods()]
    tell(`removing ${pods.length} pods`)
    const outcomes = await Promise.allSettled(pods.map(({ id }) => removePod(podContext, id)))
    const failures = outcomes.flatMap(outcome =>
      outcome.status === 'rejected' ? [messageOf(outcome.reason)] : [],
    )
    tell('removing what no pod is known to')
    for await (const event of check.run(true, signal)) {
      if (event.kind !== 'difference' || event.state === 'repaired') continue
      const { kind, subject, remedy } = event.difference
      if (STRAYS.has(kind)) failures.push(`${kind} ${subject}: ${event.error || remedy}`)
    }
    if (failures.length > 0) throw new BerthError('internal', failures.join('\n'))
  }

  async #removeImages(tell: (step: string) => void): Promise<void> {
    const { images, paths } = this.#options
    const all = images.admin.list('').map(({ image }) => image.id)
    tell(`removing ${all.length} images`)
    if (all.length > 0) await images.admin.remove(all, false)
    images.admin.collect(true, false)
    for (const name of namesIn(paths.partials)) await removeTree(join(paths.partials, name))
  }
}

/** Differences that are things too many. */
const STRAYS: ReadonlySet<string> = new Set([
  'container-stray',
  'pod-stray',
  'attachment-stray',
  'lease-stray',
  'rules-stray',
  'exec-left',
])

/** @throws BerthError precondition, saying what to do first */
export function requireWipeable(scope: WipeScope, plan: WipePlan, containers: number, force: boolean): void {
  if (scope.images && !scope.containers && containers > 0) {
    throw precondition(`${containers} containers stand on images; add --containers`)
  }
  const living = plan.pods.filter(({ lives }) => lives).map(({ name }) => name)
  if (living.length === 0 || force) return
  throw precondition(
    `pods live here: ${living.join(', ')}; drain the node first, or stop them with it: --force`,
  )
}

/** Names below the two roots that are Berth's; the lock goes last, by who holds it. */
const ROOT_NAMES =
  /^(berth\.db(-wal|-shm|\.reserve|\.schema-.*)?|layers|records|staging|trash|rootfs|empty|containers|cni|partial|init)$/
const RUN_NAMES = /^(pods|containers|exits|s|tmp|execs|runtimes|berth\.sock)$/

/**
 * The directories themselves, once nothing is in them that anybody uses. The caller holds the lock.
 * @returns what is left, since it is not Berth's
 */
export async function removeDirectories(paths: NodePaths): Promise<string[]> {
  for (const [directory, names] of [
    [paths.runRoot, RUN_NAMES],
    [paths.root, ROOT_NAMES],
  ] as const) {
    for (const name of namesIn(directory)) {
      if (names.test(name)) await removeTree(join(directory, name))
    }
  }
  effectSync('os', 'remove-lock', paths.lock, () => rmSync(paths.lock, { force: true }))
  return [paths.runRoot, paths.root].filter(directory => existsSync(directory) && !isRemoved(directory))
}

/** Left where something else is in it, or it is a mount point of the node's. */
function isRemoved(directory: string): boolean {
  try {
    effectSync('os', 'remove-directory', directory, () => rmdirSync(directory))
    return true
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT') return true
    if (code === 'ENOTEMPTY' || code === 'EBUSY') return false
    throw error
  }
}
