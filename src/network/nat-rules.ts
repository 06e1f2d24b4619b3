import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { effect } from '../base/effects.ts'
import { internal } from '../base/errors.ts'
import { run } from '../os/spawn.ts'
import type { CniNetwork } from './cni-config.ts'

/*
 * What the reference plugins (bridge and ptp with ipMasq, portmap) write to the table `nat`: chains whose names are
 * made of a hash, and rules that carry the network's name and the pod's id in a comment.
 */

export type NatRule = {
  readonly family: 4 | 6
  /** As iptables-save prints it: `-A CHAIN …`. */
  readonly text: string
  readonly chain: string
  /** The chain it jumps to, or another target. */
  readonly target: string
  readonly network: string
  readonly podId: string
}

const FAMILIES = [
  { family: 4, prefix: 'iptables', multicast: '224.0.0.0/4' },
  { family: 6, prefix: 'ip6tables', multicast: 'ff00::/8' },
] as const

const LIMIT_MS = 30_000
/** Some hundred bytes for each pod and port. */
const MAX_RULES = 64 * 2 ** 20

/** The chain of portmap in which there is a rule for each pod. */
export const HOST_PORTS = 'CNI-HOSTPORT-DNAT'

export type NatTables = {
  /** Those that the node has a table for. */
  readonly families: ReadonlySet<4 | 6>
  /** Rules that carry a pod's id. */
  readonly rules: readonly NatRule[]
  /** Families in which what comes to the node passes the chain of portmap. */
  readonly hostPorts: ReadonlySet<4 | 6>
}

/** @param path PATH of the plugins: they write with the same programs */
export async function readNat(path: string): Promise<NatTables> {
  const families = new Set<4 | 6>()
  const hostPorts = new Set<4 | 6>()
  const rules: NatRule[] = []
  for (const { family, prefix } of FAMILIES) {
    const program = findIn(path, `${prefix}-save`)
    if (program === undefined) continue
    const options = { args: ['-t', 'nat'], env: { PATH: path }, timeoutMs: LIMIT_MS, maxOutput: MAX_RULES }
    const { code, stdout } = await run(program, options)
    // A kernel without the table has no rules in it.
    if (code !== 0) continue
    const text = stdout.toString()
    families.add(family)
    if (new RegExp(`^-A PREROUTING .*-j ${HOST_PORTS}$`, 'm').test(text)) hostPorts.add(family)
    rules.push(...parseRules(text, family))
  }
  return { families, rules, hostPorts }
}

export function parseRules(text: string, family: 4 | 6): NatRule[] {
  return text.split('\n').flatMap(line => {
    const [, chain, rest = ''] = /^-A (\S+) (.*)$/.exec(line) ?? []
    const [, network, podId] = /name: \\"([^"\\]+)\\" id: \\"([0-9a-f]{64})\\"/.exec(rest) ?? []
    const target = / -j (\S+)/.exec(rest)?.[1]
    if (chain === undefined || network === undefined || podId === undefined || target === undefined) return []
    return [{ family, text: line, chain, target, network, podId }]
  })
}

/** Takes rules away, and the chains that only these rules lead to. */
export async function removeRules(path: string, rules: readonly NatRule[]): Promise<void> {
  for (const { family } of FAMILIES) {
    const own = rules.filter(rule => rule.family === family)
    const chains = new Set(own.map(rule => rule.target).filter(target => target.startsWith('CNI-')))
    const lines = [
      ...own.filter(rule => !chains.has(rule.chain)).map(rule => rule.text.replace(/^-A/, '-D')),
      ...[...chains].flatMap(chain => [`-F ${chain}`, `-X ${chain}`]),
    ]
    if (lines.length > 0) await restore(path, family, lines)
  }
}

/** What is left of a pod. */
export async function removeRulesOf(path: string, network: string, podId: string): Promise<void> {
  const { rules } = await readNat(path)
  const own = rules.filter(rule => rule.network === network && rule.podId === podId)
  if (own.length > 0) await removeRules(path, own)
}

/** Addresses of its pods are hidden by rules of iptables. */
export function masquerades(network: CniNetwork): boolean {
  return network.plugins.some(({ type, json }) => {
    const { ipMasq, ipMasqBackend } = json
    const isByIptables = (ipMasqBackend ?? 'iptables') === 'iptables'
    return (type === 'bridge' || type === 'ptp') && ipMasq === true && isByIptables
  })
}

/** Hides a pod's address behind the node's, as the plugins `bridge` and `ptp` do with `ipMasq`. */
export async function masquerade(
  path: string,
  { network, podId, address }: { network: string; podId: string; address: string },
): Promise<void> {
  const chain = masqueradeChain(network, podId)
  const [ip = ''] = address.split('/')
  const { family, multicast } = FAMILIES[isIP(ip) === 6 ? 1 : 0]
  const comment = `-m comment --comment "name: \\"${network}\\" id: \\"${podId}\\""`
  await restore(path, family, [
    `:${chain} - [0:0]`,
    `-A ${chain} -d ${address} ${comment} -j ACCEPT`,
    `-A ${chain} ! -d ${multicast} ${comment} -j MASQUERADE`,
    `-A POSTROUTING -s ${ip} ${comment} -j ${chain}`,
  ])
}

/** The name that plugins give the chain: 28 bytes. */
export function masqueradeChain(network: string, podId: string): string {
  return `CNI-${createHash('sha512').update(`${network}${podId}`).digest('hex')}`.slice(0, 28)
}

/** All of it or nothing. */
async function restore(path: string, family: 4 | 6, lines: readonly string[]): Promise<void> {
  const name = family === 4 ? 'iptables-restore' : 'ip6tables-restore'
  const program = findIn(path, name)
  if (program === undefined) throw internal(`${name} is not installed`)
  const { code, stderr } = await effect('network', 'change-rules', lines[0] ?? '', () =>
    run(program, {
      args: ['--noflush', '--wait', '10'],
      env: { PATH: path },
      stdin: `*nat\n${lines.join('\n')}\nCOMMIT\n`,
      timeoutMs: LIMIT_MS,
    }),
  )
  if (code !== 0) throw internal(`${name}: ${stderr.toString().trim() || `exit code ${code}`}`)
}

function findIn(path: string, name: string): string | undefined {
  return path
    .split(':')
    .map(directory => join(directory, name))
    .find(file => existsSync(file))
}
