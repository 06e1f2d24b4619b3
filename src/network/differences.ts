import { isId } from '../base/ids.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Difference } from '../model/difference.ts'
import type { CniAttachment } from '../model/pod.ts'
import { isOnACommandLine } from '../os/processes.ts'
import { chainTarget, networkOf } from './attachment.ts'
import type { AttachmentJournal } from './attachment-journal.ts'
import { cniArgs } from './cni-args.ts'
import type { CniChain } from './cni-chain.ts'
import type { CniNetwork } from './cni-config.ts'
import { podAddresses } from './cni-result.ts'
import { dropLease, type Lease, leaseDirs, leasesIn, restoreLease } from './host-local.ts'
import { isJsonObject } from './json.ts'
import {
  HOST_PORTS,
  masquerade,
  masquerades,
  type NatRule,
  type NatTables,
  readNat,
  removeRules,
} from './nat-rules.ts'
import type { NetworkMember } from './network.ts'

export type NetworkLook = {
  readonly members: readonly NetworkMember[]
  /** Asked at the time: a pod may have come since. */
  readonly isHeld: (podId: string) => boolean
  readonly journal: AttachmentJournal
  readonly chain: CniChain
  /** The one in use. */
  readonly network: CniNetwork | undefined
  /** PATH of the plugins. */
  readonly path: string
  /** Nothing else is done with the pod's attachment meanwhile. */
  readonly alone: <T>(podId: string, work: () => Promise<T>) => Promise<T>
  /** DEL of what the journal has of a pod that nobody claims. */
  readonly forget: (podId: string) => Promise<void>
}

/** A pod whose attachment is complete. */
type Attached = {
  readonly member: NetworkMember
  readonly attachment: CniAttachment
  readonly network: CniNetwork
}

/** Plugins whose CHECK says something; others may know the verb and take it for an error. */
const CHECKED: ReadonlySet<string> = new Set(['bridge', 'ptp'])

/** Each is a process for every plugin; the node has other things to do. */
const CHECKS_AT_A_TIME = 4

/** Ids of pods; what else has a lease or a rule is another program's. */

export async function networkDifferences(look: NetworkLook): Promise<Difference[]> {
  const attached = look.members.flatMap(member => attachedOf(member))
  const nat = await readNat(look.path)
  const withoutLease = attached.flatMap(one => missingLeases(one))
  // The plugin would only say the same about its own address plugin.
  const unleased = new Set(withoutLease.map(({ podId }) => podId))
  const checked = attached.filter(({ member }) => !unleased.has(member.target.podId))
  return [
    ...strayAttachments(look),
    ...attached.flatMap(one => unrecorded(look, one)),
    ...strayLeases(look, attached),
    ...withoutLease,
    ...strayRules(look, attached, nat.rules),
    ...attached.flatMap(one => missingMasquerade(look, one, nat)),
    ...attached.flatMap(one => missingHostPorts(look, one, nat)),
    ...(await brokenAttachments(look, checked)),
  ]
}

function attachedOf(member: NetworkMember): Attached[] {
  const { attachment } = member.network
  if (!member.isSettled || attachment === undefined) return []
  try {
    return [{ member, attachment, network: networkOf(attachment) }]
  } catch {
    return [] // it cannot be read, which the DEL will say
  }
}

function strayAttachments({ journal, isHeld, forget }: NetworkLook): Difference[] {
  return journal
    .podIds()
    .filter(podId => !isHeld(podId))
    .map(podId => ({
      kind: 'attachment-stray',
      subject: podId,
      podId,
      found: 'a pod that is no more was attached to a network and never detached',
      cause:
        'the database was lost or put back from a backup, or the plugins failed when they were to detach it',
      remedy: 'detach it as it was attached, which gives back its address and removes its rules',
      fix: () => forget(podId),
    }))
}

