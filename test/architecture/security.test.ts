import { test } from 'node:test'
import { checkTables } from './tables.ts'

test('every class of attack in docs/security.md has its test', () => {
  checkTables('docs/security.md', 'Layers', 50)
})
