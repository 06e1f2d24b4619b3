import assert from 'node:assert/strict'
import { parseNetwork } from '../../src/network/cni-config.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  {
    cniVersion: '1.0.0',
    name: 'pods',
    disableCheck: 'true',
    plugins: [
      { type: 'bridge', ipam: { type: 'host-local', subnet: '10.1.0.0/16' } },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  },
  { cniVersion: '0.3.1', cniVersions: ['1.0.0'], name: 'single', type: 'loopback' },
].map(config => JSON.stringify(config))
const tokens = [
  'null',
  '{}',
  '[]',
  '"type":',
  '../../sbin/',
  '/',
  '.',
  '\\u0000',
  '\\n',
  '"ipam":',
  'x'.repeat(300),
]

/** A type or name that is taken is a plain file name (CVE-2021-20206). */
export const target: FuzzTarget = {
  inputs: mutated(seeds, tokens),
  run(input) {
    const network = parseNetwork(JSON.parse(input.toString()))
    const names = [
      network.name,
      ...network.plugins.flatMap(({ type, ipamType }) => [type, ipamType ?? 'none']),
    ]
    for (const name of names) assert.match(name, /^[A-Za-z0-9][A-Za-z0-9._-]*$/)
    assert.deepEqual(parseNetwork(network.json), network)
  },
  runs: 2000,
}
