import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { test } from 'node:test'
import { setEffectHook } from '../../src/base/effects.ts'
import type { PodNetwork, PortMapping } from '../../src/model/pod.ts'
import type { NetworkTarget } from '../../src/network/network.ts'
import { start } from '../../src/os/spawn.ts'
import { DEBIAN, eventually, failure, output, PLUGIN_PATH, useCniHost } from '../support/cni.ts'

/** A directory with plugins of specification 1.1 (containernetworking/plugins 1.6 or newer), to test with those. */
const newer = process.env.BERTH_TEST_CNI_PLUGINS
const host = useCniHost(newer === undefined ? DEBIAN : { pluginDir: newer, cniVersion: '1.1.0' })

const portmap = { type: 'portmap', capabilities: { portMappings: true } }

const tcp = (hostPort: number, containerPort: number, hostIp = ''): PortMapping => ({
  protocol: 'tcp',
  hostPort,
  containerPort,
  hostIp,
})

/** Serves HTTP on port 80 inside the pod while `use` runs. */
async function serving(target: NetworkTarget, use: () => Promise<void>): Promise<void> {
  const program = `require('http').createServer((q, r) => r.end('from the pod')).listen(80, () => console.log('up'))`
  const server = start('/usr/bin/nsenter', {
    args: [`--net=${target.netns}`, process.execPath, '-e', program],
    env: { PATH: PLUGIN_PATH },
    fds: ['null', 'pipe-read', 2],
  })
  try {
    const [up] = await (server.streams[1] as Readable).take(1).toArray()
    assert.equal(String(up), 'up\n')
    await use()
  } finally {
    server.kill('SIGKILL')
    await server.exited
  }
}

async function get(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(5000), headers: { connection: 'close' } })
  return await response.text()
}

test('a pod gets an address and host ports, and leaves nothing behind', async () => {
  const cni = host()
  cni.configure([cni.bridge({ ipMasq: true }), portmap, { type: 'loopback' }])
  const network = cni.open()
  assert.equal(network.status().ready, true)
  const target = await cni.pod([tcp(8080, 80), tcp(0, 443), tcp(8081, 80, '127.0.0.1')])
  const attached = await network.attach(target)
  const [ip = ''] = attached.ips
  assert.match(ip, /^10\.77\.\d+\.\d+$/)
  assert.equal(network.canDetachWithoutNamespace(attached), false)
  await serving(target, async () => {
    assert.equal(await get(`http://${ip}/`), 'from the pod')
    assert.equal(await get('http://127.0.0.1:8080/'), 'from the pod')
    assert.equal(await get('http://127.0.0.1:8081/'), 'from the pod')
  })
  assert.notDeepEqual(await cni.held(), [])
  await network.detach(target, attached)
  assert.deepEqual(await cni.held(), [])
  await network.detach(target, attached)
  await assert.rejects(get('http://127.0.0.1:8080/'))
})

test('a network that allows it is left after the namespace is gone, without leftovers', async () => {
  const cni = host()
  cni.configure([cni.bridge(), portmap, { type: 'bandwidth', capabilities: { bandwidth: true } }])
  const network = cni.open()
  const target = { ...(await cni.pod([tcp(8082, 80)])), bandwidth: { ingress: 8_000_000 } }
  const attached = await network.attach(target)
  assert.equal(network.canDetachWithoutNamespace(attached), true)
  cni.destroyNamespace(target)
  await network.detach({ ...target, netns: '' }, attached)
  await eventually('nothing is held', async () => (await cni.held()).length === 0)
  await network.detach({ ...target, netns: '' }, attached)
})

test('a pin whose mount is gone, or that never was, is no obstacle to detach', async () => {
  const cni = host()
  cni.configure([cni.bridge()])
  const network = cni.open()
  const target = await cni.pod()
  const attached = await network.attach(target)
  cni.destroyNamespace(target)
  mkdirSync(join(cni.root, target.podId))
  writeFileSync(target.netns, '')
  await network.detach(target, attached)
  await eventually('nothing is held', async () => (await cni.held()).length === 0)
  await assert.rejects(network.attach(target), failure('precondition', /expected a pinned network namespace/))
})

test('the first pods of a bridge come in parallel and get addresses of their own', async () => {
  const cni = host()
  cni.configure([cni.bridge()])
  const network = cni.open()
  const targets = await Promise.all([cni.pod(), cni.pod(), cni.pod(), cni.pod()])
  const attached = await Promise.all(targets.map(target => network.attach(target)))
  assert.equal(new Set(attached.map(({ ips }) => ips[0])).size, 4)
  // Not by CHECK: a bridge takes the least hardware address among its ports, so its own is another with each pod.
  for (const [index, { netns }] of targets.entries()) {
    const shown = await output(
      '/usr/bin/nsenter',
      `--net=${netns}`,
      '/usr/sbin/ip',
      '-o',
      'addr',
      'show',
      'dev',
      'eth0',
    )
    assert.match(shown, new RegExp(` ${attached[index]!.ips[0]}/`))
  }
  await Promise.all(targets.map((target, index) => network.detach(target, attached[index]!)))
  assert.deepEqual(await cni.held(), [])
})

