import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import type { TarFixture } from '../support/tar.ts'
import { useDaemon } from '../support/use-daemon.ts'

/*
 * Images, requests and containers made to harm the node, by what once went wrong elsewhere: docs/security.md has the
 * list.
 */

const kubelet = useDaemon()

/** A directory of the node that nothing may change. */
function sentinel(name: string): { path: string; look: () => string[] } {
  const path = join(kubelet().daemon.directory, name)
  mkdirSync(path)
  writeFileSync(join(path, 'secret'), 'of the node')
  return {
    path,
    look: () => readdirSync(path).map(file => `${file}: ${readFileSync(join(path, file), 'utf8')}`),
  }
}

/** A busybox image in which these entries come last; odd ones replace what is there. */
function imageWith(name: string, entries: readonly TarFixture[], options: object = {}): Promise<string> {
  return kubelet().image(name, { extraLayers: [entries], ...options })
}

test('CVE-2024-9676, CVE-2026-47262, CVE-2025-4437: a passwd file that is none, or too large, stops nobody', async () => {
  const { path } = sentinel('passwd')
  const kinds: Record<string, TarFixture> = {
    fifo: { name: 'etc/passwd', type: '6' },
    device: { name: 'etc/passwd', type: '3', major: 1, minor: 5 },
    huge: { name: 'etc/passwd', content: Buffer.alloc(11 << 20, 'root:x:0:0:root:/root:/bin/sh\n') },
  }
  const pod = await kubelet().runPod()
  for (const [kind, entry] of Object.entries(kinds)) {
    const image = await imageWith(`passwd-${kind}`, [entry])
    const made = kubelet().create(pod, FOREVER, { image: { image } })
    await assert.rejects(made, failure(kind === 'huge' ? 'exhausted' : 'precondition', /\/etc\/passwd/))
  }
  const link = await imageWith('passwd-link', [{ name: 'etc/passwd', symlink: `${path}/secret` }])
  const named = { run_as_username: 'root' }
  const outside = kubelet().create(pod, FOREVER, {
    image: { image: link },
    linux: { security_context: named },
  })
  await assert.rejects(outside, failure('invalid', /run_as_username.*no entry/))
})

test('CVE-2022-23648: a volume of the image through a symlink makes nothing on the node', async () => {
  const { path, look } = sentinel('volume')
  const before = look()
  const entries = [{ name: 'v', symlink: path }]
  const image = await imageWith('volume-link', entries, { volumes: ['/v/made', '/v'] })
  const pod = await kubelet().runPod()
  const text = await kubelet().outputOf(pod, `ls -d /v/made; ls ${path}`, { image: { image } })
  assert.equal(text, '/v/made\nmade')
  assert.deepEqual(look(), before)
})

test('CVE-2024-5154, CVE-2026-41579: an image in which /etc, /dev, /proc or /sys leads elsewhere is refused', async () => {
  const { path, look } = sentinel('etc')
  const before = look()
  const pod = await kubelet().runPod()
  for (const name of ['etc', 'dev', 'proc', 'sys']) {
    for (const target of [path, '/tmp']) {
      const image = await imageWith(`${name}-link-${target === '/tmp' ? 'inside' : 'outside'}`, [
        { name, symlink: target },
      ])
      const made = kubelet().create(pod, FOREVER, { image: { image } })
      await assert.rejects(
        made,
        failure('invalid', new RegExp(`config\\.image: /${name} of the image is no directory`)),
      )
    }
  }
  assert.deepEqual(look(), before)
})

test('CVE-2024-1753: a sub path of an image volume stays in the image', async () => {
  const { path } = sentinel('subpath')
  const image = await imageWith('sub-path', [
    { name: 'out', symlink: path },
    { name: 'up', symlink: '../../../../..' },
    { name: 'in', symlink: '/etc' },
  ])
  const pod = await kubelet().runPod()
  const volume = (image_sub_path: string) => [
    { container_path: '/volume', readonly: true, image: { image }, image_sub_path },
  ]
  const out = kubelet().create(pod, FOREVER, { mounts: volume('out') })
  await assert.rejects(out, failure('invalid', /config\.mounts\[0\]\.image_sub_path/))
  const list = 'cat /volume/secret 2>&1; ls -d /volume/bin /volume/passwd 2>/dev/null'
  assert.match(
    await kubelet().outputOf(pod, list, { mounts: volume('up') }),
    /No such file.*\n\/volume\/bin$/,
  )
  assert.match(
    await kubelet().outputOf(pod, list, { mounts: volume('in') }),
    /No such file.*\n\/volume\/passwd$/,
  )
})

