/**
 * The one error type that crosses layers. `code` names what a caller can do about it; the wire codes that
 * belong to them stand in one table in `cri/status.ts`. Messages are written for the operator who reads them
 * in a pod event: which object, which step, what was expected.
 */
export type ErrorCode =
  | 'invalid' // the request can never succeed as it is
  | 'not-found'
  | 'exists'
  | 'precondition' // right request, wrong state
  | 'deadline'
  | 'cancelled'
  | 'exhausted' // a limit of ours
  | 'unavailable' // try again later
  | 'unimplemented'
  | 'unknown' // the client looks at the message only (PullImage)
  | 'internal'

export class BerthError extends Error {
  override readonly name = 'BerthError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
}

/** `field` in the client's own spelling (`config.metadata.name`), then what it should have been. */
export function invalid(field: string, expected: string): BerthError {
  return new BerthError('invalid', `${field}: ${expected}`)
}

export function notFound(kind: string, id: string): BerthError {
  return new BerthError('not-found', `${kind} ${JSON.stringify(id)} not found`)
}

export function precondition(message: string): BerthError {
  return new BerthError('precondition', message)
}

export function internal(message: string, cause?: unknown): BerthError {
  return new BerthError('internal', message, cause)
}

export function unimplemented(what: string): BerthError {
  return new BerthError('unimplemented', `${what} is not implemented by this version of berth`)
}

/** What any thrown value says, on one line, without a stack. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message
  return String(error)
}

/** The errno name (`ENOENT`) of a Node or syscall error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}

export function isCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof BerthError && error.code === code
}

/** The same error, saying in which step it happened; code and cause are kept. */
export function inStep(step: string, error: unknown): BerthError {
  const code = error instanceof BerthError ? error.code : 'internal'
  return new BerthError(code, `${step}: ${messageOf(error)}`, error)
}
