import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultSeccomp, type SpecChanges, specInput } from '../../../test/support/spec-input.ts'
import type { OciSeccomp } from '../../model/oci.ts'
import { buildSeccomp, compileSeccomp, localhostSeccompPath, type SeccompTarget } from './seccomp.ts'
import { parseSeccompProfile } from './seccomp-profile.ts'

const target: SeccompTarget = { capabilities: [], arch: 'amd64', x32: false, kernel: '6.1.0-18-amd64' }
const ALLOW = 'SCMP_ACT_ALLOW'
const parse = (document: unknown) => parseSeccompProfile(JSON.stringify(document), 'p.json')
const rule = (name: string, changes = {}) => ({ names: [name], action: ALLOW, ...changes })
const names = (profile: OciSeccomp, action = ALLOW) =>
  new Set(profile.syscalls?.filter(entry => entry.action === action).flatMap(entry => entry.names))

/** What the filter does to a call: all conditions of a rule must hold, and any rule will do. */
function verdict(profile: OciSeccomp, name: string, ...args: number[]): string {
  const held = profile.syscalls?.find(
    entry =>
      entry.names.includes(name) &&
      (entry.args ?? []).every(({ index, value, valueTwo = 0, op }) => {
        const actual = BigInt(args[index] ?? 0)
        if (op === 'SCMP_CMP_EQ') return actual === BigInt(value)
        if (op === 'SCMP_CMP_NE') return actual !== BigInt(value)
        if (op === 'SCMP_CMP_LT') return actual < BigInt(value)
        assert.equal(op, 'SCMP_CMP_MASKED_EQ')
        return (actual & BigInt(value)) === BigInt(valueTwo)
      }),
  )
  return held === undefined ? 'default' : held.action === ALLOW ? 'allow' : `errno ${held.errnoRet}`
}

test('rules hold by capability, architecture and kernel', () => {
  const profile = parse({
    defaultAction: 'SCMP_ACT_ERRNO',
    syscalls: [
      rule('plain'),
      rule('admin', { includes: { caps: ['CAP_SYS_ADMIN'] } }),
      rule('two', { includes: { caps: ['CAP_SYS_ADMIN', 'CAP_KILL'] } }),
      rule('humble', { excludes: { caps: ['CAP_SYS_ADMIN', 'CAP_KILL'] } }),
      rule('arm', { includes: { arches: ['arm64'] } }),
      rule('pc', { includes: { arches: ['amd64', 'x32'] } }),
      rule('new', { includes: { minKernel: '6.9' } }),
      rule('old', { includes: { minKernel: '4.8' }, excludes: { minKernel: '6.1' } }),
    ],
  })
  const of = (changes: Partial<SeccompTarget>) => [
    ...names(compileSeccomp(profile, { ...target, ...changes })),
  ]
  assert.deepEqual(of({}), ['plain', 'humble', 'pc'])
  assert.deepEqual(of({ capabilities: ['CAP_SYS_ADMIN'] }), ['plain', 'admin', 'pc'])
  assert.deepEqual(of({ capabilities: ['CAP_KILL', 'CAP_SYS_ADMIN'] }), ['plain', 'admin', 'two', 'pc'])
  assert.deepEqual(of({ arch: 'arm64' }), ['plain', 'humble', 'arm'])
  assert.deepEqual(of({ kernel: '6.10.3' }), ['plain', 'humble', 'pc', 'new'])
  assert.deepEqual(of({ kernel: '5.15' }), ['plain', 'humble', 'pc', 'old'])
})

test('architectures: those of the node with their 32-bit siblings, or as the profile says', () => {
  const archMap = [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] }]
  const of = (document: object, changes: Partial<SeccompTarget> = {}) =>
    compileSeccomp(parse({ defaultAction: ALLOW, ...document }), { ...target, ...changes }).architectures
  assert.deepEqual(of({ archMap }), ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'])
  assert.deepEqual(of({ archMap }, { x32: true }), ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'])
  assert.deepEqual(of({ archMap }, { arch: 'arm64' }), ['SCMP_ARCH_AARCH64'])
  assert.deepEqual(of({ architectures: ['SCMP_ARCH_X32'] }), ['SCMP_ARCH_X32'])
})

