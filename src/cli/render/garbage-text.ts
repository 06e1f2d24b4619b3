import { bytes, printable } from './units.ts'

type GarbageObject = {
  readonly kind: string
  readonly id: string
  readonly names: readonly string[]
  readonly size: string
  readonly reason: string
}

type Garbage = { readonly deleted: readonly GarbageObject[]; readonly kept: readonly GarbageObject[] }

/** What a collection deleted, or would delete, and what it left and why. */
export function garbageText({ deleted, kept }: Garbage, isDryRun: boolean): string {
  const verb = isDryRun ? 'would delete' : 'deleted'
  const total = deleted.reduce((sum, { size }) => sum + Number(size), 0)
  const lines = [
    ...deleted.map(object => `${verb} ${described(object)}`),
    ...kept.map(object => `kept ${described(object)}: ${object.reason}`),
    deleted.length === 0 ? 'nothing to delete' : `${verb} ${deleted.length} objects, ${bytes(total)}`,
  ]
  return lines.map(line => `${printable(line)}\n`).join('')
}

function described({ kind, id, names, size }: GarbageObject): string {
  const name = kind === 'directory' ? `${id} (of a layer that was replaced)` : shortId(id)
  const rest = [names.join(', '), Number(size) > 0 ? bytes(Number(size)) : ''].filter(Boolean).join(', ')
  return rest === '' ? `${kind} ${name}` : `${kind} ${name} (${rest})`
}

type Explanation = {
  readonly kind: string
  readonly id: string
  readonly size: string
  readonly alone: string
  readonly holders: ReadonlyArray<{ readonly kind: string; readonly name: string }>
  readonly damage: string
}

const HELD_BY: Readonly<Record<string, string>> = {
  name: 'its name',
  pin: 'the setting',
  container: 'container',
  image: 'image',
  layer: 'the layer above it,',
  pull: '',
}

/** What keeps an object, and how large it is alone and shared. */
export function explanationText({ kind, id, size, alone, holders, damage }: Explanation): string {
  const [all, own] = [Number(size), Number(alone)]
  const lines = [
    `${kind} ${id}`,
    ...(kind === 'manifest'
      ? []
      : [`${bytes(all)} on disk: ${bytes(own)} alone, ${bytes(all - own)} shared`]),
    ...(damage === '' ? [] : [`damaged: ${damage}`]),
    ...(holders.length === 0 ? ['kept by nothing: the next collection deletes it'] : ['kept by']),
    ...holders.map(
      holder => `  ${[HELD_BY[holder.kind] ?? holder.kind, holder.name].filter(Boolean).join(' ')}`,
    ),
  ]
  return lines.map(line => `${printable(line)}\n`).join('')
}

function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12)
}
