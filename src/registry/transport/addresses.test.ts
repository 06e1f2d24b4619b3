import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FORBIDDEN_ADDRESS, forbiddenAddress, guardedLookup, hostOf } from './addresses.ts'

const urlHost = (host: string) => hostOf(new URL(`http://${host}/`))

test('which addresses a registry must not lead to', () => {
  const never = [
    '169.254.169.254',
    '169.254.0.1',
    '[fe80::1]',
    '[febf::1]',
    '[::ffff:169.254.169.254]',
    '[::ffff:a9fe:a9fe]',
    '0.0.0.0',
    '0',
    '[::]',
    '224.0.0.1',
    '[ff02::1]',
    '255.255.255.255',
    '[fd00:ec2::254]',
    '100.100.100.200',
    // Through a gateway of NAT64.
    '[64:ff9b::169.254.169.254]',
    '[64:ff9b::a9fe:a9fe]',
    '[64:ff9b:1::a9fe:a9fe]',
    '[64:ff9b:1:2:3:4:a9fe:a9fe]',
    '[64:ff9b::]',
    '[64:ff9b::1]',
    '[64:ff9b::e000:0]',
    // Other spellings of 169.254.169.254.
    '2852039166',
    '0xa9fea9fe',
    '169.254.43518',
  ]
  for (const host of never) {
    assert.match(forbiddenAddress(urlHost(host), '127.0.0.1') ?? '', /must not lead to a link-local/, host)
  }
  for (const host of [
    '127.0.0.1',
    '127.9.9.9',
    '[::1]',
    'localhost',
    '[::ffff:127.0.0.1]',
    '[64:ff9b::7f00:1]',
    '2130706433',
  ]) {
    assert.match(forbiddenAddress(urlHost(host), 'registry.test') ?? '', /must not lead to this node/, host)
    assert.equal(forbiddenAddress(urlHost(host), '127.0.0.1'), undefined, host)
    assert.equal(forbiddenAddress(urlHost(host), 'localhost'), undefined, host)
  }
  for (const host of [
    '10.0.0.1',
    '192.168.1.1',
    '[fd12::1]',
    '8.8.8.8',
    '[64:ff9b::808:808]',
    '[64:ff9c::a9fe:a9fe]',
    '169.253.1.1',
    'storage.test',
  ]) {
    assert.equal(forbiddenAddress(urlHost(host), 'registry.test'), undefined, host)
  }
})

test('a name that leads to such an address is refused when it is looked up', async () => {
  const lookup = (name: string, from: string, all: boolean) =>
    new Promise((resolve, reject) => {
      guardedLookup(from)(name, { all }, (error, address) =>
        error === null ? resolve(address) : reject(error),
      )
    })
  for (const all of [true, false]) {
    await assert.rejects(lookup('localhost', 'registry.test', all), {
      code: FORBIDDEN_ADDRESS,
      message: /^localhost is at .*: a registry elsewhere must not lead to this node$/,
    })
    assert.ok(await lookup('localhost', '127.0.0.1', all))
  }
  await assert.rejects(lookup('a b', 'registry.test', true), { code: /ENOTFOUND|EAI/ })
})
