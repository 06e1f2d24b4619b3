/** One challenge of a WWW-Authenticate header (RFC 9110, 11.3). Names are lower case. */
export type Challenge = {
  readonly scheme: string
  readonly parameters: ReadonlyMap<string, string>
}

// Far more than any registry sends; a bound for what a hostile one may.
const MAX_LENGTH = 8192
const MAX_CHALLENGES = 16
const MAX_PARAMETERS = 32

/** What can be understood of the header; what follows a syntax error is left out. */
export function parseChallenges(header: string): readonly Challenge[] {
  if (header.length > MAX_LENGTH) return []
  return new Scanner(header).challenges()
}

class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  challenges(): readonly Challenge[] {
    const found: Array<{ scheme: string; parameters: Map<string, string> }> = []
    while (found.length < MAX_CHALLENGES) {
      this.#skip(', \t')
      const word = this.#token()
      if (word === '') break
      const current = found.at(-1)
      const value = current === undefined ? undefined : this.#parameterValue()
      if (current === undefined || value === undefined) {
        found.push({ scheme: word.toLowerCase(), parameters: new Map() })
        this.#skipToken68()
      } else if (current.parameters.size < MAX_PARAMETERS && !current.parameters.has(word.toLowerCase())) {
        current.parameters.set(word.toLowerCase(), value)
      }
    }
    return found
  }

  #skip(chars: string): void {
    while (this.#at < this.#text.length && chars.includes(this.#text[this.#at]!)) this.#at++
  }

  #token(): string {
    const start = this.#at
    while (isTokenChar(this.#text.charCodeAt(this.#at))) this.#at++
    return this.#text.slice(start, this.#at)
  }

  /** `= token` or `= "quoted"`, else undefined with nothing consumed. */
  #parameterValue(): string | undefined {
    const start = this.#at
    this.#skip(' \t')
    if (this.#text[this.#at] === '=') {
      this.#at++
      this.#skip(' \t')
      const value = this.#text[this.#at] === '"' ? this.#quoted() : this.#token() || undefined
      if (value !== undefined) return value
    }
    this.#at = start
    return undefined
  }

  #quoted(): string | undefined {
    let value = ''
    for (let at = this.#at + 1; at < this.#text.length; at++) {
      const char = this.#text[at]!
      if (char === '"') {
        this.#at = at + 1
        return value
      }
      value += char === '\\' ? (this.#text[++at] ?? '') : char
    }
    return undefined
  }

  /** `Negotiate YII=`: the one other form a challenge may have. A word before `=` and a value is a parameter. */
  #skipToken68(): void {
    const start = this.#at
    this.#skip(' \t')
    while (isToken68Char(this.#text.charCodeAt(this.#at))) this.#at++
    this.#skip('=')
    this.#skip(' \t')
    if (this.#at < this.#text.length && this.#text[this.#at] !== ',') this.#at = start
  }
}

function isTokenChar(code: number): boolean {
  return (
    isAlphanumeric(code) || (!Number.isNaN(code) && "!#$%&'*+-.^_`|~".includes(String.fromCharCode(code)))
  )
}

function isToken68Char(code: number): boolean {
  return isAlphanumeric(code) || (!Number.isNaN(code) && '-._~+/'.includes(String.fromCharCode(code)))
}

function isAlphanumeric(code: number): boolean {
  return (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a)
}
