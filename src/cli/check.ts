import { invalid } from '../base/errors.ts'
import { type Flags, loadConfig } from '../config/load-config.ts'
import { fromCheck } from '../cri/admin-service.ts'
import type { CheckResponse__Output } from '../cri/generated/berth/admin/v1/CheckResponse.ts'
import type { Difference__Output } from '../cri/generated/berth/admin/v1/Difference.ts'
import { openOffline } from '../offline.ts'
import { connectDaemon } from './connect.ts'
import { DIFFERENCES, OK, UnreachableError } from './exit-codes.ts'
import { checkSummaryText, differenceText } from './render/check-text.ts'
import type { Streams } from './streams.ts'

type Options = { readonly json?: true; readonly repair?: true }

/** `berth check`: asks the daemon, or does it itself where none runs. */
export async function checkNode(flags: Flags, options: Options, streams: Streams): Promise<number> {
  const repair = options.repair === true
  const differences: Difference__Output[] = []
  let left = 0
  for await (const { difference, summary } of answers(flags, repair)) {
    if (difference !== null) {
      differences.push(difference)
      if (!options.json) streams.stdout.write(differenceText(difference))
    }
    if (summary === null) continue
    left = summary.left
    const text = options.json
      ? `${JSON.stringify({ differences, summary }, undefined, 2)}\n`
      : checkSummaryText(summary, differences.length)
    streams.stdout.write(text)
  }
  return left > 0 ? DIFFERENCES : OK
}

async function* answers(flags: Flags, repair: boolean): AsyncGenerator<CheckResponse__Output> {
  try {
    using client = await connectDaemon(flags)
    yield* client.check({ repair })
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error
    yield* offlineAnswers(flags, repair)
  }
}

async function* offlineAnswers(flags: Flags, repair: boolean): AsyncGenerator<CheckResponse__Output> {
  if (process.getuid?.() !== 0) throw invalid('user', 'expected root: no daemon runs that could do it')
  const { config } = loadConfig({ flags })
  await using offline = await openOffline(config, repair ? 'repair' : 'look')
  for await (const event of offline.check.run(repair, new AbortController().signal)) {
    if (event.kind === 'summary') offline.requireAlone()
    // What the daemon would send.
    yield fromCheck(event) as CheckResponse__Output
  }
}
