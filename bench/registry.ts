/** The registry of the bench, in a process of its own: what it costs to serve counts for no peer. */
import { execFileSync, fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { bigImage } from '../test/support/big-image.ts'
import { busyboxImage, imageOf, type TestImage } from '../test/support/images.ts'
import { layerOf } from '../test/support/layers.ts'
import { TestRegistry } from '../test/support/registry.ts'
import { CACHE } from './places.ts'

/** Names to pull by. */
export type ImageNames = {
  /** What all pods run. */
  readonly workload: string
  /** Does nothing, for daemons that hold a pod's namespaces with a process. */
  readonly pause: string
  readonly sixLayers: string
  /** Five layers of `sixLayers` and one of its own. */
  readonly oneNew: string
  readonly fortyLayers: string
  /** Six layers of its own, gzip without compression, as of models: what counts is the way through the daemon. */
  readonly large: string
}

type Question = 'blobs served'
type Answer = { readonly names: ImageNames } | { readonly served: number }

/** Making the images takes minutes the first time. */
const READY_MS = 1_200_000
const ANSWER_MS = 10_000

export type Registry = {
  readonly names: ImageNames
  /** How many different blobs were asked for since the last question. */
  blobsServed(): Promise<number>
  close(): void
}

export async function startRegistry(megabytes: number, largeMegabytes: number): Promise<Registry> {
  const args = [String(megabytes), String(largeMegabytes)]
  const child = fork(import.meta.filename, args, { stdio: 'inherit' })
  const answer = (ms: number): Promise<Answer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const timer = setTimeout(() => reject(new Error(`no answer of the registry after ${ms} ms`)), ms)
    const ended = () => reject(new Error('the registry ended'))
    child.once('exit', ended)
    child.once('message', message => {
      clearTimeout(timer)
      child.off('exit', ended)
      resolve(message as Answer)
    })
    return promise
  }
  const first = await answer(READY_MS)
  if (!('names' in first)) throw new Error('the registry answers out of turn')
  return {
    names: first.names,
    async blobsServed() {
      child.send('blobs served' satisfies Question)
      const reply = await answer(ANSWER_MS)
      return 'served' in reply ? reply.served : 0
    },
    close: () => void child.kill(),
  }
}

async function serve(megabytes: number, largeMegabytes: number): Promise<void> {
  const registry = await TestRegistry.start()
  const push = (image: TestImage, name: string): string => {
    registry.push(image, `bench/${name}`, '1')
    return `${registry.address}/bench/${name}:1`
  }
  // Seven layers: six for one image, the last takes the place of the sixth in the other.
  const bytes = Math.round((megabytes * 1e6 * 7) / 6)
  const directory = join(CACHE, 'images')
  const { layers } = await bigImage({ layers: 7, bytes, directory })
  const large = await bigImage({ layers: 6, bytes: largeMegabytes * 1e6, directory, isStored: true })
  const names: ImageNames = {
    workload: push(await busyboxImage(), 'busybox'),
    pause: push(await pauseImage(), 'pause'),
    sixLayers: push(imageOf(layers.slice(0, 6)), 'six'),
    oneNew: push(imageOf([...layers.slice(0, 5), layers[6]!]), 'one-new'),
    fortyLayers: push(imageOf(await Promise.all(Array.from({ length: 40 }, smallLayer))), 'forty'),
    large: push(large, 'large'),
  }
  process.on('message', () => {
    const paths = registry.requestsTo(/^GET .*\/blobs\//).map(({ path }) => path)
    registry.requests.length = 0
    const served = new Set(paths).size
    process.send!({ served } satisfies Answer)
  })
  process.on('disconnect', () => process.exit())
  process.send!({ names } satisfies Answer)
}

/** Debian's static catatonit has a mode that waits for ever. */
async function pauseImage(): Promise<TestImage> {
  const program = execFileSync('sh', ['-c', 'command -v catatonit'], { encoding: 'utf8' }).trim()
  const layer = await layerOf([{ name: 'pause', content: readFileSync(program), mode: 0o755 }])
  return imageOf([layer], { entrypoint: ['/pause', '-P'] })
}

const FILES_PER_LAYER = 20
const FILE_BYTES = 4096

function smallLayer(_: unknown, number: number): ReturnType<typeof layerOf> {
  const files = Array.from({ length: FILES_PER_LAYER }, (_, index) => ({
    name: `data/${number}/${index}`,
    content: Buffer.alloc(FILE_BYTES, `${number}.${index} `),
  }))
  return layerOf([{ name: 'data/' }, { name: `data/${number}/` }, ...files])
}

if (process.argv[1] === import.meta.filename) {
  await serve(Number(process.argv[2]), Number(process.argv[3]))
}
