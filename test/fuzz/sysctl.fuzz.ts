import assert from 'node:assert/strict'
import { posix } from 'node:path'
import { toSysctls } from '../../src/cri/convert/sysctls.ts'
import { sysctlPath } from '../../src/os/namespace-calls.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  'net.ipv4.ip_forward=1',
  'net/ipv4/conf/eth0.1/forwarding=1',
  'kernel.shm_rmid_forced=1',
  'fs.mqueue.msg_max=10',
  'kernel.sem=1 2 3 4',
]
const OWN = /^\/proc\/sys\/(net\/|kernel\/(shm|msg|sem)|fs\/mqueue\/)/

/** A name that is taken leads to a file of a namespace that pods have, a value is one line without `+` (CVE-2022-0811). */
export const target: FuzzTarget = {
  inputs: mutated(seeds, ['..', '/', '.', './', '/.', '+kernel.core_pattern=|/x', '=', '%', '@', ' ']),
  run(input) {
    const text = input.toString()
    const equals = text.indexOf('=')
    const wire = { [text.slice(0, Math.max(0, equals))]: text.slice(equals + 1) }
    const pod = { network: 'pod', pid: 'pod', ipc: 'pod', targetId: '' } as const
    for (const [name, value] of Object.entries(toSysctls('sysctls', wire, pod))) {
      const path = sysctlPath(name)
      assert.match(path, OWN)
      assert.equal(posix.normalize(path), path)
      assert.doesNotMatch(value, /[+\x00-\x1f\x7f]/)
    }
    const node = { ...pod, network: 'node', ipc: 'node' } as const
    assert.throws(() => toSysctls('sysctls', wire, node), { code: 'invalid', message: /^sysctls/ })
  },
  runs: 4000,
}
