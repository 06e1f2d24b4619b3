import { randomInt } from 'node:crypto'
import { BerthError, invalid } from '../base/errors.ts'
import type { Container, ContainerConfig } from '../model/container.ts'
import type { Pod, PodConfig } from '../model/pod.ts'
import type { SelinuxOptions } from '../model/security.ts'
import { mayRelabel, relabelTree, type SelinuxPolicy } from '../os/selinux.ts'

/** SELinux as the configuration and the kernel have it. */
export type Selinux = {
  readonly policy: SelinuxPolicy
  /** Whether the loaded policy has such a context. */
  readonly isValid: (context: string) => boolean
  /** Containers in the node's network are not confined (CRI-O's hostnetwork_disable_selinux). */
  readonly freeHostNetwork: boolean
  /** The daemon's own directories, which are relabelled for nobody. */
  readonly ownDirectories: readonly string[]
}

/** What a container's process and what is mounted for it are labelled with. */
export type SelinuxLabels = { readonly process: string; readonly mount: string }

/** Categories of a policy; two of them tell a pod from all others. */
const CATEGORIES = 1024

/** Where the policy does not confine at all; what privileged containers run as. */
const UNCONFINED = 'spc_t'

/**
 * Two categories that no living pod has, as a level of the policy: `s0:c12,c345`. '' where the policy has no levels.
 * @param taken levels in use, given by us or named by clients
 * @throws BerthError exhausted, when no pair is free
 */
export function pickLevel(
  policy: SelinuxPolicy,
  taken: Iterable<string>,
  pick: (limit: number) => number = limit => randomInt(limit),
  categories = CATEGORIES,
): string {
  const sensitivity = parse(policy.process).level.split(':')[0]?.split('-')[0] ?? ''
  if (sensitivity === '') return ''
  const used = new Set<string>()
  for (const level of taken) used.add(categoriesOf(level))
  const pairs = (categories * (categories - 1)) / 2
  const first = pick(pairs)
  // Half a million pairs and some hundred pods: nearly always the first one.
  for (let step = 0; step < pairs; step++) {
    const pair = pairOf((first + step) % pairs)
    if (!used.has(pair)) return `${sensitivity}:${pair}`
  }
  throw new BerthError('exhausted', 'every pair of SELinux categories is in use')
}

/** The pair with this number, the lower category first. */
function pairOf(index: number): string {
  // Pairs in the order of their higher category: n of them have one below n + 1 as the higher.
  const high = Math.floor((1 + Math.sqrt(1 + 8 * index)) / 2)
  return `c${index - (high * (high - 1)) / 2},c${high}`
}

/** `c1,c2` of `s0:c2,c1`. */
function categoriesOf(level: string): string {
  const names = level.split(':').slice(1).join(':').split(',')
  return names.sort((a, b) => Number(a.slice(1)) - Number(b.slice(1))).join(',')
}

/** Levels that the pods and containers of the node have now. */
export function* levelsInUse(
  pods: Iterable<Pod>,
  containers: Iterable<Pick<Container, 'config'>>,
): Generator<string> {
  for (const { selinuxLevel, config } of pods) {
    if (selinuxLevel !== undefined) yield selinuxLevel
    if (config.selinux !== undefined) yield config.selinux.level
  }
  for (const { config } of containers) {
    if (config.security.selinux !== undefined) yield config.security.selinux.level
  }
}

/**
 * The pod's own files, shared memory and init process.
 * @returns undefined for a pod that was made without SELinux: it stays without
 * @throws BerthError invalid, if the policy has no such context
 */
export function podLabels(selinux: Selinux | undefined, pod: Pod): SelinuxLabels | undefined {
  const { config } = pod
  return labelsOf(selinux, pod, undefined, isFree(selinux, config, config.privileged))
}

/** The pod's, or with what the container wants otherwise. @throws BerthError invalid, naming the field */
export function containerLabels(
  selinux: Selinux | undefined,
  pod: Pod,
  { security }: ContainerConfig,
): SelinuxLabels | undefined {
  const free = isFree(selinux, pod.config, security.privileged) || security.namespaces.pid === 'node'
  return labelsOf(selinux, pod, security.selinux, free)
}

/** What sees the node's processes, or speaks with them, cannot be separated from them (as CRI-O has it). */
function isFree(selinux: Selinux | undefined, { namespaces }: PodConfig, privileged: boolean): boolean {
  const { pid, ipc, network } = namespaces
  const freeNetwork = network === 'node' && selinux?.freeHostNetwork === true
  return privileged || pid === 'node' || ipc === 'node' || freeNetwork
}

function labelsOf(
  selinux: Selinux | undefined,
  pod: Pod,
  asked: SelinuxOptions | undefined,
  free: boolean,
): SelinuxLabels | undefined {
  if (selinux === undefined || pod.selinuxLevel === undefined) return undefined
  const { policy } = selinux
  const usual = parse(policy.process)
  const ofPod = pod.config.selinux
  const chosen = (part: keyof SelinuxOptions) => asked?.[part] || ofPod?.[part] || ''
  const user = chosen('user') || usual.user
  const level = chosen('level') || pod.selinuxLevel
  const wanted = { user, role: chosen('role') || usual.role, type: chosen('type') || usual.type, level }
  const process = render(wanted)
  const mount = render({ ...parse(policy.file), user, level })
  // What is asked for has to be right even where it is not taken.
  if (asked !== undefined || ofPod !== undefined) {
    for (const context of [process, mount]) requireContext(selinux, context)
  }
  if (!free) return { process, mount }
  const unconfined = render({ ...usual, type: UNCONFINED })
  return { process: selinux.isValid(unconfined) ? unconfined : '', mount }
}

function requireContext(selinux: Selinux, context: string): void {
  if (selinux.isValid(context)) return
  throw invalid(
    'config.linux.security_context.selinux_options',
    `${JSON.stringify(context)} is no context of the SELinux policy that is loaded`,
  )
}

type Context = { user: string; role: string; type: string; level: string }

function parse(context: string): Context {
  const [user = '', role = '', type = '', ...level] = context.split(':')
  return { user, role, type, level: level.join(':') }
}

function render({ user, role, type, level }: Context): string {
  return `${user}:${role}:${type}${level === '' ? '' : `:${level}`}`
}

/** Volumes beyond this would take minutes of a call that kubelet waits for. */
const RELABEL_LIMITS = { maxEntries: 5_000_000, maxDepth: 1024 }

/** CRI-O's: a volume whose top directory is labelled already is taken to be labelled throughout. */
const SKIP_LABELLED = 'io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel'

export type Relabelled = { readonly field: string; readonly source: string }

/** For mounts with `selinux_relabel`. @throws BerthError invalid for what nobody may relabel; exhausted */
export async function relabelMounts(
  selinux: Selinux,
  pod: Pod,
  mounts: readonly Relabelled[],
  context: string,
): Promise<void> {
  for (const { field, source } of mounts) {
    if (mayRelabel(source, selinux.ownDirectories)) continue
    throw invalid(
      `${field}.selinux_relabel`,
      `${JSON.stringify(source)} belongs to the node and keeps its labels`,
    )
  }
  const onlyIfTopDiffers = pod.config.annotations[SKIP_LABELLED] === 'true'
  for (const { source } of mounts) await relabelTree(source, context, RELABEL_LIMITS, onlyIfTopDiffers)
}
