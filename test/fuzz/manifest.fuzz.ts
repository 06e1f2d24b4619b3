import assert from 'node:assert/strict'
import { isDigest } from '../../src/base/digest.ts'
import { MANIFEST_TYPES, parseManifest } from '../../src/registry/manifest.ts'
import { type FuzzTarget, mutated } from './target.ts'

const digest = `sha256:${'a'.repeat(64)}`
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 10 }
const foreign = {
  mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  digest,
  size: 3,
  urls: ['https://layers.example/x'],
}
const seeds = [
  {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 },
    layers: [layer, foreign],
  },
  {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest,
        size: 5,
        platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
      },
    ],
  },
].map(document => JSON.stringify(document))

const tokens = [
  'null',
  '{}',
  '[]',
  '"config":',
  '"layers":[],',
  '"manifests":[],',
  '-1',
  '1e999',
  'sha512:',
  '../',
  '__proto__',
]

/** A document is read in one way only, and what of it becomes a path or a URL has been checked. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, tokens),
  run(input) {
    const kinds = new Set<string>()
    let refusal: unknown
    for (const type of [...MANIFEST_TYPES, 'application/json']) {
      try {
        const manifest = parseManifest(input, type)
        kinds.add(manifest.kind)
        const descriptors =
          manifest.kind === 'index' ? manifest.entries : [manifest.config, ...manifest.layers]
        assert.ok(
          descriptors.every(
            ({ digest, size }) => isDigest(digest) && Number.isSafeInteger(size) && size >= 0,
          ),
        )
      } catch (error) {
        if ((error as Error).name === 'AssertionError') throw error
        refusal = error
      }
    }
    assert.ok(kinds.size <= 1, 'one document passes for an image and for an index')
    if (refusal !== undefined) throw refusal
  },
  runs: 2000,
}
