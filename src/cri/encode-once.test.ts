import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadSync } from '@grpc/proto-loader'
import fc from 'fast-check'
import { protoDir, sampleContainer } from '../../test/support/cri.ts'
import { fromContainer } from './convert/containers.ts'
import { once, withItemsEncodedOnce } from './encode-once.ts'
import type { Container } from './generated/runtime/v1/Container.ts'
import type { RuntimeServiceDefinition } from './generated/runtime/v1/RuntimeService.ts'

const services = loadSync(join(protoDir, 'runtime/v1/api.proto'), {
  keepCase: true,
  longs: String,
  enums: String,
})
const { ListContainers } = services['runtime.v1.RuntimeService'] as unknown as RuntimeServiceDefinition

test('the bytes are those of the ordinary encoding', () => {
  const { responseSerialize } = withItemsEncodedOnce(ListContainers, 'containers')
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'grapheme' }), { maxLength: 20 }), ids => {
      const containers = ids.map(id => fromContainer(sampleContainer({ id }))!)
      const expected = ListContainers.responseSerialize({ containers })
      assert.deepEqual(responseSerialize({ containers }), expected)
      assert.deepEqual(responseSerialize({ containers }), expected, 'the second time, too')
    }),
    { numRuns: 30 },
  )
})

test('an item is encoded once, its successor again', () => {
  let encoded = 0
  const { responseSerialize } = withItemsEncodedOnce(
    {
      ...ListContainers,
      responseSerialize: reply => {
        encoded++
        return ListContainers.responseSerialize(reply)
      },
    },
    'containers',
  )
  const [first, second]: Container[] = [{ id: 'a' }, { id: 'b' }]
  responseSerialize({ containers: [first!, second!] })
  responseSerialize({ containers: [second!, first!] })
  assert.equal(encoded, 2)
  const changed = responseSerialize({ containers: [{ ...first, state: 'CONTAINER_EXITED' }] })
  assert.equal(encoded, 3)
  assert.deepEqual(ListContainers.responseDeserialize(changed).containers[0]?.state, 'CONTAINER_EXITED')
})

test('undefined is kept like any other answer', () => {
  let calls = 0
  const convert = once((_: object) => {
    calls++
    return undefined
  })
  const object = {}
  assert.deepEqual([convert(object), convert(object), calls], [undefined, undefined, 1])
})
