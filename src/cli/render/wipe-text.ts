import { shortId } from '../../base/ids.ts'
import type { WipePlan } from '../../check/node-wipe.ts'
import { bytes, printable } from './units.ts'

/** Everything that a wipe would remove, by kind. */
export function wipePlanText(plan: WipePlan, directories: readonly string[]): string {
  const lives = (living: boolean) => (living ? ', lives' : '')
  const sections: ReadonlyArray<readonly [string, readonly string[]]> = [
    ['pods', plan.pods.map(pod => `${pod.name} (${shortId(pod.id)}${lives(pod.lives)})`)],
    ['containers', plan.containers.map(one => `${one.name} (${shortId(one.id)}${lives(one.lives)})`)],
    ['images', plan.images.map(({ id, names, size }) => `${names.join(', ') || id}, ${bytes(size)}`)],
    ['layers', plan.layerBytes > 0 ? [`${bytes(plan.layerBytes)} in all, shared ones once`] : []],
    ['mounts', plan.mounts],
    ['cgroups', plan.cgroups],
    ['addresses', plan.addresses],
    ['without a row', plan.strays],
    ['directories', directories],
  ]
  const lines = sections
    .filter(([, things]) => things.length > 0)
    .flatMap(([name, things]) => [`${name} (${things.length})`, ...things.map(thing => `  ${thing}`)])
  return (lines.length === 0 ? ['nothing to remove'] : lines).map(line => `${printable(line)}\n`).join('')
}
