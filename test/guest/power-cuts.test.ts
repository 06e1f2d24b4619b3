import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import Database from 'better-sqlite3'
import { command, output } from '../support/command.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { removePodCgroup } from '../support/footprint.ts'
import { churnImages, churnPods } from '../support/guest/churn.ts'
import { find, Ledger } from '../support/guest/ledger.ts'
import { GuestNode } from '../support/guest/node.ts'
import { makeEmptyFileSystem, RecordedDisk, randomFrom } from '../support/guest/recorded-disk.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, Kubelet, type TestNode } from '../support/kubelet.ts'

/*
 * Power cuts at recorded points: a guest's daemon has its state on a disk with a volatile cache that keeps every write
 * and flush; afterwards the disk is made as a cut at any of them leaves it, with some of what was not flushed lost, and
 * a daemon has to go on from it. Here on this machine's kernel, whose boot id is another than the guest's.
 */

const all = process.env.BERTH_GUEST_ALL === '1'
const POINTS = all ? 100 : 8
/** So many more are looked at by a guest that is really booted. */
const BOOTS = all ? 3 : 0
const [POD_ROUNDS, IMAGES] = all ? [6, 8] : [2, 3]
const SEED = Number(process.env.BERTH_GUEST_SEED ?? 20_240)

const work = mkdtempSync(join(tmpdir(), 'berth-power-'))
const image = join(work, 'point.img')
const random = randomFrom(SEED)
let disk: RecordedDisk
let ledger: Ledger
let daemon: BerthDaemon

before(async () => {
  daemon = await BerthDaemon.start({ label: 'power' })
  daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
  await daemon.powerOff()
  const base = join(work, 'base.img')
  await makeEmptyFileSystem(base, 512)
  disk = await RecordedDisk.serve(base, join(work, 'nbd'))
  ledger = new Ledger(() => disk.now)
})
after(async () => {
  await daemon?.[Symbol.asyncDispose]()
  await disk?.[Symbol.asyncDispose]()
  rmSync(work, { recursive: true, force: true })
})

test('a recording: pods and images come and go in a guest', async t => {
  await using node = await GuestNode.start({
    ipamDir: daemon.ipamDir,
    prepare: guest => guest.attachDisk({ socket: disk.socket }, '/var/lib/berth'),
  })
  const busybox = await find(node)
  ledger.learn(`image ${BUSYBOX}`, ({ images }) => images.get(BUSYBOX) === busybox.images.get(BUSYBOX))
  await Promise.all([
    churnPods(node, ledger, POD_ROUNDS, 'a'),
    churnPods(node, ledger, POD_ROUNDS, 'b'),
    churnImages(node, ledger, IMAGES),
  ])
  assert.deepEqual(ledger.check(disk.now, await find(node)).broken, [])
  t.diagnostic(
    `${disk.now} writes and flushes (${disk.flushes}), ${disk.writtenBytes >> 20} MiB, ${ledger.acknowledgements.length} acknowledgements`,
  )
})

/** Half of them just when something was acknowledged, with nothing kept that was not flushed. */
function choosePoints(count: number): Array<{ at: number; keep: number }> {
  const acknowledged = ledger.acknowledgements
  const pick = (index: number) => {
    if (index % 2 === 0) return { at: acknowledged[Math.floor(random() * acknowledged.length)]!, keep: 0 }
    return { at: Math.floor(random() * (disk.now + 1)), keep: [0, 0.5, 0.9, 1][Math.floor(random() * 4)]! }
  }
  return Array.from({ length: count }, (_, index) => pick(index)).sort((a, b) => a.at - b.at)
}

/** What kubelet sees and does after the boot. */
async function checkNode<Node extends TestNode>(node: Node, at: number): Promise<number> {
  const kubelet = new Kubelet(node)
  const found = await find(node)
  const { broken, checked } = ledger.check(at, found)
  assert.deepEqual(broken, [], `lost of what was acknowledged before event ${at} (seed ${SEED})`)
  for (const { id, state } of found.pods.values()) assert.equal(state, 'SANDBOX_NOTREADY', id)
  for (const { id, state } of found.containers.values()) assert.equal(state, 'CONTAINER_EXITED', id)

  await kubelet.pull(BUSYBOX)
  const next = await kubelet.runPod()
  const id = await kubelet.run(next, 'sleep 100000')
  assert.equal((await kubelet.exec(id, 'echo alive')).stdout, 'alive\n')
  for (const pod of [...found.pods.keys(), next.id]) await kubelet.removePod(pod)
  const left = await find(node)
  assert.deepEqual([[...left.pods.keys()], [...left.containers.keys()]], [[], []])
  return checked
}

function checkDatabase(path: string): void {
  const database = new Database(path, { readonly: true })
  try {
    assert.deepEqual(database.pragma('integrity_check'), [{ integrity_check: 'ok' }])
    assert.deepEqual(database.pragma('foreign_key_check'), [])
  } finally {
    database.close()
  }
}

test(`${POINTS} power cuts: the node starts, nothing acknowledged is lost, no layer is torn`, async t => {
  assert.ok(disk.now > 0, 'there is a recording')
  let [checked, layers] = [0, 0]
  const started = performance.now()
  for await (const at of disk.imagesAt(choosePoints(POINTS), image, random)) {
    rmSync(daemon.root, { recursive: true, force: true })
    mkdirSync(daemon.root)
    await output('mount', '-o', 'loop', image, daemon.root)
    try {
      await daemon.up()
      checked += await checkNode(daemon, at)
      const { code, stdout } = await daemon.berth('image', 'verify')
      assert.equal(code, 0, stdout)
      layers += Number(/(\d+) whole/.exec(stdout)?.[1] ?? 0)
      removePodCgroup(`${daemon.cgroup}/*`)
      removePodCgroup(daemon.cgroup)
      // A layer's bytes that came before the cut are what the next pull goes on from.
      assert.deepEqual(await daemon.leftovers(/^(?!file .*\/partial\/)/), [], 'something is left')
      checkDatabase(join(daemon.root, 'berth.db'))
    } catch (error) {
      throw new Error(
        `power cut after event ${at} of ${disk.now} (seed ${SEED}):\n${daemon.log.slice(-8000)}`,
        {
          cause: error,
        },
      )
    } finally {
      await daemon.powerOff()
      if (existsSync(join(daemon.root, 'berth.db'))) await command('umount', [daemon.root])
    }
  }
  const each = Math.round((performance.now() - started) / POINTS)
  t.diagnostic(`${checked} facts and ${layers} layers checked at ${POINTS} points, ${each} ms each`)
})

if (BOOTS > 0) {
  test(`${BOOTS} power cuts, and a guest that is booted with that disk`, async t => {
    let checked = 0
    for await (const at of disk.imagesAt(choosePoints(BOOTS), image, random)) {
      await using node = await GuestNode.start({
        cold: true,
        ipamDir: daemon.ipamDir,
        prepare: guest => guest.attachDisk({ file: image }, '/var/lib/berth'),
      })
      checked += await checkNode(node, at)
      assert.match(await node.guest.output('berth image verify'), /layers: \d+ whole\n$/)
    }
    t.diagnostic(`${checked} facts checked at ${BOOTS} points`)
  })
}
