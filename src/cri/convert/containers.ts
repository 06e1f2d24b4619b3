import { type ContainerState, type ContainerStatus, stateOf } from '../../containers/container-state.ts'
import type { Container } from '../../model/container.ts'
import type { Container as WireContainer } from '../generated/runtime/v1/Container.ts'
import type { ContainerState as WireState } from '../generated/runtime/v1/ContainerState.ts'
import type { ContainerStatus as WireStatus } from '../generated/runtime/v1/ContainerStatus.ts'
import type { ImageSpec } from '../generated/runtime/v1/ImageSpec.ts'
import { fromMounts } from './mounts.ts'
import { fromResources } from './resources.ts'
import { fromSignal } from './signals.ts'

const STATES: Readonly<Record<ContainerState, WireState>> = {
  created: 'CONTAINER_CREATED',
  running: 'CONTAINER_RUNNING',
  exited: 'CONTAINER_EXITED',
  unknown: 'CONTAINER_UNKNOWN',
}

/** undefined for a container that is still being made: nobody has its id yet. */
export function fromContainer(container: Container): WireContainer | undefined {
  const state = stateOf(container)
  if (state === undefined) return undefined
  return { ...fromIdentity(container), pod_sandbox_id: container.podId, state: STATES[state] }
}

export function fromContainerStatus({ container, state }: ContainerStatus): WireStatus {
  const { exit, resources, user } = container
  return {
    ...fromIdentity(container),
    state: STATES[state],
    started_at: String(container.startedAt),
    ...(exit === undefined
      ? {}
      : {
          // A wall clock that was set back must not let a container end before it began.
          finished_at: String(later(exit.finishedAt, container.startedAt)),
          exit_code: exit.code,
          reason: exit.reason,
          message: exit.message,
        }),
    mounts: fromMounts(container),
    log_path: container.logPath,
    resources: resources === undefined ? null : { linux: fromResources(resources) },
    user: { linux: { uid: user.uid, gid: user.gid, supplemental_groups: [...user.supplementalGroups] } },
    stop_signal: fromSignal(container.stopSignal),
  }
}

/** What list and status have in common. */
function fromIdentity(container: Container) {
  const { metadata, labels, annotations } = container.config
  return {
    id: container.id,
    metadata: { name: metadata.name, attempt: metadata.attempt },
    created_at: String(container.createdAt),
    image: fromImageName(container),
    image_ref: container.imageRef,
    image_id: container.imageId,
    labels,
    annotations,
  }
}

function fromImageName({ imageName, config }: Container): ImageSpec {
  return { image: imageName, user_specified_image: config.userSpecifiedImage }
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b
}
