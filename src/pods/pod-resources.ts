import { BerthError, inStep, messageOf, notFound, precondition } from '../base/errors.ts'
import { checkResources, mergeResources, toOciResources } from '../containers/spec/resources.ts'
import type { OciResources } from '../model/oci.ts'
import { type Pod, type PodConfig, podName } from '../model/pod.ts'
import type { LinuxResources } from '../model/security.ts'
import type { AppliedLimits } from '../os/cgroup/cgroup.ts'
import { type PodContext, stepOf } from './context.ts'
import { ownsCgroup } from './pod-stats.ts'

/**
 * UpdatePodSandboxResources: the limits of the pod's control group, and what containers made from now on are told of
 * their pod; both or neither. kubelet calls before it writes the same values itself: an error is its way to learn that
 * a size is not possible.
 */
export async function updatePodResources(
  context: PodContext,
  id: string,
  overhead: LinuxResources | undefined,
  resources: LinuxResources | undefined,
): Promise<void> {
  await context.locks.run(id, async () => {
    const pod = context.catalog.pod(id)
    if (pod === undefined) throw notFound('pod sandbox', id)
    if (pod.phase !== 'ready') throw precondition(`pod ${podName(pod.config.metadata)} (${id}) is not ready`)
    const config: PodConfig = {
      ...pod.config,
      ...(overhead === undefined ? {} : { overhead: mergeResources(pod.config.overhead, overhead) }),
      ...(resources === undefined ? {} : { resources: mergeResources(pod.config.resources, resources) }),
    }
    checkPodResources(context, config, '')
    const limits = podLimits(context, config)
    await context.timeline.step(stepOf(pod, 'UpdatePodSandboxResources'), 'write-limits', async () => {
      if (ownsCgroup(pod)) await writeLimits(context, pod, limits)
    })
    context.catalog.updatePod(id, { config })
  })
}

/** @param path of the message that the two fields are in. @throws BerthError invalid, naming the field */
function checkPodResources({ host }: PodContext, { resources, overhead }: PodConfig, path: string): void {
  if (resources !== undefined) checkResources(`${path}resources`, resources, host)
  if (overhead !== undefined) checkResources(`${path}overhead`, overhead, host)
}

/** For a pod whose control group is Berth's to make; else the client knows what it does. */
export async function applyPodResources(context: PodContext, pod: Pod): Promise<void> {
  const { resources, overhead, cgroupParent } = pod.config
  if (cgroupParent !== '' || (resources === undefined && overhead === undefined)) return
  checkPodResources(context, pod.config, 'config.linux.')
  await context.cgroups.create(pod.cgroup)
  await context.cgroups.writeLimits(pod.cgroup, podLimits(context, pod.config))
}

async function writeLimits(context: PodContext, pod: Pod, limits: OciResources): Promise<void> {
  const { cgroups, log } = context
  if (pod.config.cgroupParent === '') await cgroups.create(pod.cgroup)
  else if (!cgroups.exists(pod.cgroup)) return
  const before = asResources(cgroups.applied(pod.cgroup))
  try {
    await cgroups.writeLimits(pod.cgroup, limits)
  } catch (error) {
    try {
      await cgroups.writeLimits(pod.cgroup, before)
    } catch (why) {
      log.warn(
        { podId: pod.id, error: messageOf(why) },
        'the former limits of a pod could not be written back',
      )
    }
    const wrong = error instanceof BerthError ? error : precondition(messageOf(error))
    throw inStep(`the limits of pod ${podName(pod.config.metadata)} cannot be changed`, wrong)
  }
}

/** What `writeLimits` takes to make these the limits again. */
function asResources({ cpuShares, cpuQuota, cpuPeriod, memoryLimit }: AppliedLimits): OciResources {
  return {
    cpu: {
      ...(cpuShares === undefined ? {} : { shares: cpuShares }),
      ...(cpuQuota === undefined ? {} : { quota: cpuQuota }),
      ...(cpuPeriod === undefined ? {} : { period: cpuPeriod }),
    },
    memory: { limit: memoryLimit ?? -1 },
  }
}

/** A pod's containers and its overhead together. What one of them does not limit is not limited. */
function podLimits({ host }: PodContext, { resources, overhead }: PodConfig): OciResources {
  const [own, more] = [resources, overhead].filter(part => part !== undefined)
  if (own === undefined) return {}
  const limits = toOciResources(more === undefined ? own : sumOf(own, more), host)
  // Without a word about swap the group keeps what it has: a pod's memory limit is no promise about swap.
  if (limits.memory !== undefined && (own.memorySwapLimit === 0 || more?.memorySwapLimit === 0)) {
    const { swap: _, ...memory } = limits.memory
    return { ...limits, memory }
  }
  return limits
}

function sumOf(own: LinuxResources, overhead: LinuxResources): LinuxResources {
  const sum = (name: 'cpuQuota' | 'memoryLimit' | 'memorySwapLimit') =>
    own[name] > 0 && overhead[name] > 0 ? own[name] + overhead[name] : own[name]
  return {
    ...own,
    cpuShares: own.cpuShares + overhead.cpuShares,
    cpuQuota: sum('cpuQuota'),
    memoryLimit: sum('memoryLimit'),
    memorySwapLimit: sum('memorySwapLimit'),
  }
}