test('the OCI form keeps errno, flags and conditions; errnos may be names', () => {
  const compiled = compileSeccomp(
    parse({
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrno: 'ENOSYS',
      flags: ['SECCOMP_FILTER_FLAG_LOG'],
      syscalls: [
        {
          name: 'one',
          action: 'SCMP_ACT_ERRNO',
          errno: 'EPERM',
          args: [{ index: 1, value: 2, op: 'SCMP_CMP_EQ' }],
        },
      ],
    }),
    target,
  )
  assert.deepEqual(compiled, {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    architectures: ['SCMP_ARCH_X86_64'],
    flags: ['SECCOMP_FILTER_FLAG_LOG'],
    syscalls: [
      {
        names: ['one'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: 1,
        args: [{ index: 1, value: 2, valueTwo: 0, op: 'SCMP_CMP_EQ' }],
      },
    ],
  })
})

test('a bad profile is refused by file and member', () => {
  const bad: Array<[unknown, RegExp]> = [
    [[], /p\.json: the profile: expected an object/],
    [{}, /defaultAction/],
    [{ defaultAction: 'ALLOW' }, /defaultAction/],
    [{ defaultAction: ALLOW, syscalls: {} }, /syscalls: expected a list/],
    [{ defaultAction: ALLOW, syscalls: [{ action: ALLOW }] }, /syscalls\[0\]\.names/],
    [{ defaultAction: ALLOW, syscalls: [rule('x', { action: 'ALLOW' })] }, /syscalls\[0\]\.action/],
    [
      { defaultAction: ALLOW, syscalls: [rule('x', { args: [{ index: 6, op: 'SCMP_CMP_EQ' }] })] },
      /args\[0\]\.index/,
    ],
    [{ defaultAction: ALLOW, syscalls: [rule('x', { args: [{ index: 0, op: '==' }] })] }, /args\[0\]\.op/],
    [
      {
        defaultAction: ALLOW,
        syscalls: [rule('x', { args: [{ index: 0, value: 2 ** 60, op: 'SCMP_CMP_EQ' }] })],
      },
      /args\[0\]\.value/,
    ],
    [{ defaultAction: ALLOW, syscalls: [rule('x', { errno: 'EWHAT' })] }, /EWHAT/],
    [{ defaultAction: ALLOW, syscalls: [rule('x', { includes: { minKernel: 'new' } })] }, /minKernel/],
  ]
  for (const [document, message] of bad) assert.throws(() => parse(document), { code: 'invalid', message })
  assert.throws(() => parseSeccompProfile('{', 'p.json'), { code: 'invalid', message: /p\.json: the file/ })
})

test('the default profile: what needs a capability is denied without it', () => {
  const without = compileSeccomp(defaultSeccomp(), target)
  const capable = compileSeccomp(defaultSeccomp(), {
    ...target,
    capabilities: ['CAP_SYS_ADMIN', 'CAP_SYS_MODULE'],
  })
  for (const name of ['bpf', 'perf_event_open', 'init_module']) {
    assert.equal(verdict(without, name), 'errno 1')
    assert.equal(verdict(capable, name), 'allow')
  }
  for (const name of ['read', 'execve', 'clone3', 'futex', 'openat2'])
    assert.equal(verdict(without, name), 'allow')
  for (const name of ['kexec_load', 'userfaultfd', 'swapon']) assert.equal(verdict(capable, name), 'errno 1')
  for (const name of ['io_uring_setup', 'io_uring_enter', 'add_key', 'request_key']) {
    assert.equal(verdict(capable, name), 'default')
  }
  assert.equal(without.defaultErrnoRet, 38)
})

test('the default profile: no name is both allowed and denied', () => {
  for (const capabilities of [[], ['CAP_SYS_ADMIN', 'CAP_AUDIT_WRITE']]) {
    const profile = compileSeccomp(defaultSeccomp(), { ...target, capabilities })
    const denied = names(profile, 'SCMP_ACT_ERRNO')
    assert.deepEqual(
      [...names(profile)].filter(name => denied.has(name)),
      ['socket'],
    )
  }
})

test('the default profile: sockets of every family but two; of netlink auditing only with its capability', () => {
  const plain = compileSeccomp(defaultSeccomp(), target)
  const auditing = compileSeccomp(defaultSeccomp(), { ...target, capabilities: ['CAP_AUDIT_WRITE'] })
  for (let family = 0; family < 48; family++) {
    const expected = family === 38 || family === 40 ? 'errno 97' : 'allow'
    assert.equal(verdict(plain, 'socket', family, 1, 0), expected, `family ${family}`)
    assert.equal(verdict(auditing, 'socket', family, 1, 0), expected, `family ${family}`)
  }
  assert.equal(verdict(plain, 'socket', 16, 3, 9), 'errno 22')
  assert.equal(verdict(auditing, 'socket', 16, 3, 9), 'allow')
})

test('cve-2026-31431: no AF_ALG, whatever the upper half of the argument says, which the kernel drops', () => {
  for (const capabilities of [[], ['CAP_AUDIT_WRITE'], ['CAP_SYS_ADMIN', 'CAP_AUDIT_WRITE']]) {
    const profile = compileSeccomp(defaultSeccomp(), { ...target, capabilities })
    for (const upper of [0, 2 ** 32, 2 ** 40, 2 ** 52]) {
      for (const family of [38, 40]) {
        for (const protocol of [0, 9])
          assert.notEqual(verdict(profile, 'socket', upper + family, 5, protocol), 'allow')
      }
    }
  }
})

test('the default profile: personality only where it changes no rule', () => {
  const profile = compileSeccomp(defaultSeccomp(), target)
  for (const value of [0, 8, 0x20000, 0x20008, 0xffffffff])
    assert.equal(verdict(profile, 'personality', value), 'allow')
  for (const value of [1, 0x400000, 0x40000]) assert.equal(verdict(profile, 'personality', value), 'default')
})

test('which profile a container gets', () => {
  const build = (changes: SpecChanges) => buildSeccomp(specInput(changes), ['CAP_SYS_ADMIN'])
  const byDefault: SpecChanges = { security: { seccomp: { kind: 'runtime-default' } } }
  assert.equal(build({}), undefined)
  assert.equal(build({ security: { seccomp: { kind: 'unconfined' } } }), undefined)
  assert.equal(verdict(build(byDefault)!, 'bpf'), 'allow')
  assert.equal(build({ security: { ...byDefault.security, privileged: true } }), undefined)

  const notices: string[] = []
  const input = { notice: (message: string) => notices.push(message) }
  assert.equal(build({ ...byDefault, host: { seccomp: false }, input }), undefined)
  assert.equal(notices.length, 1)

  const local: SpecChanges = { security: { seccomp: { kind: 'localhost', path: '/p.json' } } }
  const localhostSeccomp = parse({ defaultAction: ALLOW, syscalls: [] })
  assert.equal(build({ ...local, input: { localhostSeccomp } })?.defaultAction, ALLOW)
  assert.throws(() => build(local), { code: 'invalid' })
  assert.throws(() => build({ ...local, host: { seccomp: false } }), { code: 'precondition' })
})

test('the file of a localhost profile is an absolute, clean path', () => {
  assert.equal(localhostSeccompPath({ kind: 'localhost', path: '/a/p.json' }), '/a/p.json')
  assert.equal(localhostSeccompPath({ kind: 'runtime-default' }), undefined)
  assert.equal(localhostSeccompPath(undefined), undefined)
  for (const path of ['', 'p.json', '/a/../p.json', '/a//p.json', '/a/', '/a\0']) {
    assert.throws(() => localhostSeccompPath({ kind: 'localhost', path }), { message: /localhost_ref/ })
  }
})
