import { createHash } from 'node:crypto'
import { type Digest, digestFromHex } from '../base/digest.ts'

/** OCI image spec "Layer ChainID": what the layers from the lowest to each one make together. */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  let below: Digest | undefined
  return diffIds.map(diffId => {
    below = below === undefined ? diffId : sha256(`${below} ${diffId}`)
    return below
  })
}

function sha256(text: string): Digest {
  return digestFromHex(createHash('sha256').update(text).digest('hex'))
}
