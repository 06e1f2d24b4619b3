import { errnoOf } from '../base/errors.ts'
import { hardwareAddress } from '../os/syscalls.ts'
import { isJsonObject, type JsonObject } from './json.ts'

/**
 * The result of an ADD with the hardware addresses that interfaces on the node's side have by now. systemd-udevd gives
 * a new veth another one, right after the plugin has told it (MACAddressPolicy= in systemd.link(5)): nobody depends on
 * it, and CHECK would find every pod of such a node broken. Those in the pod stay as they were made.
 */
export function withHostAddresses(result: unknown): unknown {
  if (!isJsonObject(result) || !Array.isArray(result.interfaces)) return result
  return { ...result, interfaces: result.interfaces.map(item => (isJsonObject(item) ? current(item) : item)) }
}

function current(item: JsonObject): JsonObject {
  const { name, mac, sandbox } = item
  if (typeof name !== 'string' || typeof mac !== 'string' || mac === '') return item
  if (typeof sandbox === 'string' && sandbox !== '') return item
  try {
    return { ...item, mac: hardwareAddress(name) }
  } catch (error) {
    if (errnoOf(error) === 'ENODEV') return item // CHECK finds that
    throw error
  }
}
