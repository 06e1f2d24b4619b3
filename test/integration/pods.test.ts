import assert from 'node:assert/strict'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { test } from 'node:test'
import { failure } from '../support/cni.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon({
  config: () => `[crio.runtime.runtimes.second]\nruntime_path = "/usr/sbin/runc"\n`,
})

/** What a server at this address sends before it closes. */
async function answerOf(host: string, port: number): Promise<string> {
  const socket = connect(port, host)
  const chunks = await socket.toArray()
  return Buffer.concat(chunks).toString()
}

/** A container that answers every connection to this port with a text. */
function serve(pod: TestPod, port: number, text: string): Promise<string> {
  return kubelet().run(pod, `exec nc -ll -p ${port} -e echo ${text}`)
}

test('a pod has an address which the node reaches, and the node is reached from it', async () => {
  const pod = await kubelet().runPod()
  const status = await kubelet().podStatus(pod.id)
  assert.equal(status.state, 'SANDBOX_READY')
  assert.match(status.network?.ip ?? '', new RegExp(`^${kubelet().daemon.subnet}\\.`))
  await serve(pod, 80, 'hello')
  await until(
    'the server answers',
    async () => (await answerOf(status.network!.ip, 80).catch(() => '')) === 'hello\n',
  )
  const interfaces = await kubelet().outputOf(pod, 'ip -o addr')
  assert.match(interfaces, / lo +inet 127\.0\.0\.1/)
  assert.ok(interfaces.includes(`eth0    inet ${status.network!.ip}/24`), interfaces)
  const gateway = `${kubelet().daemon.subnet}.1`
  assert.equal(await kubelet().outputOf(pod, `ip route | grep default`), `default via ${gateway} dev eth0 `)
})

test('every pod has its own address and namespaces', async () => {
  const pods = await Promise.all([1, 2, 3].map(() => kubelet().runPod()))
  const ips = await Promise.all(pods.map(pod => kubelet().podIp(pod)))
  assert.equal(new Set(ips).size, 3)
  // All at one time: the kernel gives the number of a namespace that is gone to another.
  const ids = await Promise.all(pods.map(pod => kubelet().run(pod, FOREVER)))
  const namespaces = 'for n in net ipc uts mnt pid; do readlink /proc/self/ns/$n; done'
  const seen = await Promise.all(ids.map(id => kubelet().exec(id, namespaces)))
  assert.equal(new Set(seen.flatMap(({ stdout }) => stdout.trim().split('\n'))).size, 15)
})

test("host network: the node's interfaces, name and resolv.conf, and no address of its own", async () => {
  const pod = await kubelet().runPodWith({ network: 'NODE' }, { hostname: '' })
  const status = await kubelet().podStatus(pod.id)
  assert.equal(status.network?.ip, '')
  assert.equal(status.linux?.namespaces?.options?.network, 'NODE')
  const [net, uts, name] = (
    await kubelet().outputOf(pod, 'readlink /proc/self/ns/net; readlink /proc/self/ns/uts; hostname')
  ).split('\n')
  assert.deepEqual([net, name], [readlinkSync('/proc/self/ns/net'), hostname()])
  assert.notEqual(uts, '')
  assert.equal(
    `${await kubelet().outputOf(pod, 'cat /etc/resolv.conf')}\n`,
    readFileSync('/etc/resolv.conf', 'utf8'),
  )
})

test('host PID and host IPC', async () => {
  const pod = await kubelet().runPodWith({ pid: 'NODE', ipc: 'NODE' })
  const seen = await kubelet().outputOf(
    pod,
    'readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; df /dev/shm | tail -1',
  )
  const [pid, ipc, shm] = seen.split('\n')
  assert.deepEqual([pid, ipc], [readlinkSync('/proc/self/ns/pid'), readlinkSync('/proc/self/ns/ipc')])
  assert.doesNotMatch(shm!, /^shm +65536/)
})

