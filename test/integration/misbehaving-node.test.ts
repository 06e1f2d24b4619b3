/** A node that is short of something, hangs, or has things taken away by hand. See docs/reliability.md. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import Database from 'better-sqlite3'
import { sleep } from '../../src/base/clock.ts'
import { BerthClient } from '../../src/cri/client.ts'
import { mount, unmount } from '../../src/os/mounts.ts'
import { run } from '../../src/os/spawn.ts'
import { umount } from '../../src/os/syscalls.ts'
import { failure } from '../support/cni.ts'
import { command, output } from '../support/command.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20
const MNT_DETACH = 2
const protoDir = join(import.meta.dirname, '../../proto')

/** The root directory is on a small file system of its own. */
const kubelet = useDaemon({
  label: 'node',
  config: directory => {
    const root = join(directory, 'state')
    mkdirSync(root)
    mount('tmpfs', root, 'tmpfs', 0, 'size=64m')
    return ''
  },
})

/** A client that gives up after so many milliseconds. */
function hasty(timeoutMs: number): Promise<BerthClient> {
  return BerthClient.connect(kubelet().daemon.socket, protoDir, { timeoutMs })
}

async function pidOf(id: string): Promise<number> {
  return (await kubelet().containerInfo(id)).pid
}

/** State of the process in the kernel; '' if there is none. */
function stateOf(pid: number): string {
  try {
    return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1] ?? ''
  } catch {
    return ''
  }
}

/** Whatever a pod's life consists of, until one of its calls fails. @returns what that said */
async function failureOfCalls(): Promise<Error> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      const pod = await kubelet().runPod()
      const id = await kubelet().run(pod, FOREVER)
      await kubelet().exec(id, 'true')
    } catch (error) {
      return error as Error
    }
  }
  return assert.fail('no call has failed')
}

