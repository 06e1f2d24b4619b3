import assert from 'node:assert/strict'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { ContainerEventResponse__Output } from '../../src/cri/generated/runtime/v1/ContainerEventResponse.ts'
import { failure } from '../support/cni.ts'
import { BUSYBOX, FOREVER, parseLog } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

/** runc, but for `start`. */
function runtimeThatCannotStart(directory: string): string {
  const path = join(directory, 'no-start')
  const script = 'case " $* " in *" start "*) echo out of luck >&2; exit 1;; esac\nexec /usr/sbin/runc "$@"'
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  return `[crio.runtime.runtimes.no-start]\nruntime_path = "${path}"\n`
}

const kubelet = useDaemon({ config: runtimeThatCannotStart })

test('a container is created, running, then exited, with times in that order', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().create(pod, 'echo to stdout; echo to stderr >&2; exit 0')
  const created = await kubelet().status(id)
  assert.equal(created.state, 'CONTAINER_CREATED')
  assert.equal(created.started_at, '0')
  await kubelet().start(id)
  const exited = await kubelet().exited(id)
  assert.deepEqual([exited.exit_code, exited.reason], [0, 'Completed'])
  const times = [exited.created_at, exited.started_at, exited.finished_at].map(BigInt)
  assert.ok(times[0]! > 0n && times[0]! <= times[1]! && times[1]! <= times[2]!, String(times))
  assert.equal(exited.created_at, created.created_at)
  await assert.rejects(kubelet().start(id), failure('precondition', /exited/))
})

test('exit codes: the command’s own, 128 and the signal', async () => {
  const pod = await kubelet().runPod()
  const failed = await kubelet().exited(await kubelet().run(pod, 'exit 3'))
  assert.deepEqual([failed.exit_code, failed.reason], [3, 'Error'])
  const killed = await kubelet().run(pod, FOREVER)
  process.kill((await kubelet().containerInfo(killed)).pid, 'SIGKILL')
  const status = await kubelet().exited(killed)
  assert.deepEqual([status.exit_code, status.reason], [137, 'Error'])
  // Process 1 of a namespace takes no other signal that it has no handler for.
  const shared = await kubelet().runPodWith({ pid: 'POD' })
  assert.equal((await kubelet().exited(await kubelet().run(shared, 'kill -SEGV $$'))).exit_code, 139)
})

test('a command that is not there fails CreateContainer, which leaves nothing', async () => {
  const pod = await kubelet().runPod()
  const config = kubelet().containerConfig(pod, '', { command: ['/no/such/program'] })
  await assert.rejects(
    kubelet().createAs(pod, config),
    failure('invalid', /^config\.command: .*\/no\/such\/program/),
  )
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
  assert.deepEqual(containers, [])
  const id = await kubelet().createAs(pod, { ...config, command: ['true'] })
  await kubelet().start(id)
  assert.equal((await kubelet().exited(id)).exit_code, 0, 'the name is free')
})

test('a container that cannot be started has exited, and says why', async () => {
  const pod = await kubelet().runPod({}, 'no-start')
  const id = await kubelet().create(pod, FOREVER)
  await assert.rejects(kubelet().start(id), failure('internal', /out of luck/))
  const status = await kubelet().status(id)
  assert.deepEqual([status.state, status.exit_code, status.reason], ['CONTAINER_EXITED', 128, 'StartError'])
  assert.match(status.message, /out of luck/)
  assert.ok(BigInt(status.finished_at) >= BigInt(status.created_at))
})

test('a container that is there already is not made twice', async () => {
  const pod = await kubelet().runPod()
  const config = kubelet().containerConfig(pod, FOREVER)
  const ids = await Promise.all([1, 2, 3].map(() => kubelet().createAs(pod, config)))
  assert.equal(new Set(ids).size, 1, 'calls of one moment are one')
  await assert.rejects(kubelet().createAs(pod, config), failure('exists', new RegExp(ids[0]!)))
  await kubelet().remove(ids[0]!)
  assert.notEqual(await kubelet().createAs(pod, config), ids[0])
})