test('a shared PID namespace has an init of its own, which no list shows', async () => {
  const pod = await kubelet().runPodWith({ pid: 'POD' })
  const first = await kubelet().run(pod, `sleep 100001`)
  const second = await kubelet().run(pod, `sleep 100002`)
  const processes = (await kubelet().exec(first, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')).stdout
  assert.match(processes, /catatonit/)
  assert.match(processes, /sleep 100001/)
  assert.match(processes, /sleep 100002/)
  assert.match((await kubelet().exec(second, 'cat /proc/1/cmdline')).stdout, /catatonit/)
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
  assert.deepEqual(new Set(containers.map(container => container.id)), new Set([first, second]))
  const info = await kubelet().daemon.client.runtime('PodSandboxStatus', {
    pod_sandbox_id: pod.id,
    verbose: true,
  })
  const { pid } = JSON.parse(info.info.info ?? '{}')
  assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /catatonit/)
  // Orphans are its children: nobody is left a zombie.
  await kubelet().exec(first, '(sleep 0.1 &)')
  await until('the orphan is reaped', async () => {
    const { stdout } = await kubelet().exec(
      second,
      'grep -c "Z (zombie)" /proc/[0-9]*/status | grep -v :0; true',
    )
    return stdout === ''
  })
})

test('a pod whose init is gone is not ready, for good', async () => {
  const pod = await kubelet().runPodWith({ pid: 'POD' })
  const id = await kubelet().run(pod, FOREVER)
  const info = await kubelet().daemon.client.runtime('PodSandboxStatus', {
    pod_sandbox_id: pod.id,
    verbose: true,
  })
  process.kill(JSON.parse(info.info.info ?? '{}').pid, 'SIGKILL')
  assert.equal((await kubelet().exited(id)).exit_code, 137)
  await until(
    'the pod is not ready',
    async () => (await kubelet().podStatus(pod.id)).state === 'SANDBOX_NOTREADY',
  )
  await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', /not ready/))
})

test('a PID namespace of its own: the command is process 1', async () => {
  const pod = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(pod, 'echo $$'), '1')
})

test("mode TARGET joins another container's PID namespace", async () => {
  const pod = await kubelet().runPod()
  const target = await kubelet().run(pod, 'exec sleep 100003')
  const options = { pid: 'TARGET', target_id: target } as const
  const security = { linux: { security_context: { namespace_options: options } } }
  assert.match(await kubelet().outputOf(pod, 'cat /proc/1/cmdline | tr "\\0" " "', security), /^sleep 100003/)
  const other = await kubelet().runPod()
  await assert.rejects(
    kubelet().create(other, FOREVER, security),
    failure('invalid', /target_id/),
    'a container of another pod is no target',
  )
})

test('hostname, resolv.conf and sysctls', async () => {
  const pod = await kubelet().runPod({
    hostname: 'some-name',
    dns_config: {
      servers: ['10.0.0.10', 'fd00::1'],
      searches: ['svc.cluster.local', 'local'],
      options: ['ndots:5'],
    },
    linux: {
      sysctls: {
        'kernel.shm_rmid_forced': '1',
        'net.core.somaxconn': '77',
        'net.ipv4.ip_local_port_range': '1024 2048',
      },
    },
  })
  assert.equal(
    await kubelet().outputOf(pod, 'hostname; cat /etc/hostname; cat /etc/resolv.conf'),
    'some-name\nsome-name\nsearch svc.cluster.local local\nnameserver 10.0.0.10\nnameserver fd00::1\noptions ndots:5',
  )
  const proc = 'cd /proc/sys; cat kernel/shm_rmid_forced net/core/somaxconn net/ipv4/ip_local_port_range'
  assert.equal(await kubelet().outputOf(pod, proc), '1\n77\n1024\t2048')
  const unprivileged = 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start'
  assert.equal(await kubelet().outputOf(pod, unprivileged), '0', 'the default of the configuration')
})

test('without a DNS configuration a pod has that of the node', async () => {
  const pod = await kubelet().runPod({ dns_config: {} })
  assert.equal(
    `${await kubelet().outputOf(pod, 'cat /etc/resolv.conf')}\n`,
    readFileSync('/etc/resolv.conf', 'utf8'),
  )
})

test('/dev/shm: 64 MiB, shared within the pod', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `echo shared > /dev/shm/note; ${FOREVER}`)
  assert.match((await kubelet().exec(id, 'df -k /dev/shm | tail -1')).stdout, /^\S+ +65536 /)
  await until(
    'the note is there',
    async () => (await kubelet().exec(id, 'cat /dev/shm/note')).stdout === 'shared\n',
  )
  assert.equal(await kubelet().outputOf(pod, 'cat /dev/shm/note'), 'shared')
  assert.equal(await kubelet().outputOf(await kubelet().runPod(), 'ls /dev/shm'), '')
})

