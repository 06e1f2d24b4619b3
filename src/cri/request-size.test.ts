import assert from 'node:assert/strict'
import { test } from 'node:test'
import protobuf from 'protobufjs'
import { fakeServices, protoDir } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { framed, RawClient } from '../../test/support/raw-client.ts'
import { loadServices } from './proto.ts'
import { RefusedRequest } from './request-size.ts'

const MIB = 2 ** 20
const { runtime } = loadServices(protoDir)

/** A message of one field with these bytes. */
function field(number: number, bytes: Uint8Array): Buffer {
  const writer = protobuf.Writer.create()
  return Buffer.from(
    writer
      .uint32((number << 3) | 2)
      .bytes(bytes)
      .finish(),
  )
}

/** A message with `count` empty fields of a number below 16. */
function empties(number: number, count: number): Buffer {
  return Buffer.alloc(2 * count, Buffer.from([(number << 3) | 2, 0]))
}

/** Of CreateContainerRequest (2 is the config), ContainerConfig and Mount. */
const CONFIG = 2
const COMMAND = 3
const ENVS = 6
const MOUNTS = 7

const create = (bytes: Buffer) => runtime.CreateContainer.requestDeserialize(bytes) as unknown

test('sixteen MiB of empty messages, texts or numbers are refused before they are decoded', () => {
  for (const [what, bytes] of [
    ['mounts', field(CONFIG, empties(MOUNTS, 8 * MIB - 10))],
    ['words', field(CONFIG, empties(COMMAND, 8 * MIB - 10))],
    ['configurations', empties(CONFIG, 8 * MIB)],
    // LinuxContainerConfig is 15, its security context 2, of which 8 are the supplemental groups.
    ['groups', field(CONFIG, field(15, field(2, field(8, Buffer.alloc(16 * MIB - 99)))))],
  ] as const) {
    const request = create(bytes)
    assert.ok(request instanceof RefusedRequest, what)
    assert.match(request.error.message, /^the request has more than 50000 elements/)
  }
})

test('what a process can be given passes, however long it is', () => {
  const env = (index: number) => ({ key: `V${index}`, value: 'x' })
  const config = {
    envs: Array.from({ length: 40_000 }, (_, index) => env(index)),
    command: ['x'.repeat(8 * MIB)],
  }
  const bytes = runtime.CreateContainer.requestSerialize({ config })
  const request = create(bytes) as { config: { envs: unknown[]; command: string[] } }
  assert.equal(request.config.envs.length, 40_000)
  assert.deepEqual(request.config.envs[39_999], env(39_999))
  assert.equal(request.config.command[0]!.length, 8 * MIB)
  const tooMany = field(CONFIG, empties(ENVS, 50_001))
  assert.ok(create(tooMany) instanceof RefusedRequest)
})

test('bytes that are no message are told by the decoder', () => {
  assert.throws(() => create(Buffer.alloc(MIB, 0xff)))
})

test('the caller of a refused request is told why, and the call is counted', async context => {
  const { path, recorded } = await serve(context, { services: fakeServices() })
  using raw = await RawClient.connect(path)
  const bytes = field(CONFIG, empties(MOUNTS, 4 * MIB))
  const { status, message } = await raw.call(runtime.CreateContainer.path, framed(bytes)).ended
  assert.equal(status, 8)
  assert.equal(message, 'the request has more than 50000 elements of lists and messages')
  assert.deepEqual(recorded.metrics, ['CreateContainer RESOURCE_EXHAUSTED'])
})
