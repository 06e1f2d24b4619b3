/**
 * Whether one of an image's names is among the patterns: a whole name, `start*` or `*part*`. Searches of plain text,
 * so that neither a pattern nor a name can make it slow.
 */
export function pinnedBy(patterns: readonly string[]): (names: readonly string[]) => boolean {
  const tests = patterns.map(testOf)
  return names => tests.some(test => names.some(test))
}

function testOf(pattern: string): (name: string) => boolean {
  if (!pattern.endsWith('*')) return name => name === pattern
  const start = pattern.slice(0, -1)
  if (!start.startsWith('*')) return name => name.startsWith(start)
  const part = start.slice(1)
  return name => name.includes(part)
}
