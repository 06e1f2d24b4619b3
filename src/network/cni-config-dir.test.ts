import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { run } from '../os/spawn.ts'
import { CniConfigDir } from './cni-config-dir.ts'

let root: string
let dir: string

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'berth-cni-config-'))
  dir = join(root, 'net.d')
})
afterEach(() => rmSync(root, { recursive: true }))

function put(name: string, networkName: string): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(
    join(dir, name),
    JSON.stringify({ cniVersion: '1.0.0', name: networkName, plugins: [{ type: 'bridge' }] }),
  )
}

test('a directory that comes later is found when it is there, and missed when it is gone', () => {
  const config = new CniConfigDir(dir, undefined)
  assert.deepEqual(config.refresh(), { active: undefined, problems: [`${dir}: does not exist`] })
  mkdirSync(dir)
  writeFileSync(join(dir, 'README.md'), 'nothing')
  assert.match(config.refresh().problems[0]!, /no \.conflist, \.conf or \.json file/)
  put('10-pods.conflist', 'pods')
  assert.equal(config.refresh().active?.network.name, 'pods')
  rmSync(dir, { recursive: true })
  assert.equal(config.refresh().active, undefined)
})

test('the lexically first usable file wins, and earlier ones say why they are not used', () => {
  put('20-second.conf', 'second')
  put('30-third.conflist', 'third')
  writeFileSync(join(dir, '10-broken.json'), '{')
  writeFileSync(join(dir, '05-huge.conf'), Buffer.alloc(65 * 1024, 0x20))
  mkdirSync(join(dir, '06-dir.conf'))
  symlinkSync('/nonexistent', join(dir, '07-dangling.conf'))
  const { active, problems } = new CniConfigDir(dir, undefined).refresh()
  assert.equal(active?.file, join(dir, '20-second.conf'))
  assert.deepEqual(
    problems.map(problem => problem.slice(dir.length + 1).replace(/:.*/s, '')),
    ['05-huge.conf', '06-dir.conf', '07-dangling.conf', '10-broken.json'],
  )
  assert.match(problems[0]!, /expected at most 65536 bytes/)
  assert.match(problems[1]!, /expected a regular file|EISDIR/)
  assert.match(problems[3]!, /JSON/)
})

test('a FIFO in the directory stops nobody', async () => {
  put('20-pods.conflist', 'pods')
  await run('/usr/bin/mkfifo', { args: [join(dir, '10-fifo.conf')], env: {}, timeoutMs: 5000 })
  const { active, problems } = new CniConfigDir(dir, undefined).refresh()
  assert.equal(active?.network.name, 'pods')
  assert.match(problems[0]!, /10-fifo\.conf: expected a regular file/)
})

test('a wanted network is found wherever it stands, and its absence is said', () => {
  put('10-a.conflist', 'a')
  const config = new CniConfigDir(dir, 'b')
  assert.match(config.refresh().problems.join('\n'), /network "a" is not.*\n.*no network named "b"/)
  put('20-b.conflist', 'b')
  assert.equal(config.refresh().active?.file, join(dir, '20-b.conflist'))
})

test('an unchanged directory gives the same object; a file rewritten in place does not', () => {
  put('10-a.conflist', 'a')
  const config = new CniConfigDir(dir, undefined)
  const before = config.refresh()
  assert.equal(config.refresh(), before)
  put('10-a.conflist', 'b') // same name, inode and size
  utimesSync(join(dir, '10-a.conflist'), 1, 1)
  assert.equal(config.refresh().active?.network.name, 'b')
})

test('a directory full of something else is refused as a whole', () => {
  for (let i = 0; i < 65; i++) put(`${i}.conf`, 'x')
  const { active, problems } = new CniConfigDir(dir, undefined).refresh()
  assert.equal(active, undefined)
  assert.match(problems[0]!, /65 configurations, at most 64/)
})
