import { invalid } from '../../base/errors.ts'
import type { Capabilities } from '../../model/container.ts'
import type { OciCapabilities } from '../../model/oci.ts'
import { CAPABILITIES } from '../../os/capabilities.ts'

export type CapabilityInput = {
  readonly requested: Capabilities
  readonly privileged: boolean
  /** The configured default set. */
  readonly defaults: readonly string[]
  /** What the daemon has itself. */
  readonly available: readonly string[]
  readonly notice: (message: string) => void
}

/**
 * The default set, plus `add`, minus `drop`; `ALL` first, single names after it, so that `drop: ALL, add: X` is X.
 * Inheritable holds the ambient ones only: otherwise a file's inheritable capabilities would raise a process that
 * was given none (CVE-2022-24769).
 * @throws BerthError invalid for a name that no kernel knows
 */
export function buildCapabilities(input: CapabilityInput): OciCapabilities {
  const field = 'config.linux.security_context.capabilities'
  const add = parseNames(`${field}.add_capabilities`, input.requested.add)
  const drop = parseNames(`${field}.drop_capabilities`, input.requested.drop)
  const ambient = parseNames(`${field}.add_ambient_capabilities`, input.requested.addAmbient)
  const wanted = new Set<string>(
    input.privileged ? CAPABILITIES : parseNames('default_capabilities', input.defaults).names,
  )
  if (!input.privileged) {
    if (add.all) for (const name of CAPABILITIES) wanted.add(name)
    if (drop.all) wanted.clear()
    for (const name of [...add.names, ...ambient.names]) wanted.add(name)
    for (const name of drop.names) wanted.delete(name)
  }
  const available = new Set(input.available)
  const missing = [...wanted].filter(name => !available.has(name))
  // "All" is what there is; only a capability that was asked for by name is missed.
  const missed = missing.filter(name => add.names.includes(name) || ambient.names.includes(name))
  if (missed.length > 0) input.notice(`berth itself lacks ${missed.join(', ')}; the container does without`)
  const granted = CAPABILITIES.filter(name => wanted.has(name) && available.has(name))
  const raised = granted.filter(name => ambient.all || ambient.names.includes(name))
  return { bounding: granted, effective: granted, permitted: granted, inheritable: raised, ambient: raised }
}

function parseNames(field: string, list: readonly string[]): { names: string[]; all: boolean } {
  const names: string[] = []
  let all = false
  for (const text of list) {
    const upper = text.toUpperCase()
    if (upper === 'ALL' || upper === 'CAP_ALL') {
      all = true
      continue
    }
    const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`
    if (!(CAPABILITIES as readonly string[]).includes(name)) {
      throw invalid(field, `unknown capability ${JSON.stringify(text)}; expected a name of capabilities(7)`)
    }
    names.push(name)
  }
  return { names, all }
}
