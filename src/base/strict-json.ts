/** Nested deeper than any document of ours; a bound for whoever walks the result by recursion. */
const MAX_DEPTH = 64

/**
 * JSON that others wrote, where two readers must not see two different documents: valid UTF-8, no member name twice
 * in an object, bounded depth. The caller has bounded the length.
 *
 * @throws SyntaxError saying what is wrong
 */
export function parseStrictJson(bytes: Uint8Array): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new SyntaxError('not valid UTF-8')
  }
  const value: unknown = JSON.parse(text)
  checkMembers(text)
  return value
}

/** Walks a text that is known to be valid JSON. */
function checkMembers(text: string): void {
  // One entry per open object or array: the names seen, undefined for an array.
  const open: Array<Set<string> | undefined> = []
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '{' || char === '[') {
      if (open.push(char === '{' ? new Set() : undefined) > MAX_DEPTH) {
        throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels`)
      }
    } else if (char === '}' || char === ']') {
      open.pop()
    } else if (char === '"') {
      const end = endOfString(text, at)
      if (isName(text, end)) noteName(open.at(-1), text.slice(at, end))
      at = end - 1
    }
  }
}

function noteName(names: Set<string> | undefined, quoted: string): void {
  const name = JSON.parse(quoted) as string
  if (names?.has(name) === true)
    throw new SyntaxError(`member ${quoted.slice(0, 100)} occurs twice in one object`)
  names?.add(name)
}

/** The index after the closing quote. */
function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

function isName(text: string, end: number): boolean {
  let at = end
  while (text[at] === ' ' || text[at] === '\t' || text[at] === '\n' || text[at] === '\r') at++
  return text[at] === ':'
}
