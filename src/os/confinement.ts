import { readFileSync, readlinkSync } from 'node:fs'
import { errnoOf } from '../base/errors.ts'
import { CAPABILITIES } from './capabilities.ts'
import { capabilitiesIn } from './node.ts'

/**
 * What somebody has put round the daemon that reaches its pods, one sentence each. All of it is inherited by monitors
 * and containers, so a unit that is hardened like any other service's takes it from privileged pods as well.
 */
export function confinements(): string[] {
  return confinementsIn(readFileSync('/proc/self/status', 'utf8'), {
    own: mountNamespaceOf('self'),
    init: mountNamespaceOf('1'),
  })
}

/** `status`: the text of /proc/self/status; `mounts`: names of mount namespaces, undefined for one that is unknown. */
export function confinementsIn(
  status: string,
  mounts: { readonly own: string | undefined; readonly init: string | undefined },
): string[] {
  const found: string[] = []
  const value = (name: string) => new RegExp(`^${name}:\\s*(\\d+)$`, 'm').exec(status)?.[1] ?? '0'
  if (value('Seccomp') !== '0') {
    found.push(
      'the daemon runs under a seccomp filter, which every container inherits, privileged ones too: its unit must not ' +
        'set SystemCallFilter=, SystemCallArchitectures=, LockPersonality=, MemoryDenyWriteExecute=, Restrict…= or Protect…=',
    )
  }
  if (value('NoNewPrivs') !== '0') {
    found.push(
      'the daemon runs with no_new_privs, which every container inherits: set-user-id programs and file capabilities do ' +
        'nothing in them; its unit must not set NoNewPrivileges= or what implies it',
    )
  }
  const capabilities = capabilitiesIn(status)
  const missing = CAPABILITIES.filter(name => !capabilities.includes(name))
  if (missing.length > 0) {
    found.push(
      `the daemon cannot give ${missing.join(', ')} to any container, privileged ones included: its unit must not set ` +
        'CapabilityBoundingSet= or Protect…=',
    )
  }
  if (mounts.own !== undefined && mounts.init !== undefined && mounts.own !== mounts.init) {
    found.push(
      'the daemon has a mount namespace of its own: running pods lose their network and root file systems to the next ' +
        'daemon when this one ends, and what they mount does not reach the node; its unit must not set Private…=, ' +
        'Protect…=, ReadOnlyPaths= or other settings of the file system',
    )
  }
  return found
}

function mountNamespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM') return undefined // hidden from us
    throw error
  }
}
