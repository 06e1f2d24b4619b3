import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import { assertIs, check, only, useCheck } from '../support/check.ts'
import { command, output } from '../support/command.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()
const { isHealed, isClean, living, podOf } = useCheck(kubelet)

test('addresses: one without a pod is given back, one without its lease gets it again, one given twice is named', async () => {
  const { daemon } = kubelet()
  const { pod, goesOn } = await living()
  const leases = join(daemon.ipamDir, 'pods')
  const own = join(leases, await kubelet().podIp(pod))
  const stray = join(leases, `${daemon.subnet}.200`)
  writeFileSync(stray, `${newId()}\r\neth0`)
  await isHealed({ kind: 'lease-stray', subject: stray, cause: /removed without its plugins/ })
  assert.equal(existsSync(stray), false)
  const text = readFileSync(own, 'utf8')
  unlinkSync(own)
  await isHealed({ kind: 'lease-missing', subject: own, cause: /removed the file/ })
  assert.equal(readFileSync(own, 'utf8'), text)
  const other = await kubelet().runPod()
  writeFileSync(own, `${other.id}\r\neth0`)
  const taken = await check(daemon, '--repair')
  assertIs(only(taken), { kind: 'lease-taken', subject: own, found: new RegExp(other.id) })
  assert.deepEqual([only(taken).repairable, taken.code], [false, 4])
  writeFileSync(own, text)
  await isClean()
  await goesOn()
})

test('the journal of attachments: what is of no pod is detached, what is missing is written again', async () => {
  const { daemon } = kubelet()
  const { pod, goesOn } = await living()
  const journal = join(daemon.root, 'cni', `${pod.id}.json`)
  const text = readFileSync(journal, 'utf8')
  const id = newId()
  const lease = join(daemon.ipamDir, 'pods', `${daemon.subnet}.201`)
  writeFileSync(lease, `${id}\r\neth0`)
  writeFileSync(join(daemon.root, 'cni', `${id}.json`), text.replaceAll(pod.id, id))
  const seen = await check(daemon)
  assert.deepEqual(seen.differences.map(({ kind }) => kind).sort(), ['attachment-stray', 'lease-stray'])
  const repaired = await check(daemon, '--repair')
  assert.equal(repaired.code, 0)
  assert.equal(existsSync(lease), false)
  unlinkSync(journal)
  await isHealed({ kind: 'attachment-unrecorded', subject: pod.id })
  assert.deepEqual(JSON.parse(readFileSync(journal, 'utf8')), JSON.parse(text))
  await goesOn()
})

test('a firewall that was flushed: rules of pods are made again, as the plugins make them', async () => {
  const pod = await kubelet().runPod({ port_mappings: [{ container_port: 80, host_port: 18091 }] })
  const id = await kubelet().run(pod, 'mkdir /www; echo here > /www/index.html; httpd -f -p 80 -h /www')
  const answers = async () =>
    (await command('busybox', ['wget', '-q', '-O-', 'http://127.0.0.1:18091/'])).stdout === 'here\n'
  await until('the port of the node answers', answers)
  const rules = async () => (await output('iptables-save', '-t', 'nat')).match(/^-A .*$/gm)?.sort()
  const before = await rules()
  for (const verb of ['-F', '-X']) await output('iptables', '-t', 'nat', verb)
  assert.equal(await answers(), false)
  const seen = await check(kubelet().daemon)
  assert.deepEqual(
    seen.differences.map(({ kind, cause }) => [kind, cause]),
    [
      ['rules-missing', 'the firewall was flushed or reloaded'],
      ['rules-missing', 'the firewall was flushed or reloaded'],
    ],
  )
  assert.equal((await check(kubelet().daemon, '--repair')).code, 0)
  assert.deepEqual(await rules(), before)
  assert.equal(await answers(), true)
  await isClean()
  await kubelet().stop(id)
})

test('rules of a pod that is no more are removed, with their chains', async () => {
  const { goesOn } = await living()
  const id = newId()
  const chain = `CNI-${id.slice(0, 24)}`
  const comment = ['-m', 'comment', '--comment', `name: "pods" id: "${id}"`]
  await output('iptables', '-t', 'nat', '-N', chain)
  await output('iptables', '-t', 'nat', '-A', chain, ...comment, '-j', 'MASQUERADE')
  await output('iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '10.66.99.9', ...comment, '-j', chain)
  await isHealed({ kind: 'rules-stray', subject: id, found: /POSTROUTING -s 10\.66\.99\.9/ })
  assert.doesNotMatch(await output('iptables-save', '-t', 'nat'), new RegExp(chain))
  await goesOn()
})

test('a route that was deleted in a pod is named by the plugin that made it', async () => {
  const { pod } = await living()
  await output('nsenter', `--net=${join(podOf(pod), 'ns', 'net')}`, 'ip', 'route', 'del', 'default')
  const seen = await check(kubelet().daemon, '--repair')
  assertIs(only(seen), { kind: 'network-broken', subject: `${pod.id} bridge`, cause: /somebody changed/ })
  assert.deepEqual([only(seen).repairable, seen.code], [false, 4])
  await kubelet().stopPod(pod.id)
  await isClean()
})

test('layers: one whose directory is gone is fetched again, directories and records of none are deleted', async () => {
  const { daemon } = kubelet()
  const { goesOn } = await living()
  const image = await kubelet().image('checked', { extraLayers: [[{ name: 'one', content: 'of a layer' }]] })
  const layers = join(daemon.root, 'layers')
  const top = readdirSync(layers)
    .map(name => join(layers, name))
    .find(path => existsSync(join(path, 'one')))!
  rmSync(top, { recursive: true })
  mkdirSync(join(layers, '4711'))
  writeFileSync(join(daemon.root, 'records', '4712'), '')
  const seen = await check(daemon)
  assert.deepEqual(seen.differences.map(({ kind }) => kind).sort(), [
    'layer-damaged',
    'layer-stray',
    'record-stray',
  ])
  const repaired = await check(daemon, '--repair')
  assert.deepEqual([repaired.code, repaired.summary.left], [0, 0], JSON.stringify(repaired.differences))
  await isClean()
  assert.equal(existsSync(join(layers, '4711')), false)
  const pod = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(pod, 'cat /one', { image: { image } }), 'of a layer')
  await daemon.client.image('RemoveImage', { image: { image } })
  await goesOn()
})

test('directories that everything is in are made again', async () => {
  const { daemon } = kubelet()
  const { pod, goesOn } = await living()
  // Without `exits` the daemon makes all of them again by itself, within seconds.
  for (const name of ['tmp', 'execs']) rmSync(join(daemon.runRoot, name), { recursive: true })
  const seen = await check(daemon, '--repair')
  assert.deepEqual(
    seen.differences.map(({ kind, state }) => [kind, state]),
    [
      ['directory-missing', 'REPAIRED'],
      ['directory-missing', 'REPAIRED'],
    ],
  )
  await isClean()
  await goesOn()
  assert.equal((await kubelet().exited(await kubelet().run(pod, 'exit 5'))).exit_code, 5)
})
