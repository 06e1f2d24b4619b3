import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadServices } from '../../src/cri/proto.ts'
import { protoDir } from './cri.ts'

const services = loadServices(protoDir)

/** A message as it arrives after it was sent: through the bytes of the wire, with every default filled in. */
export const wire = {
  runPod: (request: Parameters<typeof services.runtime.RunPodSandbox.requestSerialize>[0]) => {
    const { requestSerialize, requestDeserialize } = services.runtime.RunPodSandbox
    return requestDeserialize(requestSerialize(request))
  },
  createContainer: (request: Parameters<typeof services.runtime.CreateContainer.requestSerialize>[0]) => {
    const { requestSerialize, requestDeserialize } = services.runtime.CreateContainer
    return requestDeserialize(requestSerialize(request))
  },
  containerStatus: (reply: Parameters<typeof services.runtime.ContainerStatus.responseSerialize>[0]) => {
    const { responseSerialize, responseDeserialize } = services.runtime.ContainerStatus
    return responseDeserialize(responseSerialize(reply))
  },
}

/** One test for each case: what is wrong with an input, the input, and how the error's message begins. */
export function refuses<T>(
  convert: (input: T) => unknown,
  cases: ReadonlyArray<readonly [what: string, input: T, message: string]>,
): void {
  for (const [what, input, message] of cases) {
    test(`refused: ${what}`, () => {
      assert.throws(
        () => convert(input),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'invalid')
          assert.equal(error.message.slice(0, message.length), message)
          return true
        },
      )
    })
  }
}
