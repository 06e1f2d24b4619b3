import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSignal } from './signals.ts'

test('signals as images write them', () => {
  const known = {
    SIGTERM: 15,
    term: 15,
    ' 9 ': 9,
    SIGQUIT: 3,
    'SIGRTMIN+3': 37,
    RTMIN: 34,
    'SIGRTMAX-1': 63,
    SIGWINCH: 28,
  }
  for (const [text, number] of Object.entries(known)) assert.equal(parseSignal(text), number, text)
  for (const text of ['', '0', '65', '99', 'SIGNOPE', 'SIGRTMIN+31', 'SIGRTMAX+1', '-9', '__proto__']) {
    assert.equal(parseSignal(text), undefined, text)
  }
})
