import assert from 'node:assert/strict'
import { parseReference } from '../../src/registry/reference.ts'
import { type FuzzTarget, mutated } from './target.ts'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`
const seeds = [
  'busybox',
  'quay.io:443/team/my-app__x.y:V1.2_3-a',
  `localhost/a@${digest}`,
  `[fe80::1]:5000/a/b:c@${digest}`,
  'index.docker.io/library/x',
  'a'.repeat(64),
]

export const target: FuzzTarget = {
  inputs: mutated(seeds, [
    ':',
    '@',
    '/',
    '..',
    '.',
    '__',
    '---',
    '%2f',
    '?',
    '#',
    'ä',
    digest,
    'a'.repeat(255),
  ]),
  run(input) {
    const reference = parseReference(input.toString())
    const text = `${reference}`
    assert.equal(`${parseReference(text)}`, text)
    assert.equal(`${parseReference(reference.familiar)}`, text)
    assert.ok((reference.tag === undefined) !== (reference.digest === undefined))
    // It becomes part of a URL as it is, and leads nowhere else.
    const url = new URL(
      `https://${reference.domain}/v2/${reference.path}/manifests/${reference.tag ?? reference.digest}`,
    )
    assert.equal(url.pathname, `/v2/${reference.path}/manifests/${reference.tag ?? reference.digest}`)
    assert.equal(url.username + url.password + url.search + url.hash, '')
  },
  runs: 5000,
}
