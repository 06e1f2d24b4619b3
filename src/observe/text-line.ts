const KNOWN = new Set(['level', 'time', 'msg'])

/** `2026-01-02T03:04:05.678Z INFO  pod is ready podId=4f…` from one JSON line of the log. */
export function textLine(json: string): string {
  const entry = JSON.parse(json) as Readonly<Record<string, unknown>>
  const fields = Object.entries(entry)
    .filter(([name]) => !KNOWN.has(name))
    .map(([name, value]) => ` ${name}=${shown(value)}`)
  const level = String(entry.level).toUpperCase().padEnd(5)
  return `${entry.time} ${level} ${plain(String(entry.msg ?? ''))}${fields.join('')}\n`
}

/** JSON where it is needed, so that a value never looks like two and never breaks the line. */
function shown(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value)
  return /^[\w./:@+,-]+$/.test(value) ? value : JSON.stringify(value)
}

function plain(message: string): string {
  return message.replace(/[\x00-\x1f]/g, character => JSON.stringify(character).slice(1, -1))
}
