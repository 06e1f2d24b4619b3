import { createHmac, randomBytes } from 'node:crypto'
import { BerthError } from '../base/errors.ts'

/** kubelet connects within a second of its call; what is older was given up. */
const LIFETIME_MS = 60_000

/** A client that asks and never connects fills the table for a minute; each entry is small. */
const MAX_OUTSTANDING = 1000

type Entry<T> = { readonly value: T; readonly expiresAt: number }

/** What was asked for, each under a token that can be used once and for a minute. */
export class Tokens<T> {
  /** By a keyed hash, so that how long a look-up takes says nothing about the tokens there are. Oldest first. */
  readonly #entries = new Map<string, Entry<T>>()
  readonly #key = randomBytes(32)
  readonly #now: () => number

  /** @param now a clock that never goes back, in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** @returns 128 random bits, fit for a URL @throws BerthError exhausted */
  issue(value: T): string {
    this.#expire()
    if (this.#entries.size >= MAX_OUTSTANDING) {
      throw new BerthError('exhausted', `${MAX_OUTSTANDING} stream requests wait for their clients already`)
    }
    const token = randomBytes(16).toString('base64url')
    this.#entries.set(this.#hash(token), { value, expiresAt: this.#now() + LIFETIME_MS })
    return token
  }

  /** What the token stands for, once; undefined if it never was, was used, or is too old. */
  redeem(token: string): T | undefined {
    this.#expire()
    const hash = this.#hash(token)
    const entry = this.#entries.get(hash)
    this.#entries.delete(hash)
    return entry?.value
  }

  get outstanding(): number {
    this.#expire()
    return this.#entries.size
  }

  #hash(token: string): string {
    return createHmac('sha256', this.#key).update(token).digest('base64')
  }

  /** All live equally long, so the old ones are in front. */
  #expire(): void {
    const now = this.#now()
    for (const [hash, { expiresAt }] of this.#entries) {
      if (expiresAt > now) break
      this.#entries.delete(hash)
    }
  }
}