test('host ports lead to the pod until it is stopped', async () => {
  const pod = await kubelet().runPod({
    port_mappings: [
      { protocol: 'TCP', container_port: 80, host_port: 18080 },
      { protocol: 'TCP', container_port: 80, host_port: 18081, host_ip: `${kubelet().daemon.subnet}.1` },
      { protocol: 'TCP', container_port: 81 },
    ],
  })
  await serve(pod, 80, 'ported')
  await until(
    'the server answers',
    async () => (await answerOf('127.0.0.1', 18080).catch(() => '')) === 'ported\n',
  )
  assert.equal(await answerOf(`${kubelet().daemon.subnet}.1`, 18081), 'ported\n')
  await kubelet().stopPod(pod.id)
  await assert.rejects(answerOf('127.0.0.1', 18080), { code: 'ECONNREFUSED' })
})

test('labels, annotations, metadata and handler come back as they were given', async () => {
  const labels = { app: 'web', 'a.b/c': 'ü', constructor: 'x' }
  const annotations = { note: 'two\nlines', toString: '' }
  const pod = await kubelet().runPod({ labels, annotations }, 'second')
  const status = await kubelet().podStatus(pod.id)
  const { items } = await kubelet().daemon.client.runtime('ListPodSandbox', { filter: { id: pod.id } })
  for (const seen of [status, items[0]!]) {
    assert.deepEqual({ ...seen.labels }, labels)
    assert.deepEqual({ ...seen.annotations }, annotations)
    assert.deepEqual({ ...seen.metadata }, pod.config.metadata)
    assert.equal(seen.runtime_handler, 'second')
    assert.equal(seen.created_at, status.created_at)
  }
  assert.equal(await kubelet().outputOf(pod, 'echo it runs'), 'it runs')
})

test('an unknown handler is refused by name and leaves nothing', async () => {
  const config = kubelet().podConfig()
  await assert.rejects(kubelet().runPodAs(config, 'kata'), failure('invalid', /kata/, /runc|second/))
  assert.deepEqual(await kubelet().daemon.leftovers(), [])
  const id = await kubelet().runPodAs(config)
  assert.equal((await kubelet().podStatus(id)).state, 'SANDBOX_READY')
})

test('a pod that is there already is not made twice; its name is free once it is removed', async () => {
  const config = kubelet().podConfig()
  const ids = await Promise.all([1, 2, 3].map(() => kubelet().runPodAs(config)))
  assert.equal(new Set(ids).size, 1, 'calls of one moment are one')
  await assert.rejects(kubelet().runPodAs(config), failure('exists', /default\/pod-/, new RegExp(ids[0]!)))
  const next = await kubelet().runPodAs({ ...config, metadata: { ...config.metadata, attempt: 1 } })
  assert.notEqual(next, ids[0])
  await kubelet().removePod(ids[0]!)
  assert.notEqual(await kubelet().runPodAs(config), ids[0])
})

test('what is wrong with a request is told by its field, before anything is done', async () => {
  const config = kubelet().podConfig()
  const wrong: Array<[string, object]> = [
    ['config.metadata', { metadata: null }],
    ['config.metadata.uid', { metadata: { ...config.metadata, uid: '' } }],
    ['config.log_directory', { log_directory: 'var/log' }],
    ['config.linux.cgroup_parent', { linux: { cgroup_parent: '/kubepods.slice' } }],
    ['config.linux.sysctls', { linux: { sysctls: { 'kernel.hostname': 'x' } } }],
    ['config.port_mappings[0].host_port', { port_mappings: [{ container_port: 1, host_port: 70000 }] }],
    [
      'config.linux.security_context.run_as_group',
      { linux: { security_context: { run_as_group: { value: 1 } } } },
    ],
  ]
  for (const [field, change] of wrong) {
    await assert.rejects(
      kubelet().runPodAs({ ...config, ...change }),
      failure('invalid', new RegExp(field.replaceAll(/[.[\]]/g, '\\$&'))),
    )
  }
  assert.deepEqual(await kubelet().daemon.leftovers(), [])
})