test('a daemon without descriptors: calls fail and say so, it goes on, and no exit is lost', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const [lives, dies] = [await kubelet().run(pod, FOREVER), await kubelet().run(pod, FOREVER)]
  const victim = await pidOf(dies)
  const limit = async (soft: number) => {
    await output('prlimit', '--pid', String(daemon.pid), `--nofile=${soft}:`)
  }
  const soft = Number(/^Max open files +(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/limits`, 'utf8'))?.[1])
  await limit(readdirSync(`/proc/${daemon.pid}/fd`).length + 1)
  const error = await failureOfCalls()
  assert.match(error.message, /EMFILE|too many open files/)
  process.kill(victim, 'SIGKILL')
  await sleep(12_000) // every timer of the daemon has had its turn
  assert.equal((await kubelet().status(lives)).state, 'CONTAINER_RUNNING')
  await limit(soft)
  assert.equal((await kubelet().exited(dies)).exit_code, 137)
  assert.equal((await kubelet().exec(lives, 'echo works')).stdout, 'works\n')
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
  assert.equal(stateOf(daemon.pid) === '', false)
  assert.equal(daemon.log.match(/berth is serving/g)?.length, 1, 'the same process')
})

const pidsRoot = '/sys/fs/cgroup/pids'

/** In a group that has room for no further process or thread, while `work` runs. */
async function withoutProcesses(work: () => Promise<void>): Promise<void> {
  const { pid } = kubelet().daemon
  const own = /^\d+:pids:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1] ?? '/'
  const before = join(pidsRoot, own)
  const group = join(before, 'short')
  mkdirSync(group)
  try {
    writeFileSync(join(group, 'cgroup.procs'), String(pid))
    writeFileSync(join(group, 'pids.max'), readFileSync(join(group, 'pids.current'), 'utf8').trim())
    await work()
  } finally {
    writeFileSync(join(group, 'pids.max'), 'max')
    for (const left of readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean))
      writeFileSync(join(before, 'cgroup.procs'), left)
    rmdirSync(group)
  }
}

test('a daemon that can start no process: calls fail as unavailable, what is there is stopped', {
  skip: existsSync(pidsRoot) ? false : 'no hierarchy of version 1 for pids, in which a daemon may be moved',
}, async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  await withoutProcesses(async () => {
    await assert.rejects(kubelet().create(pod, FOREVER), failure('unavailable', /cannot start .*EAGAIN/))
    await assert.rejects(kubelet().exec(id, 'true'), failure('unavailable', /cannot start .*EAGAIN/))
    await assert.rejects(kubelet().runPod(), /EAGAIN/)
    await kubelet().stop(id)
    assert.equal((await kubelet().status(id)).exit_code, 137)
  })
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
})

test('a full disk: calls fail and say so, stops and removals succeed, nothing is lost', async () => {
  const { daemon } = kubelet()
  const ballast = join(daemon.root, 'ballast')
  const pod = await kubelet().runPod()
  const [lives, dies] = [await kubelet().run(pod, FOREVER), await kubelet().run(pod, FOREVER)]
  const victim = await pidOf(dies)
  const fill = () => command('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=4k', 'oflag=append', 'conv=notrunc'])
  await fill()
  const error = await failureOfCalls().finally(fill)
  assert.match(error.message, /ENOSPC|no space left|disk is full/)
  // What the database had kept aside is used up by now, too.
  for (let tries = 0; tries < 5; tries++) {
    await fill()
    await failureOfCalls()
  }
  process.kill(victim, 'SIGKILL')
  await until('its process is dead', () => 'ZX'.includes(stateOf(victim)))
  assert.equal((await kubelet().status(lives)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(lives, 'echo works')).stdout, 'works\n')
  assert.match((await kubelet().exec(lives, 'echo data > /file; sync')).stderr, /No space left/)
  rmSync(ballast)
  // Its monitor may have found no room for the exit file, and gives up then.
  const { exit_code, reason } = await kubelet().exited(dies)
  assert.ok(exit_code === 137 || (exit_code === 255 && reason === 'MonitorLost'), `${exit_code} ${reason}`)
  assert.equal(await kubelet().outputOf(pod, 'echo works > /file; cat /file'), 'works')
})

/** A file system on which every write hangs in the kernel until it is thawed: its writers cannot be killed. */
async function withFrozen(
  work: (directory: string, freeze: () => Promise<void>, thaw: () => Promise<void>) => Promise<void>,
) {
  const { directory } = kubelet().daemon
  const [image, target] = [join(directory, 'frozen.img'), join(directory, 'frozen')]
  writeFileSync(image, Buffer.alloc(16 * MIB))
  mkdirSync(target)
  await output('mkfs.ext4', '-q', image)
  await output('mount', '-o', 'loop', image, target)
  let isFrozen = false
  const thaw = async () => {
    if (isFrozen) await output('fsfreeze', '-u', target)
    isFrozen = false
  }
  try {
    await work(
      target,
      async () => {
        await output('fsfreeze', '-f', target)
        isFrozen = true
      },
      thaw,
    )
  } finally {
    await thaw()
    unmount(target, { detach: true })
    rmSync(image)
  }
}

test('a process in uninterruptible sleep: calls end by their deadline, states stay true, and it heals', async () => {
  await withFrozen(async (directory, freeze, thaw) => {
    const [pod, other] = [await kubelet().runPod(), await kubelet().runPod()]
    const mounts = [{ container_path: '/data', host_path: directory }]
    const id = await kubelet().run(pod, 'while :; do echo x > /data/file; done', { mounts })
    const pid = await pidOf(id)
    await freeze()
    await until('it hangs', () => stateOf(pid) === 'D')
    using client = await hasty(3000)
    const late = failure('deadline')
    await assert.rejects(client.runtime('StopContainer', { container_id: id, timeout: 0 }), late)
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
    await assert.rejects(client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id }), late)
    assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
    await assert.rejects(client.runtime('RemoveContainer', { container_id: id }), late)
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
    assert.equal(stateOf(pid), 'D')
    assert.equal(await kubelet().outputOf(other, 'echo works'), 'works')
    await until('the log tells of it', () =>
      /a killed container is still alive; killing again/.test(kubelet().daemon.log),
    )
    // A program that the daemon runs may hang so, too: nobody waits for it for ever.
    const write = run('/bin/sh', { args: ['-c', `echo x > ${directory}/mine`], env: {}, timeoutMs: 500 })
    await assert.rejects(write, failure('deadline', /has not ended 5 s after SIGKILL/))
    await thaw()
    await until(
      'nobody has to ask again',
      async () => {
        const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
        return containers.every(container => container.id !== id)
      },
      120_000,
    )
    await kubelet().removePod(pod.id)
    await until('it is dead', () => 'ZX'.includes(stateOf(pid)))
  })
})

test('a namespace that somebody unmounted is pinned again from a container that is in it', async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  const pin = join(kubelet().daemon.runRoot, 'pods', pod.id, 'ns', 'net')
  const before = statSync(pin).ino
  umount(pin, MNT_DETACH)
  assert.notEqual(statSync(pin).ino, before)
  await until('it is noticed', () => statSync(pin).ino === before)
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_READY')
  assert.equal(await kubelet().outputOf(pod, 'hostname -i'), await kubelet().podIp(pod))
})

test('a namespace that somebody took away: its pod is not ready any more, and is removed', async () => {
  // Masquerading is what older bridge plugins forget without a namespace.
  kubelet().daemon.configureNetwork({ ipMasq: false })
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  await kubelet().stop(id)
  umount(join(kubelet().daemon.runRoot, 'pods', pod.id, 'ns', 'net'), MNT_DETACH)
  await until('it is noticed', async () => (await kubelet().podStatus(pod.id)).state === 'SANDBOX_NOTREADY')
  assert.match(kubelet().daemon.log, /a pod lost its namespaces or its init process/)
  await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', /is not ready/))
  const again = { ...pod.config, metadata: { ...pod.config.metadata, attempt: 1 } }
  assert.equal(
    await kubelet().outputOf({ id: await kubelet().runPodAs(again), config: again }, 'echo on'),
    'on',
  )
})

test('directories of a container that somebody removed: it can be stopped and removed', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const [bundle, upper] = [await kubelet().run(pod, FOREVER), await kubelet().run(pod, FOREVER)]
  rmSync(join(daemon.runRoot, 'containers', bundle), { recursive: true })
  rmSync(join(daemon.root, 'rootfs', upper, 'upper'), { recursive: true })
  await assert.rejects(kubelet().exec(bundle, 'true'), failure('internal', /the bundle .* cannot be read/))
  for (const id of [bundle, upper]) {
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
    await kubelet().stop(id)
    assert.equal((await kubelet().status(id)).exit_code, 137)
    await kubelet().remove(id)
  }
})

test('a run directory that somebody emptied: the daemon makes it again, what runs is stopped and removed', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  for (const name of readdirSync(daemon.runRoot)) {
    if (name !== 'pods') rmSync(join(daemon.runRoot, name), { recursive: true })
  }
  const client = await until('it can be reached again', () => hasty(30_000).catch(() => undefined))
  try {
    await client.runtime('Version', {})
  } finally {
    client[Symbol.dispose]()
  }
  assert.match(daemon.log, /the run directory was emptied/)
  assert.match(daemon.log, /the socket was removed: another one is made/)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
  await kubelet().stop(id)
  assert.equal((await kubelet().status(id)).exit_code, 137)
})

test('a clock that was set back: what is made later is newer all the same', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const config = kubelet().containerConfig(pod, FOREVER)
  const id = await kubelet().createAs(pod, config)
  await kubelet().start(id)
  await daemon.kill9()
  // As they would be had all of it happened an hour later by the clock of that time.
  const database = new Database(join(daemon.root, 'berth.db'))
  const hour = 3_600_000_000_000n
  database.prepare('UPDATE pods SET created_at = created_at + ?').run(hour)
  database.prepare('UPDATE containers SET created_at = created_at + ?').run(hour)
  database.close()
  await daemon.up()
  const before = { pod: await kubelet().podStatus(pod.id), container: await kubelet().status(id) }
  await kubelet().stop(id)
  const { finished_at } = await kubelet().status(id)
  assert.ok(BigInt(finished_at) >= BigInt(before.container.created_at))
  const next = { ...config, metadata: { ...config.metadata, attempt: 1 } }
  const newer = await kubelet().status(await kubelet().createAs(pod, next))
  assert.ok(BigInt(newer.created_at) > BigInt(before.container.created_at))
  const again = { ...pod.config, metadata: { ...pod.config.metadata, attempt: 1 } }
  const { created_at } = await kubelet().podStatus(await kubelet().runPodAs(again))
  assert.ok(BigInt(created_at) > BigInt(before.pod.created_at))
  const stranger = await kubelet().podStatus((await kubelet().runPod()).id)
  assert.ok(BigInt(stranger.created_at) < BigInt(before.pod.created_at))
})

/** The monitor's is the one group in which nothing is killed: the monitor ends by itself. */
test('a stranger in the cgroup of a monitor: the removal says so, is finished once it has left, and it lives on', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const groups = globSync(`/sys/fs/cgroup/{,*/}${daemon.cgroup.slice(1)}/*/berth-conmon-${id}`)
  assert.ok(groups.length > 0)
  const stranger = spawn('sleep', ['1000'])
  const move = (group: string) => writeFileSync(join(group, 'cgroup.procs'), String(stranger.pid))
  try {
    for (const group of groups) move(group)
    await kubelet().stop(id)
    assert.equal((await kubelet().status(id)).exit_code, 137)
    await assert.rejects(kubelet().remove(id), failure('internal', /EBUSY.*berth-conmon-/))
    await assert.rejects(kubelet().removePod(pod.id), failure('internal', /EBUSY.*berth-conmon-/))
    const { code, stdout } = await daemon.berth('check')
    assert.notEqual(code, 0)
    assert.match(stdout, new RegExp(`^container-unfinished: ${id}$`, 'm'))
    assert.equal(stranger.exitCode, null)
    for (const group of groups) move(join(group.slice(0, group.indexOf(daemon.cgroup))))
    await kubelet().removePod(pod.id)
    assert.equal(stranger.exitCode, null, 'it was not killed')
  } finally {
    stranger.kill('SIGKILL')
    await once(stranger, 'exit')
  }
})

test('a process of the node that stands in the files of a container: nothing waits for it', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const rootfs = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => line.split(' ')[4]!)
    .find(path => path?.startsWith(daemon.directory) && path.includes(id))
  assert.ok(rootfs !== undefined)
  const stranger = spawn('sleep', ['1000'], { cwd: rootfs })
  try {
    await kubelet().stop(id)
    await kubelet().removePod(pod.id)
    assert.deepEqual(await daemon.leftovers(/^(mount|file|row)/), [])
    assert.equal(stranger.exitCode, null)
  } finally {
    stranger.kill('SIGKILL')
    await once(stranger, 'exit')
  }
})