test('CHECK tells that an attachment is not what it was', async () => {
  const cni = host()
  cni.configure([cni.bridge()])
  const network = cni.open()
  const target = await cni.pod()
  const attached = await network.attach(target)
  await output('/usr/bin/nsenter', `--net=${target.netns}`, '/usr/sbin/ip', 'addr', 'flush', 'dev', 'eth0')
  await assert.rejects(
    network.check(target, attached),
    failure('internal', /bridge, CHECK of network "pods"/),
  )
  await network.detach(target, attached)
})

test('CHECK: the node may have given its end of a pod’s interface another hardware address, as udev does', async () => {
  const cni = host()
  cni.configure([cni.bridge()])
  const network = cni.open()
  const target = await cni.pod()
  const attached = await network.attach(target)
  const peer = /veth[0-9a-f]+/.exec(await output('/usr/sbin/ip', '-o', 'link', 'show', 'type', 'veth'))![0]
  await output('/usr/sbin/ip', 'link', 'set', peer, 'address', '02:11:22:33:44:55')
  await network.check(target, attached)
  await output('/usr/sbin/ip', 'link', 'del', peer)
  await assert.rejects(network.check(target, attached), failure('internal', /CHECK of network "pods"/))
  await network.detach(target, attached)
})

test('GC detaches pods that nobody knows any more', async () => {
  const cni = host()
  cni.configure([cni.bridge({ ipMasq: true }), portmap])
  const [living, forgotten] = [await cni.pod(), await cni.pod([tcp(8086, 80)])]
  const before = cni.open()
  const attached = await before.attach(living)
  const held = await cni.held()
  await before.attach(forgotten)
  // This process attached it, so it is known.
  await before.collectGarbage([])
  assert.ok((await cni.held()).length > held.length)
  // The daemon starts again with a database that has only one of them.
  const network = cni.open()
  await network.collectGarbage([{ podId: living.podId, ifName: 'eth0' }])
  assert.deepEqual(await cni.held(), held)
  await network.detach(living, attached)
  assert.deepEqual(await cni.held(), [])
})

test('a configuration may come and go while the daemon runs', async () => {
  const cni = host()
  const network = cni.open()
  const target = await cni.pod()
  const before = network.status()
  assert.equal(before.ready, false)
  assert.equal(before.reason, 'NetworkPluginNotReady')
  assert.ok(before.message.includes(`${cni.confDir}: no .conflist, .conf or .json file`), before.message)
  await assert.rejects(network.attach(target), failure('unavailable', /no usable network configuration/))
  await network.detach(target, undefined)

  cni.configure([cni.bridge()])
  const source = { file: join(cni.confDir, '10-pods.conflist'), name: 'pods' }
  assert.deepEqual(network.status(), { ready: true, reason: '', message: '', source })
  const attached = await network.attach(target)

  writeFileSync(source.file, '{')
  assert.match(network.status().message, /10-pods\.conflist: .*JSON/)
  rmSync(cni.confDir, { recursive: true })
  assert.match(network.status().message, /net\.d: does not exist/)
  await network.detach(target, attached)
  assert.deepEqual(await cni.held(), [])
})

test('killed at any effect of attach, a later detach leaves nothing', async () => {
  const cni = host()
  cni.configure([cni.bridge({ ipMasq: true }), portmap])
  const target = await cni.pod([tcp(8084, 80)])
  for (let stopAt = 0; ; stopAt++) {
    let count = 0
    // What a dead daemon does: nothing any more.
    const stop = () => {
      if (count++ >= stopAt) throw new Error('killed')
    }
    setEffectHook({ sync: stop, async: async () => stop() })
    const attached = await cni
      .open()
      .attach(target)
      .catch((): PodNetwork | undefined => undefined)
    setEffectHook(undefined)
    await cni.open().detach(target, attached)
    assert.deepEqual(await cni.held(), [], `stopped at effect ${stopAt}`)
    if (attached === undefined) continue
    assert.ok(stopAt >= 4, `attach has ${stopAt} effects`)
    break
  }
})

test('killed at any effect of detach, the next one finishes it', async () => {
  const cni = host()
  cni.configure([cni.bridge({ ipMasq: true }), portmap])
  const target = await cni.pod([tcp(8085, 80)])
  for (let stopAt = 0, stopped = true; stopped; stopAt++) {
    const attached = await cni.open().attach(target)
    let count = 0
    stopped = false
    const stop = () => {
      if (count++ < stopAt) return
      stopped = true
      throw new Error('killed')
    }
    setEffectHook({ sync: stop, async: async () => stop() })
    await cni
      .open()
      .detach(target, attached)
      .catch(() => undefined)
    setEffectHook(undefined)
    await cni.open().detach(target, attached)
    assert.deepEqual(await cni.held(), [], `stopped at effect ${stopAt}`)
  }
})