test('stopping a pod kills its containers and gives its address back; it stays listed until removed', async () => {
  const pod = await kubelet().runPod()
  const [trapping, exited] = await Promise.all([
    kubelet().run(pod, `trap '' TERM; ${FOREVER} & wait`),
    kubelet().run(pod, 'exit 3'),
  ])
  await kubelet().exited(exited)
  await kubelet().stopPod(pod.id)
  await kubelet().stopPod(pod.id)
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
  assert.equal((await kubelet().status(trapping)).exit_code, 137)
  assert.equal((await kubelet().status(exited)).exit_code, 3)
  assert.deepEqual(await kubelet().daemon.leftovers(/^(address|link|rule|process|mount)/), [])
  await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', /not ready/))
  await kubelet().removePod(pod.id)
  await assert.rejects(kubelet().status(exited), failure('not-found'))
  await assert.rejects(kubelet().podStatus(pod.id), failure('not-found', new RegExp(pod.id)))
})

test('removing a pod that runs stops it first; its logs stay', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `echo last words; ${FOREVER}`)
  await kubelet().prints(id, 'last words')
  const { log_path } = await kubelet().status(id)
  await kubelet().daemon.client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id })
  assert.match(readFileSync(log_path, 'utf8'), /last words/)
})

test('a unique beginning of an id is enough', async () => {
  const pod = await kubelet().runPod()
  const { items } = await kubelet().daemon.client.runtime('ListPodSandbox', {
    filter: { id: pod.id.slice(0, 12) },
  })
  assert.deepEqual(
    items.map(item => item.id),
    [pod.id],
  )
  assert.equal((await kubelet().podStatus(pod.id.slice(0, 12))).id, pod.id)
})

test('a network that fails leaves nothing behind, and the same pod comes up once it works', async () => {
  const { daemon } = kubelet()
  const broken = daemon.networkPlugin(
    'broken',
    `[ "$CNI_COMMAND" = ADD ] && { echo '{"cniVersion":"1.0.0","code":7,"msg":"no cable"}'; exit 1; }`,
  )
  daemon.configureNetwork({ plugins: [broken] })
  const config = kubelet().podConfig()
  await assert.rejects(kubelet().runPodAs(config), failure('internal', /no cable/))
  assert.deepEqual(await daemon.leftovers(), [])
  daemon.configureNetwork()
  const id = await kubelet().runPodAs(config)
  assert.equal((await kubelet().podStatus(id)).state, 'SANDBOX_READY')
})

test('the verbose status tells what is behind a pod', async () => {
  const pod = await kubelet().runPod()
  const { info } = await kubelet().daemon.client.runtime('PodSandboxStatus', {
    pod_sandbox_id: pod.id,
    verbose: true,
  })
  const details = JSON.parse(info.info ?? '')
  assert.equal(details.pid, 0, 'no process belongs to the pod itself')
  assert.ok(existsSync(details.netns ?? ''), JSON.stringify(details))
  const plain = await kubelet().daemon.client.runtime('PodSandboxStatus', { pod_sandbox_id: pod.id })
  assert.deepEqual({ ...plain.info }, {})
})

test('pod statistics: processor, memory, network and processes of all containers', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const { stats } = await kubelet().daemon.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id })
  assert.equal(stats?.attributes?.id, pod.id)
  assert.ok(Number(stats?.linux?.cpu?.usage_core_nano_seconds?.value) > 0)
  assert.ok(Number(stats?.linux?.memory?.working_set_bytes?.value) > 0)
  assert.equal(stats?.linux?.network?.default_interface?.name, 'eth0')
  assert.ok(Number(stats?.linux?.process?.process_count?.value) >= 1)
  assert.deepEqual(
    stats?.linux?.containers.map(container => container.attributes?.id),
    [id],
  )
  const all = await kubelet().daemon.client.runtime('ListPodSandboxStats', {})
  assert.deepEqual(
    all.stats.map(entry => entry.attributes?.id),
    [pod.id],
  )
})

test('without a cgroup parent a pod gets a group below the default one, and takes it along', async () => {
  const pod = await kubelet().runPod({ linux: { cgroup_parent: '' } })
  const id = await kubelet().run(pod, FOREVER)
  const { pid } = await kubelet().containerInfo(id)
  const group = /^\d+:memory:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
  assert.ok(group?.includes(id) && group.includes(pod.id), group)
  await kubelet().removePod(pod.id)
  assert.equal(existsSync(`/sys/fs/cgroup/memory${group}`), false)
})
