import type { PodStatus } from '../containers/container-state.ts'
import type { Pod } from '../model/pod.ts'
import { batches } from './batches.ts'
import type { CallContext, Calls } from './call.ts'
import { fromContainerStatus } from './convert/containers.ts'
import { toPodFilter } from './convert/filters.ts'
import { toInfo } from './convert/info.ts'
import { toPodConfig } from './convert/pod-config.ts'
import { fromPod, fromPodStatus } from './convert/pods.ts'
import { toResources } from './convert/resources.ts'
import { once } from './encode-once.ts'
import type { ContainerEventResponse } from './generated/runtime/v1/ContainerEventResponse.ts'
import type { ContainerEventType } from './generated/runtime/v1/ContainerEventType.ts'
import type { PodSandbox } from './generated/runtime/v1/PodSandbox.ts'
import type { PodSandboxStatusResponse } from './generated/runtime/v1/PodSandboxStatusResponse.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import { requireListRoom, textBytes } from './list-room.ts'
import type { CriServices, Events } from './services.ts'

type PodCalls = Pick<
  RuntimeServiceHandlers,
  | 'RunPodSandbox'
  | 'StopPodSandbox'
  | 'RemovePodSandbox'
  | 'PodSandboxStatus'
  | 'ListPodSandbox'
  | 'StreamPodSandboxes'
  | 'UpdatePodSandboxResources'
  | 'GetContainerEvents'
>

export function podCalls(calls: Calls, { pods, events, node }: CriServices): PodCalls {
  return {
    RunPodSandbox: calls.write(async ({ config, runtime_handler }, { signal }) => {
      const wanted = toPodConfig('config', config, node.cgroupDriver)
      const listed = fromPods(pods.list(toPodFilter(null)))
      requireListRoom('pods', listed.map(bytesOf), [wanted.labels, wanted.annotations])
      return { pod_sandbox_id: await pods.run(wanted, runtime_handler, signal) }
    }),

    StopPodSandbox: calls.write(async ({ pod_sandbox_id }, { signal }) => {
      await pods.stop(pod_sandbox_id, signal)
      return {}
    }),

    RemovePodSandbox: calls.write(async ({ pod_sandbox_id }, { signal }) => {
      await pods.remove(pod_sandbox_id, signal)
      return {}
    }),

    PodSandboxStatus: calls.read(({ pod_sandbox_id, verbose }) => ({
      ...fromWholeStatus(pods.status(pod_sandbox_id)),
      info: verbose ? toInfo('info', pods.verbose(pod_sandbox_id)) : {},
    })),

    ListPodSandbox: calls.read(({ filter }) => ({ items: fromPods(pods.list(toPodFilter(filter))) })),

    StreamPodSandboxes: calls.stream('read', function* ({ filter }) {
      for (const batch of batches(fromPods(pods.list(toPodFilter(filter))))) yield { pod_sandboxes: batch }
    }),

    UpdatePodSandboxResources: calls.write(async ({ pod_sandbox_id, overhead, resources }) => {
      await pods.updateResources(
        pod_sandbox_id,
        toResources('overhead', overhead),
        toResources('resources', resources),
      )
      return {}
    }),

    GetContainerEvents: calls.stream('read', (_, context) => containerEvents(events, context)),
  }
}

const shownPod = once(fromPod)
const bytesOf = once(textBytes)

function fromPods(pods: readonly Pod[]): PodSandbox[] {
  return pods.map(shownPod).filter(pod => pod !== undefined)
}

function fromWholeStatus(status: PodStatus): PodSandboxStatusResponse {
  return {
    status: fromPodStatus(status.pod, status.state),
    containers_statuses: status.containers.map(fromContainerStatus),
    timestamp: String(status.timestamp),
  }
}

const EVENT_TYPES = {
  created: 'CONTAINER_CREATED_EVENT',
  started: 'CONTAINER_STARTED_EVENT',
  stopped: 'CONTAINER_STOPPED_EVENT',
  deleted: 'CONTAINER_DELETED_EVENT',
} as const satisfies Record<string, ContainerEventType>

async function* containerEvents(
  events: Events,
  { signal }: CallContext,
): AsyncGenerator<ContainerEventResponse> {
  using subscription = events.subscribe()
  signal.addEventListener('abort', () => subscription[Symbol.dispose](), { once: true })
  for await (const { containerId, type, createdAt, podStatus } of subscription) {
    yield {
      container_id: containerId,
      container_event_type: EVENT_TYPES[type],
      created_at: String(createdAt),
      pod_sandbox_status: fromPodStatus(podStatus.pod, podStatus.state),
      containers_statuses: podStatus.containers.map(fromContainerStatus),
    }
  }
}
