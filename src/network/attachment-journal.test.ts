import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { AttachmentJournal } from './attachment-journal.ts'

let root: string

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'berth-attachments-'))
})
afterEach(() => rmSync(root, { recursive: true }))

const begun = {
  networkName: 'pods',
  config: { name: 'pods' },
  result: null,
  ifName: 'eth0',
  capabilityArgs: {},
  netns: '/run/n',
  args: 'IgnoreUnknown=1',
}

test('an entry lasts from begin to end, for whoever opens the directory', () => {
  const dir = join(root, 'attachments')
  const journal = new AttachmentJournal(dir)
  assert.deepEqual(journal.podIds(), [])
  assert.equal(journal.find('a1'), undefined)
  journal.begin('a1', begun)
  assert.deepEqual(new AttachmentJournal(dir).find('a1'), begun)
  assert.deepEqual(new AttachmentJournal(dir).podIds(), ['a1'])
  journal.end('a1')
  journal.end('a1')
  assert.deepEqual(journal.podIds(), [])
})

test('what a crash left of an entry is no entry', () => {
  const journal = new AttachmentJournal(root)
  for (const text of ['', '{"networkName":"po', '[]', '{}', '{"networkName":"pods","ifName":"eth0"}']) {
    writeFileSync(join(root, 'a1.json'), text)
    assert.equal(journal.find('a1'), undefined, text)
  }
  writeFileSync(join(root, 'a2.json.tmp'), '{')
  assert.deepEqual(journal.podIds(), ['a1'])
})
