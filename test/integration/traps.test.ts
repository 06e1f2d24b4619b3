// biome-ignore-all lint/style/noExcessiveLinesPerFile: one numbered list
/**
 * What has gone wrong with container runtimes before: one test for each entry of the list, by its number. 16 and
 * 31 need a daemon that dies: they are in recovery.test.ts.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { BerthClient } from '../../src/cri/client.ts'
import { umount } from '../../src/os/syscalls.ts'
import { failure } from '../support/cni.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()
const MNT_DETACH = 2
const protoDir = join(import.meta.dirname, '../../proto')

/** A client that gives up after so many milliseconds. */
async function hasty(timeoutMs: number): Promise<BerthClient> {
  return BerthClient.connect(kubelet().daemon.socket, protoDir, { timeoutMs })
}

/** Makes every ADD of the network wait so long, in seconds. */
function slowNetwork(seconds: number): void {
  const { daemon } = kubelet()
  const slow = daemon.networkPlugin('slow', `[ "$CNI_COMMAND" = ADD ] && sleep ${seconds}`)
  daemon.configureNetwork({ plugins: [slow] })
}

test('1: Version and ImageFsInfo answer, and what clients check in them is there', async () => {
  const { client } = kubelet().daemon
  const version = await client.runtime('Version', {})
  assert.match(version.runtime_version, /^\d+\.\d+\.\d+/)
  assert.equal(version.runtime_api_version, 'v1')
  assert.notEqual(version.runtime_name, '')
  const { image_filesystems, container_filesystems } = await client.image('ImageFsInfo', {})
  for (const filesystem of [image_filesystems[0]!, container_filesystems[0]!]) {
    assert.ok(existsSync(filesystem.fs_id?.mountpoint ?? ''))
    assert.ok(Number(filesystem.used_bytes?.value) > 0)
    assert.ok(Number(filesystem.inodes_used?.value) > 0)
    assert.ok(BigInt(filesystem.timestamp) > 0n)
  }
})

test('2: the version of the interface is 0.1.0', async () => {
  const { version } = await kubelet().daemon.client.runtime('Version', {})
  assert.equal(version, '0.1.0')
})

test('3: RuntimeConfig names the cgroup driver', async () => {
  const { linux } = await kubelet().daemon.client.runtime('RuntimeConfig', {})
  assert.equal(linux?.cgroup_driver, 'CGROUPFS')
})

test('4: the default handler is listed under its name and under none', async () => {
  const { runtime_handlers } = await kubelet().daemon.client.runtime('Status', {})
  assert.deepEqual(runtime_handlers.map(handler => handler.name).sort(), ['', 'runc'])
  assert.deepEqual(runtime_handlers[0]?.features, runtime_handlers[1]?.features)
})

test('5: status of what is unknown is NOT_FOUND, stopping and removing it is done already', async () => {
  const { client } = kubelet().daemon
  for (const id of ['0123', 'f'.repeat(64), '5a5fd2b1-3a5b-4c09-a9b4-96f0f3c1a2a7', 'a b/../c']) {
    await assert.rejects(client.runtime('PodSandboxStatus', { pod_sandbox_id: id }), failure('not-found'))
    await assert.rejects(client.runtime('ContainerStatus', { container_id: id }), failure('not-found'))
    await client.runtime('StopPodSandbox', { pod_sandbox_id: id })
    await client.runtime('RemovePodSandbox', { pod_sandbox_id: id })
    await client.runtime('StopContainer', { container_id: id })
    await client.runtime('RemoveContainer', { container_id: id })
    await client.image('RemoveImage', { image: { image: `docker.io/library/${id.replaceAll(/\W/g, '')}` } })
  }
  const absent = await client.image('ImageStatus', { image: { image: 'docker.io/library/absent:1' } })
  assert.equal(absent.image, null)
})

test('6: an exec that takes too long ends with DEADLINE_EXCEEDED and leaves no process', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const tree = 'trap "" TERM; setsid sleep 100021 & sleep 100022 & sleep 100023'
  await assert.rejects(kubelet().exec(id, tree, 1), failure('deadline', /timed out/))
  const { stdout } = await kubelet().exec(id, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')
  assert.doesNotMatch(stdout, /10002[123]/)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
})

