import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isTest, sourcesIn } from '../architecture/sources.ts'
import { EFFECTS } from './effects.ts'
import { OPERATIONS } from './operations.ts'

/** Effects that no operation of the matrix has, and where they are tried instead. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'network.cni-gc': 'network-plugins.test.ts: configurations of CNI 1.1',
  'network.cni-status': 'network-plugins.test.ts; asks and changes nothing',
  'network.drop-lease': 'repairs of berth check: check-network.test.ts',
  'os.kill-cgroup': 'only processes that outlive the first one of their container: os-cgroups.test.ts',
  'os.listen': 'exec with a terminal: exec-streams.test.ts',
  'os.mount-readonly': 'images as volumes: storage-mounts.test.ts',
  'os.notify-systemd': 'a datagram whose loss changes nothing: start.test.ts',
  'os.remove-directory': 'berth wipe: wipe.test.ts',
  'os.remove-lock': 'berth wipe: wipe.test.ts',
  'os.relabel': 'only with SELinux: os-selinux.test.ts',
  'os.raise-file-limit': 'once, before a plan is in force',
  'os.set-context': 'only with SELinux: os-selinux.test.ts',
  'os.signal-child': 'a streamed command whose client leaves: exec-streams.test.ts',
  'registry.get-foreign-blob': 'layers elsewhere: registry-peers.test.ts',
  'registry.get-signature': 'policies that want signatures: pull-policy.test.ts',
  'registry.get-signatures': 'policies that want signatures: pull-policy.test.ts',
  'registry.get-token': 'a registry with accounts: pulls.test.ts',
  'registry.remove-auth-file': 'credential files of the node: pulls.test.ts',
  'runtime.attach': 'changes nothing that stays: attach.test.ts',
  'runtime.remove-log': 'only in the undo of a create: runtime.test.ts',
  'runtime.restore-link': 'repairs of berth check: check-pods.test.ts',
  'state.copy-database': 'a start on an older schema: schema.test.ts',
  'state.migrate': 'a start on an older schema: schema.test.ts',
  'storage.drop-partial': 'downloads that are slow or damaged: pulls.test.ts',
  'storage.keep-partial': 'downloads that are slow or damaged: pulls.test.ts',
  'storage.spool': 'image-archives.test.ts, image-imports.test.ts',
}

const CALL = /\beffect(?:Sync)?(?:<[^>]*>)?\(\s*'([a-z]+)',\s*(?:'([a-z0-9-]+)'|`([a-z-]+)\$|([a-z.]+))/g
const PURPOSE = /(?:purpose: |session\.get\()'([a-z-]+)'/g
const CNI_VERBS = ['add', 'check', 'del', 'gc', 'status']

/** Names of all effects as the source gives them; verbs of CNI and purposes of requests are put in. */
function namesInSource(): string[] {
  const names = new Set<string>()
  for (const { path, text } of sourcesIn('src').filter(source => !isTest(source))) {
    if (path === 'src/base/effects.ts') continue
    for (const [, layer, name, prefix] of text.matchAll(CALL)) {
      if (name !== undefined) names.add(`${layer}.${name}`)
      else if (prefix === 'cni-') for (const verb of CNI_VERBS) names.add(`${layer}.cni-${verb}`)
    }
    for (const [, purpose] of text.matchAll(PURPOSE)) names.add(`registry.${purpose}`)
  }
  return [...names].sort()
}

const met = new Set(Object.values(EFFECTS).flat())

test('every effect of the source is one of an operation of the matrix, or is tried elsewhere', () => {
  const names = namesInSource()
  assert.ok(names.length > 50, 'the source was read')
  const missing = names.filter(name => !met.has(name) && ELSEWHERE[name] === undefined)
  assert.deepEqual(missing, [], 'no operation has them')
  const unknown = [...met, ...Object.keys(ELSEWHERE)].filter(name => !names.includes(name))
  assert.deepEqual(unknown, [], 'the source has none of that name')
  const superfluous = Object.keys(ELSEWHERE).filter(name => met.has(name))
  assert.deepEqual(superfluous, [], 'they need no exception: an operation has them')
})

test('the effects of every operation are written down', () => {
  assert.deepEqual(
    Object.keys(EFFECTS),
    OPERATIONS.map(({ name }) => name),
  )
})
