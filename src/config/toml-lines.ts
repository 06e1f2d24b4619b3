/**
 * The line of every key and table header of a TOML document, which the parser does not tell. The document has been
 * parsed before, so its syntax is known to be right. Keys are paths joined by `pathKey`. What is below `[[table]]`
 * stands there twice: by its plain path, where it is first, and with the table's index: `table`, `0`, `key`.
 */
export function lineOfKeys(source: string): ReadonlyMap<string, number> {
  return new Scanner(source).scan()
}

export function pathKey(path: readonly string[]): string {
  return path.join('\0')
}

const BARE = /[A-Za-z0-9_-]+/y
const SPACE = /[ \t]*/y
const SPACE_AND_COMMENTS = /(?:[ \t\r\n]|#[^\n]*)*/y
// A number, date or boolean ends where a container, a line or a comment goes on.
const PLAIN = /[^,\]}\n#]*/y
const STRINGS = [
  /"""(?:\\[\s\S]|(?!""")[\s\S])*"{3,5}/y,
  /'''(?:(?!''')[\s\S])*'{3,5}/y,
  /"(?:\\.|[^"\\])*"/y,
  /'[^']*'/y,
]

class Scanner {
  readonly #source: string
  readonly #lines = new Map<string, number>()
  /** The index of the `[[table]]` at work, by path. */
  readonly #indexes = new Map<string, number>()
  #at = 0
  #line = 1
  #counted = 0

  constructor(source: string) {
    this.#source = source
  }

  scan(): ReadonlyMap<string, number> {
    let table: string[] = []
    for (this.#take(SPACE_AND_COMMENTS); this.#at < this.#source.length; this.#take(SPACE_AND_COMMENTS)) {
      if (this.#source[this.#at] === '[') {
        const isArray = this.#source.startsWith('[[', this.#at)
        while (this.#source[this.#at] === '[') this.#at++
        table = this.#key([])
        if (isArray) this.#nextOf(table)
        while (this.#source[this.#at] === ']') this.#at++
      } else {
        this.#pair(table)
      }
    }
    return this.#lines
  }

  /** Moves over what matches here; the pattern is sticky. */
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#source)?.[0]
    if (match !== undefined) this.#at += match.length
    return match
  }

  #lineHere(): number {
    for (; this.#counted < this.#at; this.#counted++) {
      if (this.#source[this.#counted] === '\n') this.#line++
    }
    return this.#line
  }

  #string(): string | undefined {
    for (const pattern of STRINGS) {
      const match = this.#take(pattern)
      if (match !== undefined) return match
    }
    return undefined
  }

  #note(path: readonly string[], line: number): void {
    const key = pathKey(path)
    if (!this.#lines.has(key)) this.#lines.set(key, line)
  }

  /** Another `[[table]]`; the arrays inside of it begin anew. */
  #nextOf(table: readonly string[]): void {
    const key = pathKey(table)
    const index = (this.#indexes.get(key) ?? -1) + 1
    for (const other of this.#indexes.keys()) {
      if (other.startsWith(`${key}\0`)) this.#indexes.delete(other)
    }
    this.#indexes.set(key, index)
    this.#note(this.#indexed(table), this.#lineHere())
  }

  #indexed(path: readonly string[]): string[] {
    return path.flatMap((part, at) => {
      const index = this.#indexes.get(pathKey(path.slice(0, at + 1)))
      return index === undefined ? [part] : [part, String(index)]
    })
  }

  /** A dotted key below `prefix`; every part is noted, since a part may be the unknown one. */
  #key(prefix: readonly string[]): string[] {
    const path = [...prefix]
    for (;;) {
      this.#take(SPACE)
      const line = this.#lineHere()
      const part = this.#take(BARE) ?? this.#string()
      // Nothing can be said about a document that is not TOML; it has been refused before.
      if (part === undefined) throw new SyntaxError(`line ${line}: no key`)
      path.push(unquoted(part))
      this.#note(path, line)
      this.#note(this.#indexed(path), line)
      this.#take(SPACE)
      if (this.#source[this.#at] !== '.') return path
      this.#at++
    }
  }

  #pair(table: readonly string[]): void {
    const path = this.#key(table)
    this.#at++ // =
    this.#take(SPACE)
    this.#value(path)
  }

  #value(path: readonly string[]): void {
    const open = this.#source[this.#at]
    if (open === '{') this.#items('}', () => this.#pair(path))
    else if (open === '[') this.#items(']', () => this.#value(path))
    else if (this.#string() === undefined) this.#take(PLAIN)
  }

  #items(close: string, item: () => void): void {
    this.#at++
    for (;;) {
      this.#take(SPACE_AND_COMMENTS)
      if (this.#source[this.#at] === close || this.#at >= this.#source.length) break
      item()
      this.#take(SPACE_AND_COMMENTS)
      if (this.#source[this.#at] === ',') this.#at++
    }
    this.#at++
  }
}

function unquoted(part: string): string {
  if (part.startsWith("'")) return part.slice(1, -1)
  if (!part.startsWith('"')) return part
  try {
    return JSON.parse(part) as string
  } catch {
    // \U00000000 and \e are TOML's own; no key of ours has them.
    return part.slice(1, -1)
  }
}
