import { invalid } from '../base/errors.ts'
import { type CniVersion, newestOf, SUPPORTED_VERSIONS } from './cni-version.ts'
import { isJsonObject, type JsonObject } from './json.ts'

export type CniPlugin = {
  /** File name of the executable below one of the plugin directories. */
  readonly type: string
  /** The address plugin that this one runs itself, if any. */
  readonly ipamType: string | undefined
  /** Names of the runtime capabilities it declares: `portMappings`, `bandwidth`. */
  readonly capabilities: ReadonlySet<string>
  readonly json: JsonObject
}

/** A network configuration list (CNI specification, section 1). */
export type CniNetwork = {
  readonly name: string
  readonly cniVersion: CniVersion
  readonly disableCheck: boolean
  readonly disableGc: boolean
  readonly plugins: readonly CniPlugin[]
  /** The list as it was parsed; `parseNetwork` of it gives the same network again. */
  readonly json: JsonObject
}

// A type becomes a file name below the plugin directories: no separator and no leading dot, or it could leave them.
// A network's name becomes one in the directories of plugins. Both are as long as file names may be.
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/
const FILE_NAME_RULE = 'a letter or digit, then letters, digits, ".", "_" or "-", 255 at most'
// Real lists have two to five; each costs a process per pod.
const MAX_PLUGINS = 32

/**
 * Takes a configuration list, or a single plugin's configuration (what `.conf` files hold) as a list of one.
 * @throws BerthError invalid, naming the member and what was expected
 */
export function parseNetwork(value: unknown): CniNetwork {
  if (!isJsonObject(value)) throw invalid('configuration', 'expected a JSON object')
  const list = value.plugins === undefined && value.type !== undefined ? listOfOne(value) : value
  if (typeof list.name !== 'string' || !FILE_NAME.test(list.name)) {
    throw invalid('name', `expected ${FILE_NAME_RULE}`)
  }
  const plugins = list.plugins
  if (!Array.isArray(plugins) || plugins.length === 0 || plugins.length > MAX_PLUGINS) {
    throw invalid('plugins', `expected an array of 1 to ${MAX_PLUGINS} plugin configurations`)
  }
  return {
    name: list.name,
    cniVersion: negotiate(list),
    disableCheck: flag(list, 'disableCheck'),
    disableGc: flag(list, 'disableGC'),
    plugins: plugins.map((plugin, index) => parsePlugin(plugin, `plugins[${index}]`)),
    json: list,
  }
}

function listOfOne(plugin: JsonObject): JsonObject {
  return { cniVersion: plugin.cniVersion, name: plugin.name, plugins: [plugin] }
}

function negotiate(list: JsonObject): CniVersion {
  const { cniVersion, cniVersions = [] } = list
  if (!Array.isArray(cniVersions)) throw invalid('cniVersions', 'expected an array of versions')
  const version = newestOf([cniVersion, ...cniVersions])
  if (version !== undefined) return version
  const found = cniVersion === undefined ? 'none' : JSON.stringify(cniVersion).slice(0, 20)
  throw invalid('cniVersion', `expected one of ${SUPPORTED_VERSIONS}, found ${found}`)
}

function flag(list: JsonObject, name: string): boolean {
  const value = list[name]
  // The specification has booleans here; its library also takes the strings, and configurations use them.
  if (value === undefined || value === false || value === 'false') return false
  if (value === true || value === 'true') return true
  throw invalid(name, 'expected true or false')
}

function parsePlugin(value: unknown, field: string): CniPlugin {
  if (!isJsonObject(value)) throw invalid(field, 'expected a JSON object')
  const ipam = value.ipam ?? undefined
  if (ipam !== undefined && !isJsonObject(ipam)) throw invalid(`${field}.ipam`, 'expected a JSON object')
  const capabilities = value.capabilities ?? {}
  if (!isJsonObject(capabilities)) throw invalid(`${field}.capabilities`, 'expected a JSON object')
  // An `ipam` without a type is a network without addresses of its own (layer 2).
  const ipamType = ipam?.type === undefined || ipam.type === '' ? undefined : ipam.type
  return {
    type: pluginType(value.type, `${field}.type`),
    ipamType: ipamType === undefined ? undefined : pluginType(ipamType, `${field}.ipam.type`),
    capabilities: new Set(Object.keys(capabilities).filter(name => capabilities[name] === true)),
    json: value,
  }
}

function pluginType(value: unknown, field: string): string {
  if (typeof value === 'string' && FILE_NAME.test(value)) return value
  throw invalid(field, `expected a plugin's file name: ${FILE_NAME_RULE}`)
}
