import { precondition } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import type { Channels } from '../runtime/channels.ts'
import { requireContainer } from './container-state.ts'
import { type ContainerContext, pathsOf, runtimeOf, stepOf } from './context.ts'

/** Attach: a client at the streams of the container's first process, until those end or the client leaves. */
export async function attachContainer(
  context: ContainerContext,
  idOrPrefix: string,
  tty: boolean,
  channels: Channels,
  signal: AbortSignal,
): Promise<void> {
  const container = requireAttachable(context, idOrPrefix, tty)
  const { tty: terminal, stdin, stdinOnce } = container.config
  const request = {
    containerId: container.id,
    paths: pathsOf(context, container.id),
    terminal,
    stdin,
    stdinOnce,
  }
  await context.timeline.step(
    stepOf(container, 'Attach'),
    'attach',
    () => runtimeOf(context, container).attach(request, channels, signal),
    { waits: true },
  )
}

/** @throws BerthError not-found, precondition */
export function requireAttachable(context: ContainerContext, idOrPrefix: string, tty: boolean): Container {
  const container = requireContainer(context.catalog, idOrPrefix)
  const { id, phase, config } = container
  if (phase !== 'running' && phase !== 'created') {
    throw precondition(`container ${id} is ${phase}; one that is attached to must be created or running`)
  }
  if (config.tty !== tty) {
    const has = config.tty ? 'has a terminal' : 'has no terminal'
    throw precondition(`container ${id} ${has}: attach with tty = ${config.tty}`)
  }
  return container
}
