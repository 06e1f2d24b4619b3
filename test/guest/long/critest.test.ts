import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { judge, SPECS } from '../../conformance/expectations.ts'
import { pushSuiteImages, withDigest } from '../../conformance/images.ts'
import { ginkgoArguments, readReport } from '../../conformance/suite.ts'
import { leftoversOf } from '../../support/guest/leftovers.ts'
import { GuestNode } from '../../support/guest/node.ts'
import { findTools } from '../../support/tools.ts'

/*
 * All of critest where a node differs most from the machine of the conformance run: the unified cgroup hierarchy, the
 * cgroup driver systemd, AppArmor, the packed program as a unit. Under a runtime that has all the specs ask for, so
 * that none may be skipped.
 */

const DIRECTORY = '/tmp/critest'
/** As many as the guest has processors. */
const PROCESSES = 2
const LIMIT_MS = 3_000_000

const tools = findTools()
const skip = tools === undefined && 'critest is built with Go, which is missing'
let node: GuestNode | undefined

before(async () => {
  if (tools === undefined) return
  node = await GuestNode.start({
    config: `[crio.runtime]
cgroup_manager = "systemd"
default_runtime = "runc-new"
[crio.runtime.runtimes.runc-new]
runtime_path = "/usr/local/bin/runc"
`,
    plugins: [{ type: 'portmap', capabilities: { portMappings: true } }],
    prepare: guest => guest.writeProgram('/usr/local/bin/runc', readFileSync(tools.runc)),
  })
  const digest = await pushSuiteImages(node.registry, tools)
  // The suite calls apparmor_parser by it.
  await node.guest.writeProgram('/usr/bin/sudo', '#!/bin/sh\nexec "$@"\n')
  await node.guest.writeProgram(`${DIRECTORY}/ginkgo`, readFileSync(tools.ginkgo))
  await node.guest.writeProgram(`${DIRECTORY}/critest.test`, withDigest(readFileSync(tools.critest), digest))
})
after(() => node?.[Symbol.asyncDispose]())

test('critest: every spec passes, none is skipped, and nothing is left', { skip }, async t => {
  assert.ok(node)
  const flags = ginkgoArguments({
    directory: DIRECTORY,
    socket: '/run/berth/berth.sock',
    processes: PROCESSES,
    focus: process.env.BERTH_CONFORMANCE_FOCUS ?? '',
    flags: [],
  })
  const line = flags.map(word => `'${word}'`).join(' ')
  const started = performance.now()
  const { stdout, stderr } = await node.guest.run(
    `cd ${DIRECTORY} && HOME=${DIRECTORY} TMPDIR=${DIRECTORY} ./ginkgo ${line}`,
    '',
    LIMIT_MS,
  )
  const report = await node.guest.run(`cat ${DIRECTORY}/report.json`)
  assert.equal(report.code, 0, `critest wrote no report:\n${stdout.slice(-8000)}${stderr}`)
  const result = { ...readReport(report.stdout), seconds: (performance.now() - started) / 1000 }
  const { table, unexpected } = judge(result, { apparmor: true, idmap: true, recursiveReadOnly: true })
  for (const line of table) t.diagnostic(line)
  assert.equal(unexpected.length, 0, `${unexpected.join('\n\n')}\n\n${await node.log()}`)
  if ((process.env.BERTH_CONFORMANCE_FOCUS ?? '') === '') assert.equal(result.specs.length, SPECS)
  assert.deepEqual(await leftoversOf(node.guest), [])
})
