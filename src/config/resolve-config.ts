import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { isSlice } from '../model/slice.ts'
import type { Config } from './config.ts'
import { camel, fullName } from './config.ts'
import type { Setting } from './config-file.ts'
import type { Environment } from './environment.ts'
import { parseUlimit } from './forms.ts'
import { SECTIONS } from './keys.ts'
import { findProgram, lookUpProgram } from './programs.ts'
import { ProxySettings } from './proxy-settings.ts'
import { assignments, cgroupPath, resolveHandlers } from './resolve-handlers.ts'

export type Resolution = {
  /** Later ones go before earlier ones. */
  readonly settings: readonly Setting[]
  readonly env: Environment
  readonly files: readonly string[]
  /** What the values cannot be together is added here. */
  readonly problems: string[]
  readonly warnings: string[]
}

/** sockaddr_un holds 108 bytes, the last is NUL. */
const MAX_SOCKET_PATH = 107
/** conmon binds `<runroot>/s/<64 hex digits>/attach`. */
const MAX_RUNROOT = MAX_SOCKET_PATH - '/s/'.length - 64 - '/attach'.length

/** Values over defaults, then what "Empty: …" stands for, then the rules between keys. */
export function resolveConfig(resolution: Resolution): Config {
  const { settings, env, files, problems } = resolution
  const origins: Record<string, string> = {}
  const sections: Record<string, Record<string, unknown>> = {}
  for (const [section, keys] of Object.entries(SECTIONS)) {
    const values: Record<string, unknown> = {}
    for (const [name, key] of Object.entries(keys)) values[camel(name)] = key.default
    sections[section] = values
  }
  for (const { section, name, value, origin, handler } of settings) {
    if (handler === undefined) sections[section]![camel(name)] = value
    origins[fullName(section, handler === undefined ? name : `runtimes.${handler}.${name}`)] = origin
  }
  const { crio, ...tables } = sections
  // The loops above have filled every key of the table with a value of its kind, which is what the type says.
  const draft = { ...crio, ...tables } as unknown as Omit<
    Config,
    'proxy' | 'systemd' | 'faults' | 'files' | 'origins'
  >
  const { runroot } = draft
  const runtime = {
    ...draft.runtime,
    conmon: draft.runtime.conmon || findProgram('conmon', env),
    initPath: draft.runtime.initPath || findProgram('catatonit', env),
    conmonCgroup: cgroupPath(draft.runtime.conmonCgroup),
    podCgroupParent:
      cgroupPath(draft.runtime.podCgroupParent) ||
      (draft.runtime.cgroupManager === 'systemd' ? '/berth.slice' : '/berth'),
    rlimits: draft.runtime.defaultUlimits.flatMap(limit => parseUlimit(limit) ?? []),
    sysctls: assignments(draft.runtime.defaultSysctls),
    maxParallelOperations: draft.runtime.maxParallelOperations || 2 * availableParallelism(),
  }
  const config: Config = {
    ...draft,
    api: { ...draft.api, listen: draft.api.listen || join(runroot, 'berth.sock') },
    runtime: {
      ...runtime,
      runtimes: resolveHandlers(resolution, runtime, draft.runtime.conmon !== '', runroot),
    },
    image: {
      ...draft.image,
      unpackWorkers: draft.image.unpackWorkers || Math.min(2, availableParallelism()),
      gzipProgram: resolveGzipProgram(draft.image.gzipProgram, env),
    },
    proxy: new ProxySettings(env),
    systemd: { notifySocket: env.NOTIFY_SOCKET ?? '', watchdogMs: watchdogMs(env) },
    faults: env.BERTH_FAULTS ?? '',
    files,
    origins,
  }
  checkTogether(config, problems)
  return deepFreeze(config)
}

/** '' is what the daemon knows as built in. */
function resolveGzipProgram(configured: string, env: Environment): string {
  if (configured === 'builtin') return ''
  return configured || (lookUpProgram('igzip', env) ?? '')
}

function watchdogMs(env: Environment): number {
  const microseconds = Number(env.WATCHDOG_USEC ?? '')
  // sd_watchdog_enabled(3): a watchdog for another process is not ours.
  if (env.WATCHDOG_PID !== undefined && env.WATCHDOG_PID !== String(process.pid)) return 0
  return Number.isFinite(microseconds) && microseconds > 0 ? microseconds / 1000 : 0
}

function checkTogether(config: Config, problems: string[]): void {
  const say = (name: string, what: string) => {
    const origin = config.origins[name]
    problems.push(`${origin === undefined ? '' : `${origin}: `}${name}: ${what}`)
  }
  const { api, runtime } = config
  const bySystemd = runtime.cgroupManager === 'systemd'
  if (isSlice(runtime.podCgroupParent) !== bySystemd) {
    const what = bySystemd ? 'a slice' : 'no slice'
    say('crio.runtime.pod_cgroup_parent', `expected ${what} with cgroup_manager = "${runtime.cgroupManager}"`)
  }
  const monitors = [
    ['crio.runtime.conmon_cgroup', runtime.conmonCgroup],
    ...Object.values(runtime.runtimes)
      .filter(({ monitorCgroup }) => monitorCgroup !== runtime.conmonCgroup)
      .map(({ name, monitorCgroup }) => [`crio.runtime.runtimes.${name}.monitor_cgroup`, monitorCgroup]),
  ] as Array<[string, string]>
  for (const [name, group] of monitors) {
    if (!bySystemd || group === '' || group === 'pod' || isSlice(group)) continue
    say(name, 'expected "pod", "" or a slice with cgroup_manager = "systemd"')
  }
  if (runtime.runtimes[runtime.defaultRuntime] === undefined) {
    const known = Object.keys(runtime.runtimes).map(name => `"${name}"`)
    const hint = known.length === 0 ? 'none is configured' : `there is ${known.join(', ')}`
    say(
      'crio.runtime.default_runtime',
      `no runtime "${runtime.defaultRuntime}" in crio.runtime.runtimes; ${hint}`,
    )
  }
  if (api.listen.endsWith('run/crio/crio.sock')) {
    say(
      'crio.api.listen',
      `${api.listen} is the socket that kubelet and cAdvisor take for CRI-O itself: they would send it plain HTTP ` +
        'requests that only CRI-O answers. Choose another path',
    )
  }
  if (api.streamEnableTls && (api.streamTlsCert === '' || api.streamTlsKey === '')) {
    say('crio.api.stream_enable_tls', 'needs crio.api.stream_tls_cert and crio.api.stream_tls_key')
  }
  const listenBytes = Buffer.byteLength(api.listen)
  if (listenBytes > MAX_SOCKET_PATH) {
    say('crio.api.listen', `${listenBytes} bytes long, a socket's path has at most ${MAX_SOCKET_PATH}`)
  }
  const runroot = Buffer.byteLength(config.runroot)
  if (runroot > MAX_RUNROOT) {
    say(
      'crio.runroot',
      `${runroot} bytes long, at most ${MAX_RUNROOT}: the attach sockets of monitors below it would not fit a ` +
        "socket's address",
    )
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.values(value).forEach(deepFreeze)
  return Object.freeze(value)
}
