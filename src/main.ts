import { run } from './cli/program.ts'

// A reader that leaves early (`berth config | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

process.exit(await run(process.argv.slice(2)))
