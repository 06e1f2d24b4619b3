import { isIP } from 'node:net'
import { type CniVersion, isAtLeast, isCniVersion } from './cni-version.ts'
import { isJsonObject, type JsonObject } from './json.ts'

/** What a plugin may print. A result is some hundred bytes; this only bounds what a broken one can cost. */
export const MAX_RESULT_BYTES = 1024 * 1024

/** What a plugin prints when it fails (CNI specification, section 5, Error). */
type PluginFailure = { readonly code: number; readonly msg: string; readonly details: string }

/**
 * The result of an ADD in the form of `version`, whichever version the plugin answered in, so that it may go to the
 * next plugin as `prevResult`. Members that are not known here are kept.
 * @throws Error saying which member is wrong and what was expected
 */
export function parseResult(stdout: Buffer, version: CniVersion): JsonObject {
  if (stdout.length > MAX_RESULT_BYTES) throw new Error(`result is larger than ${MAX_RESULT_BYTES} bytes`)
  const value = parseObject(stdout)
  if (value === undefined) throw new Error(`expected a result as a JSON object, found ${excerpt(stdout)}`)
  if (value.cniVersion !== undefined && !isCniVersion(value.cniVersion)) {
    throw new Error(
      `result.cniVersion: expected ${version}, found ${excerpt(JSON.stringify(value.cniVersion))}`,
    )
  }
  const interfaces = arrayOf(value, 'interfaces', 'name')
  const ips = arrayOf(value, 'ips', 'address')
  for (const [index, ip] of ips.entries()) checkAddress(ip, `result.ips[${index}]`, interfaces.length)
  const result = { ...value, cniVersion: version, interfaces, ips: ips.map(ip => ipIn(version, ip)) }
  if (!isSerialisable(result)) throw new Error('result: nested too deep to be passed on')
  return result
}

function isSerialisable(value: JsonObject): boolean {
  try {
    JSON.stringify(value)
    return true
  } catch {
    return false
  }
}

/**
 * The pod's addresses without prefix length, in the result's order: those of interface `ifName` inside the pod, or
 * all when the plugin does not tell which interface they belong to. `result` comes from `parseResult`.
 */
export function podAddresses(result: unknown, ifName: string): string[] {
  if (!isJsonObject(result)) return []
  const interfaces = Array.isArray(result.interfaces) ? result.interfaces.filter(isJsonObject) : []
  const ips = Array.isArray(result.ips) ? result.ips.filter(isJsonObject) : []
  const inPod = ips.filter(ip => {
    if (ip.interface === undefined || ip.interface === null) return true
    const { name, sandbox } = interfaces[Number(ip.interface)] ?? {}
    return name === ifName && sandbox !== undefined && sandbox !== ''
  })
  return (inPod.length > 0 ? inPod : ips).map(ip => String(ip.address).replace(/\/.*/, ''))
}

/** The error object on a failed plugin's standard output, or undefined if there is none. */
export function parseFailure(stdout: Buffer): PluginFailure | undefined {
  if (stdout.length > MAX_RESULT_BYTES) return undefined
  const value = parseObject(stdout)
  if (value === undefined || typeof value.code !== 'number') return undefined
  return {
    code: value.code,
    msg: typeof value.msg === 'string' ? oneLine(value.msg) : '',
    details: typeof value.details === 'string' ? oneLine(value.details) : '',
  }
}

/** The beginning of some output, quoted, on one line. */
export function excerpt(output: Buffer | string): string {
  const text = oneLine(typeof output === 'string' ? output : output.toString('utf8', 0, 4 * MAX_EXCERPT))
  return text === '' ? 'nothing' : JSON.stringify(text)
}

// What fits into a pod event beside the rest of the message.
const MAX_EXCERPT = 512

function oneLine(text: string): string {
  const line = text.replace(/[\x00-\x1f\x7f]+/g, ' ').trim()
  return line.length > MAX_EXCERPT ? `${line.slice(0, MAX_EXCERPT)}…` : line
}

function parseObject(stdout: Buffer): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(stdout.toString('utf8'))
    return isJsonObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** The objects in `value[member]`, each with a string `key`; none when the member is absent. */
function arrayOf(value: JsonObject, member: string, key: string): JsonObject[] {
  const items = value[member] ?? []
  if (!Array.isArray(items)) throw new Error(`result.${member}: expected an array`)
  for (const [index, item] of items.entries()) {
    if (!isJsonObject(item)) throw new Error(`result.${member}[${index}]: expected a JSON object`)
    if (typeof item[key] !== 'string') throw new Error(`result.${member}[${index}].${key}: expected a string`)
  }
  return items
}

function checkAddress(ip: JsonObject, field: string, interfaceCount: number): void {
  if (familyOf(String(ip.address)) === undefined) {
    throw new Error(
      `${field}.address: expected an IP address with its prefix length, found ${excerpt(String(ip.address))}`,
    )
  }
  const index = ip.interface ?? undefined
  if (
    index !== undefined &&
    !(Number.isInteger(index) && Number(index) >= 0 && Number(index) < interfaceCount)
  ) {
    throw new Error(`${field}.interface: expected an index into result.interfaces (${interfaceCount})`)
  }
}

function familyOf(cidr: string): 4 | 6 | undefined {
  const [, address = '', prefix = ''] = /^([0-9A-Fa-f:.]+)\/([0-9]{1,3})$/.exec(cidr) ?? []
  const family = isIP(address)
  if (family !== 4 && family !== 6) return undefined
  return Number(prefix) <= (family === 4 ? 32 : 128) ? family : undefined
}

/** Before 1.0.0 each address names its family, and plugins of then require it; since 1.0.0 it is not allowed. */
function ipIn(version: CniVersion, ip: JsonObject): JsonObject {
  const { version: _family, ...rest } = ip
  if (isAtLeast(version, '1.0.0')) return rest
  return { version: String(familyOf(String(ip.address))), ...rest }
}
