import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isCode } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import type { Cgroups } from '../../src/os/cgroup/cgroup.ts'
import { openCgroups } from '../../src/os/cgroup/open-cgroups.ts'
import { SystemdCgroups } from '../../src/os/cgroup/systemd.ts'
import { OomLog } from '../../src/os/kernel-log.ts'
import * as mounts from '../../src/os/mounts.ts'
import { start } from '../../src/os/spawn.ts'

const group = `/berth-test-${newId().slice(0, 12)}`
const hostMounts = mounts.mountsBelow('/sys/fs/cgroup')

function withCgroups(use: (cgroups: Cgroups) => Promise<void>): () => Promise<void> {
  return async () => {
    const cgroups = openCgroups()
    try {
      await use(cgroups)
    } finally {
      await cgroups.kill(group)
      await cgroups.remove(group)
    }
    assert.equal(cgroups.exists(group), false)
    for (const { mountPoint } of hostMounts) assert.equal(existsSync(join(mountPoint, group)), false)
  }
}

function sleeper() {
  const script = 'sleep 100 & exec sleep 100'
  return start('/bin/sh', {
    args: ['-c', script],
    env: { PATH: '/bin' },
    fds: ['pipe-write', 'null', 'null'],
  })
}

test(
  'cgroups: made everywhere, filled, measured, killed, removed',
  withCgroups(async cgroups => {
    const inner = `${group}/pod/box`
    await cgroups.create(inner)
    await cgroups.create(inner)
    if (cgroups.version === 1) {
      for (const { mountPoint, type } of hostMounts) {
        if (type.startsWith('cgroup')) assert.ok(existsSync(join(mountPoint, inner)), mountPoint)
      }
    }
    const script = 'read go; sleep 100 & exec sleep 100'
    const child = start('/bin/sh', {
      args: ['-c', script],
      env: { PATH: '/bin' },
      fds: ['pipe-write', 'null', 'null'],
    })
    await cgroups.add(inner, child.pid)
    ;(child.streams[0] as NodeJS.WritableStream).end('\n')
    while (cgroups.pids(group).length < 2) await new Promise(resolve => setTimeout(resolve, 5))
    assert.ok(cgroups.pids(inner).includes(child.pid))
    const stats = cgroups.stats(group)!
    assert.equal(stats.pids.current, 2n)
    assert.ok(stats.memory.usage > 0n && stats.cpu.usageNs > 0n)
    assert.equal(cgroups.oomKills(group), 0)
    await assert.rejects(cgroups.remove(group), { code: 'EBUSY' })
    await cgroups.kill(group)
    assert.equal(await child.exited, 137)
    assert.deepEqual(cgroups.pids(group), [])
    await cgroups.kill(group)
    await cgroups.kill(`${group}/none`)
  }),
)

test(
  'cgroups: limits up and down, and what is in force',
  withCgroups(async cgroups => {
    await cgroups.create(group)
    const MiB = 2 ** 20
    for (const memory of [64 * MiB, 256 * MiB, 32 * MiB]) {
      const limits = {
        memory: { limit: memory, swap: memory },
        cpu: { shares: 512, quota: 50_000, period: 50_000 },
      }
      await cgroups.writeLimits(group, { ...limits, pids: { limit: 50 } })
      const { cpusetCpus, cpusetMems, cpuShares, ...applied } = cgroups.applied(group)
      assert.deepEqual(applied, {
        cpuQuota: 50_000,
        cpuPeriod: 50_000,
        memoryLimit: memory,
        memorySwapLimit: memory,
        ...(hostMounts.some(({ superOptions }) => superOptions.includes('pids')) ? { pidsLimit: 50 } : {}),
      })
      assert.ok(Math.abs(cpuShares! - 512) < 30)
      assert.match(cpusetCpus ?? '0', /^0/)
      assert.match(cpusetMems ?? '0', /^0/)
    }
    await cgroups.writeLimits(group, { cpu: { period: 100_000 } })
    assert.deepEqual([cgroups.applied(group).cpuQuota, cgroups.applied(group).cpuPeriod], [50_000, 100_000])
  }),
)

test(
  'cgroups: a kill for memory is counted, and that of a scope is remembered when its group is gone',
  withCgroups(async cgroups => {
    const inner = `${group}/box.scope`
    await cgroups.create(inner)
    await cgroups.writeLimits(inner, { memory: { limit: 16 * 2 ** 20, swap: 16 * 2 ** 20 } })
    const script = 'read go; exec tail /dev/zero'
    const child = start('/bin/sh', {
      args: ['-c', script],
      env: { PATH: '/usr/bin:/bin' },
      fds: ['pipe-write', 'null', 'null'],
    })
    await cgroups.add(inner, child.pid)
    ;(child.streams[0] as NodeJS.WritableStream).end('\n')
    assert.equal(await child.exited, 137)
    assert.equal(cgroups.oomKills(group), 1)
    assert.equal(cgroups.oomKills(inner), 1)
    assert.equal(cgroups.stats(inner)?.memory.limit, 16n * 2n ** 20n)
    await cgroups.remove(inner)
    const units = new SystemdCgroups(cgroups, { busctl: '', systemctl: '', log: new OomLog() })
    assert.equal(await units.wasOomKilled(inner), true)
    assert.equal(await units.wasOomKilled(`${group}/other.scope`), false)
  }),
)

test(
  'cgroups: what is frozen dies too',
  {
    skip: hostMounts.some(({ superOptions }) => superOptions.includes('freezer'))
      ? false
      : 'no version 1 freezer',
  },
  withCgroups(async cgroups => {
    await cgroups.create(group)
    const child = sleeper()
    await cgroups.add(group, child.pid)
    writeFileSync(join('/sys/fs/cgroup/freezer', group, 'freezer.state'), 'FROZEN')
    await cgroups.kill(group)
    assert.equal(await child.exited, 137)
    child.kill('SIGKILL')
  }),
)

test('no control groups there', () => {
  assert.throws(
    () => openCgroups(tmpdir()),
    error => isCode(error, 'unavailable'),
  )
})
