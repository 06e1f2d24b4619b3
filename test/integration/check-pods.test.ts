import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import { isMountPoint } from '../../src/os/mounts.ts'
import { mount, umount } from '../../src/os/syscalls.ts'
import { assertIs, check, checkOffline, only, useCheck } from '../support/check.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()
const { isHealed, isHealedOffline, isClean, living, bundleOf, rootOf, podOf } = useCheck(kubelet)

const MNT_DETACH = 2
const MS_BIND = 4096

test('a node with pods in every state has no difference, for people and programs', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod({ port_mappings: [{ container_port: 80, host_port: 18090 }] })
  const shared = await kubelet().runPodWith({ pid: 'POD' })
  const host = await kubelet().runPodWith({ network: 'NODE', ipc: 'NODE' })
  const stopped = await kubelet().runPod()
  await Promise.all([pod, shared, host].map(one => kubelet().run(one, FOREVER)))
  const ended = await kubelet().run(pod, 'exit 3')
  await kubelet().create(pod, FOREVER)
  await kubelet().exited(ended)
  await kubelet().stopPod(stopped.id)
  await until('it is cleared', () => !existsSync(bundleOf(ended)))
  await isClean()
  const text = await daemon.berth('check')
  assert.equal(text.code, 0)
  assert.match(
    text.stdout,
    /^compared 4 pods, 5 containers and 1 layers: no difference\n.*berth image verify/,
  )
  await daemon.kill9()
  const offline = await checkOffline(daemon)
  assert.deepEqual([offline.code, offline.differences], [0, []])
  await daemon.up()
})

test('a bundle that is gone is written again: commands in the container work as before', async () => {
  const { id, goesOn } = await living()
  rmSync(bundleOf(id), { recursive: true })
  assert.notEqual(
    (
      await kubelet()
        .exec(id, 'true')
        .catch(() => ({ code: 1 }))
    ).code,
    0,
  )
  await isHealed({ kind: 'bundle-missing', subject: id, cause: /removed/ })
  await goesOn()
  await kubelet().stop(id)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
})

test('a root that was unmounted is mounted again, from the namespace of the container', async () => {
  const { id, goesOn } = await living()
  await kubelet().exec(id, 'echo mine > /file')
  umount(rootOf(id), MNT_DETACH)
  await isHealed({ kind: 'root-unmounted', subject: id, cause: /unmounted/ })
  assert.equal(readFileSync(join(rootOf(id), 'file'), 'utf8'), 'mine\n')
  await goesOn()
})

test('namespaces whose pins were unmounted are pinned again, and the next container joins them', async () => {
  const { pod, goesOn } = await living()
  // A daemon that runs does it by itself, within seconds.
  await kubelet().daemon.kill9()
  for (const name of ['net', 'uts', 'ipc']) umount(join(podOf(pod), 'ns', name), MNT_DETACH)
  await isHealedOffline({ kind: 'pod-namespaces', subject: pod.id, cause: /umount/ })
  await kubelet().daemon.up()
  await goesOn()
  assert.equal(await kubelet().outputOf(pod, 'hostname -i'), await kubelet().podIp(pod))
})

test('without a process that is in them, the pod is not ready any more', async () => {
  const pod = await kubelet().runPod()
  await kubelet().daemon.kill9()
  umount(join(podOf(pod), 'ns', 'net'), MNT_DETACH)
  await isHealedOffline({ kind: 'pod-namespaces', subject: pod.id })
  await kubelet().daemon.up()
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
})

test('what the next container of a pod needs is made again', async () => {
  const { pod, goesOn } = await living()
  const hosts = readFileSync(join(podOf(pod), 'hosts'), 'utf8')
  for (const name of ['hosts', 'hostname', 'resolv.conf']) rmSync(join(podOf(pod), name))
  umount(join(podOf(pod), 'shm'), MNT_DETACH)
  await isHealed({ kind: 'pod-files', subject: pod.id, found: /resolv\.conf.*shm/, cause: /removed/ })
  assert.equal(readFileSync(join(podOf(pod), 'hosts'), 'utf8'), hosts)
  assert.match(await kubelet().outputOf(pod, 'grep /dev/shm /proc/mounts'), /^shm .*size=65536k/)
  await goesOn()
})

test('mounts of nobody below a pod and a container are unmounted', async () => {
  const { pod, id, goesOn } = await living()
  const inPod = join(podOf(pod), 'extra')
  const inContainer = join(kubelet().daemon.root, 'rootfs', id, 'extra')
  for (const path of [inPod, inContainer]) {
    mkdirSync(path)
    mount('stray', path, 'tmpfs', 0, '')
  }
  const seen = await check(kubelet().daemon, '--repair')
  assert.deepEqual(seen.differences.map(({ kind, subject, state }) => [kind, subject, state]).sort(), [
    ['mount-unknown', inPod, 'REPAIRED'],
    ['mount-unknown', inContainer, 'REPAIRED'],
  ])
  await isClean()
  await goesOn()
})

