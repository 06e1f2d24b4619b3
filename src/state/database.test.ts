import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import Sqlite from 'better-sqlite3'
import { dict } from '../base/dict.ts'
import { digestFromHex } from '../base/digest.ts'
import { setEffectHook } from '../base/effects.ts'
import { newId } from '../base/ids.ts'
import type { Container, ContainerConfig } from '../model/container.ts'
import type { Pod } from '../model/pod.ts'
import { Database } from './database.ts'
import { nextDir } from './layers.ts'

function inDirectory(run: (file: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'berth-state-'))
  try {
    run(join(directory, 'berth.db'))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const SEAL = { record: digestFromHex('e'.repeat(64)), mtime: 1_790_000_000_123_456_789n }
const digest = (n: number) => digestFromHex(n.toString(16).padStart(64, '0'))

function pod(name: string): Pod {
  return {
    id: newId(),
    config: {
      metadata: { name, namespace: 'default', uid: 'u', attempt: 3 },
      hostname: 'h',
      logDirectory: '/var/log/pods/x',
      portMappings: [{ protocol: 'tcp', containerPort: 80, hostPort: 8080, hostIp: '' }],
      labels: dict([['__proto__', 'a label like any other']]),
      annotations: dict(),
      cgroupParent: '',
      sysctls: dict(),
      namespaces: { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' },
      privileged: false,
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
    },
    runtimeHandler: '',
    phase: 'creating',
    createdAt: 1_790_000_000_123_456_789n,
    bootId: 'boot',
    cgroup: '/berth/x',
    networkHeld: false,
    network: { ips: [], attachment: undefined },
    delivered: false,
  }
}

function container(podId: string): Container {
  const config: ContainerConfig = {
    metadata: { name: 'c', attempt: 0 },
    image: 'busybox',
    userSpecifiedImage: '',
    command: ['sh'],
    args: [],
    workingDir: '',
    envs: [['A', 'b']],
    mounts: [],
    devices: [],
    cdiDevices: [],
    labels: dict([['__proto__', 'x']]),
    annotations: dict(),
    logPath: '',
    stdin: false,
    stdinOnce: false,
    tty: false,
    security: {
      capabilities: { add: [], drop: [], addAmbient: [] },
      privileged: false,
      namespaces: { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' },
      runAsUsername: '',
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      readonlyRootfs: false,
      noNewPrivs: false,
      maskedPaths: [],
      readonlyPaths: [],
    },
    stopSignal: '',
  }
  return {
    id: newId(),
    podId,
    config,
    phase: 'creating',
    createdAt: 2n,
    startedAt: 0n,
    imageId: digest(9),
    imageRef: 'r',
    imageName: 'busybox',
    imageMounts: dict(),
    logPath: '',
    cgroup: '/berth/x/c',
    user: { uid: 0, gid: 0, supplementalGroups: [] },
    stopSignal: 'SIGTERM',
    delivered: false,
  }
}

test('rows come back as they went in, after closing and opening again', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const first = { ...pod('a'), selinuxLevel: 's0:c1,c2' }
    db.transact('insert', tx => tx.pods.insert(first))
    const ready: Pod = {
      ...first,
      phase: 'ready',
      networkHeld: true,
      network: { ips: ['10.0.0.2'] },
      init: { pid: 12, startTime: '345' },
      delivered: true,
    }
    db.transact('update', tx => tx.pods.update(ready))
    db.close()
    const again = Database.open(file)
    const { pods, unreadable } = again.read.pods.all()
    assert.deepEqual(unreadable, [])
    assert.deepEqual(pods, [{ ...ready, network: { ips: ['10.0.0.2'] } }])
    assert.equal(Object.getPrototypeOf(pods[0]!.config.labels), null)
    again.close()
  })
})

test('a pod key and a container key exist once; a failing transaction changes nothing', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const first = pod('a')
    db.transact('insert', tx => tx.pods.insert(first))
    assert.throws(
      () =>
        db.transact('twice', tx => {
          tx.pods.insert(pod('b'))
          tx.pods.insert(pod('a'))
        }),
      /UNIQUE/,
    )
    assert.equal(db.read.pods.all().pods.length, 1)
    db.close()
  })
})

