import path from 'node:path'
import { invalid } from '../../base/errors.ts'
import type { OciProcess } from '../../model/oci.ts'
import { buildCapabilities } from './capabilities.ts'
import { apparmorProfile } from './security.ts'
import type { HostFacts, Rlimit, SpecInput } from './spec.ts'

const RLIM_INFINITY = 2n ** 64n - 1n

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The container's first process. */
export function buildProcess(input: SpecInput): OciProcess {
  const { config, user, host, notice, selinux } = input
  const apparmor = apparmorProfile(input)
  return {
    terminal: config.tty,
    user: ociUser(user.uid, user.gid, user.supplementalGroups),
    args: commandLine(input),
    env: environment(input),
    cwd: workingDirectory(config.workingDir || input.image.workingDir),
    capabilities: buildCapabilities({
      requested: config.security.capabilities,
      privileged: config.security.privileged,
      defaults: input.defaults.capabilities,
      available: host.capabilities,
      notice,
    }),
    rlimits: rlimits(input.defaults.rlimits, host, notice),
    noNewPrivileges: config.security.noNewPrivs,
    // Always set: without it the container would inherit the daemon's own protection from the OOM killer.
    oomScoreAdj: clampOomScore(config.resources?.oomScoreAdj ?? 0, host, notice),
    ...(apparmor === undefined ? {} : { apparmorProfile: apparmor }),
    ...(selinux === undefined || selinux.process === '' ? {} : { selinuxLabel: selinux.process }),
  }
}

/**
 * A further process of a container (ExecSync, Exec): the user, groups, capabilities, environment and directory of
 * its first one.
 * @param first `process` of the container's own OCI spec
 */
export function execProcess(first: OciProcess, command: readonly string[], tty: boolean): OciProcess {
  if (command.length === 0) throw invalid('cmd', 'expected a command')
  const env =
    tty && !first.env.some(entry => entry.startsWith('TERM=')) ? [...first.env, 'TERM=xterm'] : first.env
  return { ...first, terminal: tty, args: checkArguments('cmd', command), env }
}

/** `command` replaces ENTRYPOINT and drops CMD; `args` replaces CMD. */
function commandLine({ config, image }: SpecInput): string[] {
  const line =
    config.command.length > 0
      ? [...config.command, ...config.args]
      : [...image.entrypoint, ...(config.args.length > 0 ? config.args : image.cmd)]
  if (line.length === 0) {
    throw invalid('config.command', 'no command: neither the request nor the image names one')
  }
  return checkArguments('config.command', line)
}

function checkArguments(field: string, line: readonly string[]): string[] {
  if (line[0] === '') throw invalid(field, 'the first word is empty')
  if (line.some(word => word.includes('\0'))) throw invalid(field, 'a word contains a NUL byte')
  return [...line]
}

/** Later ones win: ours, the configured default, the image's, the request's. */
function environment(input: SpecInput): string[] {
  const { config, image, defaults } = input
  const env = new Map<string, string>([
    ['PATH', DEFAULT_PATH],
    ['HOSTNAME', input.hostname],
    ['HOME', input.user.home],
  ])
  if (config.tty) env.set('TERM', 'xterm')
  for (const entry of [...defaults.env, ...image.env]) {
    const equals = entry.indexOf('=')
    // A name without a value means "take it from the builder's environment" in image tools: nothing here.
    if (equals > 0 && !entry.includes('\0')) env.set(entry.slice(0, equals), entry.slice(equals + 1))
  }
  for (const [index, [name, value]] of config.envs.entries()) {
    if (name === '' || /[=\0]/.test(name)) {
      throw invalid(
        `config.envs[${index}].key`,
        `expected a name without "=" and NUL, got ${JSON.stringify(name)}`,
      )
    }
    if (value.includes('\0')) throw invalid(`config.envs[${index}].value`, 'contains a NUL byte')
    env.set(name, value)
  }
  return [...env].map(([name, value]) => `${name}=${value}`)
}

/** Below /proc a working directory can be a magic link out of the container (CVE-2024-21626). */
function workingDirectory(wanted: string): string {
  if (wanted.includes('\0')) throw invalid('config.working_dir', 'contains a NUL byte')
  const cwd = path.posix.normalize(`/${wanted}`)
  if (cwd === '/proc' || cwd.startsWith('/proc/')) {
    throw invalid(
      'config.working_dir',
      `${JSON.stringify(wanted)} is in /proc; expected a directory of the image`,
    )
  }
  return cwd.length > 1 && cwd.endsWith('/') ? cwd.slice(0, -1) : cwd
}

function ociUser(uid: number, gid: number, groups: readonly number[]): OciProcess['user'] {
  return { uid, gid, ...(groups.length === 0 ? {} : { additionalGids: [...groups] }) }
}

/** Raising a limit or lowering the score takes CAP_SYS_RESOURCE; without it `create` would fail. */
function mayRaise(host: HostFacts): boolean {
  return host.capabilities.includes('CAP_SYS_RESOURCE')
}

function clampOomScore(wanted: number, host: HostFacts, notice: (message: string) => void): number {
  if (!Number.isInteger(wanted) || wanted < -1000 || wanted > 1000) {
    throw invalid(
      'config.linux.resources.oom_score_adj',
      `expected an integer from -1000 to 1000, got ${wanted}`,
    )
  }
  if (wanted >= host.oomScoreAdj || mayRaise(host)) return wanted
  notice(`oom_score_adj ${wanted} is below berth's own ${host.oomScoreAdj}, and it lacks CAP_SYS_RESOURCE`)
  return host.oomScoreAdj
}

function rlimits(list: readonly Rlimit[], host: HostFacts, notice: (message: string) => void): Rlimit[] {
  return list.map(({ type, soft, hard }) => {
    const own = mayRaise(host) ? RLIM_INFINITY : host.hardLimit(type)
    if (ceiling(hard) <= own) return { type, soft, hard }
    notice(`${type} ${hard} is above berth's own ${own}, and it lacks CAP_SYS_RESOURCE`)
    const cut = Number(own)
    return { type, soft: ceiling(soft) <= own ? soft : cut, hard: cut }
  })
}

function ceiling(limit: number): bigint {
  return limit === -1 ? RLIM_INFINITY : BigInt(limit)
}
