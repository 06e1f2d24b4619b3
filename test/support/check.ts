import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { CommandResult } from './command.ts'
import type { BerthDaemon } from './daemon.ts'
import { FOREVER, type Kubelet, type TestPod } from './kubelet.ts'

export type FoundDifference = {
  readonly kind: string
  readonly subject: string
  readonly found: string
  readonly cause: string
  readonly remedy: string
  readonly repairable: boolean
  readonly state: string
  readonly error: string
}

export type CheckReport = {
  readonly code: number
  readonly differences: readonly FoundDifference[]
  readonly summary: { readonly pods: number; readonly busy: readonly string[]; readonly left: number }
}

/** `berth check` of a daemon that runs. */
export async function check(daemon: BerthDaemon, ...flags: readonly string[]): Promise<CheckReport> {
  return reportOf(await daemon.berth('check', '--json', ...flags))
}

/** `berth check` where no daemon runs. */
export async function checkOffline(
  daemon: BerthDaemon,
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<CheckReport> {
  return reportOf(await daemon.offline(['check', '--json', ...flags], env))
}

function reportOf({ code, stdout, stderr }: CommandResult): CheckReport {
  assert.ok(code === 0 || code === 4, `berth check ended with ${code}: ${stderr}`)
  return { code, ...(JSON.parse(stdout) as Omit<CheckReport, 'code'>) }
}

/** What `berth check` of a daemon finds: one line for each difference. */
export async function differences(daemon: BerthDaemon): Promise<string[]> {
  const report = await check(daemon)
  return report.differences.map(({ kind, subject, found }) => `${kind} ${subject}: ${found}`)
}

/** Of exactly one. */
export function only(report: CheckReport): FoundDifference {
  const { differences } = report
  assert.equal(differences.length, 1, JSON.stringify(differences, undefined, 2))
  return differences[0]!
}

export type Expected = {
  readonly kind: string
  readonly subject?: string
  readonly found?: RegExp
  readonly cause?: RegExp
}

export function assertIs(difference: FoundDifference, expected: Expected): void {
  const { kind, subject, found = /./, cause = /./ } = expected
  assert.equal(difference.kind, kind, JSON.stringify(difference))
  if (subject !== undefined) assert.equal(difference.subject, subject)
  assert.match(difference.found, found)
  assert.match(difference.cause, cause)
}

/** What the tests of a file do with the node of its daemon. */
export function useCheck(kubelet: () => Kubelet) {
  /** It is named, with its cause; it is repaired; then there is none. */
  async function isHealed(expected: Expected): Promise<void> {
    await isHealedBy((...flags) => check(kubelet().daemon, ...flags), expected)
  }

  /** The same where no daemon runs. */
  async function isHealedOffline(expected: Expected): Promise<void> {
    await isHealedBy((...flags) => checkOffline(kubelet().daemon, flags), expected)
  }

  async function isHealedBy(run: (...flags: string[]) => Promise<CheckReport>, expected: Expected) {
    const seen = await run()
    assert.equal(seen.code, 4)
    assertIs(only(seen), expected)
    assert.deepEqual([only(seen).state, only(seen).repairable], ['FOUND', true])
    const repaired = await run('--repair')
    assertIs(only(repaired), expected)
    assert.deepEqual(
      [only(repaired).state, only(repaired).error, repaired.code, repaired.summary.left],
      ['REPAIRED', '', 0, 0],
    )
    const { code, differences } = await run()
    assert.deepEqual([code, differences], [0, []])
  }

  async function isClean(): Promise<void> {
    const { code, differences } = await check(kubelet().daemon)
    assert.deepEqual([code, differences], [0, []])
  }

  /** A pod with a container that runs, and what has to be the same after a repair. */
  async function living(): Promise<{ pod: TestPod; id: string; goesOn: () => Promise<void> }> {
    const pod = await kubelet().runPod()
    const id = await kubelet().run(pod, FOREVER)
    const { pid } = await kubelet().containerInfo(id)
    const ip = await kubelet().podIp(pod)
    const goesOn = async () => {
      assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
      assert.equal((await kubelet().containerInfo(id)).pid, pid)
      assert.ok(existsSync(`/proc/${pid}`))
      const inside = await kubelet().exec(id, `hostname -i; ping -c 1 -W 5 ${kubelet().daemon.subnet}.1`)
      assert.equal(inside.code, 0, inside.stderr)
      assert.equal(inside.stdout.split('\n', 1)[0], ip)
      assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_READY')
    }
    await goesOn()
    return { pod, id, goesOn }
  }

  const bundleOf = (id: string) => join(kubelet().daemon.runRoot, 'containers', id)
  const rootOf = (id: string) => join(kubelet().daemon.root, 'rootfs', id, 'merged')
  const podOf = (pod: TestPod) => join(kubelet().daemon.runRoot, 'pods', pod.id)

  return { isHealed, isHealedOffline, isClean, living, bundleOf, rootOf, podOf }
}
