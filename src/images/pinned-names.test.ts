import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pinnedBy } from './pinned-names.ts'

test('whole names, beginnings and parts', () => {
  const isPinned = pinnedBy(['quay.io/a:1', 'registry.k8s.io/pause*', '*/infra/*'])
  for (const name of ['quay.io/a:1', 'registry.k8s.io/pause:3.9', 'registry.k8s.io/pause', 'h/infra/x:1']) {
    assert.equal(isPinned(['other:1', name]), true, name)
  }
  for (const name of ['quay.io/a:12', 'xquay.io/a:1', 'docker.io/registry.k8s.io/pause:1', 'infra/x']) {
    assert.equal(isPinned([name]), false, name)
  }
  assert.equal(isPinned([]), false)
  assert.equal(pinnedBy(['*'])(['a:1']), true)
})
