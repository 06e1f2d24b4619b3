import assert from 'node:assert/strict'
import { test } from 'node:test'
import { slicePath } from './slice.ts'

test('the name of a slice spells out its path', () => {
  assert.equal(slicePath('berth.slice'), '/berth.slice')
  assert.equal(
    slicePath('kubepods-burstable-pod1_2.slice'),
    '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice',
  )
})

test('what is no name of a slice below the root has no path', () => {
  for (const name of [
    '',
    '.slice',
    '-.slice',
    'a--b.slice',
    '-a.slice',
    'a-.slice',
    'a/b.slice',
    'a b.slice',
    'a.scope',
  ]) {
    assert.equal(slicePath(name), undefined, name)
  }
})
