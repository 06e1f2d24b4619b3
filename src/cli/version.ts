import { VERSION } from '../base/version.ts'
import { OK } from './exit-codes.ts'
import type { Streams } from './streams.ts'

export async function printVersion(options: { readonly json?: true }, streams: Streams): Promise<number> {
  const facts = { version: VERSION, node: process.version, platform: `${process.platform}/${process.arch}` }
  const text = `berth ${VERSION} (Node.js ${process.version}, ${facts.platform})`
  streams.stdout.write(`${options.json ? JSON.stringify(facts, undefined, 2) : text}\n`)
  return OK
}
