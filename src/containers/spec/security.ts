import { invalid, precondition } from '../../base/errors.ts'
import type { OciLinux } from '../../model/oci.ts'
import type { SpecInput } from './spec.ts'

/** What older clients do not know to mask: they tell what other containers do by power and interrupts (GHSA-7ww5-4wqc-m92c). */
const ALSO_MASKED = ['/proc/interrupts', '/sys/devices/virtual/powercap']

/** Empty lists are how an unmasked /proc is asked for. */
export function pathProtection({ config }: SpecInput): Pick<OciLinux, 'maskedPaths' | 'readonlyPaths'> {
  const { privileged, maskedPaths, readonlyPaths } = config.security
  if (privileged) return { maskedPaths: [], readonlyPaths: [] }
  const masked = maskedPaths.length === 0 ? [] : [...new Set([...maskedPaths, ...ALSO_MASKED])]
  return { maskedPaths: masked, readonlyPaths: [...readonlyPaths] }
}

/** Name for the process, undefined for none. A request without a profile means the default one. */
export function apparmorProfile({ config, host, defaults }: SpecInput): string | undefined {
  const { privileged, apparmor } = config.security
  if (apparmor?.kind === 'localhost' && !privileged) {
    const field = 'config.linux.security_context.apparmor'
    if (!host.apparmor) {
      throw precondition(`${field}: profile ${JSON.stringify(apparmor.name)}: this kernel has no AppArmor`)
    }
    if (apparmor.name === '' || /[\x00-\x1f\x7f]/.test(apparmor.name)) {
      throw invalid(field, 'expected the name of a loaded profile')
    }
    return apparmor.name
  }
  if (privileged || !host.apparmor) return undefined
  if (apparmor?.kind === 'unconfined') return 'unconfined'
  return defaults.apparmorProfile === '' ? undefined : defaults.apparmorProfile
}
