import { type Dict, dict } from '../../base/dict.ts'
import { invalid } from '../../base/errors.ts'
import type { NamespaceOptions } from '../../model/pod.ts'
import { line, matching } from './fields.ts'

const KEY = /^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)+$/
const MAX_KEY = 256
/** A page: no file of /proc/sys takes more in one write. */
const MAX_VALUE = 4096

/** Which namespace a sysctl belongs to decides whether a pod may set it; all others are the node's. */
const NAMESPACED = [
  { namespace: 'network', pattern: /^net\./ },
  { namespace: 'ipc', pattern: /^(kernel\.(shm|msg|sem)|fs\.mqueue\.)/ },
] as const

/** Returned with dots as separators and slashes for the dots in names (sysctl(8)): `net.ipv4.conf.eth0/1.forwarding`. */
export function toSysctls(
  field: string,
  wire: Readonly<Record<string, string>>,
  namespaces: NamespaceOptions,
): Dict {
  return dict(
    Object.entries(wire).map(([key, value]) => {
      const name = sysctlName(field, key)
      const at = `${field}[${key}]`
      const owner = NAMESPACED.find(({ pattern }) => pattern.test(name))
      if (owner === undefined) throw invalid(at, 'is not a sysctl of a namespace that pods have')
      if (namespaces[owner.namespace] === 'node') {
        throw invalid(at, `cannot be set in a pod that uses the ${owner.namespace} namespace of the node`)
      }
      return [name, sysctlValue(at, value)] as const
    }),
  )
}

function sysctlName(field: string, key: string): string {
  if (key.length > MAX_KEY) throw invalid(field, `a key must be at most ${MAX_KEY} characters long`)
  matching(field, key, KEY, 'sysctl names like net.core.somaxconn')
  const slashed = /^[^.]*\//.test(key)
  return slashed ? key.replace(/[./]/g, separator => (separator === '/' ? '.' : '/')) : key
}

/** `+` once let one value carry a second sysctl through a helper's argument (CVE-2022-0811). */
function sysctlValue(at: string, value: string): string {
  if (value.length > MAX_VALUE) throw invalid(at, `must be at most ${MAX_VALUE} characters long`)
  if (value.includes('+')) throw invalid(at, "must not contain '+'")
  return line(at, value)
}
