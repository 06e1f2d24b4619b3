/**
 * A verbose reply's `info`: one key, whose value is a JSON object. crictl parses every value that starts with `{`.
 */
export function toInfo(key: string, value: Readonly<Record<string, unknown>>): Record<string, string> {
  return {
    [key]: JSON.stringify(value, (_, member) => (typeof member === 'bigint' ? String(member) : member)),
  }
}
