import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import { isAlive, processRef } from '../../src/os/processes.ts'
import { DEBIAN, eventually, failure, PLUGIN_PATH, useCniHost } from '../support/cni.ts'

const host = useCniHost()

const ANSWER = `echo '{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.7/24"}]}'`

test('plugins see what the specification says and nothing of the daemon', async () => {
  const cni = host()
  cni.script('first', ANSWER)
  cni.script('second', `echo '{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.8/24"}]}'`)
  const ports = [80, 0].map(
    hostPort => ({ protocol: 'tcp', hostPort, containerPort: 8000 + hostPort, hostIp: '' }) as const,
  )
  const second = { type: 'second', capabilities: { portMappings: true, bandwidth: false }, ownMember: 1 }
  cni.configure([{ type: 'first' }, second])
  const network = cni.open()
  const target = { ...(await cni.pod(ports)), bandwidth: { ingress: 1000 } }
  const attached = await network.attach(target)
  assert.deepEqual(attached.ips, ['192.0.2.8'])
  const environmentOf = (verb: string) => [
    `CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=${target.podId};K8S_POD_UID=uid-1`,
    `CNI_COMMAND=${verb}`,
    `CNI_CONTAINERID=${target.podId}`,
    'CNI_IFNAME=eth0',
    `CNI_NETNS=${target.netns}`,
    `CNI_PATH=${cni.pluginDir}:${DEBIAN.pluginDir}`,
    `PATH=${PLUGIN_PATH}`,
  ]
  // The shell adds PWD.
  const seen = (type: string) =>
    cni
      .recorded(type, 'env')
      .split('\n')
      .filter(line => !/^(PWD|OLDPWD|SHLVL|_)=/.test(line))
  const firstResult = { cniVersion: '1.0.0', interfaces: [], ips: [{ address: '192.0.2.7/24' }] }
  const lastResult = { ...firstResult, ips: [{ address: '192.0.2.8/24' }] }
  const own = { cniVersion: '1.0.0', name: 'pods' }
  const secondOwn = {
    ...own,
    type: 'second',
    ownMember: 1,
    runtimeConfig: { portMappings: [{ hostPort: 80, containerPort: 8080, protocol: 'tcp' }] },
  }
  assert.deepEqual(seen('first'), environmentOf('ADD'))
  assert.deepEqual(JSON.parse(cni.recorded('first', 'stdin')), { ...own, type: 'first' })
  assert.deepEqual(JSON.parse(cni.recorded('second', 'stdin')), { ...secondOwn, prevResult: firstResult })

  await network.check(target, attached)
  assert.deepEqual(JSON.parse(cni.recorded('first', 'stdin')), {
    ...own,
    type: 'first',
    prevResult: lastResult,
  })
  await network.detach(target, attached)
  assert.deepEqual(seen('second'), environmentOf('DEL'))
  assert.deepEqual(JSON.parse(cni.recorded('second', 'stdin')), { ...secondOwn, prevResult: lastResult })
  assert.equal(cni.recorded('first', 'calls'), 'ADD\nCHECK\nDEL')
})

test('DEL runs in reverse order, stops at a failure and is finished by the next try', async () => {
  const cni = host()
  cni.script('lower', ANSWER)
  cni.script('upper', `${ANSWER}; [ "$CNI_COMMAND" = ADD ] || [ -e "$0.healthy" ]`)
  cni.configure([{ type: 'lower' }, { type: 'upper' }])
  const network = cni.open()
  const target = await cni.pod()
  const attached = await network.attach(target)
  await assert.rejects(network.detach(target, attached), failure('internal', /upper, DEL of network "pods"/))
  assert.equal(cni.recorded('lower', 'calls'), 'ADD')
  writeFileSync(join(cni.pluginDir, 'upper.healthy'), '')
  await network.detach(target, attached)
  assert.equal(cni.recorded('lower', 'calls'), 'ADD\nDEL')
})

test('a failed ADD is undone by the configuration it was begun with', async () => {
  const cni = host()
  cni.script(
    'refusing',
    `[ "$CNI_COMMAND" = DEL ] || { echo '{"code":7,"msg":"no thanks","details":"really"}'; exit 1; }`,
  )
  cni.configure([cni.bridge(), { type: 'refusing' }])
  const target = await cni.pod()
  await assert.rejects(
    cni.open().attach(target),
    failure(
      'internal',
      /CNI plugin refusing, ADD of network "pods", after \d+ ms: code 7: no thanks \(really\)/,
    ),
  )
  assert.notDeepEqual(await cni.held(), [])
  // The daemon dies, and somebody writes another configuration.
  cni.configure([cni.script('other', '')], { name: 'other' })
  const network = cni.open()
  await network.detach(target, undefined)
  assert.deepEqual(await cni.held(), [])
  assert.equal(cni.recorded('other', 'calls'), '')
  await network.detach(target, undefined)
  assert.equal(cni.recorded('other', 'calls'), 'DEL')
})

test('what a plugin says decides whether a later try may succeed', async () => {
  const cni = host()
  cni.script('busy', `echo '{"code":11,"msg":"try again later"}'; exit 1`)
  cni.configure([{ type: 'busy' }])
  const network = cni.open()
  await assert.rejects(network.attach(await cni.pod()), failure('unavailable', /code 11: try again later/))
})