test('a container needs a pod and an image that are there', async () => {
  const pod = await kubelet().runPod()
  await assert.rejects(
    kubelet().create({ ...pod, id: 'f'.repeat(64) }, FOREVER),
    failure('not-found', /f{64}/),
  )
  const missing = { image: { image: 'docker.io/library/nowhere:1' } }
  await assert.rejects(kubelet().create(pod, FOREVER, missing), failure('not-found', /nowhere:1/))
})

test('what is wrong with a container is told by its field', async () => {
  const pod = await kubelet().runPod()
  const wrong: Array<[string, object]> = [
    ['config.metadata', { metadata: null }],
    ['config.image', { image: null }],
    ['config.mounts[0].container_path', { mounts: [{ container_path: 'data', host_path: '/tmp' }] }],
    ['config.mounts[0].host_path', { mounts: [{ container_path: '/data', host_path: 'data' }] }],
    ['config.log_path', { log_path: '../x.log' }],
    ['config.envs[0].key', { envs: [{ key: 'a=b', value: '' }] }],
  ]
  for (const [field, change] of wrong) {
    await assert.rejects(
      kubelet().create(pod, FOREVER, change),
      failure('invalid', new RegExp(field.replaceAll(/[.[\]]/g, '\\$&'))),
    )
  }
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
  assert.deepEqual(containers, [])
})

test('remove: a running container is killed; its name is free, its log stays', async () => {
  const pod = await kubelet().runPod()
  const config = kubelet().containerConfig(pod, `echo kept; ${FOREVER}`)
  const id = await kubelet().createAs(pod, config)
  await kubelet().start(id)
  await kubelet().prints(id, 'kept')
  const { log_path } = await kubelet().status(id)
  const { pid } = await kubelet().containerInfo(id)
  await kubelet().remove(id)
  await kubelet().remove(id)
  assert.equal(existsSync(`/proc/${pid}`), false)
  assert.match(readFileSync(log_path, 'utf8'), /kept/)
  assert.notEqual(await kubelet().createAs(pod, config), id)
})

test('logs: both streams, long and unended lines', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(
    pod,
    'echo out; echo err >&2; head -c 20000 /dev/zero | tr "\\0" x; echo; printf unended',
  )
  await kubelet().exited(id)
  const lines = await kubelet().logOf(id)
  assert.ok(lines.some(line => line.stream === 'stdout' && line.text === 'out' && line.tag === 'F'))
  assert.ok(lines.some(line => line.stream === 'stderr' && line.text === 'err' && line.tag === 'F'))
  const long = lines.filter(line => /^x+$/.test(line.text))
  assert.equal(long.map(line => line.text).join('').length, 20000)
  assert.ok(long.slice(0, -1).every(line => line.tag === 'P'))
  assert.deepEqual(lines.at(-1), { stream: 'stdout', tag: 'P', text: 'unended' })
})

test('a terminal: one stream, and it is one', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'test -t 0 && test -t 1 && echo a terminal; echo err >&2', {
    tty: true,
  })
  await kubelet().exited(id)
  const lines = await kubelet().logOf(id)
  assert.deepEqual(
    lines.map(({ stream, text }) => [stream, text.trim()]),
    [
      ['stdout', 'a terminal'],
      ['stdout', 'err'],
    ],
  )
})

test('standard input: /dev/null unless asked for', async () => {
  const pod = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(pod, 'readlink /proc/self/fd/0'), '/dev/null')
  const id = await kubelet().run(pod, 'read line; echo got it', { stdin: true })
  await kubelet().exec(id, 'true')
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING', 'it waits for an attach')
})

test('limits are in force, can be changed, and are shown as they are', async () => {
  const pod = await kubelet().runPod()
  const resources = {
    memory_limit_in_bytes: 64 << 20,
    cpu_shares: 512,
    cpu_quota: 20_000,
    cpu_period: 100_000,
    oom_score_adj: 500,
  }
  const id = await kubelet().run(pod, `cat /proc/self/oom_score_adj; ${FOREVER}`, { linux: { resources } })
  await kubelet().prints(id, '500')
  const group = `/sys/fs/cgroup/memory${kubelet().daemon.cgroup}/pod${pod.config.metadata?.uid}/berth-${id}`
  const limit = () => Number(readFileSync(`${group}/memory.limit_in_bytes`, 'utf8'))
  assert.equal(limit(), 64 << 20)
  const linux = { memory_limit_in_bytes: 128 << 20, cpu_shares: 256 }
  await kubelet().daemon.client.runtime('UpdateContainerResources', { container_id: id, linux })
  assert.equal(limit(), 128 << 20)
  const shown = (await kubelet().status(id)).resources?.linux
  assert.equal(shown?.memory_limit_in_bytes, String(128 << 20))
  assert.equal(shown?.cpu_shares, '256')
  assert.equal(shown?.cpu_quota, '20000', 'what the update did not mention stays')
  await assert.rejects(
    kubelet().daemon.client.runtime('UpdateContainerResources', {
      container_id: id,
      linux: { cpuset_cpus: '4000' },
    }),
    failure('invalid', /^linux: .*cpuset/),
  )
  assert.equal(
    (await kubelet().status(id)).resources?.linux?.cpuset_cpus,
    '',
    'a failed update changes nothing',
  )
})

