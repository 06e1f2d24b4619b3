import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CriFacts, factsOf } from '../support/cri-facts.ts'

const VERSION = 'v0.36.0'
const root = join(import.meta.dirname, '../..')
const table = JSON.parse(readFileSync(join(root, 'test/facts/cri-v1.json'), 'utf8')) as CriFacts & {
  source: string
}

test('proto/runtime/v1/api.proto says what the table of facts says', () => {
  const { source, ...facts } = table
  assert.match(source, new RegExp(VERSION.replaceAll('.', '\\.')))
  assert.deepEqual(factsOf(join(root, 'proto/runtime/v1/api.proto')), facts)
  assert.equal(Object.keys(facts.calls).length, 41)
})

test('the table of facts says what the Go module says', context => {
  const module = cachedModule()
  if (module === undefined) {
    context.skip(`not in Go's module cache; to have it: go mod download k8s.io/cri-api@${VERSION}`)
    return
  }
  const { source: _, ...facts } = table
  assert.deepEqual(factsOf(join(module, 'pkg/apis/runtime/v1/api.proto')), facts)
})

/** Directory of the module if Go is there and has it; asks nothing of the network. */
function cachedModule(): string | undefined {
  const go = ['/usr/local/go/bin/go', '/usr/bin/go'].find(existsSync)
  if (go === undefined) return undefined
  try {
    const answer = execFileSync(go, ['mod', 'download', '-json', `k8s.io/cri-api@${VERSION}`], {
      cwd: '/',
      env: { ...process.env, GOPROXY: 'off', GOSUMDB: 'off', GOFLAGS: '', GOTOOLCHAIN: 'local' },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    return (JSON.parse(answer.toString()) as { Dir: string }).Dir
  } catch {
    return undefined
  }
}
