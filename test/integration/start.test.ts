import assert from 'node:assert/strict'
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import Database from 'better-sqlite3'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'

const kubelet = useDaemon({
  // As clusters have it that come from CRI-O.
  config: () => '[crio.runtime]\nconmon_cgroup = "pod"\ncgroup_manager = "cgroupfs"\n',
})

test('a daemon that is told to stop leaves its containers running and says so with exit code 0', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  assert.equal(await daemon.stop(), 0)
  assert.equal(existsSync(daemon.socket), false)
  await daemon.up()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
})

test('a second daemon on the same root is refused, and names the first', async () => {
  const { daemon } = kubelet()
  const { code, stderr } = await daemon.second()
  assert.equal(code, 1)
  assert.match(stderr, new RegExp(`${daemon.pid}`))
  assert.deepEqual((await daemon.client.runtime('ListPodSandbox', {})).items, [])
})

test('the socket is for root and its group; one that a dead daemon left is replaced', async () => {
  const { daemon } = kubelet()
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o660)
  await daemon.kill9()
  assert.ok(existsSync(daemon.socket))
  await daemon.up()
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o660)
})

/** What a daemon says that cannot start: one sentence on standard error. */
async function refusal(): Promise<string> {
  const { code, stderr } = await kubelet().daemon.second()
  assert.equal(code, 1, stderr)
  const sentences = stderr.split('\n').filter(line => line.startsWith('berth: '))
  assert.equal(sentences.length, 1, stderr)
  return sentences[0]!
}

test('a database that is none, or of a later version, is refused and not touched', async () => {
  const { daemon } = kubelet()
  const path = join(daemon.root, 'berth.db')
  const aside = join(daemon.directory, 'aside.db')
  await daemon.stop()
  const versionOf = (version?: number) => {
    const database = new Database(path)
    const before = database.pragma('user_version', { simple: true })
    if (version !== undefined) database.pragma(`user_version = ${version}`)
    database.close()
    return Number(before)
  }
  const version = versionOf(9999)
  assert.match(await refusal(), /berth\.db.*9999/)
  assert.equal(versionOf(version), 9999)
  renameSync(path, aside)
  writeFileSync(path, 'not a database, but somebody wants to keep it\n'.repeat(100))
  assert.match(await refusal(), /berth\.db/)
  rmSync(path)
  renameSync(aside, path)
  await daemon.up()
})

test('a root that cannot be written, and a configuration with an unknown key, are refused by name', async () => {
  const { daemon } = kubelet()
  await daemon.stop()
  const lock = join(daemon.root, 'berth.lock')
  rmSync(lock)
  mkdirSync(lock)
  assert.match(await refusal(), /berth\.lock/)
  rmSync(lock, { recursive: true })
  const config = join(daemon.directory, 'berth.conf.d')
  mkdirSync(config)
  writeFileSync(join(config, '10-typo.conf'), '[crio.runtime]\ncgroup_manger = "cgroupfs"\n')
  assert.match(await refusal(), /10-typo\.conf:2.*cgroup_manger.*cgroup_manager/)
  writeFileSync(join(config, '10-typo.conf'), '[crio.runtime]\nlog_level = "debug"\n')
  await daemon.up()
  assert.match(daemon.log, / DEBUG /)
  rmSync(config, { recursive: true })
})

test('status and timeline show what the daemon does', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  const status = await daemon.berth('status', '--json')
  assert.equal(status.code, 0, status.stderr)
  const node = JSON.parse(status.stdout)
  assert.deepEqual([node.pods.ready, node.containers.running, node.images], [1, 1, 1])
  assert.equal(Number(node.pid), daemon.pid)
  const timeline = await daemon.berth('timeline', `default/${pod.config.metadata?.name}`)
  for (const step of [
    'RunPodSandbox',
    'pin-namespaces',
    'cni-add',
    'CreateContainer',
    'runtime-create',
    'StartContainer',
  ])
    assert.ok(timeline.stdout.includes(step), timeline.stdout)
  const nobody = await daemon.berth('timeline', 'default/nobody')
  assert.deepEqual([nobody.code, nobody.stdout], [1, ''])
})

test('berth pull says what it does, and why it cannot', async () => {
  const { daemon } = kubelet()
  const again = await daemon.berth('pull', 'busybox')
  assert.equal(again.code, 0, again.stderr)
  assert.match(again.stdout, /^sha256:[0-9a-f]{64}\n$/)
  const missing = await daemon.berth('pull', 'quay.io/no/where:1')
  assert.equal(missing.code, 1)
  assert.match(missing.stderr, /^berth: .*quay\.io\/no\/where:1/m)
})