test('reading and writing logs goes on after a rotation', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done')
  await kubelet().prints(id, 'line 3')
  const { log_path } = await kubelet().status(id)
  renameSync(log_path, `${log_path}.1`)
  await kubelet().daemon.client.runtime('ReopenContainerLog', { container_id: id })
  assert.ok(existsSync(log_path), 'the new file is there when the call returns')
  const rotated = readFileSync(`${log_path}.1`, 'utf8')
  await until('the new file grows', () => parseLog(readFileSync(log_path, 'utf8')).length > 3)
  assert.equal(readFileSync(`${log_path}.1`, 'utf8'), rotated)
  const numbers = [...parseLog(rotated), ...parseLog(readFileSync(log_path, 'utf8'))].map(line => line.text)
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => `line ${index + 1}`),
    'no line is lost',
  )
})

test('exec: output, exit code, user, and what cannot be', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER, {
    envs: [{ key: 'GREETING', value: 'hi' }],
    working_dir: '/tmp',
    linux: { security_context: { run_as_user: { value: 33 } } },
  })
  const result = await kubelet().exec(id, 'echo $GREETING; pwd; id -u; echo oops >&2; exit 9')
  assert.deepEqual(result, { code: 9, stdout: 'hi\n/tmp\n33\n', stderr: 'oops\n' })
  const missing = kubelet().daemon.client.runtime('ExecSync', {
    container_id: id,
    cmd: ['/no/such'],
    timeout: 5,
  })
  await assert.rejects(missing, failure('invalid', /^cmd: .*\/no\/such/))
  await kubelet().stop(id)
  await assert.rejects(kubelet().exec(id, 'true'), failure('precondition', /not running|exited/))
})

test('exec: twenty at a time', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const results = await Promise.all(Array.from({ length: 20 }, (_, i) => kubelet().exec(id, `echo ${i}`)))
  assert.deepEqual(
    results.map(result => result.stdout),
    results.map((_, i) => `${i}\n`),
  )
})

test('events tell of every step, with the pod and its containers as they were then', async () => {
  const seen: ContainerEventResponse__Output[] = []
  const ending = new AbortController()
  const stream = kubelet().daemon.client.runtimeStream('GetContainerEvents', {}, ending.signal)
  const reading = (async () => {
    for await (const event of stream) seen.push(event)
  })().catch(() => undefined)
  // The subscription is there once the first event arrives.
  await until('events arrive', async () => {
    await kubelet().removePod((await kubelet().runPod()).id)
    return seen.length > 0
  })
  await until(
    'those of the first pods are over',
    () => seen.at(-1)?.container_event_type === 'CONTAINER_DELETED_EVENT',
  )
  seen.length = 0
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'exit 5')
  await kubelet().exited(id)
  await kubelet().remove(id)
  await kubelet().removePod(pod.id)
  const typesOf = (subject: string) =>
    seen.filter(event => event.container_id === subject).map(event => event.container_event_type)
  await until('the last event arrives', () => typesOf(pod.id).includes('CONTAINER_DELETED_EVENT'))
  ending.abort()
  await reading
  const life = ['CREATED', 'STARTED', 'STOPPED', 'DELETED'].map(name => `CONTAINER_${name}_EVENT`)
  assert.deepEqual([typesOf(id), typesOf(pod.id)], [life, life])
  const stopped = seen.find(
    event => event.container_id === id && event.container_event_type === 'CONTAINER_STOPPED_EVENT',
  )
  assert.equal(stopped?.pod_sandbox_status?.id, pod.id)
  assert.equal(stopped?.containers_statuses[0]?.exit_code, 5)
  const deletedOf = (subject: string) =>
    seen.find(event => event.container_id === subject && event.container_event_type?.includes('DELETED'))
  assert.deepEqual(deletedOf(id)?.containers_statuses, [])
  assert.deepEqual(
    [deletedOf(pod.id)?.pod_sandbox_status?.id, deletedOf(pod.id)?.pod_sandbox_status?.state],
    [pod.id, 'SANDBOX_NOTREADY'],
  )
  const times = seen.map(event => BigInt(event.created_at))
  assert.deepEqual(
    times,
    times.toSorted((a, b) => (a < b ? -1 : 1)),
  )
})

