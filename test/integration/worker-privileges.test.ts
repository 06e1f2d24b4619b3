import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { test } from 'node:test'
import { busyboxImage } from '../support/images.ts'
import { heldBy } from '../support/privileges.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon({ label: 'own' })

function childrenOf(parent: number, command: RegExp): number[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name))
  return pids.map(Number).filter(pid => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      return ppid === parent && command.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    } catch {
      return false // ended meanwhile
    }
  })
}

// capability.h
const CHOWN = 0
const DAC_OVERRIDE = 1
const FOWNER = 3
const FSETID = 4
const KILL = 5
const SETGID = 6
const SETUID = 7
const SETPCAP = 8
const SYS_CHROOT = 18
const SYS_ADMIN = 21
const MKNOD = 27
const SETFCAP = 31
const UNPACKING = [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_CHROOT, SYS_ADMIN, MKNOD, SETFCAP]
const TO_START_GZIP = [KILL, SETGID, SETUID, SETPCAP]

test('what unpacks a layer holds what that needs, without a network; what decompresses it holds nothing', async () => {
  const { daemon } = kubelet()
  const big = await busyboxImage({ files: { '/random': randomBytes(3 << 20) } })
  daemon.registry.push(big, 'docker.io/library/stalled', '1')
  daemon.registry.faults({ match: /GET .*\/stalled\/blobs\//, stallAt: 2 << 20 })
  const pull = kubelet().pull('docker.io/library/stalled:1')
  pull.catch(() => undefined)
  const hasProgram = daemon.log.includes('gzip=/')
  const workers = () => childrenOf(daemon.pid, /unpack-worker/)
  const programs = (worker: number) => childrenOf(worker, /gzip\0-d/)
  // One decompresses, others may wait for work.
  const worker = await until('a worker is at work', () =>
    workers().find(pid => !hasProgram || programs(pid).length > 0),
  )
  assert.notEqual(readlinkSync(`/proc/${worker}/ns/net`), readlinkSync(`/proc/${daemon.pid}/ns/net`))
  assert.equal(readFileSync(`/proc/${worker}/environ`, 'utf8').replaceAll('\0', '').includes('PATH'), false)
  const expected = hasProgram ? [...UNPACKING, ...TO_START_GZIP] : UNPACKING
  const sorted = expected.toSorted((a, b) => a - b)
  assert.deepEqual(heldBy(worker), { uid: '0', capabilities: sorted, cannotGain: true })
  if (hasProgram) {
    const program = await until('gzip itself runs', () =>
      programs(worker).find(pid => !/setpriv/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))),
    )
    assert.deepEqual(heldBy(program), { uid: '65534', capabilities: [], cannotGain: true })
    assert.equal(readFileSync(`/proc/${program}/environ`, 'utf8'), '')
    assert.deepEqual(readdirSync(`/proc/${program}/fd`).sort(), ['0', '1', '2'])
  }
  daemon.registry.faults()
  await daemon.restart()
  await assert.rejects(pull)
})
