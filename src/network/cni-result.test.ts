import assert from 'node:assert/strict'
import { isIP } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { MAX_RESULT_BYTES, parseFailure, parseResult, podAddresses } from './cni-result.ts'

const bridgeResult = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'cni0', mac: 'aa' }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/x' }],
  ips: [
    { address: '10.0.0.5/16', gateway: '10.0.0.1', interface: 2 },
    { address: 'fd00::5/64', interface: 2 },
  ],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: {},
}

const parse = (value: unknown, version: '0.3.1' | '1.0.0' | '1.1.0' = '1.0.0') =>
  parseResult(Buffer.from(JSON.stringify(value)), version)

test('addresses come bare and in the order given', () => {
  assert.deepEqual(podAddresses(parse(bridgeResult), 'eth0'), ['10.0.0.5', 'fd00::5'])
  const reversed = { ...bridgeResult, ips: bridgeResult.ips.toReversed() }
  assert.deepEqual(podAddresses(parse(reversed), 'eth0'), ['fd00::5', '10.0.0.5'])
})

test('addresses of the host side and of other interfaces are not those of the pod', () => {
  const result = parse({
    interfaces: [{ name: 'eth0' }, { name: 'lo', sandbox: '/n' }, { name: 'eth0', sandbox: '/n' }],
    ips: [
      { address: '192.0.2.1/24', interface: 0 },
      { address: '127.0.0.1/8', interface: 1 },
      { address: '192.0.2.2/24', interface: 2 },
    ],
  })
  assert.deepEqual(podAddresses(result, 'eth0'), ['192.0.2.2'])
})

test('addresses without an interface count, and all of them when none is inside the pod', () => {
  assert.deepEqual(podAddresses(parse({ ips: [{ address: '192.0.2.2/32' }] }), 'eth0'), ['192.0.2.2'])
  const outside = { interfaces: [{ name: 'cali1' }], ips: [{ address: '192.0.2.3/32', interface: 0 }] }
  assert.deepEqual(podAddresses(parse(outside), 'eth0'), ['192.0.2.3'])
})

test('a result takes the form of the version that was asked for', () => {
  const old = parse(bridgeResult, '0.3.1')
  assert.equal(old.cniVersion, '0.3.1')
  assert.deepEqual(
    (old.ips as Array<{ version: string }>).map(ip => ip.version),
    ['4', '6'],
  )
  const fresh = parse({ cniVersion: '0.4.0', ips: [{ version: '4', address: '10.0.0.5/16' }] }, '1.1.0')
  assert.deepEqual(fresh, { cniVersion: '1.1.0', interfaces: [], ips: [{ address: '10.0.0.5/16' }] })
})

test('members that nobody knows here are kept for the next plugin', () => {
  assert.deepEqual(parse({ ...bridgeResult, 'vendor.example/x': [1] }), {
    ...bridgeResult,
    'vendor.example/x': [1],
  })
})

test('a wrong result is refused by the member that is wrong', () => {
  const cases: Array<[unknown, RegExp]> = [
    [[], /expected a result as a JSON object, found "\[\]"/],
    [{ cniVersion: '0.1.0', ip4: {} }, /result\.cniVersion: expected 1\.0\.0/],
    [{ ips: {} }, /result\.ips: expected an array/],
    [{ ips: [7] }, /result\.ips\[0\]: expected a JSON object/],
    [{ ips: [{}] }, /result\.ips\[0\]\.address: expected a string/],
    [{ interfaces: [{}] }, /result\.interfaces\[0\]\.name: expected a string/],
    [{ ips: [{ address: '10.0.0.1/24', interface: 0 }] }, /result\.ips\[0\]\.interface: expected an index/],
  ]
  for (const address of [
    '10.0.0.1',
    '10.0.0.1/33',
    'fd00::1/129',
    '10.0.0.256/8',
    'fe80::1%eth0/64',
    '/8',
    'x/8',
    '1.2.3.4/8;',
  ]) {
    cases.push([
      { ips: [{ address }] },
      /result\.ips\[0\]\.address: expected an IP address with its prefix length/,
    ])
  }
  for (const [value, message] of cases) assert.throws(() => parse(value), message)
  assert.throws(() => parseResult(Buffer.alloc(0), '1.0.0'), /found nothing/)
  assert.throws(() => parseResult(Buffer.alloc(MAX_RESULT_BYTES + 1, 0x20), '1.0.0'), /larger than/)
})

test('nesting that could not be passed on is refused', () => {
  const deep = `{"x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`
  assert.throws(() => parseResult(Buffer.from(deep), '1.0.0'), /nested too deep/)
})

test('a failure gives code, message and details on one line', () => {
  const output = (value: unknown) => Buffer.from(JSON.stringify(value))
  assert.deepEqual(parseFailure(output({ code: 11, msg: 'busy\nnow', details: 'x' })), {
    code: 11,
    msg: 'busy now',
    details: 'x',
  })
  assert.equal(parseFailure(output({ code: 100, msg: 'a'.repeat(10_000) }))?.msg.length, 513)
  assert.equal(parseFailure(output({ msg: 'no code' })), undefined)
  assert.equal(parseFailure(Buffer.from('panic: x')), undefined)
})

test('whatever a plugin prints, a result has only addresses in it or there is none', () => {
  const address = fc.oneof(
    fc.ipV4().map(ip => `${ip}/24`),
    fc.ipV6().map(ip => `${ip}/64`),
    fc.string(),
    fc.jsonValue(),
  )
  const item = fc.record(
    { address, name: fc.string(), sandbox: fc.string(), interface: fc.oneof(fc.integer(), fc.jsonValue()) },
    { requiredKeys: [] },
  )
  const result = fc.record(
    {
      cniVersion: fc.oneof(fc.constantFrom('0.3.1', '1.1.0'), fc.jsonValue()),
      interfaces: fc.oneof(fc.array(item), fc.jsonValue()),
      ips: fc.oneof(fc.array(item), fc.jsonValue()),
    },
    { requiredKeys: [] },
  )
  const output = fc.oneof(
    result.map(value => Buffer.from(JSON.stringify(value))),
    fc.json().map(text => Buffer.from(text)),
    fc.uint8Array().map(bytes => Buffer.from(bytes)),
  )
  fc.assert(
    fc.property(output, stdout => {
      parseFailure(stdout)
      let parsed: ReturnType<typeof parseResult>
      try {
        parsed = parseResult(stdout, '1.0.0')
      } catch (error) {
        assert.match(String(error), /result/)
        return
      }
      for (const ip of podAddresses(parsed, 'eth0')) assert.notEqual(isIP(ip), 0)
      assert.deepEqual(parseResult(Buffer.from(JSON.stringify(parsed)), '1.0.0'), parsed)
    }),
  )
})
