import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { closeGently } from './goodbye.ts'

/** Why a request is not upgraded: what its client gets. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly status: 400 | 403 | 404 | 405
  readonly headers: Readonly<Record<string, string>>

  constructor(status: Refusal['status'], message: string, headers: Refusal['headers'] = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/** Answers on the bare socket of an upgrade, and closes it, whether the client does so or not. */
export function refuse(socket: Duplex, refusal: Refusal): void {
  const { body, fields } = answerOf(refusal)
  socket.write(`${head(refusal.status, fields)}${body}`)
  closeGently(socket)
}

export function answerOf({ message, headers }: Refusal): {
  readonly body: string
  readonly fields: Readonly<Record<string, string>>
} {
  const body = `${message}\n`
  const fields = {
    ...headers,
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    'X-Content-Type-Options': 'nosniff',
    Connection: 'close',
  }
  return { body, fields }
}

/** A status line and header fields. */
export function head(status: number, fields: Readonly<Record<string, string>>): string {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n`
}
