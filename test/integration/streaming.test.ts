import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterEach, test } from 'node:test'
import { crictlPath } from '../support/daemon.ts'
import { FOREVER } from '../support/kubelet.ts'
import { SpdyClient } from '../support/spdy-client.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const skip = crictlPath() === '' ? 'crictl is not built: Go was missing at set-up' : false
// Before what looks for leftovers.
afterEach(() => Crictl.killAll())
const kubelet = useDaemon({ skip })

/** A crictl that is talked to while it runs. */
class Crictl {
  static readonly #all = new Set<ChildProcess>()
  readonly #chunks: Buffer[] = []
  errors = ''
  readonly child: ChildProcess
  readonly exited: Promise<number>

  /** @param terminal under a pseudo-terminal of 31 lines of 90 characters */
  constructor(args: readonly string[], { terminal = false } = {}) {
    const command = [
      crictlPath(),
      '-c',
      '/dev/null',
      '-r',
      `unix://${kubelet().daemon.socket}`,
      '-t',
      '20s',
      ...args,
    ]
    const quoted = command.map(word => `'${word}'`).join(' ')
    this.child = terminal
      ? spawn('script', ['-qec', `stty rows 31 cols 90; exec ${quoted}`, '/dev/null'])
      : spawn(command[0]!, command.slice(1))
    Crictl.#all.add(this.child)
    this.child.stdout!.on('data', chunk => this.#chunks.push(chunk))
    this.child.stderr!.on('data', chunk => {
      this.errors += chunk
    })
    this.child.stdin!.on('error', () => undefined)
    this.exited = new Promise(resolve => {
      this.child.once('close', (code, signal) => {
        Crictl.#all.delete(this.child)
        resolve(signal === null ? code! : -1)
      })
    })
  }

  static killAll(): void {
    for (const child of Crictl.#all) child.kill('SIGKILL')
  }

  get output(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  type(input: string | Buffer): void {
    this.child.stdin!.write(input)
  }

  end(input: string | Buffer = ''): void {
    this.child.stdin!.end(input)
  }

  async says(what: RegExp): Promise<void> {
    await until(`crictl says ${what}`, () => what.test(this.output.toString()))
  }
}

const TRANSPORTS = ['spdy', 'websocket'] as const

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

for (const transport of TRANSPORTS) {
  test(`exec over ${transport}: output, errors, input and its end, exit codes`, { skip }, async () => {
    const id = await kubelet().run(await kubelet().runPod(), FOREVER)
    const exec = (...args: string[]) => new Crictl(['exec', '--transport', transport, ...args])
    const failing = exec(id, 'sh', '-c', 'echo out; echo err >&2; exit 7')
    failing.end()
    assert.notEqual(await failing.exited, 0)
    assert.equal(failing.output.toString(), 'out\n')
    assert.match(failing.errors, /^err\n.*exit code 7/s)

    const bytes = randomBytes(8 << 20)
    const cat = exec('-i', id, 'cat')
    cat.end(bytes)
    assert.equal(await cat.exited, 0)
    assert.equal(sha256(cat.output), sha256(bytes))

    const missing = exec(id, 'no-such-program')
    missing.end()
    assert.notEqual(await missing.exited, 0)
    assert.match(missing.errors, /no-such-program/)
  })

  test(`exec -it over ${transport}, under a terminal`, { skip }, async () => {
    const id = await kubelet().run(await kubelet().runPod(), FOREVER)
    const shell = new Crictl(['exec', '-it', '--transport', transport, id, 'sh'], { terminal: true })
    await shell.says(/[#$] /)
    shell.type('tty; stty size\n')
    await shell.says(/\/dev\/pts\/0\r\n31 90\r\n/)
    shell.type('exit 5\n')
    assert.notEqual(await shell.exited, 0)
    assert.match(shell.output.toString(), /exit code 5/)
  })

  test(`attach over ${transport}: input once, and everybody sees the output`, { skip }, async () => {
    const once = { stdin: true, stdin_once: true }
    const id = await kubelet().run(await kubelet().runPod(), 'while read line; do echo got $line; done', once)
    const watching = new Crictl(['attach', '--transport', transport, id])
    const typing = new Crictl(['attach', '-i', '--transport', transport, id])
    // An attach has no history: it is there when it shows something.
    await until('both are attached', () => {
      typing.type('x\n')
      return watching.output.includes('got x') && typing.output.includes('got x')
    })
    typing.type('hello\n')
    typing.end()
    assert.equal(await typing.exited, 0)
    assert.equal(await watching.exited, 0)
    for (const { output } of [watching, typing]) assert.match(output.toString(), /got hello\n$/)
    assert.equal((await kubelet().exited(id)).exit_code, 0)
  })

  test(`port-forward over ${transport}: connections, a refused one, a target that answers late`, {
    skip,
  }, async () => {
    const pod = await kubelet().runPod()
    await kubelet().run(pod, `nc -ll -p 8080 -e sh -c 'read x; sleep 1.2; echo you said $x'`)
    const forward = new Crictl(['port-forward', '--transport', transport, pod.id, '18080:8080'])
    await forward.says(/Forwarding from 127\.0\.0\.1:18080/)
    const ask = async (word: string) => {
      const socket = connect({ port: 18_080, host: '127.0.0.1', allowHalfOpen: true })
      socket.end(`${word}\n`)
      return await text(socket)
    }
    const words = Array.from({ length: 10 }, (_, index) => `word${index}`)
    assert.deepEqual(
      await Promise.all(words.map(ask)),
      words.map(word => `you said ${word}\n`),
    )
    const refused = new Crictl(['port-forward', '--transport', transport, pod.id, '18081:1'])
    await refused.says(/Forwarding from 127\.0\.0\.1:18081/)
    const socket = connect(18_081, '127.0.0.1')
    socket.on('error', () => undefined)
    await until('the reason is told', () => /error forwarding port 1: .*ECONNREFUSED/.test(refused.errors))
    assert.equal(await ask('again'), 'you said again\n')
    for (const { child } of [forward, refused]) child.kill('SIGTERM')
    await Promise.all([forward.exited, refused.exited])
  })
}

test('a client that is killed takes its command along, and leaves nothing in the daemon', {
  skip,
}, async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `nc -ll -p 8080 -e cat & ${FOREVER}`)
  const running = async () => (await kubelet().exec(id, 'ps')).stdout.match(/sleep 77777/g)?.length ?? 0
  const { pid } = kubelet().daemon
  const descriptors = () => readdirSync(`/proc/${pid}/fd`).length
  const round = async () => {
    const clients = [
      new Crictl(['exec', '-i', id, 'sleep', '77777']),
      new Crictl(['exec', '-i', '--transport', 'websocket', id, 'sleep', '77777']),
      new Crictl(['exec', '-it', id, 'sleep', '77777'], { terminal: true }),
      new Crictl(['attach', id]),
      new Crictl(['port-forward', pod.id, '18082:8080']),
    ]
    await until('the commands run', async () => (await running()) === 3)
    await clients[4]!.says(/Forwarding from/)
    const socket = connect(18_082, '127.0.0.1')
    socket.write('x')
    await new Promise(resolve => socket.once('data', resolve))
    for (const { child } of clients) child.kill('SIGKILL')
    await Promise.all(clients.map(client => client.exited))
    socket.destroy()
    await until('the commands are gone', async () => (await running()) === 0)
  }
  await round()
  const before = await until('the daemon is quiet', async () => {
    const count = descriptors()
    await kubelet().exec(id, 'true')
    return count === descriptors() && count
  })
  await round()
  await until('its descriptors are what they were', () => descriptors() <= before)
})

test('what the calls refuse', { skip }, async () => {
  const pod = await kubelet().runPod()
  const { client } = kubelet().daemon
  const created = await kubelet().create(pod, FOREVER)
  const exec = { container_id: created, cmd: ['true'], stdout: true }
  await assert.rejects(client.runtime('Exec', exec), { code: 'precondition', message: /created/ })
  await assert.rejects(client.runtime('Exec', { ...exec, container_id: 'none' }), { code: 'not-found' })
  const tty = { container_id: created, tty: true, stdout: true }
  await assert.rejects(client.runtime('Attach', tty), { message: /tty|terminal/ })
  await kubelet().stopPod(pod.id)
  await assert.rejects(client.runtime('PortForward', { pod_sandbox_id: pod.id, port: [80] }), {
    code: 'precondition',
  })
})

test('a daemon that stops ends its sessions and their commands; containers go on', { skip }, async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const { daemon } = kubelet()
  const { url } = await daemon.client.runtime('Exec', {
    container_id: id,
    cmd: ['sleep', '88888'],
    stdout: true,
  })
  const client = await SpdyClient.connect(url, { versions: ['v4.channel.k8s.io'] })
  const error = await client.open({ streamtype: 'error' })
  await client.open({ streamtype: 'stdout' })
  const clients = [
    new Crictl(['exec', '-i', '--transport', 'websocket', id, 'sleep', '88888']),
    new Crictl(['exec', '-it', id, 'sleep', '88888'], { terminal: true }),
    new Crictl(['attach', id]),
    new Crictl(['port-forward', pod.id, '18083:8080']),
  ]
  const running = async () => (await kubelet().exec(id, 'ps')).stdout.match(/sleep 88888/g)?.length ?? 0
  await until('the commands run', async () => (await running()) === 3)
  await clients[3]!.says(/Forwarding from/)
  assert.equal(await daemon.stop(), 0)
  await client.untilClosed()
  assert.match(error.received.toString(), /shutting down/)
  assert.equal(client.goaway, 0)
  await Promise.all(clients.map(({ exited }) => exited))
  await daemon.up()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal(await running(), 0)
})
