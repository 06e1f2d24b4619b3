import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTrace, pointsOf } from './points.ts'

const trace = (...lines: string[]) => parseTrace(lines.map(line => `${line}\n`).join(''))
const id = '0123456789abcdef'.repeat(4)

test('a trace has effects, and how often a rule was due', () => {
  const { effects, struck } = trace('1 os.mount sync /a b', '2 state.commit async pod', '2 struck fail')
  assert.deepEqual(effects, [
    { name: 'os.mount', kind: 'sync', subject: '/a b' },
    { name: 'state.commit', kind: 'async', subject: 'pod' },
  ])
  assert.equal(struck, 1)
})

test('ids and numbers are stars in the address of a point, and what plans would read otherwise', () => {
  const { effects } = trace(
    `1 os.mount sync /run/berth-faults-0a1b2c/pods/${id}/shm`,
    `2 registry.get-blob async http://127.0.0.1:4711/v2/x/blobs/sha256:${id}`,
    '3 os.signal sync 4711',
  )
  assert.deepEqual(
    pointsOf(effects).map(({ address }) => address),
    ['os.mount=/run/*/pods/*/shm#1', 'registry.get-blob=http*//*/v*/x/blobs/sha*#1', 'os.signal=*#1'],
  )
})

test('of many that differ in nothing but ids the first two and the last are points', () => {
  const { effects } = trace(
    ...['cpu', 'memory', 'pids', 'blkio', 'freezer'].map(
      (name, index) => `${index + 1} os.make-cgroup sync /sys/fs/cgroup/${name}/pod`,
    ),
  )
  assert.deepEqual(
    pointsOf(effects).map(({ address }) => address.slice(-2)),
    ['#1', '#2', '#5'],
  )
})
