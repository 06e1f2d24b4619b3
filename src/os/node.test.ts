import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import * as node from './node.ts'

test('the bounding set is read by name', () => {
  const status = (mask: string) => `Name:\tnode\nCapEff:\t0000000000000000\nCapBnd:\t${mask}\n`
  assert.deepEqual(node.capabilitiesIn(status('0000000000000000')), [])
  assert.deepEqual(node.capabilitiesIn(status('0000000001000401')), [
    'CAP_CHOWN',
    'CAP_NET_BIND_SERVICE',
    'CAP_SYS_RESOURCE',
  ])
  assert.equal(node.capabilitiesIn(status('000001ffffffffff')).length, 41)
  assert.equal(node.capabilitiesIn(status('000001ffffffffff')).at(-1), 'CAP_CHECKPOINT_RESTORE')
})

test('facts about this machine have the shape they should', () => {
  assert.match(node.bootId(), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  assert.match(node.kernelRelease(), /^\d+\.\d+/)
  assert.ok(node.oomScoreAdj() >= -1000 && node.oomScoreAdj() <= 1000)
  assert.equal(node.kernelFeatures().apparmor, existsSync('/sys/module/apparmor'))
})

test('the limit of open files is raised as far as it may be', () => {
  node.raiseFileLimit()
  const report = process.report.getReport() as { userLimits: { open_files: { soft: number; hard: number } } }
  const { soft, hard } = report.userLimits.open_files
  assert.equal(soft, hard)
  assert.equal(node.hardLimit('RLIMIT_NOFILE'), BigInt(hard))
})
