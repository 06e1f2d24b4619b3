import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import type { Mode } from './cases.ts'
import type { Result } from './matrix.ts'

/** Outcomes of former runs in a file, one JSON text a line: a run that was broken off goes on there. */
export class ResultFile {
  readonly #path: string

  /** @param path '' keeps nothing */
  constructor(path: string) {
    this.#path = path
  }

  add(result: Result): void {
    if (this.#path !== '') appendFileSync(this.#path, `${JSON.stringify(result)}\n`)
  }

  /** The last outcome of each case. */
  read(): Result[] {
    if (this.#path === '' || !existsSync(this.#path)) return []
    const lines = readFileSync(this.#path, 'utf8').split('\n')
    const results = lines.filter(line => line !== '').map(line => JSON.parse(line) as Result)
    return [...new Map(results.map(result => [keyOf(result), result])).values()]
  }

  /** Addresses that need no other try. */
  settled(operation: string, mode: Mode): Set<string> {
    return new Set(
      this.read()
        .filter(result => result.operation === operation && result.mode === mode)
        .filter(({ outcome }) => outcome !== 'failed')
        .map(({ address }) => address),
    )
  }
}

function keyOf({ operation, mode, address }: Result): string {
  return `${operation} ${mode} ${address}`
}
