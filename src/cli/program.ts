import { Command, CommanderError } from 'commander'
import { messageOf } from '../base/errors.ts'
import { VERSION } from '../base/version.ts'
import { client, type Work } from './client-command.ts'
import { addConfigFlags, givenFlags } from './config-flags.ts'
import { exitCodeOf, OK, USAGE } from './exit-codes.ts'
import { addImage } from './image/commands.ts'
import type { Streams } from './streams.ts'

const EXIT_CODES = `
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  the daemon could not be reached
  4  check: differences are left`

/** Runs one command line; @returns the exit code. What a command needs is loaded when it runs. */
export async function run(argv: readonly string[], streams: Streams = process): Promise<number> {
  let work: Work | undefined
  const program = buildProgram(streams, chosen => {
    work = chosen
  })
  try {
    program.parse(argv, { from: 'user' })
    return work === undefined ? OK : await work(streams)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? OK : USAGE
    for (const line of messageOf(error).split('\n')) streams.stderr.write(`berth: ${line}\n`)
    return exitCodeOf(error)
  }
}

function buildProgram(streams: Streams, choose: (work: Work) => void): Command {
  const program = new Command('berth')
    .description('A container runtime for Kubernetes: the daemon that kubelet talks to, and its commands')
    .version(VERSION, '-v, --version', 'print the version')
    .exitOverride()
    .configureOutput({
      writeOut: text => streams.stdout.write(text),
      writeErr: text => streams.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'berth: ')),
    })
    .showHelpAfterError('(see --help)')
    .addHelpText('after', EXIT_CODES)
    .helpCommand(false)
  addDaemon(program, choose)
  addConfig(program, choose)
  addStatus(program, choose)
  addCheck(program, choose)
  addWipe(program, choose)
  addTimeline(program, choose)
  addPull(program, choose)
  addRegistry(program, choose)
  addImage(program, choose)
  program
    .command('version')
    .description('print the version')
    .option('--json', 'print JSON')
    .action(options => choose(async streams => (await import('./version.ts')).printVersion(options, streams)))
  return program
}

function addDaemon(program: Command, choose: (work: Work) => void): void {
  addConfigFlags(program.command('daemon'))
    .description('run the daemon in the foreground')
    .addHelpText(
      'after',
      '\nEvery flag has an environment variable, such as BERTH_ROOT for --root. See berth(8).',
    )
    .action((_, command: Command) =>
      choose(async () => (await import('./daemon.ts')).runDaemon(givenFlags(command))),
    )
}

function addConfig(program: Command, choose: (work: Work) => void): void {
  const config = addConfigFlags(program.command('config'))
    .description('print the effective configuration, and where it comes from')
    .option('--json', 'print JSON')
    .option('--default', 'print a commented file with every default instead')
    .action((options, command: Command) =>
      choose(async streams =>
        (await import('./config.ts')).printConfig(givenFlags(command), options, streams),
      ),
    )
  config
    .command('check')
    .description('check configuration files without using them')
    .argument('<file...>', 'files to check')
    .action((files: string[]) =>
      choose(async streams => (await import('./config.ts')).checkFiles(files, streams)),
    )
}

function addStatus(program: Command, choose: (work: Work) => void): void {
  client(program, 'status', 'show the node at a glance').action((options, command: Command) =>
    choose(async streams => (await import('./status.ts')).printStatus(givenFlags(command), options, streams)),
  )
}

function addCheck(program: Command, choose: (work: Work) => void): void {
  addConfigFlags(program.command('check'))
    .description('compare what the daemon knows with what is on the node; needs no daemon')
    .option('--repair', 'make both agree; what lives is left as it is')
    .option('--json', 'print JSON')
    .action((options, command: Command) =>
      choose(async streams => (await import('./check.ts')).checkNode(givenFlags(command), options, streams)),
    )
}

function addWipe(program: Command, choose: (work: Work) => void): void {
  addConfigFlags(program.command('wipe'))
    .description('make the node empty, while no daemon runs: pods, images, directories')
    .option('--containers', 'pods and containers only')
    .option('--images', 'images only; with --containers both, but no directories')
    .option('--dry-run', 'only list what would be removed')
    .option('--force', 'also stop pods that live, and delete a database that cannot be read')
    .option('--yes', 'do not ask')
    .action((options, command: Command) =>
      choose(async streams => (await import('./wipe.ts')).wipeNode(givenFlags(command), options, streams)),
    )
}

function addTimeline(program: Command, choose: (work: Work) => void): void {
  client(program, 'timeline', 'draw what the daemon did for a pod, step by step')
    .argument('<pod>', 'id, beginning of an id, name or namespace/name')
    .action((pod: string, options, command: Command) =>
      choose(async streams =>
        (await import('./timeline.ts')).printTimeline(pod, givenFlags(command), options, streams),
      ),
    )
}

function addPull(program: Command, choose: (work: Work) => void): void {
  client(program, 'pull', 'pull an image')
    .argument('<image>', 'a name in any form')
    .option('--creds <file>', 'file that holds user:password, - for standard input')
    .action((image: string, options, command: Command) =>
      choose(async streams =>
        (await import('./pull.ts')).pullImage(image, givenFlags(command), options, streams),
      ),
    )
}

function addRegistry(program: Command, choose: (work: Work) => void): void {
  const registry = program.command('registry').description('what is known of registries')
  addConfigFlags(registry.command('explain'))
    .description('print where an image would be pulled from, in order, and which file says so; asks nobody')
    .argument('<image>', 'a name in any form')
    .option('--namespace <name>', 'namespace of the pod that pulls', '')
    .option('--json', 'print JSON')
    .action((image: string, options, command: Command) =>
      choose(async streams =>
        (await import('./registry-explain.ts')).explainImage(image, givenFlags(command), options, streams),
      ),
    )
}
