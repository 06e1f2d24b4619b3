import { existsSync } from 'node:fs'
import type { SpecResult, SuiteRun } from './suite.ts'

/** Specs of cri-tools v1.36.0 on a node without SELinux; with it there are more. */
export const SPECS = 117
/** Exec, attach and port-forward. */
export const STREAMING_SPECS = 5

/** What decides on this node, with the runtime under test, which specs can run. */
export type Host = {
  readonly apparmor: boolean
  /** The OCI runtime maps the ids of mounts. */
  readonly idmap: boolean
  /** The OCI runtime makes mounts read-only with all that is mounted below. */
  readonly recursiveReadOnly: boolean
}

type Expectation = {
  /** Of the spec's whole name. */
  readonly spec: RegExp
  readonly reason: string
  readonly when: (host: Host) => boolean
}

/** Every spec that may be skipped, on which node, and why. A skip that is not here fails the run. */
const EXPECTED_SKIPS: readonly Expectation[] = [
  {
    spec: /AppArmor/,
    reason: 'the kernel has no AppArmor',
    when: host => !host.apparmor,
  },
  {
    spec: /UserNamespaces/,
    reason: 'the OCI runtime cannot map the ids of mounts (runc before 1.2)',
    when: host => !host.idmap,
  },
  {
    // Four of five: the fifth wants plain read-only mounts to stay as they were.
    spec: /readonly mounts should (support|reject a) recursive readonly mount/,
    reason: 'the OCI runtime says of no recursive read-only mounts (crun before 1.9)',
    when: host => !host.recursiveReadOnly,
  },
]

/** @param features what `runc features` says; '' for a runtime that has no such command */
export function hostFor(features: string): Host {
  const { linux, mountOptions } = JSON.parse(features || '{}') as {
    mountOptions?: string[]
    linux?: { mountExtensions?: { idmap?: { enabled?: boolean } } }
  }
  const idmap = linux?.mountExtensions?.idmap?.enabled === true
  const recursiveReadOnly = mountOptions?.includes('rro') === true
  return { idmap, recursiveReadOnly, apparmor: existsSync('/sys/kernel/security/apparmor/profiles') }
}

export type Verdict = {
  /** One line for each spec that did something else than it should. */
  readonly unexpected: readonly string[]
  /** For people: counts, and the reasons. */
  readonly table: readonly string[]
}

export function judge(run: SuiteRun, host: Host): Verdict {
  const skips = EXPECTED_SKIPS.filter(({ when }) => when(host))
  const unexpected = run.specs.flatMap(spec => complaintOf(spec, skips) ?? [])
  return { unexpected, table: tableOf(run, skips) }
}

function complaintOf(
  { name, state, message }: SpecResult,
  skips: readonly Expectation[],
): string | undefined {
  const wanted = matching(skips, name) ? 'skipped' : 'passed'
  if (state === wanted) return undefined
  return `${name}: ${state}, expected to be ${wanted}${message === '' ? '' : `: ${message}`}`
}

function matching(expectations: readonly Expectation[], name: string): Expectation | undefined {
  return expectations.find(({ spec }) => spec.test(name))
}

function tableOf({ specs, seconds, seed }: SuiteRun, expectations: readonly Expectation[]): string[] {
  const count = (state: SpecResult['state']) => specs.filter(spec => spec.state === state).length
  const others = specs.filter(({ state }) => state !== 'passed')
  const reasons = Map.groupBy(others, ({ name, state, message }) => {
    const why = matching(expectations, name)?.reason ?? message.split('\n')[0]!
    return `${state}: ${why}`
  })
  return [
    `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped of ${specs.length}` +
      ` in ${seconds.toFixed(0)} s (seed ${seed})`,
    ...[...reasons].map(([reason, group]) => `${group.length} ${reason}`),
  ]
}
