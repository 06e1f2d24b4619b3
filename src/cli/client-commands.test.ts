import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { notFound } from '../base/errors.ts'
import { installedPath } from '../config/installation.ts'
import { type AdminBackend, adminService } from '../cri/admin-service.ts'
import { Calls } from '../cri/call.ts'
import { loadServices } from '../cri/proto.ts'
import type { Images } from '../cri/services.ts'
import { run } from './program.ts'

const START = 1_767_323_045_000_000_000n
const ID = 'a'.repeat(64)
const DIGEST = `sha256:${'b'.repeat(64)}`

const backend: AdminBackend = {
  async *check() {},
  status: () => ({
    version: '9.8.7',
    pid: 4711,
    startedAt: START,
    socket: '/run/berth/berth.sock',
    root: '/var/lib/berth',
    pods: { ready: 2 },
    containers: {},
    sessions: {},
    images: 1,
    imageBytes: 2048n,
    conditions: [{ type: 'RuntimeReady', status: true, reason: '', message: '' }],
    handlers: [{ name: 'runc', runtime: 'runc 1.1.5' }],
    warnings: [],
    memory: 90_000_000,
    gzipProgram: '',
  }),
  timeline: pod => {
    if (pod !== 'web') throw notFound('pod', pod)
    const entry = {
      podId: ID,
      operation: 'RunPodSandbox',
      step: 'cni-add',
      startNs: START,
      durationNs: 5_000_000n,
    }
    const current = { operation: 'CreateContainer', step: 'mount', startNs: START, runningMs: 43_000 }
    return { podId: ID, podName: 'default/web', entries: [entry], current }
  },
}

let credentialsSeen: unknown

const images: Pick<Images, 'pull'> = {
  pull: async (reference, credentials, _signal, onProgress) => {
    credentialsSeen = credentials
    if (reference !== 'busybox') throw notFound('image', reference)
    onProgress?.({
      layers: [
        { digest: DIGEST as never, state: 'done', bytes: 2048, unpacked: 2048, total: 2048, waitsFor: '' },
      ],
    })
    return DIGEST as never
  },
}

let directory = ''
let socket = ''
let server: Server

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'berth-client-'))
  socket = join(directory, 'berth.sock')
  const quiet = () => undefined
  const calls = new Calls({ debug: quiet, info: quiet, warn: quiet, error: quiet }, { onCall: quiet })
  server = new Server()
  server.addService(
    loadServices(installedPath('proto')).admin,
    adminService(calls, backend, images as Images),
  )
  calls.open()
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), error =>
      error === null ? resolve() : reject(error),
    ),
  )
})

after(() => {
  server.forceShutdown()
  rmSync(directory, { recursive: true })
})

async function berth(...args: readonly string[]) {
  let [stdout, stderr] = ['', '']
  const streams = {
    stdout: { columns: 80, write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
  }
  return { code: await run([...args, '--listen', socket], streams), stdout, stderr }
}

test('status', async () => {
  const { code, stdout, stderr } = await berth('status')
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(stdout, /^daemon {6}berth 9\.8\.7, pid 4711, 85\.8 MiB\n/)
  assert.match(stdout, /^images {6}1, 2\.0 KiB$/m)
  const json = JSON.parse((await berth('status', '--json')).stdout)
  assert.deepEqual(json.pods, { ready: 2 })
})

test('timeline', async () => {
  const { code, stdout } = await berth('timeline', 'web')
  assert.equal(code, 0)
  assert.match(
    stdout,
    /^pod default\/web {2}aaaaaaaaaaaa\n\nRunPodSandbox {2}2026-01-02 03:04:05\.000 {2}5\.0 ms\n {2}cni-add █+ +5\.0 ms\n/,
  )
  assert.match(stdout, /\nnow: CreateContainer is in step mount for 43\.0 s\n$/)
  const json = JSON.parse((await berth('timeline', 'web', '--json')).stdout)
  assert.equal(json.entries[0].step, 'cni-add')
})

test('a pod that is not there is a failure, told in one sentence', async () => {
  assert.deepEqual(await berth('timeline', 'nobody'), {
    code: 1,
    stdout: '',
    stderr: 'berth: pod "nobody" not found\n',
  })
})

test('pull prints the id; progress is on standard error', async () => {
  const { code, stdout, stderr } = await berth('pull', 'busybox')
  assert.deepEqual([code, stdout, stderr], [0, `${DIGEST}\n`, 'bbbbbbbbbbbb done (2.0 KiB)\n'])
  assert.equal(credentialsSeen, undefined)
  const json = JSON.parse((await berth('pull', '--json', 'busybox')).stdout)
  assert.deepEqual(json, {
    image: 'busybox',
    id: DIGEST,
    layers: [{ digest: DIGEST, state: 'done', bytes: 2048, unpacked: 2048, total: 2048, waitsFor: '' }],
  })
})

test('a pull that fails says why', async () => {
  assert.deepEqual(await berth('pull', 'nothing'), {
    code: 1,
    stdout: '',
    stderr: 'berth: image "nothing" not found\n',
  })
})

test('credentials come from a file and reach the daemon', async () => {
  const file = join(directory, 'creds')
  writeFileSync(file, 'joe:hunter2:with:colons\r\nmore\n')
  assert.equal((await berth('pull', '--creds', file, 'busybox')).code, 0)
  assert.notEqual(credentialsSeen, undefined)
  assert.doesNotMatch(JSON.stringify(credentialsSeen), /hunter2/)
})
