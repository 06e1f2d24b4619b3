/**
 * The OCI runtime specification (1.0.2 with the fields of 1.2 that Berth writes) and image specification (1.1)
 * as far as Berth reads or writes them. Member names are the wire names.
 */
export type OciSpec = {
  ociVersion: string
  process: OciProcess
  root: { path: string; readonly?: boolean }
  hostname?: string
  mounts: OciMount[]
  annotations?: Record<string, string>
  hooks?: Record<string, OciHook[]>
  linux: OciLinux
}

export type OciProcess = {
  terminal?: boolean
  consoleSize?: { height: number; width: number }
  user: { uid: number; gid: number; umask?: number; additionalGids?: number[] }
  args: string[]
  env: string[]
  cwd: string
  capabilities?: OciCapabilities
  /** -1 stands for RLIM_INFINITY, 2⁶⁴−1, which a number cannot hold; the runtime driver writes it out. */
  rlimits?: Array<{ type: string; hard: number; soft: number }>
  noNewPrivileges?: boolean
  apparmorProfile?: string
  oomScoreAdj?: number
  selinuxLabel?: string
}

export type OciCapabilities = {
  bounding: string[]
  effective: string[]
  permitted: string[]
  inheritable: string[]
  ambient: string[]
}

export type OciMount = {
  destination: string
  type?: string
  source?: string
  options?: string[]
  uidMappings?: OciIdMapping[]
  gidMappings?: OciIdMapping[]
}

export type OciIdMapping = { containerID: number; hostID: number; size: number }

export type OciNamespaceType = 'pid' | 'network' | 'mount' | 'ipc' | 'uts' | 'user' | 'cgroup'

export type OciLinux = {
  namespaces: Array<{ type: OciNamespaceType; path?: string }>
  uidMappings?: OciIdMapping[]
  gidMappings?: OciIdMapping[]
  devices?: OciDevice[]
  cgroupsPath?: string
  resources?: OciResources
  rootfsPropagation?: string
  seccomp?: OciSeccomp
  sysctl?: Record<string, string>
  maskedPaths?: string[]
  readonlyPaths?: string[]
  mountLabel?: string
  intelRdt?: OciIntelRdt
}

export type OciHook = { path: string; args?: string[]; env?: string[]; timeout?: number }

/** Only ever handed on. */
export type OciIntelRdt = Readonly<Record<string, unknown>>

export type OciDevice = {
  path: string
  type: 'c' | 'b' | 'p' | 'u'
  major?: number
  minor?: number
  fileMode?: number
  uid?: number
  gid?: number
}

export type OciDeviceRule = {
  allow: boolean
  type?: 'a' | 'c' | 'b'
  major?: number
  minor?: number
  access?: string
}

export type OciResources = {
  devices?: OciDeviceRule[]
  memory?: { limit?: number; swap?: number; reservation?: number; disableOOMKiller?: boolean }
  cpu?: { shares?: number; quota?: number; period?: number; cpus?: string; mems?: string }
  pids?: { limit: number }
  hugepageLimits?: Array<{ pageSize: string; limit: number }>
  unified?: Record<string, string>
}

export type OciSeccomp = {
  defaultAction: string
  defaultErrnoRet?: number
  architectures?: string[]
  flags?: string[]
  listenerPath?: string
  syscalls?: OciSyscall[]
}

export type OciSyscall = {
  names: string[]
  action: string
  errnoRet?: number
  args?: Array<{ index: number; value: number; valueTwo?: number; op: string }>
}
