import { sleep } from '../../src/base/clock.ts'

/** A machine that is busy with something else takes many times as long as an idle one. */
const LIMIT_MS = 30_000
const PAUSE_MS = 20

/** What `look` finds once it finds something; a test that waits for what never comes fails with its name. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  limitMs = LIMIT_MS,
): Promise<T> {
  const end = performance.now() + limitMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) throw new Error(`it never came to pass that ${what}`)
    await sleep(PAUSE_MS)
  }
}
