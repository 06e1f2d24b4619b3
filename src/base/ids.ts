import { randomBytes } from 'node:crypto'

/** Pod and container ids: 64 lower-case hex digits, which cAdvisor parses out of cgroup names. */
export function newId(): string {
  return randomBytes(32).toString('hex')
}

/** The twelve digits that people read. */
export function shortId(id: string): string {
  return id.slice(0, 12)
}
