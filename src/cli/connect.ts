import { BerthError, invalid, messageOf } from '../base/errors.ts'
import { installedPath } from '../config/installation.ts'
import { socket as socketKind } from '../config/kinds.ts'
import { type Flags, loadConfig } from '../config/load-config.ts'
import { BerthClient } from '../cri/client.ts'
import { UnreachableError } from './exit-codes.ts'

/** A daemon answers these from memory; one that takes longer is in trouble. */
const TIMEOUT_MS = 10_000

/** @throws UnreachableError when nobody answers at the socket */
export async function connectDaemon(flags: Flags): Promise<BerthClient> {
  const socket = socketOf(flags)
  try {
    return await BerthClient.connect(socket, installedPath('proto'), { timeoutMs: TIMEOUT_MS })
  } catch (error) {
    throw error instanceof BerthError ? new UnreachableError(error) : error
  }
}

/** A socket that was named needs no configuration, which may be broken or unreadable. */
function socketOf(flags: Flags): string {
  if (flags.listen === undefined) return loadConfig({ flags }).config.api.listen
  try {
    return socketKind.fromTexts(flags.listen)
  } catch (error) {
    throw invalid('--listen', messageOf(error))
  }
}