test('a level of SELinux is that of one pod, and free again with its row', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const level = (name: string, selinuxLevel: string): Pod => ({ ...pod(name), selinuxLevel })
    const [first, second] = [level('a', 's0:c1,c2'), level('b', 's0:c1,c2')]
    const insert = (row: Pod) => db.transact('insert', tx => tx.pods.insert(row))
    insert(first)
    assert.throws(() => insert(second), /UNIQUE/)
    for (const name of ['c', 'd']) insert(level(name, ''))
    for (const name of ['e', 'f']) insert(pod(name))
    db.transact('update', tx => tx.pods.update({ ...first, phase: 'notready' }))
    assert.throws(() => insert(second), /UNIQUE/)
    db.transact('delete', tx => tx.pods.delete(first.id))
    insert(second)
    const levels = db.read.pods.all().pods.map(({ selinuxLevel }) => selinuxLevel)
    assert.deepEqual(levels.sort(), ['', '', 's0:c1,c2', undefined, undefined])
    db.close()
  })
})

test('unreadable rows keep their identity', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const p = pod('a')
    const c = container(p.id)
    db.transact('insert', tx => {
      tx.pods.insert(p)
      tx.containers.insert(c, [])
    })
    db.close()
    const raw = new Sqlite(file)
    raw.exec(`UPDATE pods SET config = '{'; UPDATE containers SET config = 'x'`)
    raw.close()
    const again = Database.open(file)
    const pods = again.read.pods.all()
    assert.equal(pods.unreadable[0]?.id, p.id)
    assert.deepEqual(pods.pods[0]?.config.metadata, p.config.metadata)
    assert.equal(pods.pods[0]?.phase, 'notready')
    const containers = again.read.containers.all()
    assert.equal(containers.containers[0]?.phase, 'unknown')
    assert.deepEqual(containers.containers[0]?.config.metadata, c.config.metadata)
    again.close()
  })
})

test('layers are held by images and containers, and by the layers above them', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const p = pod('a')
    const c = container(p.id)
    const blob = { digest: digest(1), size: 10 }
    db.transact('layers', tx => {
      for (const n of [1, 2, 3]) {
        const parent = n === 1 ? {} : { parent: digest(100 + n - 1) }
        tx.layers.insertExtracting({ chainId: digest(100 + n), diffId: digest(n), ...parent }, blob)
      }
    })
    assert.equal(db.read.layers.extracting().length, 3)
    assert.equal(db.read.layers.get(digest(103)), undefined)
    db.transact('commit', tx => {
      for (const n of [1, 2, 3]) tx.layers.commit(digest(100 + n), { size: 5, inodes: 1, seal: SEAL })
      tx.pods.insert(p)
      tx.containers.insert(c, [digest(102)])
    })
    assert.deepEqual(
      db.read.layers.chain(digest(103)).map(layer => layer.dir),
      ['3', '2', '1'],
    )
    assert.deepEqual(db.read.layers.totals(), { size: 15, inodes: 3 })
    assert.deepEqual(
      db.read.layers.unused().map(layer => layer.chainId),
      [digest(103)],
    )
    db.transact('gone', tx => tx.containers.delete(c.id))
    assert.equal(db.read.layers.unused().length, 3)
    db.close()
  })
})

test('a layer that is fetched again gets a new directory; the old one stays for the containers that stand on it', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const p = pod('a')
    const c = container(p.id)
    const blob = { digest: digest(1), size: 10 }
    db.transact('layers', tx => {
      tx.layers.insertExtracting({ chainId: digest(101), diffId: digest(1) }, blob)
      tx.layers.commit(digest(101), { size: 5, inodes: 1, seal: SEAL })
      tx.layers.insertExtracting({ chainId: digest(102), diffId: digest(2), parent: digest(101) }, blob)
      tx.layers.commit(digest(102), { size: 5, inodes: 1, seal: SEAL })
      tx.pods.insert(p)
      tx.containers.insert(c, [digest(102)])
      tx.layers.setDamage(digest(101), 'it is gone')
    })
    const before = db.read.layers.get(digest(101))!
    assert.deepEqual(
      db.read.layers.damaged().map(layer => [layer.dir, layer.damage, layer.seal]),
      [['1', 'it is gone', SEAL]],
    )
    assert.deepEqual(db.read.layers.containersOn(digest(101)), [c.id])
    assert.deepEqual([nextDir(before), nextDir(before, new Set(['1.1', '1.2']))], ['1.1', '1.3'])
    db.transact('replaced', tx =>
      tx.layers.replace(before, nextDir(before), { size: 6, inodes: 2, seal: SEAL }),
    )
    const after = db.read.layers.get(digest(101))!
    assert.deepEqual([after.dir, after.size, after.damage, nextDir(after)], ['1.1', 6, undefined, '1.2'])
    assert.deepEqual([db.read.layers.retired(), db.read.layers.retiredUnheld()], [['1'], []])
    db.transact('gone', tx => tx.containers.delete(c.id))
    assert.deepEqual([db.read.layers.retired(), db.read.layers.retiredUnheld()], [['1'], ['1']])
    // The number still tells parents from children.
    assert.deepEqual(
      db.read.layers.unused().map(layer => layer.dir),
      ['2', '1.1'],
    )
    db.transact('swept', tx => tx.layers.forgetRetired('1'))
    assert.deepEqual(db.read.layers.retired(), [])
    db.close()
  })
})