function unrecorded({ journal, alone }: NetworkLook, { member, attachment }: Attached): Difference[] {
  const { podId, netns } = member.target
  if (journal.podIds().includes(podId)) return []
  return [
    {
      kind: 'attachment-unrecorded',
      subject: podId,
      podId,
      found: 'it is attached to a network, and the journal of attachments does not have it',
      cause: 'somebody removed its file',
      remedy: 'write it down again from its row: it is what detaches the pod if the database is lost',
      fix: () =>
        alone(podId, async () => {
          journal.begin(podId, { ...attachment, result: null, netns, args: cniArgs(member.target) })
        }),
    },
  ]
}

/** Of the network in use, and of those that pods were attached to. */
function networksOf({ network }: NetworkLook, attached: readonly Attached[]): CniNetwork[] {
  return [...(network === undefined ? [] : [network]), ...attached.map(one => one.network)]
}

function strayLeases(look: NetworkLook, attached: readonly Attached[]): Difference[] {
  const directories = new Set(networksOf(look, attached).flatMap(leaseDirs))
  const strays = [...directories].flatMap(leasesIn).filter(({ holder }) => {
    return isId(holder) && !look.isHeld(holder)
  })
  return strays.filter(({ holder }) => !isOfAnotherRuntime(holder)).map(lease => strayLease(look, lease))
}

/** Every runtime has a process for each of its pods that has the pod's id on its command line. */
function isOfAnotherRuntime(podId: string): boolean {
  return isOnACommandLine(podId)
}

function strayLease({ isHeld }: NetworkLook, lease: Lease): Difference {
  const { file, address, holder } = lease
  return {
    kind: 'lease-stray',
    subject: file,
    podId: holder,
    found: `the address ${address} is given to pod ${holder}, which is no more`,
    cause: 'the pod was removed without its plugins, or by another runtime: the node runs out of addresses',
    remedy: 'give the address back',
    fix: async () => {
      if (!isHeld(holder) && !isOfAnotherRuntime(holder)) dropLease(lease)
    },
  }
}

function missingLeases({ member, attachment, network }: Attached): Difference[] {
  const { podId } = member.target
  const [directory] = leaseDirs(network)
  if (directory === undefined) return []
  const leases = new Map(leasesIn(directory).map(lease => [lease.address, lease]))
  return podAddresses(attachment.result, attachment.ifName).flatMap((address): Difference[] => {
    const lease = leases.get(address)
    if (lease?.holder === podId) return []
    const subject = `${directory}/${address}`
    if (lease !== undefined) {
      return [
        {
          kind: 'lease-taken',
          subject,
          podId,
          found: `it has the address ${address}, which is given to ${lease.holder} as well`,
          cause:
            'its lease was removed, and another pod got the address: packets reach one of them by chance',
          remedy: 'nothing that leaves both running: stop one of them, and kubelet makes another',
        },
      ]
    }
    return [
      {
        kind: 'lease-missing',
        subject,
        podId,
        found: `it has the address ${address}, and there is no lease: the next pod may get it too`,
        cause: 'somebody removed the file, or emptied the directory of leases',
        remedy: 'write the lease again, as the plugin does',
        fix: async () => restoreLease(directory, address, podId, attachment.ifName),
      },
    ]
  })
}

function strayRules(
  look: NetworkLook,
  attached: readonly Attached[],
  rules: readonly NatRule[],
): Difference[] {
  const names = new Set(networksOf(look, attached).map(({ name }) => name))
  const strays = Map.groupBy(
    rules.filter(rule => names.has(rule.network) && !look.isHeld(rule.podId)),
    rule => rule.podId,
  )
  return [...strays]
    .filter(([podId]) => !isOfAnotherRuntime(podId))
    .map(([podId, own]) => ({
      kind: 'rules-stray',
      subject: podId,
      podId,
      found: `rules of iptables for a pod that is no more: ${own.map(({ text }) => text).join('; ')}`,
      cause:
        'the pod was removed without its plugins, or without its namespace, in which the plugin bridge looks for what to remove',
      remedy: 'remove them, and the chains that only they lead to',
      fix: async () => {
        if (!look.isHeld(podId)) await removeRules(look.path, own)
      },
    }))
}

