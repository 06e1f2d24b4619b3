import type { Rlimit } from './forms.ts'
import type { HANDLER_KEYS, Keys } from './keys.ts'
import type { Kind } from './kinds.ts'
import type { ProxySettings } from './proxy-settings.ts'

type Camel<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : S

type Values<Keys> = {
  readonly [Name in keyof Keys & string as Camel<Name>]: Keys[Name] extends { readonly kind: Kind<infer T> }
    ? T
    : never
}

/** One OCI runtime and the monitor that runs it, every default filled in. */
export type RuntimeHandler = {
  readonly name: string
  /** Absolute; whether it exists shows when it is run. */
  readonly path: string
  /** The configuration names it; else it is looked for. */
  readonly isPathGiven: boolean
  /** State directory of the runtime. */
  readonly root: string
  readonly allowedAnnotations: readonly string[]
  readonly monitorPath: string
  /** The configuration names it; else it is looked for. */
  readonly isMonitorPathGiven: boolean
  /** `pod`, '' (the daemon's own cgroup) or a path below the cgroup root. */
  readonly monitorCgroup: string
  readonly monitorEnv: Readonly<Record<string, string>>
  readonly noSyncLog: boolean
}

/**
 * The effective configuration, frozen. Keys of `keys.ts` in camel case, tables as they are there, those of `[crio]`
 * at the top. Durations are milliseconds, sizes bytes. Where the table says "Empty: …" or "0: …", the value that
 * it stands for is here.
 */
export type Config = Values<Keys['crio']> & {
  readonly api: Values<Keys['api']>
  readonly runtime: Values<Keys['runtime']> & {
    readonly runtimes: Readonly<Record<string, RuntimeHandler>>
    /** `default_ulimits`, parsed. */
    readonly rlimits: readonly Rlimit[]
    /** `default_sysctls` by name. */
    readonly sysctls: Readonly<Record<string, string>>
  }
  readonly image: Values<Keys['image']>
  readonly network: Values<Keys['network']>
  readonly observe: Values<Keys['observe']>
  readonly metrics: Values<Keys['metrics']>
  readonly tracing: Values<Keys['tracing']>
  readonly proxy: ProxySettings
  readonly systemd: {
    /** NOTIFY_SOCKET: where readiness and watchdog pings go; '' without systemd. */
    readonly notifySocket: string
    /** WATCHDOG_USEC, in milliseconds; 0 is no watchdog. */
    readonly watchdogMs: number
  }
  /** BERTH_FAULTS: a plan of faults for tests; '' in operation. */
  readonly faults: string
  /** The configuration files that were read, in order. */
  readonly files: readonly string[]
  /** Where a key that is not at its default was set, by full name: `crio.root` → `--root`, `/etc/…:12`. */
  readonly origins: Readonly<Record<string, string>>
}

export type HandlerValues = Values<typeof HANDLER_KEYS>

/** `pids_limit` → `pidsLimit` */
export function camel(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

/** The name that files use: `crio.root`, `crio.runtime.pids_limit`. */
export function fullName(section: string, name: string): string {
  return section === 'crio' ? `crio.${name}` : `crio.${section}.${name}`
}