test('7: a caller that left and comes back gets the pod it asked for', async () => {
  slowNetwork(1)
  const config = kubelet().podConfig()
  using impatient = await hasty(200)
  await assert.rejects(impatient.runtime('RunPodSandbox', { config }), failure('deadline'))
  const id = await kubelet().runPodAs(config)
  assert.equal((await kubelet().podStatus(id)).state, 'SANDBOX_READY')
  const { items } = await kubelet().daemon.client.runtime('ListPodSandbox', {})
  assert.deepEqual(
    items.map(item => item.id),
    [id],
  )
  // It may also come back after the work is done.
  const later = kubelet().podConfig()
  await assert.rejects(impatient.runtime('RunPodSandbox', { config: later }), failure('deadline'))
  const listed = await until('the pod comes up', async () => {
    const all = await kubelet().daemon.client.runtime('ListPodSandbox', {})
    return all.items.find(item => item.metadata?.name === later.metadata?.name)
  })
  assert.equal(await kubelet().runPodAs(later), listed.id)
})

test('8: one id for an image everywhere, and references that are never empty', async () => {
  const pulled = await kubelet().pull(BUSYBOX)
  const { client } = kubelet().daemon
  const { image } = await client.image('ImageStatus', { image: { image: BUSYBOX } })
  const id = await kubelet().run(await kubelet().runPod(), FOREVER)
  const status = await kubelet().status(id)
  const { containers } = await client.runtime('ListContainers', {})
  assert.match(pulled, /^sha256:[0-9a-f]{64}$/)
  assert.deepEqual([image?.id, containers[0]?.image_id, status.image_id], [pulled, pulled, pulled])
  for (const seen of [status, containers[0]!]) {
    assert.equal(seen.image?.image, BUSYBOX)
    assert.match(seen.image_ref, /^docker\.io\/library\/busybox@sha256:/)
  }
  const forms = [
    pulled,
    pulled.slice(7),
    pulled.slice(7, 19),
    'busybox',
    'busybox:latest',
    image!.repo_digests[0]!,
  ]
  for (const form of forms) {
    const reply = await client.image('ImageStatus', { image: { image: form } })
    assert.deepEqual(reply.image, image, form)
  }
})

test('9: removing an image by one of its names removes all of them, also five at a time', async () => {
  const { daemon } = kubelet()
  const many = await busyboxImage({ labels: { trap: '9' } })
  const names = ['docker.io/library/many:1', 'docker.io/library/many:2', 'quay.io/other/many:3']
  for (const name of names) {
    const [repository, tag] = name.split(':') as [string, string]
    daemon.registry.push(many, repository, tag)
    await kubelet().pull(name)
  }
  const removing = [1, 2, 3, 4, 5].map(() =>
    daemon.client.image('RemoveImage', { image: { image: names[1]! } }),
  )
  await Promise.all(removing)
  for (const name of [...names, many.id]) {
    assert.equal((await daemon.client.image('ImageStatus', { image: { image: name } })).image, null)
  }
})

test('10: the status shows the mounts that were asked for, and no others', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER, {
    mounts: [{ container_path: '/logs', host_path: kubelet().daemon.logs }],
  })
  const { mounts } = await kubelet().status(id)
  assert.deepEqual(
    mounts.map(mount => [mount.container_path, mount.host_path]),
    [['/logs', kubelet().daemon.logs]],
  )
})

test('11: without namespace options the PID namespace is the pod’s', async () => {
  const pod = await kubelet().runPod({ linux: { security_context: null } })
  const first = await kubelet().run(pod, 'exec sleep 100031')
  const second = await kubelet().create(pod, 'cat /proc/[0-9]*/cmdline', {
    linux: { security_context: null },
  })
  await kubelet().start(second)
  await kubelet().exited(second)
  assert.match((await kubelet().logOf(second)).map(line => line.text).join(), /100031/)
  assert.match((await kubelet().exec(first, 'cat /proc/1/cmdline')).stdout, /catatonit/)
})