const FLUSHED = 'the firewall was flushed or reloaded'

function missingMasquerade(
  { path }: NetworkLook,
  { member, attachment, network }: Attached,
  { families, rules }: NatTables,
): Difference[] {
  const { podId } = member.target
  if (!masquerades(network)) return []
  const isThere = (family: 4 | 6) =>
    rules.some(rule => rule.podId === podId && rule.chain === 'POSTROUTING' && rule.family === family)
  return addressesIn(attachment.result)
    .filter(address => families.has(familyOf(address)) && !isThere(familyOf(address)))
    .map(address => ({
      kind: 'rules-missing',
      subject: `${podId} masquerade ${address}`,
      podId,
      found: `the rules that hide its address ${address} behind the node's are missing: it reaches nobody outside`,
      cause: FLUSHED,
      remedy: 'write them again, as the plugin does',
      fix: () => masquerade(path, { network: network.name, podId, address }),
    }))
}

/** By looking at the rules: CHECK of `portmap` wants rules of both families, also for a pod that has one. */
function missingHostPorts(
  { chain, alone, isHeld }: NetworkLook,
  { member, attachment, network }: Attached,
  { families, rules, hostPorts }: NatTables,
): Difference[] {
  const { podId, netns, portMappings } = member.target
  const plugin = network.plugins.find(({ type, json, capabilities }) => {
    const isByIptables = (json.backend ?? 'iptables') === 'iptables'
    return type === 'portmap' && capabilities.has('portMappings') && isByIptables
  })
  if (plugin === undefined || !portMappings.some(({ hostPort }) => hostPort > 0)) return []
  const own = new Set(addressesIn(attachment.result).map(familyOf))
  const isThere = (family: 4 | 6) =>
    hostPorts.has(family) &&
    rules.some(rule => rule.podId === podId && rule.chain === HOST_PORTS && rule.family === family)
  if (![...own].some(family => families.has(family) && !isThere(family))) return []
  const target = chainTarget(podId, netns, cniArgs(member.target), attachment)
  return [
    {
      kind: 'rules-missing',
      subject: `${podId} host ports`,
      podId,
      found: 'the rules that lead from ports of the node to it are missing',
      cause: FLUSHED,
      remedy: 'have the plugin portmap make its rules again',
      fix: () =>
        alone(podId, async () => {
          if (isHeld(podId)) await chain.addAgain(network, plugin, target, attachment.result)
        }),
    },
  ]
}

function familyOf(address: string): 4 | 6 {
  return address.includes(':') ? 6 : 4
}

/** With the length of their prefix. */
function addressesIn(result: unknown): string[] {
  const ips = isJsonObject(result) && Array.isArray(result.ips) ? result.ips.filter(isJsonObject) : []
  return ips.flatMap(({ address }) => (typeof address === 'string' ? [address] : []))
}

async function brokenAttachments(look: NetworkLook, attached: readonly Attached[]): Promise<Difference[]> {
  const slots = new Semaphore('CHECK of attachments', CHECKS_AT_A_TIME)
  const found = await Promise.all(attached.map(one => slots.run(() => brokenAttachment(look, one))))
  return found.flat()
}

async function brokenAttachment(
  { chain, alone, isHeld }: NetworkLook,
  { member, attachment, network }: Attached,
): Promise<Difference[]> {
  const { podId, netns } = member.target
  const target = chainTarget(podId, netns, cniArgs(member.target), attachment)
  const errors = await alone(podId, async () =>
    isHeld(podId) ? await chain.checkEach(network, target, attachment.result, CHECKED) : [],
  )
  return errors.map(({ plugin, error }) => ({
    subject: `${podId} ${plugin.type}`,
    podId,
    found: `its network is not as it was made: ${error}`,
    kind: 'network-broken',
    cause: 'somebody changed interfaces, addresses or routes, on the node or in the pod',
    remedy: 'nothing that keeps its address: stop the pod, and kubelet makes another',
  }))
}
