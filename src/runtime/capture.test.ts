import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { Capture, OutputBudget } from './capture.ts'

async function captured(limit: number, written: string, budget?: OutputBudget): Promise<Capture> {
  const stream = new PassThrough()
  const capture = new Capture(stream, limit, budget)
  stream.end(written)
  await capture.ended
  return capture
}

test('the first bytes are kept, all are read', async () => {
  assert.equal((await captured(5, 'hello world')).bytes.toString(), 'hello')
  assert.equal((await captured(50, 'hello world')).bytes.toString(), 'hello world')
})

test('captures of one budget keep no more than that together', async () => {
  const budget = new OutputBudget(8)
  const [one, two] = [await captured(5, 'hello', budget), await captured(5, 'world', budget)]
  assert.deepEqual([`${one.bytes}`, `${two.bytes}`], ['hello', 'wor'])
  one.close()
  one.close()
  assert.equal((await captured(9, 'and again', budget)).bytes.toString(), 'and a')
})
