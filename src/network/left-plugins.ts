import { sleep } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
import { processesWithVariable, signalProcess } from '../os/processes.ts'

const SIGKILL = 9

/** SIGKILL takes effect in milliseconds, unless a process hangs in the kernel. */
const LIMIT_MS = 5_000
const PAUSE_MS = 10

/**
 * Ends the plugins that an earlier daemon started for a pod and did not live to wait for. They must not go on beside
 * the DEL that takes back what they did: nobody would take back what they do after it.
 * @throws BerthError unavailable if one does not end
 */
export async function endLeftPlugins(podId: string): Promise<void> {
  const end = performance.now() + LIMIT_MS
  for (;;) {
    const left = processesWithVariable('CNI_CONTAINERID', podId)
    if (left.length === 0) return
    if (performance.now() > end) {
      const pids = left.map(({ pid }) => pid).join(', ')
      throw new BerthError('unavailable', `CNI plugins of an earlier daemon do not end: pid ${pids}`)
    }
    for (const plugin of left) signalProcess(plugin, SIGKILL)
    await sleep(PAUSE_MS)
  }
}
