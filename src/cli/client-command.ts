import type { Command } from 'commander'
import type { Streams } from './streams.ts'

/** A command's work: an exit code, or an error that becomes one. */
export type Work = (streams: Streams) => Promise<number>

/** Commands that ask the daemon find its socket as the daemon itself does, or are told. */
export function client(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('-c, --config <value>', 'configuration file of the daemon')
    .option('-d, --config-dir <value>', 'directory of its drop-ins')
    .option('--listen <value>', "the daemon's socket; no configuration is read then")
    .option('--json', 'print JSON')
}
