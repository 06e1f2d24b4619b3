import { collectChunks } from '../base/collect-chunks.ts'
import type { BerthError } from '../base/errors.ts'

/** Bytes of data (not of framing) that went over a connection. */
export class Traffic {
  #in = 0
  #out = 0;

  get in(): number {
    return this.#in
  }

  get out(): number {
    return this.#out
  }

  received(bytes: number): void {
    this.#in += bytes
    collectChunks(bytes)
  }

  sent(bytes: number): void {
    this.#out += bytes
    collectChunks(bytes)
  }
}

/** A client's connection after the upgrade, as a session sees it, whatever protocol is spoken on it. */
export interface Carrier {
  readonly traffic: Traffic
  /** Sends what is queued and says goodbye; resolves when the socket is closed. */
  finish(): Promise<void>
  /** Drops the client at once. */
  destroy(): void
  /** Resolves when the socket is closed. */
  readonly closed: Promise<void>
  /**
   * While nothing is read, the end of a client is not seen. Something small is sent then: the kernel of one that has
   * gone answers with a reset.
   */
  probe(): void
}

export type CarrierEvents = {
  /** The connection ended though nobody here had asked for it; the error says whose fault it was. */
  readonly onLost: (why: BerthError) => void
}