test('CVE-2025-0750, CVE-2026-53489: a log is written where it says, and through no symlink', async () => {
  const { path, look } = sentinel('log')
  const before = look()
  const pod = await kubelet().runPod()
  const logs = pod.config.log_directory!
  symlinkSync(path, join(logs, 'dir'))
  symlinkSync(join(path, 'secret'), join(logs, 'file.log'))
  for (const log_path of ['dir/0.log', 'file.log', 'dir/made/0.log']) {
    await assert.rejects(
      kubelet().create(pod, 'echo harm', { log_path }),
      failure('invalid', /^config\.log_path: .* is no/),
    )
  }
  const id = await kubelet().run(pod, `while :; do echo harm; sleep 0.01; done`)
  const log = (await kubelet().status(id)).log_path
  await kubelet().prints(id, 'harm')
  const { rename } = await import('node:fs/promises')
  await rename(log, `${log}.1`)
  symlinkSync(join(path, 'secret'), log)
  const reopened = kubelet().daemon.client.runtime('ReopenContainerLog', { container_id: id })
  await assert.rejects(reopened, failure('precondition', /is no file/))
  assert.deepEqual(look(), before)
  assert.ok(existsSync(dirname(log)))
})

test('CVE-2024-21626: a container has its three descriptors, also in an exec, and a directory of its own', async () => {
  const pod = await kubelet().runPod()
  // ls itself has the directory open.
  const list =
    'for fd in /proc/self/fd/*; do readlink $fd; done | grep -v "^/proc/.*/fd$" | grep "^/" | grep -v "^/dev/null$"; pwd; true'
  assert.equal(await kubelet().outputOf(pod, list, { working_dir: '/tmp' }), '/tmp')
  const id = await kubelet().run(pod, FOREVER)
  assert.equal((await kubelet().exec(id, 'ls /proc/1/fd')).stdout, '0\n1\n2\n')
  for (const working_dir of ['/proc/self/fd/7', '/proc/1/cwd', '/tmp/../proc/self/fd/8']) {
    await assert.rejects(
      kubelet().create(pod, FOREVER, { working_dir }),
      failure('invalid', /config\.working_dir/),
    )
  }
  const image = await kubelet().image('proc-cwd', { workingDir: '/proc/self/fd/7' })
  await assert.rejects(
    kubelet().create(pod, FOREVER, { image: { image } }),
    failure('invalid', /working_dir/),
  )
})

test('magic links of /proc are no way to a path of the node', async () => {
  const pod = await kubelet().runPod()
  for (const host_path of ['/proc/self/root', '/proc/1/cwd', '/proc/self/fd/1', '/proc/1/root/etc']) {
    const mounts = [{ container_path: '/x', host_path }]
    await assert.rejects(
      kubelet().create(pod, FOREVER, { mounts }),
      // EACCES comes first where not even root may look into process 1.
      failure('invalid', /config\.mounts\[0\]\.host_path.*(ELOOP|EACCES)/),
    )
    const devices = [{ container_path: '/dev/x', host_path, permissions: 'r' }]
    await assert.rejects(
      kubelet().create(pod, FOREVER, { devices }),
      failure('invalid', /config\.devices\[0\]\.host_path/),
    )
  }
})

test('CVE-2022-24769: no inheritable capabilities in a container, its commands, nor by a file’s', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  for (const process of ['1', 'self']) {
    assert.match((await kubelet().exec(id, `cat /proc/${process}/status`)).stdout, /^CapInh:\s0{16}$/m)
    assert.match((await kubelet().exec(id, `cat /proc/${process}/status`)).stdout, /^CapAmb:\s0{16}$/m)
  }
})

