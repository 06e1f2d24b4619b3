/**
 * String maps of users (labels, annotations): null-prototype objects, so that a key like `__proto__` is a key like
 * any other.
 */
export type Dict = Readonly<Record<string, string>>

export function dict(
  entries: Iterable<readonly [string, string]> | Readonly<Record<string, string>> = [],
): Dict {
  const result: Record<string, string> = Object.create(null)
  const pairs =
    Symbol.iterator in entries ? (entries as Iterable<readonly [string, string]>) : Object.entries(entries)
  for (const [key, value] of pairs) result[key] = value
  return result
}
