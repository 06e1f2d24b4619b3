/** In every secret of the tests, and nowhere else: whoever finds it in a log has found a leak. */
const MARKER = 'Qc4narYz'

/**
 * A password, token or other value that must never be shown. All tests take theirs from here, so that the logs of all
 * daemons can be searched for any of them.
 * @param name letters, digits and dashes
 */
export function secret(name: string): string {
  return `${MARKER}-${name}-${MARKER}`
}

/** The marker as it is, in hexadecimal, and in base64 at each of the three places where it can begin. */
const FORMS: readonly string[] = [
  MARKER,
  Buffer.from(MARKER).toString('hex'),
  ...[0, 1, 2].flatMap(before => {
    // The characters at both ends also hold bits of what stands beside it.
    const text = Buffer.from(`${'x'.repeat(before)}${MARKER}`)
      .toString('base64')
      .replaceAll('=', '')
    const inner = text.slice(Math.ceil((before * 8) / 6), -1)
    return [inner, inner.replaceAll('+', '-').replaceAll('/', '_')]
  }),
]

/** Every line of a text in which a secret stands, in any of the forms in which it may travel. */
export function linesWithSecrets(text: string, known: readonly string[] = []): string[] {
  const forms = [...FORMS, ...known]
  return text.split('\n').filter(line => forms.some(form => line.includes(form)))
}
