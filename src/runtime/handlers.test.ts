import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Handlers } from './handlers.ts'
import type { Runtime } from './runtime.ts'

const named = (handler: string) => ({ handler }) as Runtime
const runc = named('runc')
const crun = named('crun')
const handlers = new Handlers([runc, crun], 'crun')

test('by name, the empty name is the default', () => {
  assert.equal(handlers.get('runc'), runc)
  assert.equal(handlers.get(''), crun)
  assert.equal(handlers.getOrDefault('gone'), crun)
})

test('an unknown name is refused with those there are', () => {
  assert.throws(() => handlers.get('kata'), { code: 'invalid', message: /"kata".*runc, crun/ })
  assert.throws(() => new Handlers([runc], 'kata'), { message: /"kata"/ })
})

test('the list begins with the default under the empty name', () => {
  assert.deepEqual(
    handlers.list().map(({ name, runtime }) => [name, runtime]),
    [
      ['', crun],
      ['runc', runc],
      ['crun', crun],
    ],
  )
})
