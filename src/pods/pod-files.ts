import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { errnoOf } from '../base/errors.ts'
import { podLabels } from '../containers/selinux.ts'
import { type DnsConfig, type Pod, podUserOf } from '../model/pod.ts'
import { ensureDir, writeFileAtomic } from '../os/files.ts'
import { labelOption, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from '../os/mounts.ts'
import { setContext } from '../os/selinux.ts'
import { hasNetwork, type PodContext } from './context.ts'

/** bytes, as every runtime gives (CRI has no field for it) */
const SHM_SIZE = 64 * 2 ** 20

/** /dev/shm of all containers of the pod. */
export function mountSharedMemory({ paths, selinux }: PodContext, pod: Pod): void {
  const { shm } = paths.pod(pod.id)
  ensureDir(shm, 0o700)
  const user = podUserOf(pod.config.namespaces)
  const owner = user === undefined ? '' : `,uid=${user.uid.hostId},gid=${user.gid.hostId}`
  const labels = podLabels(selinux, pod)
  const label = labels === undefined ? '' : `,${labelOption(labels.mount)}`
  const options = `mode=1777,size=${SHM_SIZE}${owner}${label}`
  mount('shm', shm, 'tmpfs', MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
}

/** Readable for every user of a container, like the files they stand for. */
const MODE = 0o644

/** A resolv.conf beyond this is none. */
const MAX_RESOLV_CONF = 64 * 1024

/** hostname and resolv.conf: bound into every container of the pod. */
export function writePodFiles(context: PodContext, pod: Pod): void {
  const paths = context.paths.pod(pod.id)
  const name = hasNetwork(pod) ? pod.config.hostname : hostname()
  writeShared(context, pod, paths.hostname, `${name}\n`)
  writeShared(context, pod, paths.resolvConf, resolvConf(pod.config.dns))
}

/** For clients that bring no /etc/hosts of their own; kubelet always does. */
export function writeHosts(context: PodContext, pod: Pod, ips: readonly string[]): void {
  const own = ips.map(ip => `${ip}\t${pod.config.hostname}\n`).join('')
  const text = hasNetwork(pod)
    ? `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${own}`
    : readNodeFile('/etc/hosts')
  writeShared(context, pod, context.paths.pod(pod.id).hosts, text)
}

/** For every container of the pod, whatever its user. */
function writeShared(context: PodContext, pod: Pod, path: string, text: string): void {
  writeFileAtomic(path, text, MODE)
  const labels = podLabels(context.selinux, pod)
  if (labels !== undefined) setContext(path, labels.mount)
}

/** Without a DNS configuration (or with an empty one) the node's. */
export function resolvConf(dns: DnsConfig | undefined): string {
  if (dns === undefined || dns.servers.length + dns.searches.length + dns.options.length === 0) {
    return readNodeFile('/etc/resolv.conf').slice(0, MAX_RESOLV_CONF)
  }
  const lines = [
    ...(dns.searches.length > 0 ? [`search ${dns.searches.join(' ')}`] : []),
    ...dns.servers.map(server => `nameserver ${server}`),
    ...(dns.options.length > 0 ? [`options ${dns.options.join(' ')}`] : []),
  ]
  return lines.map(line => `${line}\n`).join('')
}

function readNodeFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}
