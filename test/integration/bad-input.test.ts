import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js'
import fc from 'fast-check'
import { mutated as mutatedBytes } from '../fuzz/target.ts'
import { CALLS, type Call, encode, type Json, mutated, namesField, wild } from '../support/cri-shapes.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'

/*
 * What a client may send is anything that has the shape of the interface. A daemon gets some thousand requests that
 * are right but for one member, or wrong all over: it answers each with a code that says whose fault it is and with
 * the member's name, goes on, and keeps nothing of those it refused.
 */

const kubelet = useDaemon()

/** The same requests in every run, unless another seed is asked for. */
const SEED = Number(process.env.BERTH_TEST_SEED ?? 1)
const AT_A_TIME = 8
const DEADLINE_MS = 60_000

/** No call may be answered otherwise: INTERNAL would be a defect of the daemon's. */
const REFUSALS: readonly status[] = [
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
  status.RESOURCE_EXHAUSTED,
  status.UNIMPLEMENTED,
]

let serial = 1000
let richPodName = ''

type Outcome = { readonly code: status; readonly message: string }

let client: Client | undefined
after(() => client?.close())

/** Takes bytes as they are. */
function rawClient(): Client {
  const options = { 'grpc.max_send_message_length': -1 }
  client ??= new Client(`unix:${kubelet().daemon.socket}`, credentials.createInsecure(), options)
  return client
}

function send({ path, streams }: Call, bytes: Buffer): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>()
  const options = { deadline: Date.now() + DEADLINE_MS }
  const same = (data: Buffer) => data
  const end = (error: ServiceError | null) =>
    resolve({ code: error?.code ?? status.OK, message: error?.details ?? '' })
  if (!streams) {
    rawClient().makeUnaryRequest(path, same, same, bytes, options, end)
    return promise
  }
  const stream = rawClient().makeServerStreamRequest(path, same, same, bytes, options)
  stream.on('data', () => undefined)
  stream.on('error', (error: ServiceError) => end(error))
  stream.on('end', () => end(null))
  return promise
}

type Case = { readonly name: string; readonly call: Call; readonly request: Json }

function casesOf(name: string, count: number, requests: (call: Call) => fc.Arbitrary<Json>): Case[] {
  const call = CALLS.get(name)
  assert.ok(call !== undefined, name)
  return fc.sample(requests(call), { numRuns: count, seed: SEED }).map(request => ({ name, call, request }))
}

/** Cases side by side must not be the same pod or container; what a case does to its own name stays. */
function withOwnName(one: Case): Case {
  const config = one.request.config as Json | null
  const metadata = config?.metadata as Json | null | undefined
  if (metadata?.name !== 'main' && metadata?.name !== richPodName) return one
  return {
    ...one,
    request: { ...one.request, config: { ...config, metadata: { ...metadata, attempt: ++serial } } },
  }
}

/** Sends all of them; how many were answered with each code. */
async function tryAll(cases: readonly Case[]): Promise<Map<string, number>> {
  const codes = new Map<string, number>()
  await inTurns(cases, async one => {
    const outcome = await send(one.call, encode(one.call, one.request))
    check(one, outcome)
    codes.set(status[outcome.code], (codes.get(status[outcome.code]) ?? 0) + 1)
  })
  return codes
}

async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async () => {
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) await work(next)
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, worker))
}

function check({ name, call, request }: Case, { code, message }: Outcome): void {
  if (code === status.OK) return
  const shown = () => `${name} ${JSON.stringify(request)?.slice(0, 3000)}\n→ ${status[code]}: ${message}`
  // A pull's failures have this code, whatever they are: kubelet reads their messages only with it.
  const isPull = name === 'PullImage' && code === status.UNKNOWN
  assert.ok(REFUSALS.includes(code) || isPull, shown())
  assert.ok(message !== '' && Buffer.byteLength(message) <= 8192, shown())
  assert.doesNotMatch(message, /[\x00-\x1f\x7f-\x9f]/, shown())
  if (code === status.INVALID_ARGUMENT) assert.ok(namesField(call, message), shown())
}

async function isUnharmed(pid: number): Promise<void> {
  const { daemon } = kubelet()
  assert.equal(daemon.pid, pid)
  await daemon.client.runtime('Version', {})
  await kubelet().removeAll()
  assert.deepEqual(await daemon.leftovers(), [])
}

/** Everything that a pod may ask for. */
function richPod(): Json {
  const { metadata, hostname, log_directory, linux } = kubelet().podConfig()
  richPodName = metadata?.name ?? ''
  return {
    metadata: { ...metadata },
    hostname,
    log_directory,
    dns_config: { servers: ['10.0.0.1'], searches: ['svc.local'], options: ['ndots:5'] },
    port_mappings: [{ protocol: 0, container_port: 80, host_port: 8080, host_ip: '127.0.0.1' }],
    labels: { app: 'web' },
    annotations: { note: 'x' },
    linux: {
      cgroup_parent: linux?.cgroup_parent,
      sysctls: { 'net.ipv4.ip_unprivileged_port_start': '0' },
      security_context: { namespace_options: { network: 0, pid: 1, ipc: 0 }, run_as_user: { value: '0' } },
      resources: { cpu_shares: '1024', memory_limit_in_bytes: '100000000' },
    },
  }
}

