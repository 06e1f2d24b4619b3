import { readFileSync } from 'node:fs'
import { BerthError, invalid, messageOf } from '../base/errors.ts'
import type { Flags } from '../config/load-config.ts'
import { connectDaemon } from './connect.ts'
import { OK } from './exit-codes.ts'
import { type LayerProgress, ProgressBlock, progressChanges, progressLines } from './render/pull-progress.ts'
import type { Streams } from './streams.ts'

type Options = { readonly json?: true; readonly creds?: string }

type Credentials = { readonly username: string; readonly password: string }

type WireLayer = {
  readonly digest: string
  readonly state: string | number
  readonly bytes: string
  readonly total: string
}

const STATES: Readonly<Record<string, LayerProgress['state']>> = {
  WAITING: 'waiting',
  DOWNLOADING: 'downloading',
  UNPACKING: 'unpacking',
  DONE: 'done',
  EXISTS: 'exists',
}

/** `berth pull IMAGE` */
export async function pullImage(
  image: string,
  flags: Flags,
  options: Options,
  streams: Streams,
): Promise<number> {
  const credentials = options.creds === undefined ? undefined : readCredentials(options.creds)
  using client = await connectDaemon(flags)
  const show = options.json ? () => undefined : progressWriter(streams.stderr)
  let imageId = ''
  let layers: LayerProgress[] = []
  for await (const reply of client.pull({ image, ...(credentials === undefined ? {} : { credentials }) })) {
    layers = reply.layers.map(fromWire)
    imageId = reply.image_id
    show(layers)
  }
  if (imageId === '') throw new BerthError('internal', 'the daemon ended the pull without a word')
  const text = options.json ? JSON.stringify({ image, id: imageId, layers }, undefined, 2) : imageId
  streams.stdout.write(`${text}\n`)
  return OK
}

/** Bars that are redrawn on a terminal, one line for each change elsewhere. Progress is no output: it goes to stderr. */
function progressWriter(stream: Streams['stderr']): (layers: readonly LayerProgress[]) => void {
  if (stream.isTTY === true) {
    const block = new ProgressBlock(text => stream.write(text))
    return layers => block.draw(progressLines(layers, (stream.columns ?? 80) - 1), (stream.rows ?? 24) - 1)
  }
  let before: readonly LayerProgress[] = []
  return layers => {
    for (const line of progressChanges(before, layers)) stream.write(`${line}\n`)
    before = layers
  }
}

function fromWire(layer: WireLayer): LayerProgress {
  return {
    digest: layer.digest,
    state: STATES[layer.state] ?? 'waiting',
    bytes: Number(layer.bytes),
    total: Number(layer.total),
  }
}

/** `user:password`, up to the first line break. A password may have colons, a user name may not. */
function readCredentials(file: string): Credentials {
  const source = file === '-' ? 'standard input' : file
  let text: string
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8').split(/\r?\n/)[0] ?? ''
  } catch (error) {
    throw invalid('--creds', `cannot read ${source}: ${messageOf(error)}`)
  }
  const colon = text.indexOf(':')
  if (colon < 1) throw invalid('--creds', `expected user:password in ${source}`)
  return { username: text.slice(0, colon), password: text.slice(colon + 1) }
}
