import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { VERSION } from '../base/version.ts'
import { run } from './program.ts'

let directory = ''

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-cli-'))
})

after(() => {
  rmSync(directory, { recursive: true })
})

type Result = { readonly code: number; readonly stdout: string; readonly stderr: string }

async function berth(...args: readonly string[]): Promise<Result> {
  let [stdout, stderr] = ['', '']
  const streams = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
  }
  const code = await run(args, streams)
  return { code, stdout, stderr }
}

test('version, for people and for programs', async () => {
  const [text, json] = await Promise.all([berth('version'), berth('version', '--json')])
  assert.match(text.stdout, new RegExp(`^berth ${VERSION} `))
  assert.equal((JSON.parse(json.stdout) as { version: string }).version, VERSION)
  assert.deepEqual(await berth('--version'), { code: 0, stdout: `${VERSION}\n`, stderr: '' })
})

test('the effective configuration, with flags', async () => {
  const [text, json] = await Promise.all([
    berth('config', '--config-dir=', '--root=/x', '--pids-limit', '7'),
    berth(
      'config',
      '--config-dir=',
      '--json',
      '--cni-plugin-dir',
      '/a',
      '--cni-plugin-dir',
      '/b,/c',
      '--enable-metrics',
    ),
  ])
  assert.match(text.stdout, /^root = "\/x" {2}# --root$/m)
  assert.match(text.stdout, /^pids_limit = 7 {2}# --pids-limit$/m)
  const { values, origins } = JSON.parse(json.stdout)
  assert.deepEqual(values['crio.network'].plugin_dirs, ['/a', '/b', '/c'])
  assert.equal(values['crio.metrics'].enable_metrics, true)
  assert.equal(origins['crio.network.plugin_dirs'], '--cni-plugin-dir')
  assert.match(json.stderr, /^warning: --enable-metrics: crio\.metrics\.enable_metrics has no effect/)
})

test('a file is checked, all of its problems are told', async () => {
  const file = join(directory, 'check.toml')
  writeFileSync(file, '[crio]\nrot = "/x"\nrunroot = 3\n')
  const { code, stdout, stderr } = await berth('config', 'check', file)
  assert.deepEqual([code, stdout], [1, ''])
  assert.match(
    stderr,
    /:2: crio\.rot: unknown key; did you mean "root"\?\n.*:3: crio\.runroot: expected an absolute path/,
  )
  const good = join(directory, 'good.toml')
  writeFileSync(good, '')
  assert.deepEqual(await berth('config', 'check', good), { code: 0, stdout: `${good}: good\n`, stderr: '' })
})

test('wrong usage ends with 2 and a hint', async () => {
  const wrong = await Promise.all([
    berth('config', '--rot', '/x'),
    berth('statu'),
    berth('timeline'),
    berth('pull', 'a', 'b'),
  ])
  assert.deepEqual(
    wrong.map(({ code, stdout }) => [code, stdout]),
    wrong.map(() => [2, '']),
  )
  assert.match(wrong[0]!.stderr, /^berth: unknown option '--rot'\n\(Did you mean --root\?\)/)
  assert.match(wrong[1]!.stderr, /Did you mean status/)
})

test('every command explains itself', async () => {
  const commands = [
    [],
    ['daemon'],
    ['config'],
    ['config', 'check'],
    ['status'],
    ['check'],
    ['wipe'],
    ['timeline'],
    ['pull'],
    ['version'],
  ]
  const results = await Promise.all(commands.map(command => berth(...command, '--help')))
  for (const [index, { code, stdout, stderr }] of results.entries()) {
    assert.deepEqual([code, stderr], [0, ''], commands[index]?.join(' '))
    assert.match(stdout, /^Usage: berth /)
  }
  assert.match(results[0]!.stdout, /Exit codes:\n {2}0 {2}done/)
})

test('a daemon that is not there ends with 3 and one sentence', async () => {
  const socket = join(directory, 'none.sock')
  const results = await Promise.all([
    berth('status', '--listen', socket),
    berth('timeline', 'web', '--listen', `unix://${socket}`),
    berth('pull', 'busybox', '--listen', socket),
  ])
  for (const { code, stdout, stderr } of results) {
    assert.deepEqual([code, stdout], [3, ''])
    assert.match(stderr, /^berth: the daemon is not running: .*none\.sock.*\n$/)
  }
})

test('credentials that are none are refused before anything is asked', async () => {
  const file = join(directory, 'creds')
  writeFileSync(file, 'nobody\n')
  const { code, stderr } = await berth('pull', 'busybox', '--creds', file, '--listen', '/nowhere')
  assert.deepEqual([code, stderr], [1, `berth: --creds: expected user:password in ${file}\n`])
})
