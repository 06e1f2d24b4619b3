import { test } from 'node:test'
import { checkTables } from './tables.ts'

test('every misbehaviour in docs/reliability.md has its test', () => {
  checkTables('docs/reliability.md', 'Monitors', 30)
})
