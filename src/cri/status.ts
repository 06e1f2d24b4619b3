import { type ServiceError, status } from '@grpc/grpc-js'
import { BerthError, type ErrorCode, messageOf } from '../base/errors.ts'

/** The one table from what went wrong to what the client is told. */
const GRPC_CODES: Readonly<Record<ErrorCode, status>> = {
  invalid: status.INVALID_ARGUMENT,
  'not-found': status.NOT_FOUND,
  exists: status.ALREADY_EXISTS,
  precondition: status.FAILED_PRECONDITION,
  deadline: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  exhausted: status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  unimplemented: status.UNIMPLEMENTED,
  unknown: status.UNKNOWN,
  internal: status.INTERNAL,
}

/** Bytes of a status message: it travels percent-encoded, up to three times as long, in a header block of 64 KiB. */
const MAX_MESSAGE = 8 * 1024

export type CallStatus = { readonly code: status; readonly details: string }

/** What a thrown value becomes on the wire. Anything but a BerthError is a defect: INTERNAL. */
export function statusOf(error: unknown): CallStatus {
  const code = error instanceof BerthError ? GRPC_CODES[error.code] : status.INTERNAL
  return { code, details: printable(messageOf(error)) }
}

/** The other way: what a client throws for the status it got. */
export function errorFrom({ code, details }: ServiceError): BerthError {
  const known = Object.entries(GRPC_CODES).find(([, grpc]) => grpc === code)
  return new BerthError(known === undefined ? 'internal' : (known[0] as ErrorCode), details)
}

/** `NOT_FOUND`: how a code is called in logs and metrics. */
export function codeName(code: status): string {
  return status[code]
}

/**
 * Messages may quote what a program or a registry wrote and end on an operator's terminal: control characters become
 * visible escapes, and the end of an overlong text is cut.
 */
export function printable(text: string): string {
  const escaped = text.slice(0, MAX_MESSAGE).replace(/[\x00-\x1f\x7f-\x9f]/g, visible)
  const bytes = Buffer.from(escaped)
  if (text.length <= MAX_MESSAGE && bytes.length <= MAX_MESSAGE) return escaped
  const kept = bytes.subarray(0, MAX_MESSAGE - Buffer.byteLength('…')).toString()
  return `${kept.replace(/\ufffd+$/, '')}…`
}

function visible(character: string): string {
  if (character === '\n') return '\\n'
  if (character === '\t') return '\\t'
  return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
}
