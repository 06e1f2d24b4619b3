import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SCHEMA_VERSION } from '../../src/state/schema.ts'
import type { BerthDaemon } from '../support/daemon.ts'
import { removePodCgroup } from '../support/footprint.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { pageOf, takeBack, versionOf } from '../support/old-database.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

/** Everything that clients see. */
async function everything() {
  const { client } = kubelet().daemon
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  return {
    pods: await Promise.all(items.map(({ id }) => kubelet().podStatus(id))),
    containers: await Promise.all(containers.map(({ id }) => kubelet().status(id))),
    images: (await client.image('ListImages', {})).images,
  }
}

/** Directories that builds with this schema did not make. */
const LATER_DIRECTORIES: Readonly<Record<number, readonly string[]>> = { 1: ['records', 'partial'] }

const databaseOf = ({ root }: BerthDaemon) => join(root, 'berth.db')

for (let version = 1; version < SCHEMA_VERSION; version++) {
  test(`schema ${version}: running pods are taken over, can be used, stopped and removed`, async () => {
    const { daemon } = kubelet()
    const image = await kubelet().image(`layered-${version}`, { files: { '/etc/motd': 'two layers' } })
    const pod = await kubelet().runPod({
      labels: { odd: 'ü "x"' },
      port_mappings: [{ container_port: 80, host_port: 18090 + version }],
    })
    const shared = await kubelet().runPodWith({ pid: 'POD' })
    const hosted = await kubelet().runPodWith({ network: 'NODE' })
    const running = await kubelet().run(pod, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done')
    const polite = await kubelet().run(shared, 'trap "exit 7" TERM; while :; do sleep 0.1; done')
    const layered = await kubelet().run(shared, FOREVER, { image: { image } })
    const ended = await kubelet().run(pod, 'exit 3')
    const created = await kubelet().create(pod, 'exit 4')
    const meanwhile = await kubelet().run(hosted, 'until [ -e /go ]; do sleep 0.05; done; exit 9')
    await kubelet().exited(ended)
    await kubelet().prints(running, '3')
    const before = await everything()
    await daemon.stop()
    takeBack(databaseOf(daemon), version)
    for (const name of LATER_DIRECTORIES[version] ?? []) rmSync(join(daemon.root, name), { recursive: true })
    await daemon.up()
    assert.equal(versionOf(databaseOf(daemon)), SCHEMA_VERSION)
    assert.deepEqual(await everything(), before)
    assert.equal((await kubelet().exec(layered, 'cat /etc/motd')).stdout, 'two layers')
    const lines = (await kubelet().logOf(running)).length
    await until('the log goes on', async () => (await kubelet().logOf(running)).length > lines)
    await kubelet().exec(meanwhile, 'touch /go')
    assert.equal((await kubelet().exited(meanwhile)).exit_code, 9)
    await kubelet().start(created)
    assert.equal((await kubelet().exited(created)).exit_code, 4)
    await kubelet().stop(polite, 30)
    assert.equal((await kubelet().status(polite)).exit_code, 7)
    assert.equal(await kubelet().outputOf(pod, 'cat /etc/motd', { image: { image } }), 'two layers')
    const { code, stdout, stderr } = await daemon.berth('image', 'verify')
    assert.equal(code, 0, `${stdout}${stderr}`)
    await kubelet().removeAll()
    assert.deepEqual(await daemon.leftovers(/^(?!file .*\/partial)/), [])
  })
}

test('a damaged database is refused; moved away, as the error says, pods end and nothing of them stays', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const { pid } = await kubelet().containerInfo(id)
  await daemon.stop()
  const path = databaseOf(daemon)
  const whole = readFileSync(path)
  const at = pageOf(path, 'pods')
  const damaged = Buffer.from(whole).fill(0xa5, at, at + 4096)
  writeFileSync(path, damaged)
  const { code, stderr } = await daemon.second()
  assert.equal(code, 1)
  assert.match(stderr, /^berth: .*berth\.db is damaged: .*move it away/m)
  assert.ok(readFileSync(path).equals(damaged))
  assert.ok(existsSync(`/proc/${pid}`), 'containers go on')
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true })
  await daemon.up()
  assert.deepEqual(await everything(), { pods: [], containers: [], images: [] })
  assert.equal(existsSync(`/proc/${pid}`), false)
  // Their cgroups are kubelet's to remove, with all that is below.
  for (const group of globSync(`/sys/fs/cgroup/{,*/}${daemon.cgroup.slice(1)}/**/`)
    .sort()
    .reverse()) {
    if (existsSync(group)) rmdirSync(group)
  }
  removePodCgroup(daemon.cgroup)
  assert.deepEqual(await daemon.leftovers(), [])
  await kubelet().pull(BUSYBOX)
  await kubelet().run(await kubelet().runPod(), FOREVER)
})
