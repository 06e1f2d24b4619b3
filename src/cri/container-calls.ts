import { invalid, unimplemented } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import { batches } from './batches.ts'
import type { Calls } from './call.ts'
import { toContainerConfig } from './convert/container-config.ts'
import { fromContainer, fromContainerStatus } from './convert/containers.ts'
import { argument, clamped, each } from './convert/fields.ts'
import { toContainerFilter } from './convert/filters.ts'
import { toInfo } from './convert/info.ts'
import { toResources } from './convert/resources.ts'
import { once } from './encode-once.ts'
import type { Container as WireContainer } from './generated/runtime/v1/Container.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import { requireListRoom, textBytes } from './list-room.ts'
import type { Containers } from './services.ts'

type ContainerCalls = Pick<
  RuntimeServiceHandlers,
  | 'CreateContainer'
  | 'StartContainer'
  | 'StopContainer'
  | 'RemoveContainer'
  | 'ContainerStatus'
  | 'ListContainers'
  | 'StreamContainers'
  | 'UpdateContainerResources'
  | 'ReopenContainerLog'
  | 'CheckpointContainer'
  | 'ExecSync'
>

/** Bytes of each stream in an ExecSync reply: both together stay below the 16 MiB that a client takes. */
const MAX_EXEC_OUTPUT = 8 * 2 ** 20 - 1024

export function containerCalls(calls: Calls, containers: Containers): ContainerCalls {
  return {
    CreateContainer: calls.write(async ({ pod_sandbox_id, config }, { signal }) => {
      const wanted = toContainerConfig('config', config)
      const listed = fromContainers(containers.list(toContainerFilter(null)))
      requireListRoom('containers', listed.map(bytesOf), [wanted.labels, wanted.annotations])
      return { container_id: await containers.create(pod_sandbox_id, wanted, signal) }
    }),

    StartContainer: calls.write(async ({ container_id }, { signal }) => {
      await containers.start(container_id, signal)
      return {}
    }),

    StopContainer: calls.write(async ({ container_id, timeout }, { signal }) => {
      await containers.stop(container_id, clamped('timeout', timeout, 0), signal)
      return {}
    }),

    RemoveContainer: calls.write(async ({ container_id }, { signal }) => {
      await containers.remove(container_id, signal)
      return {}
    }),

    ContainerStatus: calls.read(({ container_id, verbose }) => ({
      status: fromContainerStatus(containers.status(container_id)),
      info: verbose ? toInfo('info', containers.verbose(container_id)) : {},
    })),

    ListContainers: calls.read(({ filter }) => ({
      containers: fromContainers(containers.list(toContainerFilter(filter))),
    })),

    StreamContainers: calls.stream('read', function* ({ filter }) {
      const found = fromContainers(containers.list(toContainerFilter(filter)))
      for (const batch of batches(found)) yield { containers: batch }
    }),

    UpdateContainerResources: calls.write(async ({ container_id, linux }) => {
      const resources = toResources('linux', linux)
      if (resources !== undefined) await containers.updateResources(container_id, resources)
      return {}
    }),

    ReopenContainerLog: calls.write(async ({ container_id }) => {
      await containers.reopenLog(container_id)
      return {}
    }),

    ExecSync: calls.write(async ({ container_id, cmd, timeout }, { signal }) => {
      if (cmd.length === 0) throw invalid('cmd', 'must not be empty')
      const command = each('cmd', cmd, argument)
      const output = await containers.execSync(container_id, command, clamped('timeout', timeout, 0), signal)
      return {
        stdout: output.stdout.subarray(0, MAX_EXEC_OUTPUT),
        stderr: output.stderr.subarray(0, MAX_EXEC_OUTPUT),
        exit_code: output.exitCode,
      }
    }),

    CheckpointContainer: calls.write(() => {
      throw unimplemented('CheckpointContainer')
    }),
  }
}

const shownContainer = once(fromContainer)
const bytesOf = once(textBytes)

function fromContainers(containers: readonly Container[]): WireContainer[] {
  return containers.map(shownContainer).filter(container => container !== undefined)
}
