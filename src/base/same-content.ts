import { isDeepStrictEqual } from 'node:util'

/**
 * Whether two values say the same as JSON, whatever the order of their keys and the prototypes of their objects: a
 * request and its repetition, one of which has been through the database. Go's clients send maps in random order.
 */
export function sameContent(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(throughJson(a), throughJson(b))
}

function throughJson(value: unknown): unknown {
  const text = JSON.stringify(value)
  return text === undefined ? undefined : JSON.parse(text)
}
