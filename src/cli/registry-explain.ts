import { type Flags, loadConfig } from '../config/load-config.ts'
import { policiesOf, registryOptionsOf } from '../node-parts.ts'
import { explain } from '../registry/explain.ts'
import { FAILURE, OK } from './exit-codes.ts'
import { explanationText } from './render/explanation.ts'
import type { Streams } from './streams.ts'

type Options = { readonly json?: true; readonly namespace: string }

/**
 * `berth registry explain`: reads the files that the daemon reads for each pull, so it needs none. Fails if no meaning
 * of the name could be pulled.
 */
export async function explainImage(
  image: string,
  flags: Flags,
  options: Options,
  streams: Streams,
): Promise<number> {
  const { config, warnings } = loadConfig({ flags })
  for (const warning of warnings) streams.stderr.write(`warning: ${warning}\n`)
  const policies = policiesOf(config)
  const references = explain(registryOptionsOf(config), image, options.namespace).map(found => ({
    ...found,
    policy: policies.explain(found.reference, options.namespace),
  }))
  const text = options.json
    ? `${JSON.stringify(references, undefined, 2)}\n`
    : `${references.map(explanationText).join('\n')}`
  streams.stdout.write(text)
  return references.every(({ problem }) => problem !== undefined) ? FAILURE : OK
}
