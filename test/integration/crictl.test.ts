import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { crictlPath } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const skip = crictlPath() === '' ? 'crictl is not built: Go was missing at set-up' : false

const kubelet = useDaemon()

/** Standard output of a command that succeeds. */
async function crictl(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubelet().daemon.crictl(...args)
  assert.equal(code, 0, `crictl ${args.join(' ')}: ${stderr}${stdout}`)
  return stdout.trim()
}

function jsonFile(name: string, content: object): string {
  const path = join(kubelet().daemon.directory, name)
  writeFileSync(path, JSON.stringify(content))
  return path
}

/** A pod and a container in it, both running. */
async function running(script: string): Promise<{ pod: string; container: string; config: string }> {
  // In crictl's files enums are numbers: 1 is CONTAINER.
  const linux = { security_context: { namespace_options: { pid: 1 } } } as const
  const podConfig = kubelet().podConfig({ labels: { app: 'web' }, linux })
  const config = jsonFile('pod.json', podConfig)
  const pod = await crictl('runp', config)
  const containerConfig = {
    metadata: { name: 'main', attempt: 0 },
    // A name straight from the file, in its short form.
    image: { image: 'busybox' },
    command: ['sh', '-c', script],
    log_path: 'main.log',
    linux,
  }
  const container = await crictl('create', pod, jsonFile('container.json', containerConfig), config)
  assert.match(await crictl('ps', '-a'), /Created/)
  assert.equal(await crictl('start', container), container)
  return { pod, container, config }
}

test('version, info, runtime-config', { skip }, async () => {
  assert.match(await crictl('version'), /RuntimeName: +berth\n/)
  const info = JSON.parse(await crictl('info'))
  const conditions = info.status.conditions.map((condition: { type: string; status: boolean }) => [
    condition.type,
    condition.status,
  ])
  assert.deepEqual(conditions.slice(0, 2), [
    ['RuntimeReady', true],
    ['NetworkReady', true],
  ])
  assert.match(info.config.sandboxImage, /pause/)
  assert.match(await crictl('runtime-config'), /CGROUPFS/)
})

test('pull, images, inspecti, imagefsinfo, rmi', { skip }, async () => {
  const image = await busyboxImage({ labels: { by: 'crictl' } })
  kubelet().daemon.registry.push(image, 'quay.io/team/tool', '2')
  const name = 'quay.io/team/tool:2'
  assert.match(await crictl('pull', name), new RegExp(image.id))
  assert.match(await crictl('images'), new RegExp(`quay\\.io/team/tool +2 +${image.id.slice(7, 20)}`))
  assert.equal(await crictl('images', '-q', name), image.id)
  const inspected = JSON.parse(await crictl('inspecti', name))
  assert.equal(inspected.status.id, image.id)
  assert.equal(inspected.info.imageSpec.config.Labels.by, 'crictl')
  const filesystem = JSON.parse(await crictl('imagefsinfo'))
  assert.ok(Number(filesystem.status.imageFilesystems[0].usedBytes.value) > 0)
  assert.match(await crictl('rmi', name), /tool:2/)
  const gone = await kubelet().daemon.crictl('inspecti', name)
  assert.equal(gone.code, 1)
  assert.match(gone.stderr, /no such image/)
})

test('runp, pods, inspectp, create, start, ps, inspect', { skip }, async () => {
  const { pod, container } = await running('echo up; sleep 100000')
  assert.match(await crictl('pods'), new RegExp(`^${pod.slice(0, 13)} .* Ready `, 'm'))
  assert.match(await crictl('pods', '--label', 'app=web', '-q'), new RegExp(pod))
  const inspectedPod = JSON.parse(await crictl('inspectp', pod))
  assert.equal(inspectedPod.status.state, 'SANDBOX_READY')
  assert.match(inspectedPod.status.network.ip, /^10\.66\./)
  assert.ok(existsSync(inspectedPod.info.netns))
  assert.match(await crictl('ps'), new RegExp(`^${container.slice(0, 13)} .* Running +main +0 `, 'm'))
  const inspected = JSON.parse(await crictl('inspect', container.slice(0, 8)))
  assert.equal(inspected.status.id, container)
  assert.match(inspected.status.imageRef, /^docker\.io\/library\/busybox@sha256:/)
  assert.ok(existsSync(`/proc/${inspected.info.pid}`))
  assert.deepEqual(inspected.info.runtimeSpec.process.args, ['sh', '-c', 'echo up; sleep 100000'])
})

