import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import { failure } from '../support/cni.ts'
import { output } from '../support/command.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

/** A directory on the node for one test; it goes with the daemon. */
function fresh(name: string): string {
  const path = join(kubelet().daemon.directory, `${name}-${newId().slice(0, 8)}`)
  mkdirSync(path)
  return path
}

test('command, arguments, environment and directory of image and request', async () => {
  const pod = await kubelet().runPod()
  const reference = await kubelet().image('entry', {
    entrypoint: ['/bin/echo', 'entry'],
    cmd: ['image-args'],
    env: ['PATH=/bin:/usr/bin', 'FROM_IMAGE=image', 'BOTH=image'],
    workingDir: '/var/www',
  })
  const outputOf = (changes: object) =>
    kubelet().outputOf(pod, '', { image: { image: reference }, ...changes })
  assert.equal(await outputOf({ command: [] }), 'entry image-args')
  assert.equal(await outputOf({ command: [], args: ['mine'] }), 'entry mine')
  assert.equal(
    await outputOf({ command: ['/bin/echo', 'mine'] }),
    'mine',
    'a command drops the image’s arguments',
  )
  const envs = [
    { key: 'BOTH', value: 'request' },
    { key: 'ODD', value: 'a=b\n"c" $d' },
  ]
  const command = ['sh', '-c', 'echo "$FROM_IMAGE $BOTH $ODD"; pwd']
  assert.equal(await outputOf({ command, envs }), 'image request a=b\n"c" $d\n/var/www')
  assert.equal(await outputOf({ command: ['pwd'], working_dir: '/tmp/new/dir' }), '/tmp/new/dir')
  const bare = await kubelet().image('bare', { cmd: [] })
  await assert.rejects(
    kubelet().create(pod, '', { command: [], image: { image: bare } }),
    failure('invalid', /command/),
  )
})

test('mounts: read-only, symlinks, files, and what is not there', async () => {
  const pod = await kubelet().runPod()
  const dir = fresh('mount')
  writeFileSync(join(dir, 'file'), 'content')
  symlinkSync(dir, `${dir}-link`)
  const mounts = [
    { container_path: '/rw', host_path: dir },
    { container_path: '/ro', host_path: dir, readonly: true },
    { container_path: '/link', host_path: `${dir}-link` },
    { container_path: '/etc/one-file', host_path: join(dir, 'file') },
  ]
  const script = 'echo new > /rw/new; cat /ro/new /link/file; echo; cat /etc/one-file; echo; touch /ro/x 2>&1'
  assert.equal(
    await kubelet().outputOf(pod, script, { mounts }),
    'new\ncontent\ncontent\ntouch: /ro/x: Read-only file system',
  )
  const missing = [{ container_path: '/data', host_path: join(dir, 'missing') }]
  await assert.rejects(
    kubelet().create(pod, FOREVER, { mounts: missing }),
    failure('invalid', /host_path.*missing/),
  )
  assert.equal(existsSync(join(dir, 'missing')), false)
})

test('any user gets to mounts deep below, and reads the limits of its container', async () => {
  const pod = await kubelet().runPod()
  const mounts = [{ container_path: '/made/by/the/runtime', host_path: fresh('deep') }]
  const linux = {
    resources: { memory_limit_in_bytes: 64 << 20 },
    security_context: { run_as_user: { value: 1001 } },
  }
  const script =
    'cd /made/by/the/runtime && pwd; cat /sys/fs/cgroup/memory*/memory.limit_in_bytes /sys/fs/cgroup/memory.max'
  const text = await kubelet().outputOf(pod, `${script} 2>/dev/null; umask`, { mounts, linux })
  assert.equal(text, `/made/by/the/runtime\n${64 << 20}\n0022`)
})