test('an image name belongs to one image; deleting the image deletes its names', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const config = {
      os: 'linux',
      architecture: 'amd64',
      user: '',
      env: [],
      entrypoint: [],
      cmd: ['sh'],
      workingDir: '',
      volumes: [],
      stopSignal: '',
      labels: {},
      diffIds: [],
    }
    const image = (n: number) => ({
      id: digest(n),
      repoTags: [],
      repoDigests: [],
      size: 1,
      config,
      topLayer: undefined,
      createdAt: BigInt(n),
    })
    db.transact('images', tx => {
      tx.images.insert(image(1), Buffer.from('one'))
      tx.images.insert(image(2), Buffer.from('two'))
      tx.images.setName('r/x:1', 'tag', digest(1))
      tx.images.setName('r/x:1', 'tag', digest(2))
      tx.images.setName('r/x@sha256:1', 'digest', digest(2))
      tx.images.insertManifest(digest(2), { digest: digest(7), mediaType: 'm', bytes: Buffer.from('{}') })
    })
    assert.deepEqual(
      db.read.images.all().map(row => [row.repoTags, row.repoDigests]),
      [
        [[], []],
        [['r/x:1'], ['r/x@sha256:1']],
      ],
    )
    assert.equal(String(db.read.images.rawConfig(digest(2))), 'two')
    assert.equal(db.read.images.manifests(digest(2)).length, 1)
    db.transact('delete', tx => tx.images.delete(digest(2)))
    assert.equal(db.read.images.manifests(digest(2)).length, 0)
    assert.equal(db.read.images.all().length, 1)
    db.close()
  })
})

test('every transaction passes the effect hook, before it happens', () => {
  inDirectory(file => {
    const db = Database.open(file)
    const seen: string[] = []
    setEffectHook({
      sync: effect => {
        seen.push(`${effect.layer}.${effect.name} ${effect.subject}`)
        throw new Error('no')
      },
      async: async () => undefined,
    })
    try {
      assert.throws(() => db.transact('pod ready', tx => tx.pods.insert(pod('a'))), /no/)
    } finally {
      setEffectHook(undefined)
    }
    assert.deepEqual(seen, ['state.commit pod ready'])
    assert.equal(db.read.pods.all().pods.length, 0)
    db.close()
  })
})

test('a database that cannot be written says which, until it can be', () => {
  inDirectory(file => {
    const db = Database.open(file)
    db.transact('insert', tx => tx.pods.insert(pod('a')))
    const limitFileSize = (soft: string) =>
      execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${soft}:`])
    const ignore = () => undefined
    process.on('SIGXFSZ', ignore)
    const says = { code: 'internal', message: /^the database .*\/berth\.db cannot be written: / }
    try {
      // No file may become longer than the log of the database is.
      limitFileSize(String(statSync(`${file}-wal`).size))
      assert.throws(() => db.transact('insert', tx => tx.pods.insert(pod('b'))), says)
      assert.match(db.problem() ?? '', says.message)
      assert.deepEqual(
        db.read.pods.all().pods.map(({ config }) => config.metadata.name),
        ['a'],
      )
    } finally {
      limitFileSize('unlimited')
      process.off('SIGXFSZ', ignore)
    }
    assert.equal(db.problem(), undefined)
    db.transact('insert', tx => tx.pods.insert(pod('b')))
    db.close()
  })
})
