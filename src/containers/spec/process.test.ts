import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type SpecChanges, someResources, specInput } from '../../../test/support/spec-input.ts'
import { CAPABILITIES } from '../../os/capabilities.ts'
import { buildProcess, execProcess } from './process.ts'

const build = (changes: SpecChanges) => buildProcess(specInput(changes))
const refused = (changes: SpecChanges, message: RegExp) =>
  assert.throws(() => build(changes), { code: 'invalid', message })

test('command replaces entrypoint and cmd, args replace cmd, and nothing left is an error', () => {
  const image = { entrypoint: ['/entry', 'e'], cmd: ['c'] }
  const args = (command: string[], given: string[]) => build({ image, config: { command, args: given } }).args
  assert.deepEqual(args([], []), ['/entry', 'e', 'c'])
  assert.deepEqual(args([], ['a']), ['/entry', 'e', 'a'])
  assert.deepEqual(args(['x'], []), ['x'])
  assert.deepEqual(args(['x'], ['a']), ['x', 'a'])
  refused({ config: { command: [] } }, /no command/)
  refused({ config: { command: [''] } }, /first word is empty/)
  refused({ config: { command: ['a\0b'] } }, /NUL/)
})

test("environment: defaults, then the configuration's, the image's, the request's; each name once", () => {
  const env = build({
    image: { env: ['PATH=/image', 'A=image', 'B=image', 'NOVALUE', '=x'] },
    defaults: { env: ['A=default', 'C=default'] },
    config: {
      envs: [
        ['B', 'request=1'],
        ['EMPTY', ''],
      ],
      tty: true,
    },
  }).env
  assert.deepEqual(env, [
    'PATH=/image',
    'HOSTNAME=pod',
    'HOME=/root',
    'TERM=xterm',
    'A=image',
    'C=default',
    'B=request=1',
    'EMPTY=',
  ])
  assert.match(
    build({ image: { env: [] } }).env.join(' '),
    /^PATH=\/usr\/local\/sbin:\S+ HOSTNAME=pod HOME=\/root$/,
  )
  refused({ config: { envs: [['A=B', '']] } }, /config\.envs\[0\]\.key/)
  refused({ config: { envs: [['', '']] } }, /config\.envs\[0\]\.key/)
  refused({ config: { envs: [['A', 'x\0']] } }, /config\.envs\[0\]\.value/)
})

test("directory: the request's, the image's, the root; cve-2024-21626: never in /proc", () => {
  const cwd = (workingDir: string, image = '') =>
    build({ config: { workingDir }, image: { workingDir: image } }).cwd
  assert.equal(cwd(''), '/')
  assert.equal(cwd('', 'srv'), '/srv')
  assert.equal(cwd('/a//b/./c/', '/srv'), '/a/b/c')
  for (const workingDir of ['/proc/self/fd/7', '/proc', '/a/../proc/self/cwd', 'proc/1/root']) {
    refused({ config: { workingDir } }, /working_dir/)
  }
})

test('user, groups and terminal', () => {
  const user = { uid: 5, gid: 6, supplementalGroups: [6, 7], home: '/' }
  assert.deepEqual(build({ input: { user } }).user, { uid: 5, gid: 6, additionalGids: [6, 7] })
  assert.equal(build({ config: { tty: true } }).terminal, true)
  assert.equal(build({ security: { noNewPrivs: true } }).noNewPrivileges, true)
})

test("without CAP_SYS_RESOURCE nothing goes beyond berth's own score and limits, and that is said", () => {
  const notices: string[] = []
  const changes: SpecChanges = {
    config: { resources: someResources({ oomScoreAdj: -998 }) },
    defaults: {
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: 100, hard: -1 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 10 },
      ],
    },
    input: { notice: message => notices.push(message) },
  }
  const free = build(changes)
  assert.equal(free.oomScoreAdj, -998)
  assert.deepEqual(free.rlimits?.[0], { type: 'RLIMIT_NOFILE', soft: 100, hard: -1 })
  assert.deepEqual(notices, [])
  const capabilities = CAPABILITIES.filter(name => name !== 'CAP_SYS_RESOURCE')
  const clamped = build({ ...changes, host: { capabilities, oomScoreAdj: -10, hardLimit: () => 50n } })
  assert.equal(clamped.oomScoreAdj, -10)
  assert.deepEqual(clamped.rlimits, [
    { type: 'RLIMIT_NOFILE', soft: 50, hard: 50 },
    { type: 'RLIMIT_CORE', soft: 0, hard: 10 },
  ])
  assert.equal(notices.length, 2)
})

test('the score is always set, so that the container does not inherit that of the daemon', () => {
  assert.equal(build({}).oomScoreAdj, 0)
  refused({ config: { resources: someResources({ oomScoreAdj: 1001 }) } }, /oom_score_adj/)
})

test('a further process has what the first one has, but its command and terminal', () => {
  const first = build({ config: { envs: [['A', '1']] }, security: { noNewPrivs: true } })
  const exec = execProcess(first, ['ls', ''], true)
  assert.deepEqual(exec, { ...first, args: ['ls', ''], terminal: true, env: [...first.env, 'TERM=xterm'] })
  assert.deepEqual(execProcess(first, ['ls'], false).env, first.env)
  assert.throws(() => execProcess(first, [], false), { code: 'invalid', message: /cmd/ })
  assert.throws(() => execProcess(first, ['\0'], false), { code: 'invalid', message: /cmd/ })
})