test('mount propagation, and read-only down to the last submount', async () => {
  const dir = fresh('propagation')
  await output('mount', '-t', 'tmpfs', '--make-rshared', 'tmpfs', dir)
  try {
    mkdirSync(join(dir, 'sub'))
    const pod = await kubelet().runPod()
    const mounts = [
      { container_path: '/private', host_path: dir, propagation: 'PROPAGATION_PRIVATE' },
      { container_path: '/slave', host_path: dir, propagation: 'PROPAGATION_HOST_TO_CONTAINER' },
      { container_path: '/shared', host_path: dir, propagation: 'PROPAGATION_BIDIRECTIONAL' },
    ] as const
    const security = { privileged: true }
    const id = await kubelet().run(pod, FOREVER, {
      mounts: [...mounts],
      linux: { security_context: security },
    })
    await output('mount', '-t', 'tmpfs', 'tmpfs', join(dir, 'sub'))
    writeFileSync(join(dir, 'sub', 'late'), '')
    assert.equal(
      (await kubelet().exec(id, 'ls /private/sub /slave/sub /shared/sub')).stdout.match(/late/g)?.length,
      2,
    )
    await kubelet().exec(id, 'mkdir /shared/back; mount -t tmpfs none /shared/back; touch /shared/back/there')
    assert.ok(existsSync(join(dir, 'back', 'there')), 'and from the container to the node')
    const readonly = { container_path: '/ro', host_path: dir, readonly: true }
    const touch = 'touch /ro/sub/x 2>/dev/null && echo written || echo refused'
    assert.equal(await kubelet().outputOf(pod, touch, { mounts: [readonly] }), 'written')
    assert.equal(
      await kubelet().outputOf(pod, touch, { mounts: [{ ...readonly, recursive_read_only: true }] }),
      'refused',
    )
  } finally {
    await kubelet().removeAll()
    await output('umount', '-R', dir)
  }
})

test('an image as a volume', async () => {
  const pod = await kubelet().runPod()
  const reference = await kubelet().image('volume', { files: { '/data/deep/file': 'from the image' } })
  const volume = { container_path: '/volume', readonly: true, image: { image: reference } }
  const script = 'cat /volume/data/deep/file; echo; touch /volume/x 2>&1'
  assert.equal(
    await kubelet().outputOf(pod, script, { mounts: [volume] }),
    'from the image\ntouch: /volume/x: Read-only file system',
  )
  const below = { ...volume, image_sub_path: 'data/deep' }
  assert.equal(await kubelet().outputOf(pod, 'ls /volume', { mounts: [below] }), 'file')
  const id = await kubelet().create(pod, FOREVER, { mounts: [volume] })
  const [shown] = (await kubelet().status(id)).mounts
  assert.match(shown?.image?.image_ref ?? '', /^sha256:/)
  const nowhere = { ...volume, image_sub_path: 'no/where' }
  await assert.rejects(
    kubelet().create(pod, FOREVER, { mounts: [nowhere] }),
    failure('invalid', /image_sub_path/),
  )
  const writable = { ...volume, readonly: false }
  await assert.rejects(kubelet().create(pod, FOREVER, { mounts: [writable] }), failure('invalid', /readonly/))
})

test('users and groups, from the request and from the image', async () => {
  const pod = await kubelet().runPod()
  const people = await kubelet().image('people', {
    user: 'default-user',
    files: {
      '/etc/passwd': 'root:x:0:0::/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n',
      '/etc/group': 'root:x:0:\nin-image:x:50000:default-user\n',
    },
  })
  const of = async (security: object) => {
    const linux = { security_context: security }
    const id = await kubelet().run(pod, 'id -u; id -g; id -G; sleep 100000', {
      image: { image: people },
      linux,
    })
    const { user } = await kubelet().status(id)
    const script = 'id -u; id -g; id -G'
    const inside = (await kubelet().exec(id, script)).stdout.trim()
    await until('it prints its ids', async () => (await kubelet().logOf(id)).length === 3)
    assert.equal((await kubelet().logOf(id)).map(line => line.text).join('\n'), inside)
    return [inside.replaceAll('\n', '/'), user?.linux?.supplemental_groups.join(' ')]
  }
  assert.deepEqual(await of({}), ['1000/1000/1000 50000', '1000 50000'])
  assert.deepEqual(await of({ supplemental_groups: ['1234'] }), [
    '1000/1000/1000 1234 50000',
    '1000 1234 50000',
  ])
  assert.deepEqual(await of({ supplemental_groups: ['1234'], supplemental_groups_policy: 'Strict' }), [
    '1000/1000/1000 1234',
    '1000 1234',
  ])
  assert.deepEqual(await of({ run_as_user: { value: 7 }, run_as_group: { value: 8 } }), ['7/8/8', '8'])
  assert.deepEqual(await of({ run_as_username: 'root' }), ['0/0/0', '0'])
  await assert.rejects(
    kubelet().runAs(pod, FOREVER, { run_as_username: 'nobody-here' }),
    failure('invalid', /nobody-here/),
  )
})

/** The lines of /proc/self/status of a container with this security context. */
async function processStatus(security: object): Promise<Map<string, string>> {
  const pod = await kubelet().runPod()
  const text = await kubelet().outputOf(pod, 'cat /proc/self/status', {
    linux: { security_context: security },
  })
  return new Map(text.split('\n').map(line => line.split(':\t') as [string, string]))
}

