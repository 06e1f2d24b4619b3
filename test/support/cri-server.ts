import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { notFound } from '../../src/base/errors.ts'
import type { AdminBackend } from '../../src/cri/admin-service.ts'
import { BerthClient } from '../../src/cri/client.ts'
import type { ImageAdminBackend } from '../../src/cri/image-admin-service.ts'
import { CriServer, type CriServerOptions } from '../../src/cri/server.ts'
import { fakeServices, protoDir, RecordedCalls } from './cri.ts'

const admin: AdminBackend = {
  async *check() {},
  timeline: () => ({ podId: 'a', podName: 'default/web', entries: [] }),
  status: () => ({
    version: '1.2.3',
    pid: 1,
    startedAt: 2n,
    socket: '',
    root: '',
    pods: {},
    containers: {},
    sessions: {},
    images: 0,
    imageBytes: 0n,
    conditions: [],
    handlers: [],
    warnings: [],
    memory: 0,
    gzipProgram: '',
  }),
}

const imageAdmin: ImageAdminBackend = {
  list: () => [],
  inspect: reference => {
    throw notFound('image', reference)
  },
  tag: (_, name) => name,
  remove: async references => ({ removed: references, containers: [] }),
  verify: async function* () {},
  collect: () => ({ images: [], layers: [], leased: [], retired: [], abandoned: [] }),
  why: reference => {
    throw notFound('image', reference)
  },
  import: async function* () {},
  export: async function* () {},
}

export type TestServer = {
  readonly path: string
  readonly server: CriServer
  readonly recorded: RecordedCalls
}

export function temporaryDir(context: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'berth-cri-'))
  context.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A server on a socket of its own, in recovery. */
export async function listen(
  context: TestContext,
  changes: Partial<CriServerOptions> = {},
): Promise<TestServer> {
  const recorded = new RecordedCalls()
  const path = changes.socketPath ?? join(temporaryDir(context), 'berth.sock')
  const server = new CriServer({
    services: fakeServices(),
    admin,
    imageAdmin,
    log: recorded.log,
    metrics: recorded,
    protoDir,
    socketPath: path,
    socketMode: 0o660,
    allowedPeers: { uids: [], gids: [] },
    peerOf: () => ({ pid: 1, uid: process.getuid!(), gid: 0, groups: [], command: 'kubelet' }),
    ...changes,
  })
  context.after(() => server.close(0))
  await server.listen()
  return { path, server, recorded }
}

/** An open server and a client of it. */
export async function serve(context: TestContext, changes: Partial<CriServerOptions> = {}) {
  const node = await listen(context, changes)
  node.server.open()
  const client = await BerthClient.connect(node.path, protoDir, { timeoutMs: 30_000 })
  context.after(() => client[Symbol.dispose]())
  return { ...node, client }
}

export async function collect<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const message of messages) all.push(message)
  return all
}
