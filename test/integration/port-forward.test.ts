import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { connectLocally } from '../../src/os/connect.ts'
import * as mounts from '../../src/os/mounts.ts'
import { NamespacePins } from '../../src/os/namespaces.ts'
import { warmThreadPool } from '../../src/os/node.ts'
import { type Child, start } from '../../src/os/spawn.ts'
import { ScratchMount } from '../support/scratch-mount.ts'
import { until } from '../support/wait.ts'

const scratch = new ScratchMount()
const never = new AbortController().signal
let pins: NamespacePins
let netns: string
let inside: Child

/**
 * What listens inside: 7001 sends back what it got once the client has ended, 7002 the same on IPv6 alone, 7003 speaks
 * first and ends first, 7004 resets.
 */
const SERVERS = `
  const net = require('node:net')
  const whole = socket => { const got = []; socket.on('data', d => got.push(d)).on('end', () => socket.end(Buffer.concat(got))) }
  let waiting = 4
  const ready = () => --waiting === 0 && process.stdout.write('ready')
  const at = (port, host, serve) => net.createServer({ allowHalfOpen: true }, serve).listen(port, host, ready)
  at(7001, '127.0.0.1', whole)
  at(7002, '::1', whole)
  at(7003, '127.0.0.1', socket => { socket.end('first\\n'); socket.on('data', d => process.stdout.write(d)) })
  at(7004, '127.0.0.1', socket => socket.resetAndDestroy())
`

let said = ''

before(async () => {
  await warmThreadPool()
  pins = await NamespacePins.open()
  const dir = scratch.directory('pins')
  mounts.makePrivateMountPoint(dir)
  const pod = join(dir, 'ns')
  await pins.create({ dir: pod, network: true, ipc: false, uts: false, hostname: '', sysctls: {} })
  netns = join(pod, 'net')
  inside = start('/usr/bin/nsenter', {
    args: [`--net=${netns}`, process.execPath, '-e', SERVERS],
    env: {},
    fds: ['null', 'pipe-read', 2],
  })
  inside.streams[1]?.on('data', chunk => {
    said += chunk
  })
  await until('the servers listen', () => said.includes('ready'))
})

after(async () => {
  inside.kill('SIGKILL')
  await inside.exited
  for (const stream of inside.streams) stream?.destroy()
  pins.remove(join(netns, '..'))
  await pins.close()
})

const connect = (port: number): Promise<Socket> => connectLocally(pins, netns, port, never)

test('what is sent comes back after the half-close, over IPv4 and where there is only IPv6', async () => {
  for (const port of [7001, 7002]) {
    const socket = await connect(port)
    socket.end(`hello ${port}`)
    assert.equal(await text(socket), `hello ${port}`)
  }
})

test('a target that ends first is still written to', async () => {
  const socket = await connect(7003)
  assert.equal(await text(socket), 'first\n')
  socket.end('after its end\n')
  await until('it has read', () => said.includes('after its end'))
  socket.destroy()
})

test('many connections at once', async () => {
  const sockets = await Promise.all(Array.from({ length: 200 }, () => connect(7001)))
  const answers = sockets.map(async (socket, i) => {
    socket.end(`${i}`)
    return await text(socket)
  })
  assert.deepEqual(
    await Promise.all(answers),
    sockets.map((_, i) => `${i}`),
  )
})

test('a storm of connections is served, and pods that need the same thread come first', async () => {
  let made = 0
  const sockets = Array.from({ length: 1500 }, async () => {
    closeSync(await pins.tcpSocket(netns, 4))
    made++
  })
  assert.ok((await pins.interfaceCounters(netns)).length > 0)
  assert.ok(made < 100, `${made} sockets came before`)
  await Promise.all(sockets)
})

test('a closed port is refused, and the next call goes well', async () => {
  await assert.rejects(connect(7999), { code: 'ECONNREFUSED', message: /127\.0\.0\.1:7999/ })
  const socket = await connect(7001)
  socket.end('x')
  assert.equal(await text(socket), 'x')
})

test('a reset before anybody listens for errors harms nothing', async () => {
  // It may come before the connection is known to stand.
  const socket = await connect(7004).catch((error: Error) => error)
  if (socket instanceof Error) assert.match(socket.message, /ECONNRESET/)
  else await until('it is closed', () => socket.destroyed)
})

test('the namespace is the pod’s: its ports are not the node’s, nor the other way round', async () => {
  const server: Server = createServer(socket => socket.end('the node'))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const socket = await connectLocally(pins, undefined, port, never)
  assert.equal(await text(socket), 'the node')
  socket.destroy()
  await assert.rejects(connect(port), { code: 'ECONNREFUSED' })
  await assert.rejects(connectLocally(pins, undefined, 7001, never), { code: 'ECONNREFUSED' })
  server.close()
})

test('a cancelled one is given up; a namespace that is gone is an error and costs nobody else', async () => {
  const abort = new AbortController()
  const connecting = connectLocally(pins, netns, 7001, abort.signal)
  abort.abort()
  await assert.rejects(connecting, { code: 'cancelled' })
  await assert.rejects(connectLocally(pins, `${netns}-gone`, 7001, never), /ENOENT/)
  ;(await connect(7001)).destroy()
})
