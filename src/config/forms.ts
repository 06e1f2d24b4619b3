import { slicePath } from '../model/slice.ts'
import { text } from './kinds.ts'

/** Forms of single values that only some keys have. */
const capabilityNames = new Set(
  (
    'AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH ' +
    'FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN ' +
    'NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT ' +
    'SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM'
  ).split(' '),
)

export const capability = text('a Linux capability such as "NET_ADMIN"', value => {
  const name = value.toUpperCase().replace(/^CAP_/, '')
  return capabilityNames.has(name) ? name : undefined
})

export const variable = text('NAME=value', value =>
  /^[A-Za-z_][A-Za-z0-9_]*=/.test(value) ? value : undefined,
)

// Of a namespace that pods have: any other would change the node. No `+`: it has smuggled a second sysctl through a
// joined string elsewhere (CVE-2022-0811).
export const sysctl = text(
  'name=value of a network or IPC sysctl, such as "net.core.somaxconn=1024"',
  value =>
    /^(net(\.[\w-]+)+|kernel\.(shm|msg|sem)\w*|fs\.mqueue\.\w+)=[^+]{1,1024}$/.test(value)
      ? value
      : undefined,
)

const LIMITS = [
  'as',
  'core',
  'cpu',
  'data',
  'fsize',
  'locks',
  'memlock',
  'msgqueue',
  'nice',
  'nofile',
  'nproc',
  'rss',
  'rtprio',
  'rttime',
  'sigpending',
  'stack',
] as const

/** -1 is unlimited. */
export type Rlimit = {
  /** The OCI specification's name. */
  readonly type: `RLIMIT_${Uppercase<(typeof LIMITS)[number]>}`
  readonly soft: number
  readonly hard: number
}

/** `nofile=1024:4096` → RLIMIT_NOFILE; undefined if it is none. */
export function parseUlimit(value: string): Rlimit | undefined {
  const [, name, soft, hard] = /^([a-z]+)=(-1|[0-9]{1,15}):(-1|[0-9]{1,15})$/.exec(value) ?? []
  const known = LIMITS.find(limit => limit === name)
  if (known === undefined) return undefined
  const unlimited = (limit: number) => (limit === -1 ? Number.POSITIVE_INFINITY : limit)
  if (unlimited(Number(soft)) > unlimited(Number(hard))) return undefined
  return { type: `RLIMIT_${known.toUpperCase()}` as Rlimit['type'], soft: Number(soft), hard: Number(hard) }
}

export const ulimit = text('name=soft:hard, such as "nofile=1024:4096" or "core=-1:-1"', value =>
  parseUlimit(value) === undefined ? undefined : value,
)

/** As RuntimeClass handlers are called. */
export const HANDLER_NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/

export const handlerName = text('the name of an entry in crio.runtime.runtimes', value =>
  HANDLER_NAME.test(value) ? value : undefined,
)

/** Where monitors go: see `conmonCgroup` of Config. */
export const monitorCgroup = text('"pod", "", an absolute path or the name of a slice', value => {
  return value === 'pod' ? value : cgroup(value)
})

export const podCgroupParent = text('"", an absolute path or the name of a slice', cgroup)

function cgroup(value: string): string | undefined {
  if (value === '' || slicePath(value) !== undefined) return value
  return /^\/[^\s]+$/.test(value) && !value.split('/').includes('..') ? value.replace(/\/+$/, '') : undefined
}

export const host = text('a registry host, or host:port', value =>
  /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$/.test(value) ? value : undefined,
)

export const ip = text('an IP address', value => (/^[0-9A-Fa-f:.]+$/.test(value) ? value : undefined))

/** As the IANA and Go call them; whether TLS knows it shows at start. */
export const cipherSuite = text('a cipher suite such as "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"', value =>
  /^TLS_[A-Z0-9_]+$/.test(value) ? value : undefined,
)

export const origin = text('an origin such as "https://console.example:8443", or "*"', value =>
  value === '*' || /^https?:\/\/[^/?#\s,]+$/.test(value) ? value.toLowerCase() : undefined,
)

const MAX_ID = 4_294_967_294 // 2³²−1 is none

export const uid = text(`the number of a user, at most ${MAX_ID}`, value =>
  /^\d{1,10}$/.test(value) && Number(value) <= MAX_ID ? value : undefined,
)

export const group = text('"", the name or the number of a group', value =>
  value === '' ||
  /^[A-Za-z_][\w.-]{0,31}$/.test(value) ||
  (/^\d{1,10}$/.test(value) && Number(value) <= MAX_ID)
    ? value
    : undefined,
)
