import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'

const kubelet = useDaemon({
  config: directory => `[crio.runtime]\ncdi_spec_dirs = ["${directory}/cdi-etc", "${directory}/cdi-run"]\n`,
})

const inside = (name: string) => join(kubelet().daemon.directory, name)

function writeSpec(directory: 'cdi-etc' | 'cdi-run', name: string, content: string | object): void {
  mkdirSync(inside(directory), { recursive: true })
  writeFileSync(
    join(inside(directory), name),
    typeof content === 'string' ? content : JSON.stringify(content),
  )
}

const specOf = (devices: object[], containerEdits?: object) => ({
  ...{ cdiVersion: '0.6.0', kind: 'vendor.com/net', devices },
  ...(containerEdits === undefined ? {} : { containerEdits }),
})

afterEach(() => {
  for (const name of ['cdi-etc', 'cdi-run']) rmSync(inside(name), { recursive: true, force: true })
})

test('a device brings its nodes, mounts, variables, groups and hooks', async () => {
  const hook = inside('hook')
  writeFileSync(
    hook,
    `#!/bin/sh\ncat > ${inside('hook-input')}\nprintf '%s' "$1 $WHO" > ${inside('hook-arguments')}\n`,
  )
  chmodSync(hook, 0o755)
  mkdirSync(inside('library'))
  writeFileSync(join(inside('library'), 'file'), 'of the driver\n')
  const nic0 = {
    name: 'nic0',
    containerEdits: {
      env: ['NIC=0'],
      deviceNodes: [{ path: '/dev/nic0', hostPath: '/dev/zero', permissions: 'r', fileMode: 0o444, gid: 44 }],
      mounts: [{ hostPath: inside('library'), containerPath: '/lib/driver', options: ['ro', 'nosuid'] }],
      hooks: [{ hookName: 'createRuntime', path: hook, args: ['hook', 'begin'], env: ['WHO=nic0'] }],
      additionalGids: [4400],
    },
  }
  writeSpec(
    'cdi-etc',
    'vendor.json',
    specOf([nic0, { name: 'nic1', containerEdits: { env: ['OTHER=1'] } }], { env: ['COMMON=1'] }),
  )
  const pod = await kubelet().runPod()
  const script = `echo $NIC $COMMON $OTHER; head -c 3 /dev/nic0 | wc -c; stat -c '%a %g' /dev/nic0; cat /lib/driver/file; touch /lib/driver/x 2>&1; id -G; echo x 2>&1 > /dev/nic0 || true; ${FOREVER}`
  const id = await kubelet().run(pod, script, { CDI_devices: [{ name: 'vendor.com/net=nic0' }] })
  await kubelet().prints(id, 'Read-only')
  await kubelet().prints(id, '4400')
  const lines = (await kubelet().logOf(id)).map(({ text }) => text)
  assert.deepEqual(lines.slice(0, 6), [
    '0 1',
    '3',
    '444 44',
    'of the driver',
    'touch: /lib/driver/x: Read-only file system',
    '0 4400',
  ])
  assert.equal(JSON.parse(readFileSync(inside('hook-input'), 'utf8')).id, id)
  assert.equal(readFileSync(inside('hook-arguments'), 'utf8'), 'begin nic0')
  assert.equal((await kubelet().exec(id, 'echo $NIC; id -G')).stdout, '0\n0 4400\n')
  assert.deepEqual((await kubelet().status(id)).user?.linux?.supplemental_groups, ['0', '4400'])
})

test('devices of annotations, in YAML, each once; a later directory goes first', async () => {
  writeSpec('cdi-etc', 'old.json', specOf([{ name: '0', containerEdits: { env: ['FROM=etc'] } }]))
  writeSpec(
    'cdi-run',
    'new.yaml',
    `cdiVersion: "0.5.0"
kind: vendor.com/net
containerEdits:
  env: [COMMON=1]
devices:
  - name: 0
    containerEdits: {env: [FROM=run]}
  - name: one
    containerEdits:
      env:
        - ONE=1
`,
  )
  const pod = await kubelet().runPod()
  const request = {
    CDI_devices: [{ name: 'vendor.com/net=0' }],
    annotations: { 'cdi.k8s.io/plugin_a': 'vendor.com/net=0,vendor.com/net=one' },
  }
  assert.equal(await kubelet().outputOf(pod, 'echo $FROM $COMMON $ONE', request), 'run 1 1')
  const other = { annotations: { 'cdi.example.com/plugin': 'vendor.com/net=missing' } }
  assert.equal(await kubelet().outputOf(pod, 'echo $FROM', other), '')
})

test('a device that is in no specification, in two, or in one that cannot be read, is refused by its field', async () => {
  const pod = await kubelet().runPod()
  const wish = (name: string) => ({ CDI_devices: [{ name }] })
  await assert.rejects(
    kubelet().create(pod, FOREVER, wish('vendor.com/net=nic0')),
    failure(
      'invalid',
      /config\.CDI_devices\[0\]\.name: no CDI specification in .*cdi-etc or .*cdi-run has the device "vendor\.com\/net=nic0"/,
    ),
  )
  writeSpec('cdi-etc', 'broken.yaml', 'kind: [')
  writeSpec('cdi-etc', 'wrong.json', specOf([{ name: 'nic0', containerEdits: { env: ['X'] } }]))
  await assert.rejects(
    kubelet().create(pod, FOREVER, wish('vendor.com/net=nic0')),
    failure(
      'invalid',
      /unreadable: .*broken\.yaml: .*; .*wrong\.json: devices\[0\]\.containerEdits\.env\[0\]: expected NAME=value/,
    ),
  )
  writeSpec('cdi-etc', 'open.json', specOf([{ name: 'open' }]))
  chmodSync(inside('cdi-etc/open.json'), 0o666)
  await assert.rejects(
    kubelet().create(pod, FOREVER, wish('vendor.com/net=open')),
    failure('invalid', /open\.json: can be changed by others than root/),
  )
  for (const name of ['a.json', 'b.json']) writeSpec('cdi-run', name, specOf([{ name: 'nic0' }]))
  await assert.rejects(
    kubelet().create(pod, FOREVER, wish('vendor.com/net=nic0')),
    failure('invalid', /a\.json and .*b\.json both have the device/),
  )
  await assert.rejects(
    kubelet().create(pod, FOREVER, { annotations: { 'cdi.k8s.io/x': 'nothing' } }),
    failure('invalid', /config\.annotations\["cdi\.k8s\.io\/x"\]/),
  )
  writeSpec(
    'cdi-run',
    'c.json',
    specOf([{ name: 'gone', containerEdits: { deviceNodes: [{ path: '/dev/no-such' }] } }]),
  )
  await assert.rejects(
    kubelet().create(pod, FOREVER, wish('vendor.com/net=gone')),
    failure('invalid', /\/dev\/no-such is no device of this node/),
  )
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
  assert.deepEqual(containers, [])
})