test('12: a group without a user is refused; no profile is unconfined; no ping for everybody', async () => {
  const pod = await kubelet().runPod()
  const groupOnly = { run_as_group: { value: '5' } }
  await assert.rejects(kubelet().runAs(pod, FOREVER, groupOnly), failure('invalid', /run_as_group/))
  const id = await kubelet().run(pod, FOREVER)
  assert.match((await kubelet().exec(id, 'grep Seccomp: /proc/self/status')).stdout, /0/)
  assert.equal((await kubelet().exec(id, 'cat /proc/sys/net/ipv4/ping_group_range')).stdout, '1\t0\n')
  const dropped = { capabilities: { drop_capabilities: ['NET_RAW'] } }
  const ping = await kubelet().outputOf(pod, 'ping -c 1 127.0.0.1 2>&1; true', {
    linux: { security_context: dropped },
  })
  assert.match(ping, /permission denied/i)
})

test('13: the log path is absolute, the file there without output; it is reopened at once and never deleted', async () => {
  const pod = await kubelet().runPod()
  const config = kubelet().containerConfig(pod, 'true', { log_path: 'silent/7.log' })
  const id = await kubelet().createAs(pod, config)
  const { log_path } = await kubelet().status(id)
  assert.equal(log_path, join(pod.config.log_directory ?? '', 'silent/7.log'))
  assert.equal(readFileSync(log_path, 'utf8'), '')
  await kubelet().start(id)
  await kubelet().exited(id)
  await assert.rejects(
    kubelet().daemon.client.runtime('ReopenContainerLog', { container_id: id }),
    failure('precondition'),
  )
  await kubelet().remove(id)
  await kubelet().removePod(pod.id)
  assert.equal(existsSync(log_path), true)
  assert.deepEqual(readdirSync(join(log_path, '..')), ['7.log'])
})

test('14: the socket has none of the names that make a client expect another runtime', () => {
  assert.doesNotMatch(kubelet().daemon.socket, /crio\.sock$/)
  assert.match(kubelet().daemon.socket, /\/berth\.sock$/)
})

test('15: the first sample of the statistics is there after the start, and later ones are later', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const sample = async () => {
    const { stats } = await kubelet().daemon.client.runtime('ListContainerStats', { filter: { id } })
    const { cpu, memory, writable_layer } = stats[0]!
    assert.ok(cpu?.usage_core_nano_seconds !== null && memory?.working_set_bytes !== null)
    assert.ok(writable_layer?.used_bytes !== null, 'kubelet reads it without asking whether it is there')
    return [cpu!.timestamp, memory!.timestamp, writable_layer!.timestamp].map(BigInt)
  }
  const first = await sample()
  assert.ok(first.every(time => time > 0n))
  await until('there is a later sample', async () =>
    (await sample()).slice(0, 2).every((time, i) => time > first[i]!),
  )
})

test('17: a ready pod has its address and the modes it asked for, and there is one of it', async () => {
  const config = kubelet().podConfig()
  const ids = await Promise.all([1, 2].map(() => kubelet().runPodAs(config)))
  const status = await kubelet().podStatus(ids[0]!)
  assert.notEqual(status.network?.ip, '')
  const echoed = status.linux?.namespaces?.options
  assert.deepEqual([echoed?.network, echoed?.pid, echoed?.ipc], ['POD', 'CONTAINER', 'POD'])
  const filter = { state: { state: 'SANDBOX_READY' } } as const
  assert.equal((await kubelet().daemon.client.runtime('ListPodSandbox', { filter })).items.length, 1)
})

test('18: the answer of an exec that prints without end stays below what a client takes', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const flood = 'head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 4'
  const { code, stdout, stderr } = await kubelet().exec(id, flood)
  assert.equal(code, 4, 'it was not held up by what nobody keeps')
  assert.ok(stdout.length > 4 << 20 && stderr.length > 4 << 20)
  assert.ok(stdout.length + stderr.length < 16 << 20)
})

test('19: lists, statuses and everything that kubelet polls do not wait for a pod that is being made', async () => {
  const { client } = kubelet().daemon
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  slowNetwork(600)
  const abandoned = await hasty(300)
  const making = kubelet().podConfig()
  await assert.rejects(abandoned.runtime('RunPodSandbox', { config: making }), failure('deadline'))
  abandoned[Symbol.dispose]()
  const { items } = await client.runtime('ListPodSandbox', {})
  assert.deepEqual(
    items.map(item => item.id),
    [pod.id],
    'nobody has the id of a pod that is being made',
  )
  await Promise.all([
    client.runtime('ListContainers', {}),
    client.runtime('Status', { verbose: true }),
    client.image('ListImages', {}),
    kubelet().status(id),
    kubelet().podStatus(pod.id),
  ])
  await kubelet().daemon.restart()
})

