import { messageOf } from '../base/errors.ts'
import { type Flags, type Loaded, loadConfig } from '../config/load-config.ts'
import { startDaemon } from '../daemon.ts'
import { FAILURE, OK } from './exit-codes.ts'

/** `berth daemon`: until SIGTERM or SIGINT. A second signal does not wait. */
export async function runDaemon(flags: Flags): Promise<number> {
  const loaded = loadConfig({ flags })
  let stopping = false
  const starting = startDaemon(loaded.config, { warnings: loaded.warnings })
  const stop = () => {
    if (stopping) process.exit(FAILURE)
    stopping = true
    // A start that fails is reported below.
    starting.then(daemon => daemon.stop()).catch(() => undefined)
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => {
    starting.then(daemon => daemon.reload(reread(flags))).catch(() => undefined)
  })
  const daemon = await starting
  await daemon.closed
  return OK
}

/** What the files, variables and flags say now, or why that is no configuration. */
function reread(flags: Flags): Loaded | { readonly problem: string } {
  try {
    return loadConfig({ flags })
  } catch (error) {
    return { problem: messageOf(error) }
  }
}
