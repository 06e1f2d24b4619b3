import type { Writable } from 'node:stream'

/** Resolves when the stream takes more, or nothing any more. */
export function drained(stream: Writable): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (stream.destroyed) resolve()
  const done = () => {
    stream.off('drain', done)
    stream.off('close', done)
    resolve()
  }
  stream.on('drain', done)
  stream.on('close', done)
  return promise
}
