import { existsSync } from 'node:fs'
import type { Busy, Difference } from '../model/difference.ts'
import { type Pod, podUserOf } from '../model/pod.ts'
import { ensureDir, openDirectory } from '../os/files.ts'
import { isMountPoint, mountsBelow, unmountAll } from '../os/mounts.ts'
import { PINS } from '../os/namespace-calls.ts'
import { bootId } from '../os/node.ts'
import { hasNetwork, type PodContext, targetOf } from './context.ts'
import { hasLostInit, lostPins, memberOf, pinAgain } from './losses.ts'
import { mountSharedMemory, writeHosts, writePodFiles } from './pod-files.ts'
import { findPodStrays, removePodStray } from './pod-strays.ts'
import { recoverPod } from './recover-pods.ts'

/** Rows of pods against directories, pins and mounts, and these against the rows. */
export function podDifferences(context: PodContext, isServing: boolean, busy: Busy): Difference[] {
  const mounts = mountsBelow(context.paths.pods).map(({ mountPoint }) => mountPoint)
  const known = [...context.catalog.pods()].flatMap(pod => {
    if (context.locks.isHeld(pod.id)) {
      busy.add(`pod ${pod.id}`)
      return []
    }
    return differencesOf(context, pod, mounts, isServing).map(difference => ({
      subject: pod.id,
      podId: pod.id,
      row: pod,
      ...difference,
    }))
  })
  return [...known, ...strayPods(context, mounts)]
}

/** What is on the host of the pods' networks, against who holds an address. */
export async function networkDifferences(context: PodContext): Promise<Difference[]> {
  const { catalog, locks, network } = context
  const members = [...catalog.pods()]
    .filter(pod => hasNetwork(pod) && pod.networkHeld)
    .map(pod => ({
      target: targetOf(context, pod, true),
      network: pod.network,
      isSettled:
        pod.phase === 'ready' &&
        pod.bootId === bootId() &&
        !locks.isHeld(pod.id) &&
        lostPins(context, pod).length === 0,
    }))
  const found = await network.differences(members)
  return found.map(difference => ({ ...difference, row: catalog.pod(difference.podId ?? '') }))
}

type Finding = Omit<Difference, 'subject'> & { readonly subject?: string }

function differencesOf(
  context: PodContext,
  pod: Pod,
  mounts: readonly string[],
  isServing: boolean,
): Finding[] {
  switch (pod.phase) {
    case 'creating':
    case 'removing':
      return [unfinished(context, pod, isServing)]
    case 'ready': {
      const loss = lossOf(context, pod, isServing)
      return loss === undefined
        ? [...missingFiles(context, pod), ...unknownMounts(context, pod, mounts)]
        : [loss]
    }
    case 'notready':
      // What it still holds, StopPodSandbox takes back: that it has not come yet is no difference.
      return []
  }
}

function unfinished(context: PodContext, pod: Pod, isServing: boolean): Finding {
  const verb = pod.phase === 'creating' ? 'made' : 'removed'
  return {
    kind: 'pod-unfinished',
    found: `its row says that it is being ${verb}, and nobody is at it`,
    cause: isServing
      ? 'an operation failed, and what it had done could not be undone: the log of the daemon says why'
      : `the daemon ended while the pod was being ${verb}`,
    remedy: 'take away everything that its id stands for, then its row, as the next start of the daemon does',
    fix: () =>
      context.locks.run(pod.id, async () => {
        const now = context.catalog.pod(pod.id)
        if (now?.phase === 'creating' || now?.phase === 'removing') await recoverPod(context, now)
      }),
  }
}

