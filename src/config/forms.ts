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

// No `+`: it has smuggled a second sysctl through a joined string elsewhere (CVE-2022-0811).
export const sysctl = text('name=value', value =>
  /^[a-z0-9_-]+([./][A-Za-z0-9_-]+)+=[^+]{1,1024}$/.test(value) ? value : undefined,
)

const LIMITS =
  'as|core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack'

export const ulimit = text('name=soft:hard, such as "nofile=1024:4096" or "core=-1:-1"', value =>
  new RegExp(`^(${LIMITS})=(-1|[0-9]{1,19}):(-1|[0-9]{1,19})$`).test(value) ? value : undefined,
)

export const handlerName = text('the name of an entry in crio.runtime.runtimes', value =>
  /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(value) ? value : undefined,
)

/** Where monitors go: see `conmonCgroup` of Config. */
export const monitorCgroup = text('"pod", "", an absolute path or the name of a slice', value => {
  if (value === '' || value === 'pod') return value
  if (/^([A-Za-z0-9_]+-)*[A-Za-z0-9_]+\.slice$/.test(value)) return value
  return /^\/[^\s]+$/.test(value) && !value.split('/').includes('..') ? value.replace(/\/+$/, '') : undefined
})

export const host = text('a registry host, or host:port', value =>
  /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$/.test(value) ? value : undefined,
)

export const ip = text('an IP address', value => (/^[0-9A-Fa-f:.]+$/.test(value) ? value : undefined))
