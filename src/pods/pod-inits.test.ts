import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { samplePod } from '../../test/support/cri.ts'
import { RecordedSessions } from '../../test/support/streaming.ts'
import type { ContainerEvents } from '../containers/container-events.ts'
import { processRef } from '../os/processes.ts'
import type { Catalog } from '../state/catalog.ts'
import { PodInits } from './pod-inits.ts'

test('the end of a pod that cannot be recorded at once is recorded later', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' })
  const init = processRef(child.pid!)
  assert.ok(init !== undefined)
  const pod = samplePod({ phase: 'ready', init })
  const tries: string[] = []
  const tried = Promise.withResolvers<void>()
  const catalog = {
    pod: () => pod,
    updatePod: () => {
      tries.push('record')
      tried.resolve()
      if (tries.length === 1) throw new Error('the disk is full')
    },
  } as unknown as Catalog
  const events = { emit: (kind: string) => tries.push(kind) } as unknown as ContainerEvents
  using inits = new PodInits({ catalog, events, log: new RecordedSessions().log })
  inits.follow(pod)
  child.kill('SIGKILL')
  await tried.promise
  t.mock.timers.tick(60_000)
  assert.deepEqual(tries, ['record', 'record', 'stopped'])
})
