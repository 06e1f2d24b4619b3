/**
 * A quantity that holders divide among themselves without knowing how many they are: none may hold more than is left
 * free. One that takes all it can get ends up with a half, two with a third each, and as much as the greediest has is
 * always left for one that comes later (dynamic thresholds, as switches share their buffers).
 */
export class Shares<Holder> {
  readonly #held = new Map<Holder, number>()
  readonly total: number
  #free: number

  constructor(total: number) {
    this.total = total
    this.#free = total
  }

  get free(): number {
    return this.#free
  }

  holds(holder: Holder): boolean {
    return this.#held.has(holder)
  }

  /** All of `amount` or, with false, nothing. */
  take(holder: Holder, amount = 1): boolean {
    const held = (this.#held.get(holder) ?? 0) + amount
    if (held > this.#free - amount) return false
    this.#free -= amount
    this.#held.set(holder, held)
    return true
  }

  /** What was taken before. */
  give(holder: Holder, amount = 1): void {
    const held = (this.#held.get(holder) ?? 0) - amount
    this.#free += amount
    if (held > 0) this.#held.set(holder, held)
    else this.#held.delete(holder)
  }
}
