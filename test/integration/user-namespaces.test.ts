import assert from 'node:assert/strict'
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import type { NamespaceOption } from '../../src/cri/generated/runtime/v1/NamespaceOption.ts'
import { failure } from '../support/cni.ts'
import { command } from '../support/command.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { findTools } from '../support/tools.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const tools = findTools()
const skip = tools === undefined ? 'no runc that maps mounts was built: Go was missing at set-up' : false

/** The default runtime is Debian's; `mapping` is one that maps mounts. */
const kubelet = useDaemon({
  label: 'userns',
  config: () => `[crio.runtime.runtimes.mapping]\nruntime_path = "${tools?.runc ?? '/bin/false'}"\n`,
  skip,
})

const FIRST = 200_000
const ids = [{ container_id: 0, host_id: FIRST, length: 65_536 }]
const userns_options = { mode: 'POD', uids: ids, gids: ids } as const

function podOf(options: NamespaceOption = {}, linux: object = {}): Promise<TestPod> {
  const namespace_options = { pid: 'CONTAINER', userns_options, ...options } as const
  return kubelet().runPod({ linux: { ...linux, security_context: { namespace_options } } }, 'mapping')
}

/** The directory of everything of a container's root file system. */
function rootOf(id: string): string {
  return join(kubelet().daemon.root, 'rootfs', id)
}

test('a runtime that cannot map mounts is named, and nothing is made', { skip }, async () => {
  const { client } = kubelet().daemon
  const namespace_options = { pid: 'CONTAINER', userns_options } as const
  await assert.rejects(
    kubelet().runPod({ linux: { security_context: { namespace_options } } }),
    failure(
      'precondition',
      /userns_options: runc 1\.1\.\S+ cannot map the ids of mounts; runc has it since 1\.2/,
    ),
  )
  assert.deepEqual((await client.runtime('ListPodSandbox', {})).items, [])
  const { runtime_handlers } = await client.runtime('Status', {})
  assert.deepEqual(
    runtime_handlers.map(({ name, features }) => [name, features?.user_namespaces]),
    [
      ['', false],
      ['runc', false],
      ['mapping', true],
    ],
  )
})

test('root inside is nobody of the node, and what it writes is not the node’s root’s', { skip }, async () => {
  const pod = await podOf()
  const script = `cat /proc/self/uid_map; stat -c %u:%g /etc/passwd /; echo x > /new; ${FOREVER}`
  const id = await kubelet().run(pod, script)
  await kubelet().prints(id, '65536')
  const [map, file, root] = (await kubelet().logOf(id)).map(({ text }) => text.trim().replaceAll(/\s+/g, ' '))
  assert.deepEqual([map, file, root], [`0 ${FIRST} 65536`, '0:0', '0:0'])
  const { pid } = await kubelet().containerInfo(id)
  assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), new RegExp(`^Uid:\\t${FIRST}\\t`, 'm'))
  const written = await until('the file is written', () =>
    lstatSync(join(rootOf(id), 'upper/new'), { throwIfNoEntry: false }),
  )
  assert.deepEqual([written.uid, written.gid], [FIRST, FIRST])
  const { stdout } = await kubelet().exec(id, 'id -u; cat /proc/self/uid_map; hostname; echo y > /dev/shm/y')
  assert.match(stdout, new RegExp(`^0\n\\s+0\\s+${FIRST}\\s+65536\n${pod.config.hostname}\n$`))
  const status = await kubelet().podStatus(pod.id)
  assert.deepEqual(status.linux?.namespaces?.options?.userns_options, userns_options)
})

test('only root inside gets through to its root file system', { skip }, async () => {
  const { directory, root } = kubelet().daemon
  const id = await kubelet().create(await podOf(), FOREVER)
  const home = lstatSync(rootOf(id))
  assert.deepEqual([home.mode & 0o7777, home.uid, home.gid], [0o710, 0, FIRST])
  const plain = await kubelet().create(await kubelet().runPod(), FOREVER)
  assert.equal(lstatSync(rootOf(plain)).mode & 0o7777, 0o700)
  for (const name of ['layers', 'staging', 'trash']) {
    assert.equal(lstatSync(join(root, name)).mode & 0o7777, 0o700, name)
  }
  assert.equal(lstatSync(directory).isDirectory(), true)
})

test('users of the image, and volumes with mapped ids', { skip }, async () => {
  const pod = await podOf()
  const dir = join(kubelet().daemon.directory, `volume-${newId().slice(0, 8)}`)
  mkdirSync(dir)
  writeFileSync(join(dir, 'file'), 'content', { mode: 0o600 })
  chownSync(join(dir, 'file'), 1001, 1001)
  chownSync(dir, 1001, 1001)
  const volume = { host_path: dir, container_path: '/volume', uidMappings: ids, gidMappings: ids }
  const script = 'cat /volume/file; echo; echo new > /volume/new; stat -c %u /volume/new; id -G'
  const security_context = {
    run_as_user: { value: 1001 },
    run_as_group: { value: 1001 },
    supplemental_groups: [2000],
    namespace_options: { pid: 'CONTAINER', userns_options } as const,
  }
  const output = await kubelet().outputOf(pod, script, { mounts: [volume], linux: { security_context } })
  assert.equal(output, 'content\n1001\n1001 2000')
  assert.equal(lstatSync(join(dir, 'new')).uid, 1001, 'on the node the owner is the same')
})

