import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkSummaryText, differenceText } from './check-text.ts'
import { wipePlanText } from './wipe-text.ts'

const difference = {
  kind: 'mount-unknown',
  subject: '/run/berth/pods/x/extra',
  pod_id: 'a'.repeat(64),
  container_id: '',
  found: 'something is mounted here\x1b[2J',
  cause: 'somebody mounted it',
  remedy: 'unmount it',
  repairable: true,
  state: 'FOUND',
  error: '',
}

test('a difference is what, why, and what is done about it', () => {
  assert.equal(
    differenceText(difference),
    `mount-unknown: pod aaaaaaaaaaaa, /run/berth/pods/x/extra
  found         something is mounted here [2J
  likely cause  somebody mounted it
  repair would  unmount it
`,
  )
  const failed = { ...difference, state: 'FAILED', error: 'EBUSY' }
  assert.match(differenceText(failed), /^ {2}failed {8}EBUSY$/m)
  assert.match(differenceText({ ...difference, state: 'REPAIRED' }), /^ {2}repaired {6}unmount it$/m)
  assert.match(differenceText({ ...difference, repairable: false }), /^ {2}repair {8}unmount it$/m)
})

test('the last lines say what was compared, what was not, and what is left', () => {
  const summary = { pods: 2, containers: 3, layers: 4, busy: ['pod x'], left: 1 }
  assert.equal(
    checkSummaryText(summary, 1),
    `not compared, since an operation is under way: pod x
compared 2 pods, 3 containers and 4 layers: 1 difference, 1 left
the content of layers was not compared: berth image verify does that
`,
  )
  assert.match(checkSummaryText({ ...summary, busy: [], left: 0 }, 0), /4 layers: no difference\n/)
})

test('a wipe lists what there is, by kind', () => {
  const empty = {
    pods: [],
    containers: [],
    images: [],
    layerBytes: 0,
    strays: [],
    mounts: [],
    cgroups: [],
    addresses: [],
  }
  assert.equal(wipePlanText(empty, []), 'nothing to remove\n')
  const pods = [{ id: 'a'.repeat(64), name: 'default/web', lives: true }]
  const images = [{ id: 'sha256:1', names: ['busybox:1'], size: 2048 }]
  assert.equal(
    wipePlanText({ ...empty, pods, images }, ['/var/lib/berth']),
    `pods (1)
  default/web (aaaaaaaaaaaa, lives)
images (1)
  busybox:1, 2.0 KiB
directories (1)
  /var/lib/berth
`,
  )
})