test('capabilities: the default set, more, fewer, all, none', async () => {
  const CHOWN = 1n
  const NET_ADMIN = 1n << 12n
  const bounding = (status: Map<string, string>) => BigInt(`0x${status.get('CapBnd')}`)
  const plain = await processStatus({})
  assert.equal(bounding(plain) & NET_ADMIN, 0n)
  assert.equal(bounding(plain) & CHOWN, CHOWN)
  assert.equal(BigInt(`0x${plain.get('CapInh')}`), 0n)
  const changed = await processStatus({
    capabilities: { add_capabilities: ['NET_ADMIN'], drop_capabilities: ['CHOWN'] },
  })
  assert.equal(bounding(changed), (bounding(plain) | NET_ADMIN) & ~CHOWN)
  const all = await processStatus({ capabilities: { add_capabilities: ['ALL'] } })
  const own = /^CapBnd:\t(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  assert.equal(all.get('CapBnd'), own)
  const none = await processStatus({ capabilities: { drop_capabilities: ['ALL'] } })
  assert.equal(bounding(none), 0n)
})

test('privileged: all capabilities and devices of the node, nothing masked', async () => {
  const pod = await kubelet().runPod()
  const security = { privileged: true, seccomp: { profile_type: 'RuntimeDefault' } } as const
  const linux = { security_context: security }
  const script =
    'grep -E "CapBnd|Seccomp:" /proc/self/status; ls /dev | wc -l; touch /sys/fs/cgroup/x 2>&1; echo 1 > /proc/sys/net/ipv4/ip_forward && echo writable'
  const text = await kubelet().outputOf(pod, script, { linux })
  const own = /^CapBnd:\t(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  assert.ok(text.includes(`CapBnd:\t${own}`), text)
  assert.match(text, /Seccomp:\t0/)
  assert.match(text, /writable/)
  const devices = Number(/^(\d+)$/m.exec(text)?.[1])
  const plain = Number(await kubelet().outputOf(pod, 'ls /dev | wc -l'))
  assert.ok(devices > plain, `${devices} devices, an ordinary container has ${plain}`)
})

test('seccomp: none, the default, a file; no-new-privileges', async () => {
  assert.equal((await processStatus({})).get('Seccomp'), '0')
  const unconfined = await processStatus({ seccomp: { profile_type: 'Unconfined' } })
  assert.equal(unconfined.get('Seccomp'), '0')
  const standard = await processStatus({ seccomp: { profile_type: 'RuntimeDefault' }, no_new_privs: true })
  assert.deepEqual([standard.get('Seccomp'), standard.get('NoNewPrivs')], ['2', '1'])
  const profile = join(fresh('seccomp'), 'profile.json')
  const denied = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }]
  writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: denied }))
  const pod = await kubelet().runPod()
  const seccomp = { profile_type: 'Localhost', localhost_ref: profile } as const
  const text = await kubelet().outputOf(pod, 'mkdir /tmp/x 2>&1; echo still here', {
    linux: { security_context: { seccomp } },
  })
  assert.match(text, /mkdir:.*Operation not permitted\nstill here/)
  const missing = { seccomp: { profile_type: 'Localhost', localhost_ref: `${profile}.gone` } } as const
  await assert.rejects(kubelet().runAs(pod, FOREVER, missing), failure('invalid', /gone/))
})

test('a read-only root, masked and read-only paths', async () => {
  const pod = await kubelet().runPod()
  const script =
    'touch /x 2>&1; touch /dev/shm/x && echo shm; cat /proc/uptime; touch /proc/sys/net/ipv4/ip_forward 2>&1'
  const linux = {
    security_context: {
      readonly_rootfs: true,
      masked_paths: ['/proc/uptime'],
      readonly_paths: ['/proc/sys'],
    },
  }
  assert.equal(
    await kubelet().outputOf(pod, script, { linux }),
    'touch: /x: Read-only file system\nshm\ntouch: /proc/sys/net/ipv4/ip_forward: Read-only file system',
  )
})

test('devices of the node', async () => {
  const pod = await kubelet().runPod()
  const devices = [{ host_path: '/dev/zero', container_path: '/dev/nothing', permissions: 'rw' }]
  assert.equal(await kubelet().outputOf(pod, 'head -c 3 /dev/nothing | wc -c', { devices }), '3')
  const missing = [{ host_path: '/dev/no-such-device', container_path: '/dev/x', permissions: 'r' }]
  await assert.rejects(
    kubelet().create(pod, FOREVER, { devices: missing }),
    failure('invalid', /no-such-device/),
  )
})