test('an image as a volume, and the volumes of an image, belong to root inside', { skip }, async () => {
  const reference = await kubelet().image('mapped-volume', {
    files: { '/data/file': 'x' },
    volumes: ['/made/here'],
  })
  const mounts = [{ container_path: '/volume', readonly: true, image: { image: reference } }]
  const script = 'stat -c %u:%g /volume/data/file /made /made/here; touch /made/here/x && echo ok'
  const output = await kubelet().outputOf(await podOf(), script, { mounts, image: { image: reference } })
  assert.equal(output, '0:0\n0:0\n0:0\nok')
})

test('devices of the node, under the path they have there', { skip }, async () => {
  const pod = await podOf()
  const device = (container_path: string) => [{ host_path: '/dev/zero', container_path, permissions: 'r' }]
  const devices = device('/dev/zero')
  assert.equal(await kubelet().outputOf(pod, 'head -c 3 /dev/zero | wc -c', { devices }), '3')
  await assert.rejects(
    kubelet().create(pod, FOREVER, { devices: device('/dev/other') }),
    failure('precondition', /config\.devices\[0\]\.container_path: in a user namespace/),
  )
})

test('sysctls of network and IPC, and a shared PID namespace', { skip }, async () => {
  const sysctls = {
    'net.ipv4.ip_local_port_range': '40000 41000',
    'kernel.shm_rmid_forced': '1',
    'fs.mqueue.msg_max': '200',
  }
  const pod = await podOf({ pid: 'POD' }, { sysctls })
  const script =
    'cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max; cat /proc/1/comm /proc/1/uid_map'
  const output = await kubelet().outputOf(pod, script)
  assert.match(output, new RegExp(`^40000\t41000\n1\n200\ncatatonit\n\\s+0\\s+${FIRST}\\s+65536$`))
  assert.match(
    await kubelet().outputOf(pod, 'cat /sys/fs/cgroup/*/cgroup.procs > /dev/null && echo ok'),
    /^ok$/,
  )
})

test('the network of the node with a user namespace of its own', { skip }, async () => {
  const pod = await podOf({ network: 'NODE' })
  const inside = await kubelet().outputOf(pod, 'cat /proc/self/uid_map; hostname; cut -d: -f1 /proc/net/dev')
  const [map, name, ...links] = inside.split('\n')
  assert.match(map ?? '', new RegExp(`^\\s+0\\s+${FIRST}\\s+65536$`))
  assert.equal(name, hostname())
  assert.deepEqual(
    links.sort(),
    (await command('cut', ['-d:', '-f1', '/proc/net/dev'])).stdout.trimEnd().split('\n').sort(),
  )
  assert.equal(
    (await kubelet().daemon.client.runtime('Status', {})).features?.user_namespaces_host_network,
    true,
  )
})

test('the mappings are the pod’s: others are refused', { skip }, async () => {
  const pod = await podOf()
  const other = [{ container_id: 0, host_id: FIRST + 1, length: 1000 }]
  const security_context = {
    namespace_options: {
      pid: 'CONTAINER',
      userns_options: { mode: 'POD', uids: other, gids: other },
    } as const,
  }
  await assert.rejects(
    kubelet().create(pod, FOREVER, { linux: { security_context } }),
    failure('invalid', /userns_options: expected the pod's own mappings/),
  )
  const none = { namespace_options: { pid: 'CONTAINER' } as const }
  const output = await kubelet().outputOf(pod, 'cat /proc/self/uid_map', {
    linux: { security_context: none },
  })
  assert.match(output, new RegExp(`0\\s+${FIRST}\\s+65536`))
})

test('after a SIGKILL of the daemon the pod is ready and takes containers', { skip }, async () => {
  const pod = await podOf()
  const id = await kubelet().run(pod, FOREVER)
  await kubelet().daemon.restart()
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_READY')
  assert.equal((await kubelet().exec(id, 'id -u')).stdout, '0\n')
  assert.match(await kubelet().outputOf(pod, 'cat /proc/self/uid_map'), new RegExp(`0\\s+${FIRST}\\s+65536`))
})

test('a daemon killed at any effect of RunPodSandbox leaves nothing of it', { skip }, async () => {
  // The first two maps are the probe's, at start.
  for (const point of ['os.open-directory', 'os.write-id-map#3', 'os.write-id-map#4', 'os.pin-namespaces']) {
    await kubelet().daemon.restart({ BERTH_FAULTS: `kill@${point}` })
    await assert.rejects(podOf())
    await kubelet().daemon.ended
    await kubelet().daemon.up()
    assert.deepEqual((await kubelet().daemon.client.runtime('ListPodSandbox', {})).items, [], point)
    assert.deepEqual(await kubelet().daemon.leftovers(), [], point)
  }
  assert.deepEqual(readdirSync(join(kubelet().daemon.runRoot, 'pods')), [])
})
