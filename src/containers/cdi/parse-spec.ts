import type { OciHook, OciIntelRdt, OciMount } from '../../model/oci.ts'

/** What a device, or all devices of a specification together, change in a container (CDI 1.0, "OCI Edits"). */
export type ContainerEdits = {
  /** `NAME=value` */
  readonly env: readonly string[]
  readonly deviceNodes: readonly CdiDeviceNode[]
  readonly mounts: readonly OciMount[]
  /** By the OCI hook's name. */
  readonly hooks: ReadonlyArray<{ readonly name: OciHookName; readonly hook: OciHook }>
  readonly additionalGids: readonly number[]
  readonly intelRdt?: OciIntelRdt
}

export type CdiDeviceNode = {
  /** In the container. */
  readonly path: string
  readonly hostPath: string
  /** What is not said is that of the node at `hostPath`. */
  readonly type?: 'c' | 'b'
  readonly major?: number
  readonly minor?: number
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** Subset of `rwm`. */
  readonly access: string
}

export type CdiSpec = {
  readonly file: string
  /** `vendor.com/class` */
  readonly kind: string
  /** For every container with a device of this specification. */
  readonly edits: ContainerEdits
  readonly devices: ReadonlyMap<string, ContainerEdits>
}

const HOOKS = [
  'prestart',
  'createRuntime',
  'createContainer',
  'startContainer',
  'poststart',
  'poststop',
] as const
export type OciHookName = (typeof HOOKS)[number]

const KIND = /^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?\/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?$/
const DEVICE = /^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$/

/** Far above what any node has of one thing. */
const MAX_ITEMS = 4096

/**
 * @param value a parsed document
 * @throws Error naming the member, if it is no CDI specification or asks for what Berth cannot do
 */
export function parseCdiSpec(value: unknown, file: string): CdiSpec {
  const top = object(value, 'the document')
  only(top, ['cdiVersion', 'kind', 'annotations', 'devices', 'containerEdits'], '')
  const version = text(top.cdiVersion, 'cdiVersion')
  if (!/^(0|1)\.\d+\.\d+$/.test(version)) throw wrong('cdiVersion', 'a version 0.x or 1.x', version)
  const kind = text(top.kind, 'kind')
  if (!KIND.test(kind)) throw wrong('kind', 'vendor/class', kind)
  const devices = new Map<string, ContainerEdits>()
  for (const [index, item] of list(top.devices, 'devices').entries()) {
    const at = `devices[${index}]`
    const device = object(item, at)
    only(device, ['name', 'annotations', 'containerEdits'], `${at}.`)
    // YAML takes an unquoted 0 for a number; names of devices often are such.
    const name = String(device.name)
    if (!DEVICE.test(name)) throw wrong(`${at}.name`, 'the name of a device', device.name)
    if (devices.has(name)) throw new Error(`${at}.name: ${JSON.stringify(name)} occurs twice`)
    devices.set(name, edits(device.containerEdits, `${at}.containerEdits`))
  }
  return { file, kind, edits: edits(top.containerEdits, 'containerEdits'), devices }
}

function edits(value: unknown, at: string): ContainerEdits {
  const given = value === undefined || value === null ? {} : object(value, at)
  only(
    given,
    ['env', 'deviceNodes', 'mounts', 'hooks', 'additionalGids', 'additionalGIDs', 'intelRdt'],
    `${at}.`,
  )
  const gids = given.additionalGids ?? given.additionalGIDs
  return {
    env: items(given.env, `${at}.env`, variable),
    deviceNodes: items(given.deviceNodes, `${at}.deviceNodes`, deviceNode),
    mounts: items(given.mounts, `${at}.mounts`, mount),
    hooks: items(given.hooks, `${at}.hooks`, hook),
    additionalGids: items(gids, `${at}.additionalGids`, (gid, where) => integer(gid, where, 2 ** 32 - 2)),
    // The runtime's to read: its members are those of the OCI specification.
    ...(given.intelRdt === undefined ? {} : { intelRdt: object(given.intelRdt, `${at}.intelRdt`) }),
  }
}

function variable(value: unknown, at: string): string {
  const assignment = text(value, at)
  if (!/^[^=\0]+=[^\0]*$/.test(assignment)) throw wrong(at, 'NAME=value', assignment)
  return assignment
}

