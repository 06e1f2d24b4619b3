import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isCode } from '../../base/errors.ts'
import { parsePolicy } from './policy-file.ts'

const accept = '[{"type":"insecureAcceptAnything"}]'

test('a policy that is not understood in full is refused, naming the place', () => {
  const inDefault = (requirement: string) => `{"default":[${requirement}]}`
  const identity = (text: string) =>
    inDefault(`{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":${text}}`)
  const cases: ReadonlyArray<[source: string, message: RegExp]> = [
    ['', /policy\.json: Unexpected end/],
    ['[]', /the policy: expected an object/],
    ['{}', /default: expected a list of requirements/],
    ['{"default":[]}', /default: expected a list of requirements with one at least/],
    [`{"default":${accept},"defualt":[]}`, /unknown key "defualt"; did you mean "default"\?/],
    [`{"default":${accept},"default":${accept}}`, /member "default" occurs twice/],
    [`{"default":${accept},"transports":{"docker":{"a":[]}}}`, /transports\.docker\["a"\]: expected a list/],
    [`{"default":${accept},"transports":{"docker":{"a/B":${accept}}}}`, /\["a\/B"\]: expected host/],
    [`{"default":${accept},"transports":{"docker":{"*.a\\/b":${accept}}}}`, /expected host.*"\*\.domain"/],
    [
      `{"default":${accept},"transports":{"docker-daemon":{"":[{"type":"x"}]}}}`,
      /docker-daemon\[""\]\[0\]\.type: expected/,
    ],
    [
      inDefault('{"type":"rejekt"}'),
      /default\[0\]\.type: expected one of insecureAcceptAnything, reject,.*"rejekt"/,
    ],
    [inDefault('{"type":"__proto__"}'), /default\[0\]\.type: expected one of/],
    [inDefault('{"type":"reject","keyPath":"/k"}'), /default\[0\]: unknown key "keyPath"/],
    [inDefault('{"type":"sigstoreSigned"}'), /expected exactly one of keyPath, keyPaths, keyData, keyDatas/],
    [inDefault('{"type":"sigstoreSigned","keyPath":"/a","keyData":"b"}'), /expected exactly one of/],
    [inDefault('{"type":"sigstoreSigned","keyPath":"k"}'), /keyPath: expected an absolute path, got "k"/],
    [
      inDefault('{"type":"sigstoreSigned","keyPaths":[]}'),
      /keyPaths: expected a list of texts with one at least/,
    ],
    [inDefault('{"type":"sigstoreSigned","keyData":"AAAA"}'), /keyData: expected a PEM public key in base64/],
    [
      inDefault('{"type":"sigstoreSigned","keypath":"/k"}'),
      /unknown key "keypath"; did you mean "keyPath"\?/,
    ],
    [
      identity('{"type":"match"}'),
      /signedIdentity\.type: expected one of matchExact, matchRepoDigestOrExact/,
    ],
    [identity('{"type":"exactReference"}'), /signedIdentity\.dockerReference: expected a text/],
    [
      identity('{"type":"exactReference","dockerReference":"quay.io/x"}'),
      /expected a name with tag or digest/,
    ],
    [
      identity('{"type":"exactRepository","dockerRepository":"quay.io/x:1"}'),
      /expected a repository without tag/,
    ],
    [identity('{"type":"exactRepository","dockerRepository":"quay.io/X"}'), /image reference "quay\.io\/X"/],
    [identity('{"type":"remapIdentity","prefix":"a"}'), /signedIdentity\.signedPrefix: expected a text/],
  ]
  for (const [source, message] of cases) {
    assert.throws(
      () => parsePolicy('/etc/containers/policy.json', source),
      error =>
        isCode(error, 'unknown') &&
        message.test((error as Error).message) &&
        (error as Error).message.startsWith('/etc/containers/policy.json: '),
      `${source} should say ${message}`,
    )
  }
})
