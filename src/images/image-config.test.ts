import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseImageConfig } from './image-config.ts'

const DIFF = `sha256:${'ab'.repeat(32)}`
const node = { os: 'linux', architecture: 'amd64' }

function parse(change: Record<string, unknown>, layers = 1) {
  const document = {
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [DIFF] },
    ...change,
  }
  return parseImageConfig(Buffer.from(JSON.stringify(document)), node, layers)
}

test('everything a runtime uses', () => {
  const config = parse({
    config: {
      User: '1000:100',
      Env: ['A=1'],
      Entrypoint: ['/bin/sh', '-c'],
      Cmd: null,
      WorkingDir: '/srv',
      Volumes: { '/data': {} },
      Labels: JSON.parse('{"__proto__": "a label", "b": null}'),
      StopSignal: 'SIGINT',
      ExposedPorts: { '80/tcp': {} },
    },
  })
  assert.deepEqual(
    { ...config, labels: Object.entries(config.labels) },
    {
      os: 'linux',
      architecture: 'amd64',
      user: '1000:100',
      env: ['A=1'],
      entrypoint: ['/bin/sh', '-c'],
      cmd: [],
      workingDir: '/srv',
      volumes: ['/data'],
      stopSignal: 'SIGINT',
      labels: [
        ['__proto__', 'a label'],
        ['b', ''],
      ],
      diffIds: [DIFF],
    },
  )
})

test('what is left out is empty', () => {
  for (const config of [undefined, null, {}]) {
    const { env, user, volumes, labels } = parse({ config, os: undefined, architecture: '' })
    assert.deepEqual([env, user, volumes, Object.keys(labels)], [[], '', [], []])
  }
})

test('documents that are no configuration of an image for this node', () => {
  const cases: ReadonlyArray<[change: Record<string, unknown>, message: RegExp]> = [
    [{ rootfs: undefined }, /artifact/],
    [{ rootfs: { type: 'other', diff_ids: [DIFF] } }, /artifact/],
    [{ rootfs: { type: 'layers', diff_ids: [DIFF, DIFF] } }, /2 entries, but the manifest has 1 layers/],
    [{ rootfs: { type: 'layers', diff_ids: ['sha256:../../etc'] } }, /rootfs\.diff_ids\[0\]/],
    [{ architecture: 'arm64' }, /the image is for linux\/arm64, this node is linux\/amd64/],
    [{ os: 'windows' }, /windows\/amd64/],
    [{ config: [] }, /config: expected an object/],
    [{ config: { User: 0 } }, /config\.User: expected a string, got 0/],
    [{ config: { User: '2147483648' } }, /config\.User: expected ids from 0 to 2147483647/],
    [{ config: { User: '4294967296:0' } }, /config\.User/],
    [{ config: { User: '0:4294967296' } }, /config\.User/],
    [{ config: { Env: 'A=1' } }, /config\.Env: expected a list/],
    [{ config: { Cmd: ['a', 1] } }, /config\.Cmd\[1\]: expected a string/],
    [{ config: { Env: ['A=\0'] } }, /config\.Env\[0\]: a string with a NUL/],
    [{ config: { Volumes: ['/data'] } }, /config\.Volumes: expected an object/],
    [{ config: { Labels: { a: {} } } }, /config\.Labels\["a"\]/],
  ]
  for (const [change, message] of cases) {
    assert.throws(() => parse(change), { message }, JSON.stringify(change))
  }
  const read = (text: string) => () => parseImageConfig(Buffer.from(text), node, 0)
  assert.throws(read('{'), /not valid JSON/)
  assert.throws(read('{"os": "linux", "os": "windows"}'), /twice/)
  assert.throws(read('[]'), /no JSON object/)
})
