import assert from 'node:assert/strict'
import { isDigest } from '../../src/base/digest.ts'
import { parseImageConfig } from '../../src/images/image-config.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seed = JSON.stringify({
  os: 'linux',
  architecture: 'amd64',
  config: {
    User: '1000:users',
    Env: ['PATH=/bin', 'A=b'],
    Entrypoint: ['/bin/sh', '-c'],
    Cmd: ['x'],
    WorkingDir: '/srv',
    Volumes: { '/data': {} },
    StopSignal: 'SIGTERM',
    Labels: { a: 'b', __proto__x: 'c' },
  },
  rootfs: { type: 'layers', diff_ids: [`sha256:${'b'.repeat(64)}`] },
})
const tokens = [
  'null',
  '{}',
  '[]',
  '"__proto__":',
  '"constructor":',
  '4294967296',
  '2147483648',
  '\\u0000',
  '0x0',
  '+0',
]

export const target: FuzzTarget = {
  inputs: mutated([seed], tokens),
  run(input) {
    const config = parseImageConfig(input, { os: 'linux', architecture: 'amd64' }, 1)
    const texts = [
      config.user,
      config.workingDir,
      config.stopSignal,
      ...config.env,
      ...config.entrypoint,
      ...config.cmd,
    ]
    assert.ok(texts.every(text => typeof text === 'string' && !text.includes('\0')))
    assert.ok(config.volumes.every(volume => typeof volume === 'string' && !volume.includes('\0')))
    assert.ok(config.diffIds.length === 1 && config.diffIds.every(isDigest))
    assert.equal(Object.getPrototypeOf(config.labels), null)
    for (const id of config.user.split(':')) assert.ok(!/^\d+$/.test(id) || Number(id) < 2 ** 31)
    assert.equal(({} as Record<string, unknown>).polluted, undefined)
  },
  runs: 2000,
}
