import assert from 'node:assert/strict'
import { isIP } from 'node:net'
import { excerpt, parseFailure, parseResult, podAddresses } from '../../src/network/cni-result.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'cni0' }, { name: 'eth0', mac: '0a:58', sandbox: '/run/netns/x' }],
    ips: [{ interface: 1, address: '10.1.0.5/16', gateway: '10.1.0.1' }],
    routes: [{ dst: '0.0.0.0/0' }],
    dns: {},
  },
  { cniVersion: '0.4.0', ips: [{ version: '6', address: 'fd00::5/64' }] },
  { code: 11, msg: 'try again', details: 'later' },
].map(result => JSON.stringify(result))
const tokens = ['null', '{}', '[]', '-1', '1.5', '"interface":', '/129', '::ffff:1.2.3.4', '%eth0', '[[[[']

/** What a plugin prints. What of it becomes the pod's address is one, and what goes to the next plugin is JSON. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, tokens),
  run(input) {
    const failure = parseFailure(input)
    if (failure !== undefined) assert.doesNotMatch(failure.msg + failure.details, /[\x00-\x1f\x7f]/)
    assert.doesNotMatch(excerpt(input), /[\x00-\x1f\x7f]/)
    const result = parseResult(input, '1.0.0')
    JSON.stringify(result)
    for (const address of podAddresses(result, 'eth0')) assert.notEqual(isIP(address), 0)
  },
  runs: 3000,
}
