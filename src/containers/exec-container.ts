import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { internal, precondition } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import type { OciSpec } from '../model/oci.ts'
import type { ExecResult } from '../runtime/runtime.ts'
import { requireContainer } from './container-state.ts'
import { type ContainerContext, pathsOf, runtimeOf, stepOf } from './context.ts'
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
  const container = requireContainer(context.catalog, idOrPrefix)
  if (container.phase !== 'running') {
    throw precondition(`container ${container.id} is ${container.phase}; a command needs a running one`)
  }
  const directory = join(context.paths.execs, newId())
  const process = execProcess(specOfRunning(pathsOf(context, container.id).bundle).process, command, false)
  try {
    return await context.timeline.step(
      stepOf(container, 'ExecSync'),
      'runtime-exec',
      () =>
        runtimeOf(context, container).exec({
          containerId: container.id,
          process,
          timeoutMs: timeoutSeconds * 1000,
          maxOutput: MAX_OUTPUT,
          directory,
          signal,
        }),
      { waits: true },
    )
  } finally {
    rmSync(directory, { recursive: true, force: true })
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