test('output that is no result is shown, cut and on one line', async () => {
  const cni = host()
  const cases: Array<[string, RegExp]> = [
    ['echo garbage', /expected a result as a JSON object, found "garbage"/],
    ['true', /expected a result as a JSON object, found nothing/],
    ['head -c 3000000 /dev/zero', /larger than 1048576 bytes/],
    ['echo oh >&2; echo no >&2; exit 3', /exited with 3 and without a CNI error, printed "oh no"/],
    ['kill -9 $$', /exited with 137/],
    [`echo '{"ips":[{"address":"300.0.0.1/8"}]}'`, /result\.ips\[0\]\.address/],
    ['echo "{}"', /network pods gave the pod no address/],
  ]
  const network = cni.open()
  for (const [body, message] of cases) {
    cni.configure([cni.script('broken', body)])
    const target = await cni.pod()
    await assert.rejects(network.attach(target), failure('internal', message))
  }
})

test('a plugin that hangs is killed with all it started', async () => {
  const cni = host()
  cni.configure([cni.script('hanging', 'sleep 1000 & echo $! > "$0.child"; wait')])
  const target = await cni.pod()
  const childFile = join(cni.pluginDir, 'hanging.child')
  const childIsGone = () => {
    const child = processRef(Number(readFileSync(childFile, 'utf8')))
    return child === undefined || !isAlive(child)
  }
  await assert.rejects(
    cni.open({ timeouts: { ADD: 300 } }).attach(target),
    failure('deadline', /CNI plugin hanging, ADD of network "pods", after \d+ ms/),
  )
  await eventually('the child of the plugin is gone', childIsGone)

  rmSync(childFile)
  const abort = new AbortController()
  const attaching = cni.open().attach(target, abort.signal)
  await eventually('the plugin runs', () => existsSync(childFile))
  abort.abort()
  await assert.rejects(attaching, failure('cancelled'))
  await eventually('the child of the plugin is gone', childIsGone)
})

test('a plugin is what root put into a plugin directory', async () => {
  const cni = host()
  cni.script('mine', ANSWER)
  cni.configure([{ type: 'mine', ipam: { type: 'inside-mine' } }, { type: 'other' }])
  const network = cni.open()
  const file = join(cni.pluginDir, 'mine')
  assert.match(network.status().message, /other: not found; \/usr\/lib\/cni\/other: not found$/)
  cni.script('other', 'true')
  assert.equal(network.status().ready, true)

  chownSync(file, 65534, 65534)
  assert.match(network.status().message, /mine: expected a file owned by root, owner is uid 65534/)
  chownSync(file, 0, 0)
  chmodSync(file, 0o757)
  assert.match(network.status().message, /mine: expected a file that not everybody may write/)
  chmodSync(file, 0o644)
  assert.match(network.status().message, /mine: expected an executable file/)
  const target = await cni.pod()
  await assert.rejects(network.attach(target), failure('unavailable', /mine: expected an executable file/))
  assert.equal(cni.recorded('mine', 'calls'), '')
})

test('plugins of specification 1.1 are asked how they are', async () => {
  const cni = host()
  cni.script(
    'agent',
    `[ "$CNI_COMMAND" != STATUS ] || [ -e "$0.up" ] || { echo '{"code":50,"msg":"agent is down"}'; exit 1; }`,
  )
  cni.configure([{ type: 'agent' }], { cniVersion: '1.1.0' })
  const network = cni.open({ statusIntervalMs: 50 })
  await eventually('not ready', () => !network.status().ready)
  assert.match(
    network.status().message,
    /agent, STATUS of network "pods", after \d+ ms: code 50: agent is down/,
  )
  writeFileSync(join(cni.pluginDir, 'agent.up'), '')
  await eventually('ready', () => network.status().ready)
  network.close()

  cni.forgetCalls('agent')
  cni.configure([{ type: 'agent' }], { cniVersion: '1.0.0' })
  const older = cni.open({ statusIntervalMs: 50 })
  assert.equal(older.status().ready, true)
  await older.collectGarbage([])
  assert.equal(cni.recorded('agent', 'calls'), '')
})

test('GC tells all plugins which attachments live, those included that came since', async () => {
  const cni = host()
  cni.script(
    'first',
    `[ "$CNI_COMMAND" != GC ] || { echo '{"code":9,"msg":"no broom"}'; exit 1; }; ${ANSWER}`,
  )
  cni.script('second', ANSWER)
  cni.configure([{ type: 'first' }, { type: 'second' }], { cniVersion: '1.1.0' })
  const network = cni.open()
  const target = await cni.pod()
  const attached = await network.attach(target)
  const known = newId()
  await assert.rejects(
    network.collectGarbage([{ podId: known, ifName: 'net1' }]),
    failure('internal', /first, GC of network "pods".*no broom/),
  )
  const { 'cni.dev/valid-attachments': valid } = JSON.parse(cni.recorded('second', 'stdin'))
  assert.deepEqual(valid, [
    { containerID: known, ifname: 'net1' },
    { containerID: target.podId, ifname: 'eth0' },
  ])
  await network.detach(target, attached)
  cni.configure([{ type: 'second' }], { cniVersion: '1.1.0', disableGC: true })
  cni.forgetCalls('second')
  await network.collectGarbage([])
  assert.doesNotMatch(cni.recorded('second', 'calls'), /GC/)
})
