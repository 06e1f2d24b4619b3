import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LONGEST_TIMER } from '../base/clock.ts'
import { internal, precondition } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import type { OciSpec } from '../model/oci.ts'
import type { Channels } from '../runtime/channels.ts'
import type { ExecCommand, ExecResult } from '../runtime/runtime.ts'
import { requireContainer } from './container-state.ts'
import { type ContainerContext, pathsOf, runtimeOf, stepOf } from './context.ts'
import { execFailure } from './runtime-errors.ts'
import { execProcess } from './spec/process.ts'

/**
 * Kept bytes of each stream of an ExecSync: both together fit the 16 MiB that a client accepts in one message, with
 * room for the rest of it. What comes beyond is read and dropped.
 */
const MAX_OUTPUT = 8 * 2 ** 20 - 1024

/** ExecSync: as the container's first process runs (user, groups, capabilities, environment, directory). */
export async function execSync(
  context: ContainerContext,
  idOrPrefix: string,
  command: readonly string[],
  timeoutSeconds: number,
  signal: AbortSignal,
): Promise<ExecResult> {
  const container = requireRunning(context, idOrPrefix)
  const timeoutMs = Math.min(timeoutSeconds * 1000, LONGEST_TIMER)
  const request = {
    ...commandIn(context, container, command, false),
    timeoutMs,
    maxOutput: MAX_OUTPUT,
    signal,
  }
  try {
    return await context.timeline.step(
      stepOf(container, 'ExecSync'),
      'runtime-exec',
      () => runtimeOf(context, container).exec(request),
      { waits: true },
    )
  } catch (error) {
    throw execFailure('cmd', error)
  }
}

/** Exec: the same for a client that is connected. @returns the exit code */
export async function execStream(
  context: ContainerContext,
  idOrPrefix: string,
  command: readonly string[],
  tty: boolean,
  channels: Channels,
  signal: AbortSignal,
): Promise<number> {
  const container = requireRunning(context, idOrPrefix)
  const request = { ...commandIn(context, container, command, tty), killAfterMs: context.execKillAfterMs }
  return await context.timeline.step(
    stepOf(container, 'Exec'),
    'runtime-exec',
    () => runtimeOf(context, container).execStream(request, channels, signal),
    { waits: true },
  )
}

/** @throws BerthError not-found, precondition */
export function requireRunning(context: ContainerContext, idOrPrefix: string): Container {
  const container = requireContainer(context.catalog, idOrPrefix)
  if (container.phase === 'running') return container
  throw precondition(`container ${container.id} is ${container.phase}; a command needs a running one`)
}

function commandIn(
  context: ContainerContext,
  container: Container,
  command: readonly string[],
  tty: boolean,
): ExecCommand {
  return {
    containerId: container.id,
    cgroup: container.cgroup,
    process: execProcess(specOfRunning(pathsOf(context, container.id).bundle).process, command, tty),
    // Short: the path of a console socket in it must fit a socket's address.
    directory: join(context.paths.execs, randomBytes(8).toString('hex')),
  }
}

/** The spec that a living container was created with. */
function specOfRunning(bundle: string): OciSpec {
  try {
    return JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as OciSpec
  } catch (error) {
    throw internal(`the bundle ${bundle} cannot be read`, error)
  }
}
