/** A runtime's error output is shown to operators; what it says is in the first lines. */
const MAX_TEXT = 8192

/** What of the output is looked at: the searches below go over some texts more than once. */
const MAX_OUTPUT = 2 * MAX_TEXT

/**
 * What a runtime or monitor said, fit for a message: the `msg` of its log lines where it writes such, else its text;
 * on one line, without control characters (a terminal obeys them), cut off.
 */
export function readableError(printed: string): string {
  const output = printed.slice(0, MAX_OUTPUT)
  const messages = [...output.matchAll(/level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"/g)].map(
    match => match[1] ?? '',
  )
  const text =
    messages.length > 0 ? messages.map(message => message.replace(/\\(.)/g, '$1')).join('; ') : output
  const clean = text
    .trim()
    .replace(/\s*\n\s*/g, '; ')
    .replace(/[\x00-\x1f\x7f-\x9f\u2028-\u202e]/g, '?')
  if (clean === '') return 'no reason given'
  return clean.length <= MAX_TEXT ? clean : `${clean.slice(0, MAX_TEXT)}…`
}
