import assert from 'node:assert/strict'
import { compileSeccomp } from '../../src/containers/spec/seccomp.ts'
import { parseSeccompProfile } from '../../src/containers/spec/seccomp-profile.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seed = JSON.stringify({
  defaultAction: 'SCMP_ACT_ERRNO',
  defaultErrnoRet: 1,
  archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
  syscalls: [
    { names: ['read', 'write'], action: 'SCMP_ACT_ALLOW' },
    {
      name: 'clone',
      action: 'SCMP_ACT_ALLOW',
      args: [{ index: 0, value: 2114060288, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
      includes: { minKernel: '4.8', arches: ['amd64'] },
      excludes: { caps: ['CAP_SYS_ADMIN'] },
    },
    { names: ['bpf'], action: 'SCMP_ACT_ERRNO', errno: 'EPERM' },
  ],
})
const tokens = [
  'null',
  '{}',
  '[]',
  '-1',
  '1e30',
  '18446744073709551615',
  '"errnoRet":',
  'EPERM',
  '"__proto__":',
  'constructor',
]
const target86 = {
  capabilities: ['CAP_SYS_ADMIN'],
  arch: 'amd64',
  x32: false,
  kernel: '6.1.0-18-amd64',
} as const

/** What is compiled from a profile of the node is what an OCI runtime takes. */
export const target: FuzzTarget = {
  inputs: mutated([seed], tokens),
  run(input) {
    const filter = compileSeccomp(parseSeccompProfile(input.toString(), 'fuzz.json'), target86)
    assert.match(filter.defaultAction, /^SCMP_ACT_/)
    for (const { names, action, errnoRet, args } of filter.syscalls ?? []) {
      assert.ok(names.length > 0 && names.every(name => typeof name === 'string'))
      assert.match(action, /^SCMP_ACT_/)
      assert.ok(errnoRet === undefined || (Number.isInteger(errnoRet) && errnoRet >= 0 && errnoRet <= 4095))
      for (const { index, value } of args ?? [])
        assert.ok(index >= 0 && index < 6 && Number.isSafeInteger(value))
    }
  },
  runs: 2000,
}
