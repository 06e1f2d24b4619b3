import { randomBytes } from 'node:crypto'

/** Pod and container ids: 64 lower-case hex digits, which cAdvisor parses out of cgroup names. */
export function newId(): string {
  return randomBytes(32).toString('hex')
}

/** Whether it is one; what is not must never become a part of a path. */
export function isId(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text)
}

/** The twelve digits that people read. */
export function shortId(id: string): string {
  return id.slice(0, 12)
}
