import assert from 'node:assert/strict'
import { test } from 'node:test'
import { groupsOfOomKills, OomLog } from './kernel-log.ts'

const GROUP = '/kubepods.slice/kubepods-pod1.slice/berth-af6c.scope'

/** As Linux 6.12 writes it. */
function line(task_memcg: string, before = '<6>[  514.090000] '): string {
  return `${before}oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=box,mems_allowed=0,oom_memcg=${GROUP},task_memcg=${task_memcg},task=sh,pid=476,uid=0\n`
}

/** A log of the kernel's that holds `text`. */
function logOf(text: string): OomLog {
  return new OomLog(async buffer => buffer.write(text))
}

test('a kill in the group, below it, and in one that is mounted deeper counts', async () => {
  for (const path of [GROUP, `${GROUP}/container`, `/machine.slice${GROUP}`]) {
    const log = logOf(`<6>[  514.080000] sh invoked oom-killer\n${line(path)}<3>[  514.1] Memory cgroup\n`)
    assert.equal(await log.tellsOf(GROUP), true, path)
  }
})

test('kills elsewhere, what programs write into the log, and what is no kill do not', async () => {
  for (const path of ['/system.slice/x.service', `${GROUP}x`, '/kubepods.slice'])
    assert.equal(await logOf(line(path)).tellsOf(GROUP), false, path)
  const noKills = [
    '',
    '\n',
    line(GROUP, '<14>[  514.090000] '),
    line(GROUP, '<6>[  514.09] sh: '),
    line(GROUP, ''),
  ]
  for (const text of noKills) assert.equal(await logOf(text).tellsOf(GROUP), false, text)
})

test('lines with and without their time and their writer; a name of a process that looks like a group', () => {
  const before = ['<6>', '<6>[  514.090000] ', '<6>[  514.090000][  T476] ', '<4>[T476] ']
  const log = before.map((start, i) => line(`/${i}`, start)).join('<6>[  1.0] eth0: up\n')
  assert.deepEqual(groupsOfOomKills(log.replaceAll('task=sh', 'task=,task_memcg=/x')), [
    '/0',
    '/1',
    '/2',
    '/3',
  ])
})

test('a log that tells of no such group, or that may not be read', async () => {
  assert.equal(await new OomLog().tellsOf('/there/is/no/such.scope'), false)
  const denied = new OomLog(() => Promise.reject(new Error('EPERM')))
  assert.deepEqual([await denied.tellsOf(GROUP), await denied.tellsOf(GROUP)], [false, false])
})

test('however many ask, the log is read once at a time, so much of it, and never before they asked', async () => {
  const readings: Array<{ bytes: number; finish: (text: string) => void }> = []
  const log = new OomLog(
    buffer =>
      new Promise(resolve => {
        readings.push({ bytes: buffer.length, finish: text => resolve(buffer.write(text)) })
      }),
  )
  const begun = async (count: number) => {
    while (readings.length < count) await new Promise(setImmediate)
  }
  const first = Array.from({ length: 50 }, () => log.tellsOf(GROUP))
  await begun(1)
  const later = Array.from({ length: 50 }, () => log.tellsOf(GROUP))
  readings[0]!.finish('')
  assert.deepEqual(new Set(await Promise.all(first)), new Set([false]))
  await begun(2)
  readings[1]!.finish(line(GROUP))
  assert.deepEqual(new Set(await Promise.all(later)), new Set([true]))
  assert.deepEqual(
    readings.map(({ bytes }) => bytes),
    [1 << 20, 1 << 20],
  )
})
