import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Metrics } from './metrics.ts'

test('calls are counted by method and code', async () => {
  const metrics = new Metrics()
  metrics.onCall('Version', 'OK', 0.0005)
  metrics.onCall('Version', 'OK', 0.3)
  const text = await metrics.text()
  assert.match(text, /berth_rpc_duration_seconds_bucket\{le="0\.001",method="Version",code="OK"\} 1\n/)
  assert.match(text, /berth_rpc_duration_seconds_count\{method="Version",code="OK"\} 2\n/)
})

test('failed steps are counted apart', async () => {
  const metrics = new Metrics()
  metrics.onStep('RunPodSandbox', 'cni-add', 0.01, false)
  metrics.onStep('RunPodSandbox', 'cni-add', 0.01, true)
  const text = await metrics.text()
  assert.match(text, /berth_step_duration_seconds_count\{operation="RunPodSandbox",step="cni-add"\} 2\n/)
  assert.match(text, /berth_step_failures_total\{operation="RunPodSandbox",step="cni-add"\} 1\n/)
})

test('states are counted when asked, and forgotten states disappear', async () => {
  const metrics = new Metrics()
  let pods: Record<string, number> = { ready: 2, notready: 1 }
  metrics.watchStates(
    () => pods,
    () => ({ running: 3 }),
  )
  assert.match(await metrics.text(), /berth_pods\{state="notready"\} 1\n/)
  pods = { ready: 1 }
  const text = await metrics.text()
  assert.match(text, /berth_pods\{state="ready"\} 1\n/)
  assert.doesNotMatch(text, /notready/)
  assert.match(text, /berth_containers\{state="running"\} 3\n/)
})

test('stream sessions: open ones by kind, ended ones by kind and outcome', async () => {
  const metrics = new Metrics()
  metrics.watchSessions(() => ({ exec: 2, attach: 0 }))
  metrics.onSessionEnd('exec', 'client-left')
  const text = await metrics.text()
  assert.match(text, /berth_stream_sessions\{kind="exec"\} 2\n/)
  assert.match(text, /berth_stream_sessions_total\{kind="exec",outcome="client-left"\} 1\n/)
})

test('events that were not delivered are counted', async () => {
  const metrics = new Metrics()
  metrics.onEventLoss('coalesced')
  metrics.onEventLoss('coalesced')
  assert.match(await metrics.text(), /berth_events_dropped_total\{loss="coalesced"\} 2\n/)
})

test('pulls are counted with their bytes, and failures by cause', async () => {
  const metrics = new Metrics()
  metrics.onPull(1.5, undefined)
  metrics.onPull(0.1, 'not-found')
  metrics.onDownload(1000, 24)
  const text = await metrics.text()
  assert.match(text, /berth_pull_duration_seconds_count 1\n/)
  assert.match(text, /berth_pull_failures_total\{cause="not-found"\} 1\n/)
  assert.match(text, /berth_pull_bytes_total\{source="network"\} 1000\n/)
  assert.match(text, /berth_pull_bytes_total\{source="kept"\} 24\n/)
})
