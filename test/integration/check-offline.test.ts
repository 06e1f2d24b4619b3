import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import Database from 'better-sqlite3'
import { assertIs, check, checkOffline, only, useCheck } from '../support/check.ts'
import { command } from '../support/command.ts'
import { crashed } from '../support/daemon.ts'
import { FOREVER } from '../support/kubelet.ts'
import { processesWith, uniqueSleep } from '../support/runtime-host.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()
const { isClean, living, bundleOf, podOf } = useCheck(kubelet)

test('a container whose row was lost is found by what runs of it, and killed', async () => {
  const { daemon } = kubelet()
  const { pod, goesOn } = await living()
  const sleep = uniqueSleep()
  const id = await kubelet().run(pod, sleep)
  await daemon.kill9()
  withDatabase(database => database.prepare('DELETE FROM containers WHERE id = ?').run(id))
  const seen = await checkOffline(daemon)
  assertIs(only(seen), { kind: 'container-stray', subject: id, found: /monitor with pid \d+.*cgroup/ })
  assert.equal(processesWith(sleep).length > 0, true)
  const repaired = await checkOffline(daemon, ['--repair'])
  assert.deepEqual([only(repaired).state, repaired.code], ['REPAIRED', 0])
  assert.equal(processesWith(sleep).length, 0)
  await daemon.up()
  await isClean()
  await goesOn()
})

function withDatabase(change: (database: Database.Database) => void): void {
  const database = new Database(join(kubelet().daemon.root, 'berth.db'))
  try {
    change(database)
  } finally {
    database.close()
  }
}

test('without a daemon: what ended, what was left running and what was begun is what a start would heal', async () => {
  const { daemon } = kubelet()
  const { pod, id, goesOn } = await living()
  const killed = await kubelet().run(pod, FOREVER)
  const { pid } = await kubelet().containerInfo(killed)
  const sleep = uniqueSleep()
  const dropped = assert.rejects(kubelet().exec(id, sleep))
  await until('it runs', () => processesWith(sleep).length > 0)
  await daemon.kill9()
  await dropped
  process.kill(pid, 'SIGKILL')
  await until('it ends', () => !existsSync(`/proc/${pid}`))
  const seen = await checkOffline(daemon)
  assert.deepEqual(
    seen.differences.map(({ kind, cause }) => [kind, cause]),
    [
      ['container-ended', 'it ended while no daemon ran'],
      ['exec-left', 'the daemon was killed while the command ran'],
    ],
  )
  const repaired = await checkOffline(daemon, ['--repair'])
  assert.equal(repaired.code, 0, JSON.stringify(repaired.differences))
  assert.equal(processesWith(sleep).length, 0)
  await daemon.up()
  assert.equal((await kubelet().status(killed)).exit_code, 137)
  await isClean()
  await goesOn()
})

test('without a daemon: a pod and a container that were never finished, then a node that was restarted', async () => {
  const { daemon } = kubelet()
  const { pod, id } = await living()
  const dieAt = async (point: string, call: () => Promise<unknown>) => {
    await daemon.restart({ BERTH_FAULTS: `kill@${point}` })
    await assert.rejects(call())
    await crashed(daemon)
  }
  await dieAt('runtime.write-processes', () => kubelet().create(pod, FOREVER))
  const begun = await checkOffline(daemon)
  assertIs(only(begun), { kind: 'container-unfinished', cause: /the daemon ended while .* being created/ })
  assert.equal((await checkOffline(daemon, ['--repair'])).code, 0)
  await dieAt('network.cni-add#2', () => kubelet().runPod())
  const unmade = await checkOffline(daemon)
  assertIs(only(unmade), { kind: 'pod-unfinished', cause: /being made/ })
  assert.equal((await checkOffline(daemon, ['--repair'])).code, 0)
  assert.deepEqual((await checkOffline(daemon)).differences, [])
  const { pid } = await readPid(id)
  process.kill(pid, 'SIGKILL')
  withDatabase(database => database.exec(`UPDATE pods SET boot_id = 'an earlier boot'`))
  const restarted = await checkOffline(daemon)
  assert.deepEqual(
    restarted.differences.map(({ kind, cause }) => [kind, cause]),
    [
      ['container-ended', 'the node was restarted'],
      ['pod-lost', 'the node was restarted'],
    ],
  )
  assert.equal((await checkOffline(daemon, ['--repair'])).code, 0)
  await daemon.up()
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
})

async function readPid(id: string): Promise<{ pid: number }> {
  return { pid: Number(readFileSync(join(bundleOf(id), 'pidfile'), 'utf8')) }
}

test('rows that cannot be read are named until they are removed', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  await kubelet().stopPod(pod.id)
  await daemon.kill9()
  withDatabase(database => database.prepare(`UPDATE pods SET config = '{' WHERE id = ?`).run(pod.id))
  await daemon.up()
  const seen = await check(daemon, '--repair')
  assertIs(only(seen), { kind: 'row-unreadable', subject: pod.id, cause: /damaged/ })
  await kubelet().removePod(pod.id)
  await isClean()
})

test('a daemon that does not answer is not worked around: its pid is named, nothing is touched', async () => {
  const { daemon } = kubelet()
  const { goesOn } = await living()
  unlinkSync(daemon.socket)
  for (const flags of [[], ['--repair']]) {
    const { code, stdout, stderr } = await daemon.offline(['check', ...flags])
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, new RegExp(`process ${daemon.pid} holds .*berth\\.lock.*does not answer`))
  }
  await daemon.restart()
  await goesOn()
})

test('a repair that is killed at any effect leaves nothing worse: the next one ends it', async () => {
  const { daemon } = kubelet()
  const { pod, id, goesOn } = await living()
  const lost = await kubelet().run(pod, FOREVER)
  await daemon.kill9()
  withDatabase(database => database.prepare('DELETE FROM containers WHERE id = ?').run(lost))
  const trace = join(daemon.directory, 'effects')
  for (let at = 1; ; at += 7) {
    rmSync(bundleOf(id), { recursive: true, force: true })
    // The one before may not have come so far as to pin it again.
    await command('umount', ['-l', join(podOf(pod), 'ns', 'uts')])
    const { code } = await daemon.offline(['check', '--repair'], {
      BERTH_FAULTS: `kill@${at},trace=${trace}`,
    })
    if (code === 0) break
    assert.equal(code, 128, `killed at ${at}`)
  }
  assert.deepEqual((await checkOffline(daemon)).differences, [])
  await daemon.up()
  await isClean()
  await goesOn()
})
