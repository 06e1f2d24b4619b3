import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { command, output } from '../support/command.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { footprint } from '../support/footprint.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, Kubelet } from '../support/kubelet.ts'
import { processesWith, uniqueSleep } from '../support/runtime-host.ts'

/**
 * A node with an image, a pod whose container runs, and one whose container has ended. A `deaf` container does not end
 * when it is asked to, but half a minute later.
 */
async function inhabited({ deaf } = { deaf: false }): Promise<{
  daemon: BerthDaemon
  kubelet: Kubelet
  sleep: string
}> {
  const daemon = await BerthDaemon.start({ label: 'wipe' })
  const kubelet = new Kubelet(daemon)
  daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
  await kubelet.pull(BUSYBOX)
  const sleep = uniqueSleep()
  const pod = await kubelet.runPod({ port_mappings: [{ container_port: 80, host_port: 18095 }] })
  await kubelet.run(pod, deaf ? `exec ${sleep}` : `trap 'exit 0' TERM; ${sleep} & wait`)
  const other = await kubelet.runPod()
  await kubelet.exited(await kubelet.run(other, 'exit 3'))
  return { daemon, kubelet, sleep }
}

/** What pods and containers leave, other than cgroups of the client and bridges of these tests' networks. */
async function leftOf(daemon: BerthDaemon): Promise<string[]> {
  return [...(await footprint(daemon))].filter(line => !/^(cgroup|link bt\d)/.test(line))
}

test('a wipe lists everything, asks, stops what lives, and leaves nothing; a fresh daemon starts', async () => {
  const { daemon, sleep } = await inhabited({ deaf: true })
  await using _daemon = daemon
  const runs = await daemon.offline(['wipe', '--yes'])
  assert.deepEqual([runs.code, runs.stdout], [1, ''])
  assert.match(runs.stderr, new RegExp(`a daemon runs \\(process ${daemon.pid}, .*stop it first`))
  await daemon.stop()
  const lives = await daemon.offline(['wipe', '--yes'])
  assert.equal(lives.code, 1)
  assert.match(lives.stderr, /pods live here: default\/pod-.*--force/)
  const nobody = await daemon.offline(['wipe', '--force'])
  assert.equal(nobody.code, 1)
  assert.match(nobody.stderr, /nobody is at a terminal.*--yes/)
  const listed = await daemon.offline(['wipe', '--force', '--dry-run'])
  assert.equal(listed.code, 0)
  for (const line of [
    /^pods \(2\)\n {2}default\/pod-\S+ \([0-9a-f]{12}, lives\)$/m,
    /^containers \(2\)$/m,
    /^images \(1\)\n {2}docker\.io\/library\/busybox:latest, \d.* MiB$/m,
    /^mounts \(\d+\)$/m,
    /^cgroups \(\d\)$/m,
    new RegExp(`^addresses \\(2\\)\\n {2}${daemon.subnet}`, 'm'),
    new RegExp(`^directories \\(2\\)\\n {2}${daemon.root}\\n {2}${daemon.runRoot}$`, 'm'),
  ]) {
    assert.match(listed.stdout, line)
  }
  assert.equal(processesWith(sleep).length > 0, true)
  const wiped = await daemon.offline(['wipe', '--force', '--yes'])
  assert.equal(wiped.code, 0, wiped.stderr)
  assert.match(wiped.stdout, /nothing of berth is left on this node\n$/)
  assert.equal(processesWith(sleep).length, 0)
  assert.deepEqual([existsSync(daemon.root), existsSync(daemon.runRoot)], [false, false])
  assert.deepEqual(await leftOf(daemon), [])
  const again = await daemon.offline(['wipe', '--yes'])
  assert.deepEqual([again.code, again.stderr], [0, ''])
  assert.match(again.stdout, /^there is nothing/)
  await daemon.up()
  assert.deepEqual((await daemon.client.image('ListImages', {})).images, [])
  assert.deepEqual((await daemon.client.runtime('ListPodSandbox', {})).items, [])
  assert.equal((await daemon.berth('check')).code, 0)
})

