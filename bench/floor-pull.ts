import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { forEachOf } from './parallel.ts'

type Manifest = { readonly layers: ReadonlyArray<{ readonly digest: string }> }

/** As many as processors, on the machines that the reach is written for. */
const AT_ONCE = 2

const PULL_MS = 120_000

/** Each layer from the registry straight into tar(1), unverified, into `<directory>/image/<number>`. */
export async function pullByHand(image: string, directory: string): Promise<void> {
  const [, host, repository, tag] = /^([^/]+)\/(.+):([^:]+)$/.exec(image) ?? []
  const url = `http://${host}/v2/${repository}`
  const manifest = (await (await get(`${url}/manifests/${tag}`)).json()) as Manifest
  await forEachOf([...manifest.layers.entries()], AT_ONCE, async ([index, { digest }]) => {
    const target = join(directory, 'image', String(index))
    mkdirSync(target, { recursive: true })
    await untar(await get(`${url}/blobs/${digest}`), target)
  })
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url, { signal: AbortSignal.timeout(PULL_MS) })
  if (!response.ok) throw new Error(`${url}: ${response.status}`)
  return response
}

async function untar(response: Response, target: string): Promise<void> {
  const tar = spawn('tar', ['-xzf', '-', '-C', target], { stdio: ['pipe', 'ignore', 'inherit'] })
  const code = new Promise<number | null>((resolve, reject) => tar.on('error', reject).on('close', resolve))
  await pipeline(Readable.fromWeb(response.body!), tar.stdin)
  if ((await code) !== 0) throw new Error(`tar ended with ${await code}`)
}
