import assert from 'node:assert/strict'
import { closeSync, writeSync } from 'node:fs'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { wrapDescriptor } from '../os/handles.ts'
import { pipe } from '../os/syscalls.ts'
import { Forward } from './forward.ts'

/** Takes one chunk, and the next when it is told to. */
function slowSink() {
  const taken: string[] = []
  let next: (() => void) | undefined
  const sink = new Writable({
    highWaterMark: 1,
    write: (chunk, _, done) => {
      taken.push(String(chunk))
      next = done
    },
  })
  return { sink, taken, take: () => next?.() }
}

test('what a process left in the pipe reaches a slow reader, whoever holds the pipe and however long it takes', async () => {
  const [read, write] = pipe()
  const { sink, taken, take } = slowSink()
  const forward = new Forward(wrapDescriptor(read, 'read'), sink)
  writeSync(write, 'one')
  await new Promise(resolve => setTimeout(resolve, 10))
  writeSync(write, 'two')
  let finished = false
  const finishing = forward.finish(1).then(() => {
    finished = true
  })
  await new Promise(resolve => setTimeout(resolve, 30))
  assert.equal(finished, false)
  while (!finished) {
    take()
    await new Promise(setImmediate)
  }
  await finishing
  assert.equal(taken.join(''), 'onetwo')
  assert.ok(sink.writableFinished)
  closeSync(write)
})

test('a sink that goes away closes the source', async () => {
  const [read, write] = pipe()
  const { sink } = slowSink()
  const source = wrapDescriptor(read, 'read')
  const forward = new Forward(source, sink)
  sink.destroy()
  await forward.finish(10_000)
  assert.ok(source.destroyed)
  closeSync(write)
})

test('without a sink everything is read and dropped; one that has ended already is not waited for', async () => {
  const [read, write] = pipe()
  const source = wrapDescriptor(read, 'read')
  writeSync(write, 'nobody reads this')
  closeSync(write)
  source.resume()
  await new Promise(resolve => source.once('close', resolve))
  await new Forward(source, undefined).finish(10_000)
})