test('CVE-2021-21334, CVE-2020-14370: containers of one image have environments of their own', async () => {
  const pod = await kubelet().runPod()
  const outputs = await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      kubelet().outputOf(pod, 'echo $OWN $SECRET', {
        envs: [{ key: 'OWN', value: `${i}` }, ...(i === 0 ? [{ key: 'SECRET', value: 's' }] : [])],
      }),
    ),
  )
  assert.deepEqual(
    outputs,
    Array.from({ length: 12 }, (_, i) => (i === 0 ? '0 s' : `${i}`)),
  )
})

test('GHSA-7ww5-4wqc-m92c: what tells of other containers by power and interrupts is masked', async () => {
  const pod = await kubelet().runPod()
  const security_context = { masked_paths: ['/proc/kcore', '/proc/keys'], readonly_paths: ['/proc/sys'] }
  const script = 'cat /proc/interrupts /proc/keys; ls /sys/devices/virtual/powercap 2>/dev/null; true'
  assert.equal(await kubelet().outputOf(pod, script, { linux: { security_context } }), '')
  assert.notEqual(
    await kubelet().outputOf(pod, 'cat /proc/interrupts'),
    '',
    'an unmasked /proc was asked for',
  )
})

test('a PID namespace is joined within the pod only', async () => {
  const [own, other] = [await kubelet().runPod(), await kubelet().runPod()]
  const target_id = await kubelet().run(other, FOREVER)
  const namespace_options = { pid: 'TARGET', target_id } as const
  const made = kubelet().create(own, FOREVER, { linux: { security_context: { namespace_options } } })
  await assert.rejects(made, failure('invalid', /namespace_options\.target_id.*in this pod/))
})

test('CVE-2024-8676, CVE-2026-50195: an image with the marks of a checkpoint is an image like others', async () => {
  const marks = {
    'io.kubernetes.cri-o.annotations.checkpoint.name': 'x',
    'org.criu.checkpoint.container.name': 'x',
  }
  const image = await kubelet().image('checkpoint', {
    labels: marks,
    files: { '/checkpoint/config.dump': '{}' },
  })
  const pod = await kubelet().runPod()
  assert.equal(
    await kubelet().outputOf(pod, 'echo ordinary', { image: { image }, annotations: marks }),
    'ordinary',
  )
})

test('CVE-2022-31030: commands that print without end cost the daemon little, and the node no file', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const { client, pid } = kubelet().daemon
  const settled = await Promise.allSettled(
    Array.from({ length: 16 }, () =>
      client.runtime('ExecSync', {
        container_id: id,
        cmd: ['sh', '-c', 'head -c 10000000 /dev/zero'],
        timeout: 60,
      }),
    ),
  )
  // A connection that reads slowly may keep so many MiB of replies waiting, and no more.
  const refused = settled.flatMap(result => (result.status === 'rejected' ? [result.reason.code] : []))
  assert.deepEqual(new Set([...refused, 'exhausted']), new Set(['exhausted']))
  const outcomes = settled.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
  assert.ok(outcomes.length > 0)
  assert.ok(outcomes.every(({ exit_code }) => exit_code === 0))
  const kept = outcomes.reduce((sum, { stdout }) => sum + stdout.length, 0)
  assert.ok(kept <= 16 * 8 * 2 ** 20, String(kept))
  const peak = Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  assert.ok(peak < 2 ** 20, `${peak} KiB`)
})

test('a start takes no container for a monitor of none, and no odd file for the end of one', async () => {
  const { daemon } = kubelet()
  const exits = join(daemon.runRoot, 'exits')
  const pod = await kubelet().runPod()
  // What a monitor whose container was lost would have on its command line.
  const claims = ['conmon', '--exit-dir', exits, '-c', newId()]
  const script = 'while :; do sleep 1; done'
  const id = await kubelet().run(pod, script, { args: ['-c', script, ...claims] })
  assert.match((await kubelet().exec(id, 'cat /proc/1/cmdline')).stdout, /--exit-dir/)
  for (const name of ['.odd', 'odd']) writeFileSync(join(exits, name), '0')
  await daemon.restart()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(id, 'echo on')).stdout, 'on\n')
  for (const name of ['.odd', 'odd']) rmSync(join(exits, name))
})
