import { closeSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { BerthError, errnoOf, invalid, messageOf } from '../../base/errors.ts'
import type { Flags } from '../../config/load-config.ts'
import { connectDaemon } from '../connect.ts'
import { OK } from '../exit-codes.ts'
import { StatusLine } from '../render/status-line.ts'
import { printable } from '../render/units.ts'
import type { Streams } from '../streams.ts'

/** `berth image export IMAGE…`: a file appears only when it is complete; a pipe or device gets what comes. */
export async function exportImages(
  images: readonly string[],
  flags: Flags,
  options: { readonly output?: string },
  streams: Streams,
): Promise<number> {
  const output = options.output ?? '-'
  if (output === '-' && streams.stdout.isTTY === true) {
    throw invalid(
      '--output',
      'an archive does not go to a terminal: name a file, or lead the output into one',
    )
  }
  using client = await connectDaemon(flags)
  const target = openTarget(output)
  const line = new StatusLine(streams.stderr)
  let bytes = 0
  try {
    for await (const { data, note } of client.imageAdminStream('ExportImages', { images: [...images] })) {
      if (note !== '') streams.stderr.write(`${printable(note)}\n`)
      bytes += data.length
      await target.write(data)
      line.draw('exporting', bytes, 0)
    }
    target.commit()
  } catch (error) {
    target.abandon()
    throw error
  } finally {
    line.clear()
  }
  return OK
}

type Target = {
  write(data: Buffer): Promise<void> | void
  commit(): void
  abandon(): void
}

function openTarget(output: string): Target {
  if (output === '-') return standardOutput()
  try {
    // What is no file (/dev/null, a pipe) must not be replaced by one.
    const isFile = statSync(output, { throwIfNoEntry: false })?.isFile() ?? true
    return isFile ? newFile(output) : written(openSync(output, 'w'))
  } catch (error) {
    throw invalid('--output', `cannot be written: ${messageOf(error)}`)
  }
}

/** What ends a command from outside: Ctrl-C, a service that is stopped, a terminal that is closed. */
const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** A command that a signal ends has died of it, as its shell expects, but leaves no part of a file. */
function newFile(output: string): Target {
  const temporary = `${output}.part`
  const end = (signal: NodeJS.Signals) => {
    abandon()
    process.kill(process.pid, signal)
  }
  const deaf = () => {
    for (const signal of ENDING) process.off(signal, end)
  }
  const abandon = () => {
    deaf()
    file.abandon()
    rmSync(temporary, { force: true })
  }
  // Before there is a file: a signal in between is told afterwards, where nobody listened it would end the command.
  for (const signal of ENDING) process.on(signal, end)
  let file: Target
  try {
    file = written(openSync(temporary, 'w', 0o644))
  } catch (error) {
    deaf()
    throw error
  }
  return {
    write: file.write,
    commit: () => {
      file.commit()
      renameSync(temporary, output)
      deaf()
    },
    abandon,
  }
}

function written(fd: number): Target {
  let isOpen = true
  const close = () => {
    if (isOpen) closeSync(fd)
    isOpen = false
  }
  return {
    write: data => {
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at)
    },
    commit: close,
    abandon: close,
  }
}

function standardOutput(): Target {
  const write = (data: Buffer) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    process.stdout.write(data, error => {
      if (!error) resolve()
      else if (errnoOf(error) === 'EPIPE')
        reject(new BerthError('cancelled', 'nobody reads the archive any more'))
      else reject(error)
    })
    return promise
  }
  return { write, commit: () => undefined, abandon: () => undefined }
}