test('20: numbers beyond 2⁵³ arrive as they are', async () => {
  const before = BigInt(Date.now()) * 1_000_000n
  const pod = await kubelet().runPod()
  const { created_at } = await kubelet().podStatus(pod.id)
  assert.ok(BigInt(created_at) >= before && BigInt(created_at) > 2n ** 53n)
  const resources = { memory_limit_in_bytes: '9223372036854771712' }
  const id = await kubelet().run(pod, FOREVER, { linux: { resources } })
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
})

test('21: labels and annotations may have any key', async () => {
  const odd = JSON.parse('{"__proto__":"p","constructor":"c","hasOwnProperty":"h","":"empty"}')
  const pod = await kubelet().runPod({ labels: odd, annotations: odd })
  const id = await kubelet().create(pod, FOREVER, { labels: odd, annotations: odd })
  for (const seen of [await kubelet().podStatus(pod.id), await kubelet().status(id)]) {
    assert.deepEqual(Object.entries(seen.labels).sort(), Object.entries(odd).sort())
    assert.deepEqual(Object.entries(seen.annotations).sort(), Object.entries(odd).sort())
  }
  const filter = { label_selector: odd }
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', { filter })
  assert.equal(containers.length, 1)
})

test('22: filters are joined by AND; what is unknown is an empty list', async () => {
  const { client } = kubelet().daemon
  const pod = await kubelet().runPod({ labels: { a: '1', b: '2' } })
  await kubelet().run(pod, FOREVER)
  const podsWith = async (filter: object) => (await client.runtime('ListPodSandbox', { filter })).items.length
  assert.equal(await podsWith({ label_selector: { a: '1' } }), 1)
  assert.equal(await podsWith({ label_selector: { a: '1', b: '3' } }), 0)
  assert.equal(await podsWith({ label_selector: { a: '1' }, id: 'unknown' }), 0)
  assert.equal(await podsWith({ id: pod.id, state: { state: 'SANDBOX_NOTREADY' } }), 0)
  for (const filter of [{ id: 'unknown' }, { pod_sandbox_id: 'unknown' }]) {
    assert.deepEqual((await client.runtime('ListContainers', { filter })).containers, [])
    assert.deepEqual((await client.runtime('ListContainerStats', { filter })).stats, [])
  }
})

test('23: a second stop shortens the grace period of the first, and everything answers meanwhile', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `trap '' TERM; echo ready; ${FOREVER} & wait`)
  await kubelet().prints(id, 'ready')
  const patient = kubelet().stop(id, 3600)
  await until('the signal is sent', async () => (await kubelet().status(id)).state === 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(id, 'echo alive')).stdout, 'alive\n')
  await kubelet().stop(id, 0)
  await patient
  assert.equal((await kubelet().status(id)).exit_code, 137)
})

test('24: a container that runs out of memory is OOMKilled, every time', async () => {
  const pod = await kubelet().runPod()
  const limit = 15 << 20
  const linux = { resources: { memory_limit_in_bytes: limit, memory_swap_limit_in_bytes: limit } }
  const script = 'sleep 0.5; dd if=/dev/zero of=/dev/null bs=20M'
  const ids = await Promise.all(
    [1, 2, 3, 4, 5].map(() => kubelet().run(pod, `exec sh -c "${script}"`, { linux })),
  )
  for (const id of ids) {
    const { reason, exit_code } = await kubelet().exited(id)
    assert.deepEqual([reason, exit_code], ['OOMKilled', 137])
  }
})

test('25: a pull that was given up at once does not disturb the next', async () => {
  const { daemon } = kubelet()
  const image = await busyboxImage({ files: { '/trap': '25' } })
  daemon.registry.push(image, 'docker.io/library/hasty', '1')
  const name = 'docker.io/library/hasty:1'
  using impatient = await hasty(1)
  await assert.rejects(impatient.image('PullImage', { image: { image: name } }), failure('deadline'))
  assert.equal(await kubelet().pull(name), image.id)
  await daemon.client.image('RemoveImage', { image: { image: name } })
})

