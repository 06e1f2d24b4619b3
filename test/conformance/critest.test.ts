import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, globSync, rmdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import { crunFor } from '../support/crun.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { findTools } from '../support/tools.ts'
import { hostFor, judge, SPECS, STREAMING_SPECS } from './expectations.ts'
import { pushSuiteImages } from './images.ts'
import { runSuite } from './suite.ts'

/** An OCI runtime, and the CNI plugins of its generation. */
type Generation = {
  readonly runtime: string
  readonly path: string
  /** Folder of CNI plugins; '' is Debian's. */
  readonly plugins: string
  readonly cniVersion: string
}

/** crun makes its default state directory, which it is told not to use. */
const CRUN_STATE = '/run/crun'
const hadCrunState = existsSync(CRUN_STATE)
after(() => {
  if (!hadCrunState && existsSync(CRUN_STATE)) rmdirSync(CRUN_STATE)
})

const tools = findTools()
const skip = tools === undefined ? 'critest is not built: Go was missing at set-up' : false
const runs = Number(process.env.BERTH_CONFORMANCE_RUNS ?? 1)
const focus = process.env.BERTH_CONFORMANCE_FOCUS ?? ''
const isSerial = process.env.BERTH_CONFORMANCE_SERIAL === '1'

const generations: readonly Generation[] = [
  { runtime: 'runc', path: '/usr/sbin/runc', plugins: '', cniVersion: '1.0.0' },
  { runtime: 'runc-new', path: tools?.runc ?? '', plugins: tools?.cniPlugins ?? '', cniVersion: '1.1.0' },
  { runtime: 'crun', path: '/usr/bin/crun', plugins: '', cniVersion: '1.0.0' },
]

/** Streams over WebSocket: what the suite otherwise does over SPDY. */
const WEBSOCKET = ['-websocket-exec', '-websocket-attach', '-websocket-portforward']

for (const generation of generations) {
  for (let run = 1; run <= runs; run++) {
    test(`critest, ${nameOf(generation)}, run ${run} of ${runs}`, { skip }, async t => {
      assert.ok(tools)
      await using daemon = await startDaemon(generation)
      const digest = await pushSuiteImages(daemon.registry, tools)
      const host = hostFor(featuresOf(generation))
      t.diagnostic(nameOf(generation))
      const pass = async (name: string, options: { focus: string; flags: readonly string[] }) => {
        const result = await runSuite(daemon, tools, { digest, isSerial, ...options })
        const { table, unexpected } = judge(result, host)
        for (const line of table) t.diagnostic(`  ${name}: ${line}`)
        if (unexpected.length > 0)
          console.log(`${unexpected.join('\n\n')}\n\nthe daemon's log:\n${daemon.log}`)
        assert.equal(unexpected.length, 0, 'specs did something else than expected (see above)')
        return result.specs.length
      }
      const specs = await pass('SPDY', { focus, flags: [] })
      if (focus === '') {
        assert.equal(specs, SPECS, 'the suite has another number of specs')
        const streamed = await pass('WebSocket', { focus: 'Streaming', flags: WEBSOCKET })
        assert.equal(streamed, STREAMING_SPECS, 'the suite has another number of streaming specs')
      }
      const pods = await daemon.leftovers()
      // The suite names no cgroup parent: the daemon's own is there from the first pod on.
      assert.deepEqual(
        pods.filter(thing => !(thing.startsWith('cgroup ') && thing.endsWith(daemon.cgroup))),
        [],
      )
    })
  }
}

async function startDaemon({ runtime, path, plugins, cniVersion }: Generation): Promise<BerthDaemon> {
  const daemon = await BerthDaemon.start({
    label: 'critest',
    config: directory => `[crio.runtime]
default_runtime = "${runtime}"
[crio.runtime.runtimes.${runtime}]
runtime_path = "${runtime === 'crun' ? crunFor(directory, path) : path}"
`,
  })
  for (const plugin of plugins === '' ? [] : globSync(`${plugins}/*`)) {
    copyFileSync(plugin, join(daemon.cniPluginDir, basename(plugin)))
  }
  daemon.configureNetwork({ cniVersion })
  return daemon
}

function nameOf({ path, plugins, cniVersion }: Generation): string {
  if (path === '') return 'a newer runc'
  const version = execFileSync(path, ['--version'], { encoding: 'utf8' }).split('\n')[0]!
  return `${version}, ${plugins === '' ? "Debian's" : 'newer'} CNI plugins (${cniVersion})`
}

function featuresOf({ path }: Generation): string {
  const { status, stdout } = spawnSync(path, ['features'], { encoding: 'utf8' })
  return status === 0 ? stdout : ''
}
