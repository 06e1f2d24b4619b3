import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOomKill, loggedOomKills, takeRecords } from './kernel-log.ts'

const GROUP = '/kubepods.slice/kubepods-pod1.slice/berth-af6c.scope'

/** As Linux 6.12 writes it. */
function record(task_memcg: string, priority = 6): string {
  return `${priority},812,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=box,mems_allowed=0,oom_memcg=${GROUP},task_memcg=${task_memcg},task=sh,pid=476,uid=0\n SUBSYSTEM=x\n`
}

test('a kill in the group, below it, and in one that is mounted deeper counts', () => {
  for (const path of [GROUP, `${GROUP}/container`, `/machine.slice${GROUP}`])
    assert.equal(isOomKill(record(path), GROUP), true, path)
})

test('kills elsewhere, what programs write into the log, and what is no kill do not', () => {
  for (const path of ['/system.slice/x.service', `${GROUP}x`, '/kubepods.slice'])
    assert.equal(isOomKill(record(path), GROUP), false, path)
  assert.equal(isOomKill(record(GROUP, 14), GROUP), false)
  for (const text of ['', ';', '6,1,2,-;', `6,1,2,-;sh: oom-kill:,task_memcg=${GROUP},`, `4,1,2,c;${GROUP}`])
    assert.equal(isOomKill(text, GROUP), false, text)
})

test('a log that tells of no such group, or that may not be read', () => {
  assert.equal(loggedOomKills('/there/is/no/such.scope'), 0)
})

test('a log that is written as fast as it is read is read so far and no further', () => {
  assert.equal(takeRecords(() => '6,1,2,-;x').length, 20_000)
})
