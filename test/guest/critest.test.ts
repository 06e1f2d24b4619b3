import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { readReport } from '../conformance/suite.ts'
import { GuestNode } from '../support/guest/node.ts'
import { busyboxImage } from '../support/images.ts'
import { findTools } from '../support/tools.ts'

/*
 * The specs of critest that need what the conformance run's machine may lack: AppArmor.
 */

const tools = findTools()
const skip = tools === undefined && 'critest is built with Go, which is missing'
let node: GuestNode | undefined

before(async () => {
  if (tools === undefined) return
  node = await GuestNode.start()
  node.registry.push(await busyboxImage(), 'registry.k8s.io/e2e-test-images/busybox', '1.29-2')
  // The suite calls apparmor_parser by it.
  await node.guest.writeProgram('/usr/bin/sudo', '#!/bin/sh\nexec "$@"\n')
  await node.guest.writeProgram('/usr/bin/critest', readFileSync(tools.critest))
})
after(() => node?.[Symbol.asyncDispose]())

test('AppArmor: all nine specs of critest', { skip }, async () => {
  assert.ok(node)
  const endpoint = 'unix:///run/berth/berth.sock'
  const flags = [
    '-ginkgo.focus=AppArmor',
    '-ginkgo.skip=benchmark',
    '-ginkgo.json-report=/tmp/report.json',
    '-config=/dev/null',
    `-runtime-endpoint=${endpoint}`,
    `-image-endpoint=${endpoint}`,
  ]
  const { code, stdout } = await node.guest.run(`cd /tmp && critest ${flags.join(' ')}`)
  const { specs } = readReport(await node.readText('/tmp/report.json'))
  const wrong = specs.filter(({ state }) => state !== 'passed')
  assert.deepEqual(wrong, [], stdout.slice(-4000))
  assert.deepEqual([code, specs.length], [0, 9])
})