test('a monitor that was killed is named; the container goes on, and is clean once it is stopped', async () => {
  const { id, goesOn } = await living()
  const [monitor] = processesOf('conmon', id)
  process.kill(monitor!, 'SIGKILL')
  await until('it is gone', () => processesOf('conmon', id).length === 0)
  const seen = await check(kubelet().daemon, '--repair')
  assertIs(only(seen), { kind: 'monitor-gone', subject: id, cause: /conmon was killed/ })
  assert.deepEqual([only(seen).state, only(seen).repairable, seen.code], ['FOUND', false, 4])
  assert.match(only(seen).remedy, /stop it/)
  await goesOn()
  await kubelet().stop(id)
  await isClean()
})

/** Pids of a program with this argument. */
function processesOf(name: string, argument: string): number[] {
  return readdirSync('/proc')
    .filter(pid => /^\d+$/.test(pid))
    .filter(pid => {
      try {
        const isIt = readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === name
        return isIt && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(argument)
      } catch {
        return false
      }
    })
    .map(Number)
}

test('a runtime that has forgotten a container is named; the container goes on until it is stopped', async () => {
  const { daemon } = kubelet()
  const { id } = await living()
  const { pid } = await kubelet().containerInfo(id)
  rmSync(join(daemon.runRoot, 'runtimes', 'runc', id), { recursive: true })
  const seen = await check(daemon, '--repair')
  assertIs(only(seen), { kind: 'runtime-state-missing', subject: id, cause: /state directory/ })
  assert.deepEqual([only(seen).state, seen.code], ['FOUND', 4])
  assert.ok(existsSync(`/proc/${pid}`))
  await kubelet().stop(id)
  await isClean()
})

test('what an exited container still holds is let go of', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'exit 3')
  await kubelet().exited(id)
  await until('it is cleared', () => !existsSync(bundleOf(id)) && !isMountPoint(rootOf(id)))
  mkdirSync(bundleOf(id))
  mount('stray', rootOf(id), 'tmpfs', 0, '')
  const seen = await check(daemon)
  assertIs(only(seen), { kind: 'container-not-cleared', subject: id, found: /containers.*mount/ })
  await isHealed({ kind: 'container-not-cleared', subject: id })
  assert.equal((await kubelet().status(id)).exit_code, 3)
})

test('everything that is named by the id of no container is removed, whatever it is', async () => {
  const { daemon } = kubelet()
  const { pod, goesOn } = await living()
  const id = newId()
  const group = `${pod.config.linux?.cgroup_parent}/berth-${id}`
  mkdirSync(bundleOf(id))
  mkdirSync(join(daemon.root, 'containers', id))
  mkdirSync(join(daemon.runRoot, 'runtimes', 'runc', id))
  mkdirSync(rootOf(id), { recursive: true })
  mount('stray', rootOf(id), 'tmpfs', 0, '')
  writeFileSync(join(daemon.runRoot, 'exits', id), '0')
  writeFileSync(join(daemon.runRoot, 's', id), '')
  const groups = execFileSync('sh', ['-c', `ls -d /sys/fs/cgroup/*${pod.config.linux?.cgroup_parent}`])
  for (const path of String(groups).trim().split('\n')) mkdirSync(join(path, `berth-${id}`))
  const seen = only(await check(daemon))
  for (const trace of [bundleOf(id), 'state of runc', group, `rootfs/${id}`, `exits/${id}`, `/s/${id}`]) {
    assert.ok(seen.found.includes(trace), `${seen.found} has no ${trace}`)
  }
  await isHealed({ kind: 'container-stray', subject: id, cause: /database was lost/ })
  assert.equal(existsSync(join(daemon.root, 'rootfs', id)), false)
  await goesOn()
})

test('the namespaces of a pod that no row knows are let go of', async () => {
  const { goesOn } = await living()
  const id = newId()
  const directory = join(kubelet().daemon.runRoot, 'pods', id)
  mkdirSync(join(directory, 'ns'), { recursive: true })
  writeFileSync(join(directory, 'ns', 'net'), '')
  mount('/proc/self/ns/net', join(directory, 'ns', 'net'), '', MS_BIND, '')
  await isHealed({ kind: 'pod-stray', subject: id, found: /ns\/net/ })
  assert.equal(existsSync(directory), false)
  await goesOn()
})
