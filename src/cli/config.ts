import { checkConfigFile, type Flags, loadConfig } from '../config/load-config.ts'
import { configValues, renderConfig, renderExample } from '../config/render-config.ts'
import { FAILURE, OK } from './exit-codes.ts'
import type { Streams } from './streams.ts'

type Options = { readonly json?: true; readonly default?: true }

/** `berth config` */
export async function printConfig(flags: Flags, options: Options, streams: Streams): Promise<number> {
  if (options.default) {
    streams.stdout.write(renderExample())
    return OK
  }
  const { config, warnings } = loadConfig({ flags })
  warn(warnings, streams)
  const { files, origins } = config
  const text = options.json
    ? `${JSON.stringify({ files, origins, values: configValues(config) }, undefined, 2)}\n`
    : renderConfig(config)
  streams.stdout.write(text)
  return OK
}

/** `berth config check`: every problem of every file. */
export async function checkFiles(files: readonly string[], streams: Streams): Promise<number> {
  let failed = false
  for (const file of files) {
    const { problems, warnings } = checkConfigFile(file)
    warn(warnings, streams)
    for (const problem of problems) streams.stderr.write(`${problem}\n`)
    if (problems.length === 0) streams.stdout.write(`${file}: good\n`)
    failed ||= problems.length > 0
  }
  return failed ? FAILURE : OK
}

function warn(warnings: readonly string[], streams: Streams): void {
  for (const warning of warnings) streams.stderr.write(`warning: ${warning}\n`)
}