test('26: a network that cannot be detached keeps the pod until it can', async () => {
  const { daemon } = kubelet()
  const obstacle = join(daemon.directory, 'obstacle')
  const refuse = `{ echo '{"code":11,"msg":"try later"}'; exit 1; }`
  const stuck = daemon.networkPlugin('stuck', `[ "$CNI_COMMAND" = DEL ] && [ -e ${obstacle} ] && ${refuse}`)
  daemon.configureNetwork({ plugins: [stuck] })
  const pod = await kubelet().runPod()
  const ip = await kubelet().podIp(pod)
  writeFileSync(obstacle, '')
  try {
    await assert.rejects(kubelet().stopPod(pod.id), failure('unavailable', /try later/))
    assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
    assert.ok(existsSync(join(daemon.ipamDir, 'pods', ip)), 'the address is still taken')
  } finally {
    rmSync(obstacle)
  }
  await kubelet().stopPod(pod.id)
  assert.equal(existsSync(join(daemon.ipamDir, 'pods', ip)), false)
})

test('27: the numbers of signals in the interface are not those of the kernel', async () => {
  const pod = await kubelet().runPod()
  const trap = `trap 'exit 21' USR1; trap 'exit 22' SYS; echo ready; ${FOREVER} & wait`
  // SIGUSR1 is 29 in the interface and 10 in the kernel; 31 there is SIGVTALRM, here SIGSYS.
  const id = await kubelet().run(pod, trap, { stop_signal: 29 })
  await kubelet().prints(id, 'ready')
  await kubelet().stop(id, 30)
  assert.equal((await kubelet().status(id)).exit_code, 21)
  assert.equal((await kubelet().status(id)).stop_signal, 'SIGUSR1')
})

/** True when something accepts connections there. */
function listens(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host)
  return new Promise(resolve => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).finally(() => socket.destroy()) as Promise<boolean>
}

test('28: host ports answer on 127.0.0.1; the network is detached also when its namespace is gone', async () => {
  // Masquerading is what the bridge plugin forgets without a namespace; the daemon gives it one whenever it can.
  kubelet().daemon.configureNetwork({ ipMasq: false })
  const pod = await kubelet().runPod({ port_mappings: [{ container_port: 80, host_port: 18090 }] })
  await kubelet().run(pod, 'exec nc -ll -p 80 -e true')
  await until('the port answers', () => listens('127.0.0.1', 18090))
  const status = { pod_sandbox_id: pod.id, verbose: true }
  const { info } = await kubelet().daemon.client.runtime('PodSandboxStatus', status)
  umount(JSON.parse(info.info ?? '{}').netns, MNT_DETACH)
  await kubelet().stopPod(pod.id)
  assert.equal(await listens('127.0.0.1', 18090), false)
})

test('29: what is not supported is UNIMPLEMENTED', async () => {
  const { client } = kubelet().daemon
  const checkpoint = client.runtime('CheckpointContainer', { container_id: 'x', location: '/tmp/x' })
  await assert.rejects(checkpoint, failure('unimplemented'))
})

test('30: without a network the node says so, serves, and runs pods that need none', async () => {
  const { daemon } = kubelet()
  const networkReady = async () => {
    const { status } = await daemon.client.runtime('Status', {})
    return status?.conditions.find(condition => condition.type === 'NetworkReady')
  }
  assert.equal((await networkReady())?.status, true)
  daemon.removeNetwork()
  const down = await until('the network is not ready', async () => {
    const condition = await networkReady()
    return condition?.status === false && condition
  })
  assert.match(down.reason, /^\w+$/)
  assert.ok(down.message.includes(daemon.cniConfDir), down.message)
  const { status } = await daemon.client.runtime('Status', {})
  assert.equal(status?.conditions.find(condition => condition.type === 'RuntimeReady')?.status, true)
  await assert.rejects(kubelet().runPod(), failure('unavailable', /net\.d/))
  const pod = await kubelet().runPodWith({ network: 'NODE' })
  assert.equal(await kubelet().outputOf(pod, 'echo runs'), 'runs')
  daemon.configureNetwork()
  await until('the network is ready again', async () => (await networkReady())?.status)
  await kubelet().runPod()
})
