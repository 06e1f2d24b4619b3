import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { useDaemon } from '../support/use-daemon.ts'
import { type StormOptions, storm } from './storm.ts'

/** A storm that `npm test` has time for (docs/testing.md). */
export function testSmallStorm(retry: StormOptions['retry']): void {
  const kubelet = useDaemon()
  test('20 pods, 30 % of the calls given up, the daemon killed twice: exactly what was asked for', async t => {
    const seed = randomInt(2 ** 31)
    const { counts, problems, seconds, attempts } = await storm(kubelet(), {
      seed,
      pods: 20,
      kills: 2,
      retry,
      givenUp: 0.3,
    })
    const { calls, givenUp, unanswered, lostAnswers, refused } = counts
    t.diagnostic(
      `seed ${seed}: ${calls} calls in ${seconds.toFixed(0)} s, ${givenUp} given up, ${unanswered} unanswered, ` +
        `${lostAnswers} answers lost; further attempts: ${attempts.pods} pods, ${attempts.containers} containers`,
    )
    assert.deepEqual([...problems, ...refused], [], `seed ${seed}`)
    assert.ok(givenUp > 0 && unanswered > 0)
  })
}
