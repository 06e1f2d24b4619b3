import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parse } from 'smol-toml'
import { SECTIONS } from './keys.ts'
import { checkConfigFile, loadConfig } from './load-config.ts'
import { configValues, renderConfig, renderExample } from './render-config.ts'

const root = join(import.meta.dirname, '../..')

function withFile(toml: string, use: (file: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'berth-render-'))
  try {
    const file = join(directory, 'berth.conf')
    writeFileSync(file, toml)
    use(file)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test('the effective configuration can be read again and is the same', () => {
  const flags = { 'config-dir': [''], root: ['/x'], runtimes: ['crun:/bin/crun'], 'slow-step': ['1m30s'] }
  const { config } = loadConfig({ flags, env: {} })
  const toml = renderConfig(config)
  assert.match(toml, /^root = "\/x" {2}# --root$/m)
  withFile(toml, file => {
    const again = loadConfig({ flags: { config: [file] }, env: {} }).config
    assert.deepEqual(configValues(again), configValues(config))
  })
})

test('the effective configuration shows no secret', () => {
  const { config } = loadConfig({
    flags: { 'config-dir': [''] },
    env: { HTTP_PROXY: 'http://joe:hunter2@proxy' },
  })
  assert.doesNotMatch(renderConfig(config) + JSON.stringify(configValues(config)), /hunter2/)
})

test('conf/berth.conf is what the table of keys says', () => {
  assert.equal(readFileSync(join(root, 'conf/berth.conf'), 'utf8'), renderExample())
})

test('the example sets nothing, and means the defaults when its keys are uncommented', () => {
  const defaults = loadConfig({ flags: { 'config-dir': [''] }, env: {} }).config
  const example = renderExample()
  assert.ok(
    Object.values((parse(example) as { crio: object }).crio).every(table => Object.keys(table).length === 0),
  )
  const uncommented = example.replace(/^# (\[crio\.|[a-z_]+ = )/gm, '$1')
  withFile(uncommented, file => {
    assert.deepEqual(checkConfigFile(file), { problems: [], warnings: [] })
    const { config } = loadConfig({ flags: { config: [file] }, env: {} })
    assert.deepEqual(configValues(config), configValues(defaults))
    const keys = Object.values(SECTIONS).flatMap(table => Object.keys(table)).length
    assert.ok(Object.keys(config.origins).length > keys, 'every key is in the example')
  })
})