function richContainer(): Json {
  return {
    metadata: { name: 'main', attempt: 0 },
    image: { image: BUSYBOX },
    command: ['sh', '-c', FOREVER],
    working_dir: '/tmp',
    envs: [{ key: 'A', value: 'b' }],
    mounts: [{ container_path: '/mnt', host_path: '/tmp', readonly: true }],
    devices: [{ container_path: '/dev/null', host_path: '/dev/null', permissions: 'rw' }],
    labels: { app: 'web' },
    log_path: 'main/0.log',
    linux: {
      resources: { cpu_period: '100000', cpu_quota: '50000', oom_score_adj: '100', cpuset_cpus: '0' },
      security_context: {
        capabilities: { add_capabilities: ['NET_ADMIN'], drop_capabilities: ['MKNOD'] },
        namespace_options: { network: 0, pid: 1, ipc: 0 },
        run_as_user: { value: '1000' },
        run_as_group: { value: '1000' },
        supplemental_groups: ['10'],
        masked_paths: ['/proc/kcore'],
        readonly_paths: ['/proc/sys'],
        seccomp: { profile_type: 0 },
      },
    },
  }
}

test('every call with requests that are wrong all over', async () => {
  const { pid } = kubelet().daemon
  const names = [...CALLS.keys()].filter(name => name !== 'GetContainerEvents') // which never ends
  const codes = await tryAll(names.flatMap(name => casesOf(name, 30, wild)))
  assert.ok((codes.get('INVALID_ARGUMENT') ?? 0) > 100, JSON.stringify([...codes]))
  await isUnharmed(pid)
})

test('RunPodSandbox with one member wrong', async () => {
  const { pid } = kubelet().daemon
  // An unknown handler is noticed when all else is right: nothing is made.
  const valid = { config: richPod(), runtime_handler: 'nobody' }
  await tryAll(casesOf('RunPodSandbox', 1400, call => mutated(call, valid, ['runtime_handler'])))
  await isUnharmed(pid)
})

test('CreateContainer with one member wrong', async () => {
  const { pid } = kubelet().daemon
  const valid = { pod_sandbox_id: 'f'.repeat(64), config: richContainer(), sandbox_config: richPod() }
  const fixed = ['pod_sandbox_id', 'sandbox_config']
  await tryAll(casesOf('CreateContainer', 1400, call => mutated(call, valid, fixed)))
  await isUnharmed(pid)
})

test('bytes that are no request', async () => {
  const { pid } = kubelet().daemon
  const call = CALLS.get('RunPodSandbox')!
  const valid = encode(call, { config: richPod(), runtime_handler: 'nobody' })
  // Field 1 as a group in a group in a group: whoever skips it by recursion runs out of stack.
  const nested = Buffer.alloc(1 << 20, 0x0b)
  const inputs = fc.sample(mutatedBytes([valid, nested]), { numRuns: 500, seed: SEED })
  await inTurns([nested, ...inputs], async bytes => {
    const { code, message } = await send(call, bytes)
    // What cannot be decoded never reaches Berth: the answer is that of the gRPC library.
    if (!/^Error deserializing request/.test(message))
      check({ name: 'bytes', call, request: {} }, { code, message })
  })
  await isUnharmed(pid)
})

test('pods of which one member is odd come up or are refused', async () => {
  const { pid } = kubelet().daemon
  const fixed = ['runtime_handler', 'config.log_directory', 'config.linux.cgroup_parent']
  const cases = casesOf('RunPodSandbox', 80, call =>
    mutated(call, { config: richPod(), runtime_handler: '' }, fixed),
  )
  const codes = await tryAll(cases.map(one => withOwnName(one)))
  assert.ok((codes.get('OK') ?? 0) > 10, JSON.stringify([...codes]))
  await isUnharmed(pid)
})

test('containers of which one member is odd are made or refused', async () => {
  const { pid } = kubelet().daemon
  const pod = await kubelet().runPod()
  const valid = { pod_sandbox_id: pod.id, config: richContainer(), sandbox_config: pod.config as Json }
  const fixed = ['pod_sandbox_id', 'sandbox_config']
  const cases = casesOf('CreateContainer', 150, call => mutated(call, valid, fixed))
  const codes = await tryAll(cases.map(one => withOwnName(one)))
  assert.ok((codes.get('OK') ?? 0) > 20, JSON.stringify([...codes]))
  await isUnharmed(pid)
})

test('calls on a container that runs, with one member wrong', async () => {
  const { pid } = kubelet().daemon
  const pod = await kubelet().runPod()
  const container_id = await kubelet().run(pod, FOREVER)
  const resources = richContainer().linux as Json
  const valid: Record<string, Json> = {
    UpdateContainerResources: { container_id, linux: resources.resources },
    ExecSync: { container_id, cmd: ['true'], timeout: '20' },
    ReopenContainerLog: { container_id },
    ContainerStatus: { container_id },
    ContainerStats: { container_id },
    ListContainers: { filter: { id: container_id } },
    StartContainer: { container_id },
    PodSandboxStatus: { pod_sandbox_id: pod.id },
    UpdatePodSandboxResources: { pod_sandbox_id: pod.id, resources: resources.resources },
  }
  for (const [name, request] of Object.entries(valid)) {
    await tryAll(casesOf(name, 30, call => mutated(call, request, ['container_id', 'pod_sandbox_id'])))
  }
  assert.equal((await kubelet().status(container_id)).state, 'CONTAINER_RUNNING')
  await isUnharmed(pid)
})
