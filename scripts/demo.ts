/**
 * What `npm run demo` shows: a pod with two containers, from a registry image, on the real kernel; a daemon that is
 * killed with SIGKILL meanwhile; and that nothing is left. Runs inside the network namespace that demo.sh made. Every
 * step is checked: the demo fails where Berth does.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BerthClient } from '../src/cri/client.ts'
import { busyboxImage } from '../test/support/images.ts'
import { TestRegistry } from '../test/support/registry.ts'

const repository = join(import.meta.dirname, '..')
const root = process.env.DEMO_ROOT!
const run = process.env.DEMO_RUN!
const cgroup = process.env.DEMO_CGROUP!
const socket = join(run, 'berth.sock')
const config = join(root, 'berth.conf')
const berth = join(repository, 'bin/berth')
const IMAGE = 'docker.io/library/hello:1'

const color = process.stdout.isTTY === true
const bold = (text: string) => (color ? `\x1b[1m${text}\x1b[0m` : text)
const dim = (text: string) => (color ? `\x1b[2m${text}\x1b[0m` : text)
const say = (text: string) => console.log(`\n${bold(`== ${text}`)}`)
const show = (text: string) => console.log(text.trimEnd().replace(/^/gm, '   '))

/** Berth's own command line, as an operator types it. */
async function cli(...args: string[]): Promise<void> {
  console.log(dim(`   $ berth ${args.join(' ')}`))
  const child = spawn(berth, [...args, '--config', config, '--listen', socket], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', data => (output += data))
  const [code] = await once(child, 'close')
  show(output)
  assert.equal(code, 0, `berth ${args[0]} failed`)
}

async function startDaemon(): Promise<ChildProcess> {
  const log = openSync(join(root, 'berth.log'), 'a')
  const child = spawn(berth, ['daemon', '--config', config], { stdio: ['ignore', log, log] })
  writeFileSync(`${run}.pid`, String(child.pid))
  for (let tries = 0; tries < 200; tries++) {
    if (child.exitCode !== null) break
    try {
      using client = await BerthClient.connect(socket, join(repository, 'proto'), { timeoutMs: 2000 })
      await client.runtime('Status', {})
      return child
    } catch {
      await sleep(50) // not there yet, or still recovering
    }
  }
  throw new Error(`the daemon did not start:\n${readFileSync(join(root, 'berth.log'), 'utf8')}`)
}

function configure(registry: string): void {
  const network = {
    cniVersion: '1.0.0',
    name: 'demo',
    plugins: [
      {
        type: 'bridge',
        bridge: 'demo0',
        isGateway: true,
        ipam: {
          type: 'host-local',
          dataDir: join(root, 'addresses'),
          ranges: [[{ subnet: '10.88.0.0/24' }]],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  }
  mkdirSync(join(root, 'net.d'))
  writeFileSync(join(root, 'net.d/10-demo.conflist'), JSON.stringify(network))
  const mirror = `[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "${registry}"\ninsecure = true\n`
  writeFileSync(join(root, 'registries.conf'), mirror)
  writeFileSync(
    config,
    `[crio]
root = "${root}/berth"
runroot = "${run}"

[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"

[berth.runtime]
pod_cgroup_parent = "${cgroup}"

[crio.image]
registries_conf = "${root}/registries.conf"
registries_conf_dir = "${root}/registries.conf.d"

[crio.network]
network_dir = "${root}/net.d"
plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
`,
  )
}

const POD = {
  metadata: { name: 'web', namespace: 'demo', uid: '6d4f1a1c', attempt: 0 },
  hostname: 'web',
  log_directory: join(root, 'logs'),
  labels: { 'io.kubernetes.pod.name': 'web', 'io.kubernetes.pod.namespace': 'demo' },
  linux: { security_context: { namespace_options: { pid: 'CONTAINER' as const } } },
}

const CONTAINERS = [
  {
    name: 'server',
    command: ['sh', '-c', 'echo "serving on $(hostname -i)"; exec httpd -f -p 8080 -h /www'],
  },
  {
    name: 'client',
    command: ['sh', '-c', 'while :; do wget -q -O - http://127.0.0.1:8080/index.html; sleep 1; done'],
  },
]

async function startContainers(client: BerthClient, pod: string): Promise<string[]> {
  const ids: string[] = []
  for (const { name, command } of CONTAINERS) {
    const { container_id } = await client.runtime('CreateContainer', {
      pod_sandbox_id: pod,
      sandbox_config: POD,
      config: {
        metadata: { name, attempt: 0 },
        image: { image: IMAGE },
        command,
        log_path: `${name}.log`,
        linux: { resources: { memory_limit_in_bytes: String(64 * 2 ** 20), cpu_shares: '256' } },
      },
    })
    await client.runtime('StartContainer', { container_id })
    ids.push(container_id)
  }
  return ids
}

async function pids(client: BerthClient, ids: readonly string[]): Promise<number[]> {
  const found: number[] = []
  for (const container_id of ids) {
    const { info } = await client.runtime('ContainerStatus', { container_id, verbose: true })
    found.push(JSON.parse(info.info ?? '{}').pid)
  }
  return found
}

async function look(client: BerthClient, ids: readonly string[]): Promise<void> {
  say('Its logs, a command inside, its figures')
  const log = join(root, 'logs', 'client.log')
  for (let tries = 0; tries < 100 && !readFileSync(log, 'utf8').includes('hello'); tries++) await sleep(100)
  const lines = readFileSync(log, 'utf8')
    .split('\n')
    .filter(line => line.includes('hello'))
  assert.ok(lines.length > 0, 'the client container reached the server container over the pod network')
  show(readFileSync(join(root, 'logs', 'server.log'), 'utf8') + lines[0])
  const { stdout, exit_code } = await client.runtime('ExecSync', {
    container_id: ids[0]!,
    cmd: ['sh', '-c', 'hostname; ps | head -4'],
    timeout: '5',
  })
  assert.equal(exit_code, 0)
  show(stdout.toString())
  const { stats } = await client.runtime('ListContainerStats', {})
  assert.equal(stats.length, 2)
  for (const { attributes, cpu, memory } of stats) {
    const cpuMs = Number(cpu?.usage_core_nano_seconds?.value ?? 0) / 1e6
    const kib = Number(memory?.working_set_bytes?.value ?? 0) / 1024
    show(`${(attributes?.metadata?.name ?? '').padEnd(8)} cpu ${cpuMs.toFixed(0)} ms   memory ${kib} KiB`)
  }
}

async function crash(
  daemon: ChildProcess,
  ids: readonly string[],
  pod: string,
  ip: string,
): Promise<ChildProcess> {
  using before = await BerthClient.connect(socket, join(repository, 'proto'), { timeoutMs: 10_000 })
  const processes = await pids(before, ids)
  say(`SIGKILL to the daemon (pid ${daemon.pid}), and a new one`)
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
  const next = await startDaemon()
  using client = await BerthClient.connect(socket, join(repository, 'proto'), { timeoutMs: 10_000 })
  const { status } = await client.runtime('PodSandboxStatus', { pod_sandbox_id: pod })
  assert.equal(status?.state, 'SANDBOX_READY')
  assert.equal(status?.network?.ip, ip)
  assert.deepEqual(await pids(client, ids), processes)
  show(`the pod is READY with ${ip}, its processes are still ${processes.join(' and ')}`)
  return next
}

async function remove(pod: string): Promise<void> {
  say('Removing everything')
  using client = await BerthClient.connect(socket, join(repository, 'proto'), { timeoutMs: 30_000 })
  await client.runtime('StopPodSandbox', { pod_sandbox_id: pod })
  await client.runtime('RemovePodSandbox', { pod_sandbox_id: pod })
  await client.image('RemoveImage', { image: { image: IMAGE } })
  const { containers } = await client.runtime('ListContainers', {})
  const { items } = await client.runtime('ListPodSandbox', {})
  assert.equal(containers.length + items.length, 0)
}

/** Whatever in the kernel or on disk still names the demo's directories. */
function leftovers(): string[] {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .filter(line => line.includes(root) || line.includes(run))
  const processes = readdirSync('/proc')
    .filter(name => /^[0-9]+$/.test(name) && Number(name) !== process.pid)
    .filter(name => existsSync(`/proc/${name}/cmdline`) && commandOf(name).includes(run))
  const groups = ['memory', 'pids', 'unified', '']
    .map(tree => join('/sys/fs/cgroup', tree, cgroup))
    .filter(existsSync)
  const addresses = join(root, 'addresses', 'demo')
  const held = readdirSync(addresses).filter(name => /^[0-9.]+$/.test(name))
  return [...mounts, ...processes, ...groups, ...held]
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // it has ended meanwhile
  }
}

async function main(): Promise<void> {
  const registry = await TestRegistry.start()
  const image = await busyboxImage({ cmd: ['sh'], files: { '/www/index.html': 'hello from the pod\n' } })
  registry.push(image, 'library/hello', '1')
  configure(registry.address)

  say('berth daemon')
  let daemon = await startDaemon()
  try {
    await cli('status')
    say('An image from a registry, over the OCI distribution API')
    await cli('pull', IMAGE)
    say('A pod with two containers: CNI, conmon, runc')
    let pod: string
    let ids: string[]
    let ip: string
    {
      using client = await BerthClient.connect(socket, join(repository, 'proto'), { timeoutMs: 30_000 })
      pod = (await client.runtime('RunPodSandbox', { config: POD })).pod_sandbox_id
      ids = await startContainers(client, pod)
      const { status } = await client.runtime('PodSandboxStatus', { pod_sandbox_id: pod })
      ip = status?.network?.ip ?? ''
      assert.match(ip, /^10\.88\.0\./)
      show(
        `pod ${pod.slice(0, 12)} has ${ip}; containers ${ids.map(id => id.slice(0, 12)).join(' and ')} run`,
      )
      await look(client, ids)
    }
    say('Where the time went')
    await cli('timeline', 'demo/web')
    daemon = await crash(daemon, ids, pod, ip)
    await remove(pod)
  } finally {
    daemon.kill('SIGTERM')
    await once(daemon, 'exit')
    await registry.close()
  }
  const left = leftovers()
  assert.deepEqual(left, [], 'something is left behind')
  show('no process, mount, cgroup or address is left')
  say('Done')
}

await main()