test('logs, exec -s, stats, statsp, metricdescs, metricsp, update', { skip }, async () => {
  const { pod, container } = await running('echo one; echo two >&2; sleep 100000')
  await until('the logs are there', async () => (await crictl('logs', container)).includes('one'))
  const { stdout, stderr } = await kubelet().daemon.crictl('logs', container)
  assert.deepEqual([stdout, stderr], ['one\n', 'two\n'])
  assert.equal(await crictl('exec', '-s', container, 'sh', '-c', 'echo $((6 * 7))'), '42')
  const failed = await kubelet().daemon.crictl('exec', '-s', container, 'sh', '-c', 'echo why >&2; exit 3')
  assert.notEqual(failed.code, 0)
  assert.match(failed.stderr, /exit code 3|why/)
  assert.match(await crictl('stats', container), new RegExp(`^${container.slice(0, 13)} +main `, 'm'))
  assert.match(await crictl('statsp', pod), /pod-/)
  assert.match(await crictl('metricdescs'), /container_memory_working_set_bytes/)
  assert.match(await crictl('metricsp'), new RegExp(`${container}[^]*container_memory_working_set_bytes`))
  await crictl('update', '--memory', String(48 << 20), container)
  const { status } = JSON.parse(await crictl('inspect', container))
  assert.equal(status.resources.linux.memoryLimitInBytes, String(48 << 20))
})

test('stop, rm, stopp, rmp', { skip }, async () => {
  const { pod, container } = await running("trap 'exit 5' TERM; echo up; sleep 100000 & wait")
  await until('it runs', async () => (await crictl('logs', container)).includes('up'))
  assert.equal(await crictl('stop', '--timeout', '10', container), container)
  const { status } = JSON.parse(await crictl('inspect', container))
  assert.deepEqual([status.state, status.exitCode], ['CONTAINER_EXITED', 5])
  assert.equal(await crictl('rm', container), container)
  assert.match(await crictl('stopp', pod), new RegExp(pod))
  assert.match(await crictl('pods'), /NotReady/)
  assert.match(await crictl('rmp', pod), new RegExp(pod))
  assert.equal(await crictl('pods', '-q'), '')
  const again = await kubelet().daemon.crictl('rmp', pod)
  assert.match(again.stderr, /NotFound|not found/)
})

test('rmp -f removes a pod with everything that runs in it', { skip }, async () => {
  const { pod, container } = await running('sleep 100000')
  const { pid } = JSON.parse(await crictl('inspect', container)).info
  await crictl('rmp', '-f', pod)
  assert.equal(existsSync(`/proc/${pid}`), false)
})

test('events', { skip }, async () => {
  const log = join(kubelet().daemon.directory, 'events.txt')
  const events = startEvents(log)
  try {
    await until('events arrive', async () => {
      const { pod } = await running('true')
      await crictl('rmp', '-f', pod)
      return readFileSync(log, 'utf8').includes('CONTAINER_DELETED_EVENT')
    })
    const text = readFileSync(log, 'utf8')
    for (const type of ['CREATED', 'STARTED', 'STOPPED', 'DELETED']) {
      assert.match(text, new RegExp(`CONTAINER_${type}_EVENT`))
    }
  } finally {
    events.kill('SIGKILL')
  }
})

/** `crictl events`, writing to a file until it is killed. */
function startEvents(file: string): ChildProcess {
  writeFileSync(file, '')
  const command = `exec "$0" -c /dev/null -r unix://${kubelet().daemon.socket} events >> ${file}`
  return spawn('sh', ['-c', command, crictlPath()], { stdio: 'ignore' })
}
