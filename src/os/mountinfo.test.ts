import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isBoundOnItself, mountsIn, parseMountInfo, propagationIn } from './mountinfo.ts'

const TEXT = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:27 / /run rw,nosuid shared:5 master:1 - tmpfs tmpfs rw,mode=755
31 30 254:0 /run/berth /run/berth rw - ext4 /dev/vda rw
32 31 0:4 net:[4026532288] /run/berth/pods/a/ns/net rw - nsfs nsfs rw
33 22 0:40 / /mnt/with\\040space\\011and\\134 ro propagate_from:2 master:7 - tmpfs none ro
34 33 0:41 / /mnt/with\\040space\\011and\\134 rw shared:9 - tmpfs none rw
35 22 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
`
const entries = parseMountInfo(TEXT)

test('mountinfo lines are read with any number of optional fields', () => {
  assert.equal(entries.length, 7)
  assert.deepEqual(entries[1], {
    id: 30,
    parent: 22,
    device: '0:27',
    root: '/',
    mountPoint: '/run',
    shared: true,
    slave: true,
    type: 'tmpfs',
    source: 'tmpfs',
    superOptions: ['rw', 'mode=755'],
  })
  assert.equal(entries[4]?.mountPoint, '/mnt/with space\tand\\')
  assert.deepEqual([entries[4]?.shared, entries[4]?.slave], [false, true])
  assert.deepEqual(entries[6]?.superOptions, ['rw', 'cpu', 'cpuacct'])
})

test('a cut or empty line is no mount', () => {
  assert.deepEqual(parseMountInfo('\n22 1 254:0 / / rw,relatime shared:1\n'), [])
})

test('mounts below a directory do not include those of a neighbour with the same beginning', () => {
  const points = (dir: string) => mountsIn(entries, dir).map(entry => entry.mountPoint)
  assert.deepEqual(points('/run/berth'), ['/run/berth', '/run/berth/pods/a/ns/net'])
  assert.deepEqual(points('/run/ber'), [])
  assert.equal(points('/').length, 7)
})

test('a directory that is bound on itself is told from a disk, a directory or another name that is mounted there', () => {
  const bound = (line: string) =>
    isBoundOnItself(parseMountInfo(`${TEXT}50 22 254:0 / /data rw - ext4 /dev/vda rw\n${line}\n`), '/data/b')
  assert.equal(bound('51 50 254:0 /b /data/b rw - ext4 /dev/vda rw'), true)
  assert.equal(bound('51 50 254:1 / /data/b rw - ext4 /dev/vdb rw'), false)
  assert.equal(bound('51 50 254:1 /b /data/b rw - ext4 /dev/vdb rw'), false)
  assert.equal(bound('51 50 254:0 /else /data/b rw - ext4 /dev/vda rw'), false)
  const onDisk = '51 50 254:1 / /data/b rw - ext4 /dev/vdb rw\n52 51 254:1 / /data/b rw - ext4 /dev/vdb rw'
  assert.equal(bound(onDisk), true, 'a disk, and it is bound on itself')
  assert.equal(bound(''), false)
})

test('propagation is that of the deepest mount, of the one on top where several are stacked', () => {
  assert.deepEqual(propagationIn(entries, '/etc'), { mountPoint: '/', shared: true, slave: false })
  const berth = { mountPoint: '/run/berth', shared: false, slave: false }
  assert.deepEqual(propagationIn(entries, '/run/berth/x'), berth)
  assert.deepEqual(propagationIn(entries, '/run/berthx'), { mountPoint: '/run', shared: true, slave: true })
  assert.equal(propagationIn(entries, '/mnt/with space\tand\\/x').shared, true)
})