test('a person at a terminal types the word, or nothing happens', async () => {
  const { daemon } = await inhabited()
  await using _daemon = daemon
  await daemon.stop()
  const answers = async (word: string) => {
    const asked = daemon.offlineCommand(['wipe', '--force']).map(part => `'${part}'`)
    const line = `printf '%s\\n' '${word}' | script -qec "${asked.join(' ')}" /dev/null`
    return await command('sh', ['-c', line], { HOME: daemon.directory })
  }
  const declined = await answers('yes')
  assert.match(declined.stdout, /Type wipe to remove all of this: [\s\S]*nothing was removed/)
  assert.ok(existsSync(join(daemon.root, 'berth.db')))
  const agreed = await answers('wipe')
  assert.match(agreed.stdout, /nothing of berth is left/)
  assert.equal(existsSync(daemon.root), false)
})

test('containers alone: images stay; images alone: only where no container stands on one', async () => {
  const { daemon, kubelet } = await inhabited()
  await using _daemon = daemon
  await daemon.stop()
  const held = await daemon.offline(['wipe', '--images', '--yes'])
  assert.equal(held.code, 1)
  assert.match(held.stderr, /2 containers stand on images; add --containers/)
  const pods = await daemon.offline(['wipe', '--containers', '--force', '--yes'])
  assert.equal(pods.code, 0, pods.stderr)
  assert.doesNotMatch(pods.stdout, /^images/m)
  await daemon.up()
  assert.equal((await daemon.client.image('ListImages', {})).images.length, 1)
  assert.deepEqual((await daemon.client.runtime('ListPodSandbox', {})).items, [])
  assert.equal(await kubelet.outputOf(await kubelet.runPod(), 'echo works'), 'works')
  await kubelet.removeAll()
  await daemon.stop()
  const images = await daemon.offline(['wipe', '--images', '--yes'])
  assert.equal(images.code, 0, images.stderr)
  await daemon.up()
  assert.deepEqual((await daemon.client.image('ListImages', {})).images, [])
  assert.equal((await daemon.berth('check')).code, 0)
})

test('a wipe that is killed anywhere is run again, and ends', async () => {
  const { daemon, sleep } = await inhabited()
  await using _daemon = daemon
  await daemon.kill9()
  let kills = 0
  for (let at = 2; ; at += 7) {
    const { code, stderr } = await daemon.offline(['wipe', '--force', '--yes'], {
      BERTH_FAULTS: `kill@${at}`,
    })
    if (code === 0) break
    assert.equal(code, 128, stderr)
    kills++
  }
  assert.ok(kills > 3, `${kills} kills`)
  assert.equal(processesWith(sleep).length, 0)
  assert.deepEqual([existsSync(daemon.root), existsSync(daemon.runRoot)], [false, false])
  assert.deepEqual(await leftOf(daemon), [])
  await daemon.up()
  assert.equal((await daemon.berth('check')).code, 0)
})

test('a database that cannot be read: everything is found by what it left', async () => {
  const { daemon, sleep } = await inhabited()
  await using _daemon = daemon
  await daemon.kill9()
  for (const name of ['berth.db-wal', 'berth.db-shm']) {
    if (existsSync(join(daemon.root, name))) writeFileSync(join(daemon.root, name), '')
  }
  writeFileSync(
    join(daemon.root, 'berth.db'),
    'this is no database at all, and longer than a header'.repeat(99),
  )
  const refused = await daemon.offline(['wipe', '--yes'])
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /is not a database.*--force/)
  const wiped = await daemon.offline(['wipe', '--force', '--yes'])
  assert.equal(wiped.code, 0, wiped.stderr)
  assert.equal(processesWith(sleep).length, 0)
  assert.deepEqual(await leftOf(daemon), [])
  assert.doesNotMatch(await output('iptables-save', '-t', 'nat'), /id: /)
})
