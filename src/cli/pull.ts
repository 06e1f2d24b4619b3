import { readFileSync } from 'node:fs'
import { BerthError, invalid, messageOf } from '../base/errors.ts'
import type { Flags } from '../config/load-config.ts'
import { connectDaemon } from './connect.ts'
import { OK } from './exit-codes.ts'
import {
  type LayerProgress,
  ProgressBlock,
  progressChanges,
  progressLines,
  progressSummary,
  RateMeter,
} from './render/pull-progress.ts'
import { cut } from './render/units.ts'
import type { Streams } from './streams.ts'

type Options = { readonly json?: true; readonly creds?: string }

type Credentials = { readonly username: string; readonly password: string }

type WireLayer = {
  readonly digest: string
  readonly state: string | number
  readonly bytes: string
  readonly unpacked: string
  readonly total: string
  readonly waits_for: string
}

const STATES: Readonly<Record<string, LayerProgress['state']>> = {
  WAITING: 'waiting',
  DOWNLOADING: 'downloading',
  UNPACKING: 'unpacking',
  COMMITTING: 'committing',
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

/** Without a terminal, a line about the whole this often. */
const SUMMARY_MS = 10_000

/**
 * Bars that are redrawn on a terminal; elsewhere one line for each change, and now and then one about the whole.
 * Progress is no output: it goes to stderr.
 */
function progressWriter(stream: Streams['stderr']): (layers: readonly LayerProgress[]) => void {
  const meter = new RateMeter()
  const measure = (layers: readonly LayerProgress[]): number => {
    const received = layers.filter(layer => layer.state !== 'exists').map(layer => layer.bytes)
    meter.add(
      received.reduce((sum, count) => sum + count, 0),
      performance.now(),
    )
    return meter.perSecond
  }
  if (stream.isTTY === true) {
    const block = new ProgressBlock(text => stream.write(text))
    return layers => {
      const width = (stream.columns ?? 80) - 1
      const lines = [...progressLines(layers, width), cut(progressSummary(layers, measure(layers)), width)]
      block.draw(lines, (stream.rows ?? 24) - 1)
    }
  }
  let before: readonly LayerProgress[] = []
  let summarizedAt = performance.now()
  return layers => {
    for (const line of progressChanges(before, layers)) stream.write(`${line}\n`)
    before = layers
    const rate = measure(layers)
    if (performance.now() - summarizedAt < SUMMARY_MS) return
    summarizedAt = performance.now()
    stream.write(`${progressSummary(layers, rate)}\n`)
  }
}

function fromWire(layer: WireLayer): LayerProgress {
  return {
    digest: layer.digest,
    state: STATES[layer.state] ?? 'waiting',
    bytes: Number(layer.bytes),
    unpacked: Number(layer.unpacked),
    total: Number(layer.total),
    waitsFor: layer.waits_for,
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
