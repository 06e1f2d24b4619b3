import path from 'node:path'
import { invalid, precondition } from '../../base/errors.ts'
import type { OciSeccomp, OciSyscall } from '../../model/oci.ts'
import type { SeccompProfile } from '../../model/security.ts'
import type { SeccompFilter, SeccompRules } from './seccomp-profile.ts'
import type { SpecInput } from './spec.ts'

/** Where and for whom a profile is compiled. */
export type SeccompTarget = {
  /** The capabilities (with prefix) that the container gets. */
  readonly capabilities: readonly string[]
  readonly arch: 'amd64' | 'arm64'
  /** The kernel has the x32 ABI: see HostFacts. */
  readonly x32: boolean
  /** `6.1.0-18-amd64` */
  readonly kernel: string
}

/** The node's architecture in libseccomp's words. */
const ARCHITECTURES = { amd64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' } as const

/** The filter of a container; undefined runs it unconfined, which is also what a request without a profile means. */
export function buildSeccomp(input: SpecInput, capabilities: readonly string[]): OciSeccomp | undefined {
  const { config, host, defaults, notice } = input
  const profile = config.security.seccomp
  if (config.security.privileged || profile === undefined || profile.kind === 'unconfined') return undefined
  const target = { capabilities, arch: host.arch, x32: host.x32, kernel: host.kernel }
  if (profile.kind === 'runtime-default') {
    if (host.seccomp && input.features.seccomp) return compileSeccomp(defaults.seccomp, target)
    notice('this node has no seccomp; the container runs without the default profile')
    return undefined
  }
  if (!host.seccomp || !input.features.seccomp) {
    throw precondition(
      `config.linux.security_context.seccomp: ${JSON.stringify(profile.path)}: this node has no seccomp`,
    )
  }
  if (input.localhostSeccomp === undefined) {
    throw invalid(
      'config.linux.security_context.seccomp.localhost_ref',
      `${JSON.stringify(profile.path)} was not read`,
    )
  }
  return compileSeccomp(input.localhostSeccomp, target)
}

/** The file that a localhost profile names, checked; undefined for the other kinds. */
export function localhostSeccompPath(profile: SeccompProfile | undefined): string | undefined {
  if (profile?.kind !== 'localhost') return undefined
  const file = profile.path
  if (
    file.startsWith('/') &&
    !file.includes('\0') &&
    path.posix.normalize(file) === file &&
    !file.endsWith('/')
  ) {
    return file
  }
  throw invalid(
    'config.linux.security_context.seccomp.localhost_ref',
    `expected an absolute, clean path, got ${JSON.stringify(file)}`,
  )
}

/** The rules that hold for this container, in the OCI form. */
export function compileSeccomp(profile: SeccompRules, target: SeccompTarget): OciSeccomp {
  const syscalls = profile.syscalls.filter(
    rule => isIncluded(rule.includes, target) && !isExcluded(rule.excludes, target),
  )
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures: architecturesOf(profile, target),
    ...(profile.flags.length === 0 ? {} : { flags: [...profile.flags] }),
    ...(profile.listenerPath === undefined ? {} : { listenerPath: profile.listenerPath }),
    syscalls: syscalls.map(
      ({ names, action, errnoRet, args }): OciSyscall => ({
        names: [...names],
        action,
        ...(errnoRet === undefined ? {} : { errnoRet }),
        ...(args.length === 0 ? {} : { args: args.map(arg => ({ ...arg })) }),
      }),
    ),
  }
}

/** Each one is compiled again at every create and exec (some 6 ms): one that the kernel lacks guards nothing. */
function architecturesOf(profile: SeccompRules, { arch, x32 }: SeccompTarget): string[] {
  if (profile.architectures.length > 0) return [...profile.architectures]
  const native = ARCHITECTURES[arch]
  const entry = profile.archMap.find(({ architecture }) => architecture === native)
  return [native, ...(entry?.subArchitectures ?? [])].filter(name => x32 || name !== 'SCMP_ARCH_X32')
}

/** Everything that is named must hold. */
function isIncluded({ caps, arches, minKernel }: SeccompFilter, target: SeccompTarget): boolean {
  return (
    caps.every(name => target.capabilities.includes(name)) &&
    (arches.length === 0 || arches.includes(target.arch)) &&
    (minKernel === '' || compareVersions(target.kernel, minKernel) >= 0)
  )
}

/** One thing that holds is enough. */
function isExcluded({ caps, arches, minKernel }: SeccompFilter, target: SeccompTarget): boolean {
  return (
    caps.some(name => target.capabilities.includes(name)) ||
    arches.includes(target.arch) ||
    (minKernel !== '' && compareVersions(target.kernel, minKernel) >= 0)
  )
}

/** Of the first two numbers. */
function compareVersions(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split(/[.-]/, 2).map(Number)
  const [majorB = 0, minorB = 0] = b.split(/[.-]/, 2).map(Number)
  return majorA - majorB || minorA - minorB
}
