import { nowAfter, nowNs } from '../base/clock.ts'
import { BerthError, messageOf, precondition } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { requireContainer } from './container-state.ts'
import { type ContainerContext, pathsOf, runtimeOf, stepOf } from './context.ts'
import type { Exits } from './exits.ts'

/** What runtimes report for a command that could not be started (CRI: reason `StartError`). */
const START_ERROR_CODE = 128

/**
 * StartContainer. Only from `created`. The row needs no intent: recovery asks the runtime about every created
 * container. A failure leaves the container exited with reason `StartError`.
 * @param isStarted whether it is, and only the answer is missing
 */
export async function startContainer(
  context: ContainerContext,
  exits: Exits,
  id: string,
  isStarted: (container: Container) => boolean,
): Promise<void> {
  await context.locks.run(id, async () => {
    // It, or its monitor, may have ended and nobody have noticed yet.
    await exits.settleLocked(id)
    const container = requireContainer(context.catalog, id)
    if (isStarted(container)) return
    if (container.phase !== 'created') {
      throw precondition(`container ${id} is ${container.phase}; only a created one can be started`)
    }
    const runtime = runtimeOf(context, container)
    try {
      await context.timeline.step(stepOf(container, 'StartContainer'), 'runtime-start', () =>
        runtime.start(id, pathsOf(context, id)),
      )
    } catch (error) {
      if (!(await runs(runtime, id))) await refuse(exits, container, error)
    }
    context.catalog.updateContainer(id, { phase: 'running', startedAt: nowAfter([container.createdAt]) })
    context.events.emit('started', container.podId, id)
  })
  // A command that ended at once did so before its container was known to run.
  exits.look(id)
}

/** Also one that an earlier call started without being able to write it down. */
async function runs(runtime: Runtime, id: string): Promise<boolean> {
  try {
    const state = await runtime.state(id)
    return state?.status === 'running' || state?.status === 'paused'
  } catch {
    return false // what the start said is the better answer
  }
}

async function refuse(exits: Exits, container: Container, error: unknown): Promise<never> {
  const message = messageOf(error)
  await exits.record(container, {
    code: START_ERROR_CODE,
    reason: 'StartError',
    message,
    finishedAt: nowNs(),
  })
  throw new BerthError(
    'internal',
    `container ${container.config.metadata.name} did not start: ${message}`,
    error,
  )
}
