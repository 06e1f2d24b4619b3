import { messageOf } from '../base/errors.ts'

/** How a command or an attach ended. */
export type CommandEnd = { readonly exitCode: number } | { readonly failure: unknown }

/** Bytes of a failure's text: clients print it whole. */
const MAX_MESSAGE = 8 * 1024

/** What v4 and v5 send on the error stream: a Kubernetes `Status` as JSON. */
export function statusJson(end: CommandEnd): string {
  if ('failure' in end) {
    return JSON.stringify({
      status: 'Failure',
      reason: 'InternalError',
      message: textOf(end),
      code: 500,
    })
  }
  if (end.exitCode === 0) return '{"status":"Success"}'
  return JSON.stringify({
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: textOf(end),
    details: { causes: [{ reason: 'ExitCode', message: String(end.exitCode) }] },
  })
}

/** What v1 to v3 send: the text of a failure, nothing on success. */
export function statusText(end: CommandEnd): string {
  return 'exitCode' in end && end.exitCode === 0 ? '' : textOf(end)
}

function textOf(end: CommandEnd): string {
  if ('failure' in end) return messageOf(end.failure).slice(0, MAX_MESSAGE)
  return `command terminated with exit code ${end.exitCode}`
}