function lossOf(context: PodContext, pod: Pod, isServing: boolean): Finding | undefined {
  const end = {
    remedy: 'mark it as not ready: kubelet stops it and makes another one',
    fix: () => markLost(context, pod.id),
  }
  if (pod.bootId !== bootId()) {
    const found = 'its row says ready, and its namespaces are of an earlier boot'
    return { kind: 'pod-lost', found, cause: 'the node was restarted', ...end }
  }
  if (hasLostInit(pod)) {
    return {
      kind: 'pod-lost',
      found: `its row says ready, and the init process of its PID namespace (pid ${pod.init?.pid ?? 'unknown'}) has ended`,
      cause: isServing ? 'its end was not noticed' : 'it was killed while no daemon ran',
      ...end,
    }
  }
  const pins = lostPins(context, pod)
  if (pins.length === 0) return undefined
  const member = memberOf(context, pod)
  const directory = context.paths.pod(pod.id).namespaces
  const lost = {
    kind: 'pod-namespaces' as const,
    found: `its namespaces are not pinned any more: ${pins.map(name => `${directory}/${name}`).join(', ')}`,
    cause: 'somebody unmounted them, as umount -a does',
  }
  if (member === undefined) return { ...lost, ...end }
  return {
    ...lost,
    remedy: `pin them again from a process of the pod that is in them (pid ${member.pid}), which does not notice`,
    fix: () =>
      context.locks.run(pod.id, async () => {
        if (context.catalog.pod(pod.id)?.phase === 'ready') pinAgain(context, pod)
      }),
  }
}

async function markLost({ catalog, events, locks }: PodContext, id: string): Promise<void> {
  await locks.run(id, async () => {
    if (catalog.pod(id)?.phase !== 'ready') return
    catalog.updatePod(id, { phase: 'notready' })
    events.emit('stopped', id, id)
  })
}

/** What new containers of the pod get mounted; those that run have theirs. */
function missingFiles(context: PodContext, pod: Pod): Finding[] {
  const paths = context.paths.pod(pod.id)
  const hasMemory = pod.config.namespaces.ipc === 'node' || isMountPoint(paths.shm)
  const files = [paths.hostname, paths.resolvConf, paths.hosts].filter(path => !existsSync(path))
  const missing = [...files, ...(hasMemory ? [] : [`the mount ${paths.shm}`])]
  if (missing.length === 0) return []
  const memory = hasMemory ? '' : '; those that run keep the shared memory that they have'
  return [
    {
      kind: 'pod-files',
      found: `what its next container needs is missing: ${missing.join(', ')}`,
      cause: 'somebody, or a cleaner of temporary files, removed or unmounted it',
      remedy: `make it again from its row; containers that run do not notice${memory}`,
      fix: () =>
        context.locks.run(pod.id, async () => {
          if (context.catalog.pod(pod.id)?.phase !== 'ready') return
          const user = podUserOf(pod.config.namespaces)
          ensureDir(paths.directory, 0o700)
          if (user !== undefined) openDirectory(paths.directory, user.gid.hostId)
          // What is bound into containers that run stays as it is.
          if (files.length > 0) {
            if (files.includes(paths.hosts)) writeHosts(context, pod, pod.network.ips)
            if (files.some(path => path !== paths.hosts)) writePodFiles(context, pod)
          }
          if (!hasMemory && !isMountPoint(paths.shm)) mountSharedMemory(context, pod)
        }),
    },
  ]
}

function unknownMounts({ paths }: PodContext, pod: Pod, mounts: readonly string[]): Finding[] {
  const { directory, namespaces, shm } = paths.pod(pod.id)
  const expected = new Set([shm, ...PINS.map(name => `${namespaces}/${name}`)])
  return mounts
    .filter(point => point.startsWith(`${directory}/`) && !expected.has(point))
    .map(mountPoint => ({
      kind: 'mount-unknown' as const,
      subject: mountPoint,
      found: 'something is mounted here that is not of the pod',
      cause: 'somebody mounted it by hand',
      remedy: 'unmount it: it would be in the way when the pod is removed',
      fix: async () => unmountAll(mountPoint),
    }))
}

function strayPods(context: PodContext, mounts: readonly string[]): Difference[] {
  return findPodStrays(context).map(stray => {
    const { directory } = context.paths.pod(stray.id)
    const traces = [
      ...(stray.hasDirectory ? [directory] : []),
      ...mounts.filter(point => point.startsWith(`${directory}/`)).map(point => `mount ${point}`),
      ...(stray.cgroup === undefined ? [] : [`cgroup ${stray.cgroup}`]),
    ]
    return {
      kind: 'pod-stray' as const,
      subject: stray.id,
      podId: stray.id,
      found: `there is no such pod, but there is: ${traces.join(', ')}`,
      cause:
        'the database was lost or put back from a backup, somebody made this by hand, or a daemon ended before it knew of it',
      remedy: 'unmount and remove all of it',
      fix: () => removePodStray(context, stray),
    }
  })
}
