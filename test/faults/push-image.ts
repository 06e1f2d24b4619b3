import { busyboxImage } from '../support/images.ts'
import type { FaultRig } from './rig.ts'

let images = 0

/** A name whose image has layers that were never there. */
export async function pushImage({ daemon }: FaultRig): Promise<{ name: string; id: string }> {
  const number = `${process.pid}-${++images}`
  const directory = { name: 'd/', mode: 0o750 }
  const image = await busyboxImage({
    extraLayers: [
      [directory, { name: 'd/one', content: `one ${number}` }, { name: 'd/gone', content: number }],
      [
        { name: 'd/two', content: `two ${number}` },
        { name: 'd/linked', link: 'd/one' },
        { name: 'd/.wh.gone', content: '' },
      ],
      [{ name: 'three', content: `three ${number}` }],
    ],
    labels: { number },
  })
  daemon.registry.push(image, 'quay.io/faults/image', number)
  return { name: `quay.io/faults/image:${number}`, id: image.id }
}
