import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'

export type Held = {
  readonly uid: string
  readonly capabilities: readonly number[]
  readonly cannotGain: boolean
}

/** What a process may do: the same for each of its threads, or it fails. */
export function heldBy(pid: number): Held {
  const threads = readdirSync(`/proc/${pid}/task`).map(tid => statusOf(`${pid}/task/${tid}`))
  for (const thread of threads) assert.deepEqual(thread, threads[0])
  return threads[0]!
}

function statusOf(path: string): Held {
  const status = readFileSync(`/proc/${path}/status`, 'utf8')
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? ''
  const bits = (name: string) =>
    Array.from({ length: 64 }, (_, bit) => bit).filter(
      bit => (BigInt(`0x${field(name)}`) >> BigInt(bit)) & 1n,
    )
  for (const name of ['CapPrm', 'CapEff']) {
    const beyond = bits(name).filter(bit => !bits('CapBnd').includes(bit))
    assert.deepEqual(beyond, [], name)
  }
  for (const name of ['CapInh', 'CapAmb']) assert.deepEqual(bits(name), [], name)
  return { uid: field('Uid'), capabilities: bits('CapBnd'), cannotGain: field('NoNewPrivs') === '1' }
}
