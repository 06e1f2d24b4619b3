import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Handlers } from './handlers.ts'
import type { Runtime } from './runtime.ts'

/** Only what handlers look at. `problems` are what one look after the other finds. */
function named(handler: string, ...problems: Array<string | undefined>) {
  return {
    handler,
    looks: 0,
    problem: problems.shift(),
    get warning() {
      return this.problem
    },
    async probe() {
      this.looks++
      this.problem = problems.shift()
    },
  }
}

const handlersOf = (fakes: Array<Partial<Runtime>>, name: string) => new Handlers(fakes as Runtime[], name)

test('by name, the empty name is the default', async () => {
  const [runc, crun] = [named('runc'), named('crun')]
  const handlers = handlersOf([runc, crun], 'crun')
  assert.equal(await handlers.available('runc'), runc)
  assert.equal(await handlers.available(''), crun)
  assert.equal(handlers.getOrDefault('gone'), crun)
  assert.deepEqual([runc.looks, crun.looks], [0, 0])
})

test('an unknown name is refused with those there are', async () => {
  const handlers = handlersOf([named('runc'), named('crun')], 'crun')
  await assert.rejects(handlers.available('kata'), { code: 'invalid', message: /"kata".*runc, crun/ })
  assert.throws(() => handlersOf([named('runc')], 'kata'), { message: /"kata"/ })
})

test('one that has a problem is looked at again by whoever asks for it, and refused with what is found', async () => {
  const crun = named('crun', 'no such program', 'too old', undefined)
  const handlers = handlersOf([named('runc'), crun], 'runc')
  const refusal = { code: 'precondition', message: 'too old' }
  await assert.rejects(handlers.available('crun'), refusal)
  assert.equal(handlers.getOrDefault('crun'), crun)
  assert.equal(await handlers.available('crun'), crun)
  assert.equal(crun.looks, 2)
})

test('a retry looks at those with a problem, a probe at all', async () => {
  const [runc, crun] = [named('runc'), named('crun', 'gone', 'gone', undefined)]
  const handlers = handlersOf([runc, crun], 'runc')
  await handlers.retry()
  assert.deepEqual([runc.looks, crun.looks, handlers.warnings()], [0, 1, ['gone']])
  await handlers.probe()
  assert.deepEqual([runc.looks, crun.looks, handlers.warnings()], [1, 2, []])
})

test('the list begins with the default under the empty name', () => {
  const [runc, crun] = [named('runc'), named('crun')]
  assert.deepEqual(
    handlersOf([runc, crun], 'crun')
      .list()
      .map(({ name, runtime }) => [name, runtime]),
    [
      ['', crun],
      ['runc', runc],
      ['crun', crun],
    ],
  )
})