test('lists: filters are joined by AND', async () => {
  const [one, two] = await Promise.all([kubelet().runPod(), kubelet().runPod()])
  const a = await kubelet().run(one, FOREVER, { labels: { app: 'a', tier: 'x' } })
  const b = await kubelet().create(one, FOREVER, { labels: { app: 'b', tier: 'x' } })
  const c = await kubelet().run(two, FOREVER, { labels: { app: 'a', tier: 'y' } })
  const list = async (filter: object) => {
    const { containers } = await kubelet().daemon.client.runtime('ListContainers', { filter })
    return new Set(containers.map(container => container.id))
  }
  assert.deepEqual(await list({}), new Set([a, b, c]))
  assert.deepEqual(await list({ pod_sandbox_id: one.id }), new Set([a, b]))
  assert.deepEqual(
    await list({ pod_sandbox_id: one.id, state: { state: 'CONTAINER_RUNNING' } }),
    new Set([a]),
  )
  assert.deepEqual(await list({ label_selector: { app: 'a' } }), new Set([a, c]))
  assert.deepEqual(await list({ label_selector: { app: 'a', tier: 'y' } }), new Set([c]))
  assert.deepEqual(await list({ id: b.slice(0, 10) }), new Set([b]))
  const streamed: string[] = []
  for await (const { containers } of kubelet().daemon.client.runtimeStream('StreamContainers', {})) {
    streamed.push(...containers.map(container => container.id))
  }
  assert.deepEqual(new Set(streamed), new Set([a, b, c]))
})

test('the verbose status has the pid and the whole specification', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER, { envs: [{ key: 'SECRET', value: 'visible to root only' }] })
  const info = await kubelet().containerInfo(id)
  await until('its process is the command', () =>
    readFileSync(`/proc/${info.pid}/cmdline`, 'utf8').startsWith('sleep'),
  )
  assert.deepEqual(info.runtimeSpec.process.args, ['sh', '-c', FOREVER])
})

test('an image may go while its container runs', async () => {
  const pod = await kubelet().runPod()
  const reference = await kubelet().image('short-lived', { files: { '/note': 'still here' } })
  const id = await kubelet().run(pod, FOREVER, { image: { image: reference } })
  await kubelet().daemon.client.image('RemoveImage', { image: { image: reference } })
  assert.equal((await kubelet().exec(id, 'cat /note')).stdout, 'still here')
  assert.match((await kubelet().status(id)).image?.image ?? '', /short-lived/)
  await assert.rejects(kubelet().create(pod, FOREVER, { image: { image: reference } }), failure('not-found'))
})

test('statistics are there at once, and the image of all of it is the shared one', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `head -c 3000000 /dev/zero > /file; ${FOREVER}`)
  const { stats } = await kubelet().daemon.client.runtime('ContainerStats', { container_id: id })
  assert.equal(stats?.attributes?.id, id)
  assert.ok(Number(stats?.memory?.working_set_bytes?.value) > 0)
  await until('the written file is counted', async () => {
    const reply = await kubelet().daemon.client.runtime('ContainerStats', { container_id: id })
    return Number(reply.stats?.writable_layer?.used_bytes?.value) >= 3_000_000
  })
  const info = await kubelet().daemon.client.image('ImageFsInfo', {})
  assert.ok(existsSync(info.image_filesystems[0]?.fs_id?.mountpoint ?? ''))
  assert.equal((await kubelet().status(id)).image?.image, BUSYBOX)
})