function deviceNode(value: unknown, at: string): CdiDeviceNode {
  const node = object(value, at)
  only(
    node,
    ['path', 'hostPath', 'type', 'major', 'minor', 'fileMode', 'permissions', 'uid', 'gid'],
    `${at}.`,
  )
  const path = absolute(node.path, `${at}.path`)
  const access = node.permissions === undefined ? 'rwm' : text(node.permissions, `${at}.permissions`)
  if (!/^[rwm]{1,3}$/.test(access)) throw wrong(`${at}.permissions`, 'letters of "rwm"', access)
  const { type } = node
  if (type !== undefined && type !== 'b' && type !== 'c' && type !== 'u')
    throw wrong(`${at}.type`, 'b, c or u', type)
  const number = (name: 'major' | 'minor' | 'fileMode' | 'uid' | 'gid') =>
    node[name] === undefined ? undefined : integer(node[name], `${at}.${name}`, 2 ** 32 - 1)
  return {
    path,
    hostPath: node.hostPath === undefined ? path : absolute(node.hostPath, `${at}.hostPath`),
    access,
    ...defined({
      type: type === 'u' ? 'c' : type,
      major: number('major'),
      minor: number('minor'),
      mode: number('fileMode'),
      uid: number('uid'),
      gid: number('gid'),
    }),
  }
}

function mount(value: unknown, at: string): OciMount {
  const given = object(value, at)
  only(given, ['hostPath', 'containerPath', 'options', 'type'], `${at}.`)
  const options = items(given.options, `${at}.options`, text)
  const bound = options.some(option => option === 'bind' || option === 'rbind')
  const type = given.type === undefined || given.type === '' ? 'bind' : text(given.type, `${at}.type`)
  return {
    destination: absolute(given.containerPath, `${at}.containerPath`),
    source: text(given.hostPath, `${at}.hostPath`),
    type,
    options: type === 'bind' && !bound ? ['rbind', ...options] : options,
  }
}

function hook(value: unknown, at: string): { name: OciHookName; hook: OciHook } {
  const given = object(value, at)
  only(given, ['hookName', 'path', 'args', 'env', 'timeout'], `${at}.`)
  const name = HOOKS.find(known => known === given.hookName)
  if (name === undefined) throw wrong(`${at}.hookName`, `one of ${HOOKS.join(', ')}`, given.hookName)
  const timeout = given.timeout === undefined ? undefined : integer(given.timeout, `${at}.timeout`, 86_400)
  return {
    name,
    hook: {
      path: absolute(given.path, `${at}.path`),
      args: items(given.args, `${at}.args`, text),
      env: items(given.env, `${at}.env`, variable),
      ...defined({ timeout }),
    },
  }
}

/* Members of a document that somebody else wrote. `at` is where they stand. */

type Members = Readonly<Record<string, unknown>>

function object(value: unknown, at: string): Members {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Members
  throw wrong(at, 'an object', value)
}

function only(members: Members, known: readonly string[], prefix: string): void {
  const stranger = Object.keys(members).find(name => !known.includes(name))
  if (stranger !== undefined) {
    throw new Error(`${prefix}${stranger}: not known to this version of berth; known are ${known.join(', ')}`)
  }
}

function list(value: unknown, at: string): readonly unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw wrong(at, 'a list', value)
  if (value.length > MAX_ITEMS) throw new Error(`${at}: ${value.length} items, at most ${MAX_ITEMS}`)
  return value
}

function items<T>(value: unknown, at: string, read: (item: unknown, at: string) => T): T[] {
  return list(value, at).map((item, index) => read(item, `${at}[${index}]`))
}

function text(value: unknown, at: string): string {
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value
  throw wrong(at, 'text', value)
}

function absolute(value: unknown, at: string): string {
  const path = text(value, at)
  if (path.startsWith('/')) return path
  throw wrong(at, 'an absolute path', value)
}

function integer(value: unknown, at: string, most: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value
  throw wrong(at, `a whole number from 0 to ${most}`, value)
}

function wrong(at: string, expected: string, got: unknown): Error {
  return new Error(`${at}: expected ${expected}, got ${JSON.stringify(got)?.slice(0, 100)}`)
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> }

function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>
}
