import path from 'node:path'
import { invalid, precondition } from '../../base/errors.ts'
import type { Mount } from '../../model/container.ts'
import type { OciMount } from '../../model/oci.ts'
import { podUserOf } from '../../model/pod.ts'
import { ociMapping } from './namespaces.ts'
import type { ResolvedMount, SpecInput } from './spec.ts'

/** Mount points in /proc that runtimes accept: what lxcfs provides (others could redirect writes to /proc). */
const PROC_FILES = new Set([
  '/proc/cpuinfo',
  '/proc/diskstats',
  '/proc/loadavg',
  '/proc/meminfo',
  '/proc/slabinfo',
  '/proc/stat',
  '/proc/swaps',
  '/proc/uptime',
  '/proc/net/dev',
])

/**
 * The kernel file systems and the pod's files, then the request's mounts. Of two with one destination the request's
 * wins; a requested /dev replaces everything below /dev too. Parents stand before what lies in them.
 */
export function buildMounts(input: SpecInput): OciMount[] {
  const requested = input.mounts.map((mount, index) => requestedMount(input, mount, index))
  const taken = new Set(requested.map(mount => mount.destination))
  const ours = [...kernelMounts(input), ...podFiles(input)].filter(
    ({ destination }) => !taken.has(destination) && !(taken.has('/dev') && destination.startsWith('/dev/')),
  )
  return [...ours, ...requested]
    .map((mount, index) => ({ mount, index, depth: depthOf(mount.destination) }))
    .sort((a, b) => a.depth - b.depth || a.index - b.index)
    .map(({ mount }) => mount)
}

/** `rshared` or `rslave` when a mount's propagation needs the root's; undefined leaves the runtime's (rslave). */
export function rootfsPropagation({ mounts }: SpecInput): string | undefined {
  if (mounts.some(({ mount }) => mount.propagation === 'rshared')) return 'rshared'
  if (mounts.some(({ mount }) => mount.propagation === 'rslave')) return 'rslave'
  return undefined
}

function kernelMounts({ config, pod, podPaths }: SpecInput): OciMount[] {
  const { privileged, namespaces } = config.security
  const access = privileged ? 'rw' : 'ro'
  const kernel = ['nosuid', 'noexec', 'nodev']
  // A user namespace that doesn't own the network namespace may not mount sysfs: show the node's.
  const borrowed = namespaces.network === 'node' && podUserOf(pod.namespaces) !== undefined
  const sysfs: OciMount = borrowed
    ? { destination: '/sys', type: 'bind', source: '/sys', options: ['rbind', 'rslave', ...kernel, access] }
    : { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...kernel, access] }
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: kernel },
    // Always a tmpfs of its own: on the image's /dev the runtime's device nodes would follow its symlinks.
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: kernel },
    {
      destination: '/dev/shm',
      type: 'bind',
      source: podPaths.shmPath,
      options: ['rbind', 'rprivate', 'rw', ...kernel],
    },
    sysfs,
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: [...kernel, 'relatime', access],
    },
  ]
}

function podFiles({ config, podPaths }: SpecInput): OciMount[] {
  const files: Array<[string, string | undefined]> = [
    ['/etc/resolv.conf', podPaths.resolvConfPath],
    ['/etc/hostname', podPaths.hostnamePath],
    ['/etc/hosts', podPaths.hostsPath],
  ]
  const access = config.security.readonlyRootfs ? 'ro' : 'rw'
  const options = ['rbind', 'rprivate', 'nosuid', 'noexec', 'nodev', access]
  return files.flatMap(([destination, source]) =>
    source === undefined ? [] : [{ destination, type: 'bind', source, options }],
  )
}

function requestedMount(input: SpecInput, resolved: ResolvedMount, index: number): OciMount {
  const { mount, source } = resolved
  const field = `config.mounts[${index}]`
  const destination = checkDestination(input, resolved, `${field}.container_path`)
  if (mount.image !== undefined && !mount.readonly) {
    throw invalid(`${field}.readonly`, 'an image can only be mounted read-only')
  }
  checkPropagation(resolved, field)
  checkRecursiveReadOnly(input, mount, field)
  const mapped = mount.uidMappings.length > 0 || mount.gidMappings.length > 0
  if (mapped && !input.features.idmap) {
    throw precondition(`${field}.uidMappings: this runtime handler cannot map the ids of mounts`)
  }
  const access = mount.recursiveReadOnly ? ['ro', 'rro'] : [mount.readonly ? 'ro' : 'rw']
  return {
    destination,
    type: 'bind',
    source,
    options: ['rbind', mount.propagation === 'private' ? 'rprivate' : mount.propagation, ...access],
    ...(mapped
      ? { uidMappings: mount.uidMappings.map(ociMapping), gidMappings: mount.gidMappings.map(ociMapping) }
      : {}),
  }
}

function checkDestination(input: SpecInput, { mount, source }: ResolvedMount, field: string): string {
  const wanted = mount.containerPath
  const got = JSON.stringify(wanted)
  if (!wanted.startsWith('/') || wanted.includes('\0'))
    throw invalid(field, `expected an absolute path, got ${got}`)
  const clean = path.posix.resolve(wanted)
  if (clean === '/') throw invalid(field, 'expected a path below /, got the root itself')
  if (input.config.security.privileged) return clean
  if (clean === '/proc' && source !== '/proc')
    throw invalid(field, 'only /proc itself may be mounted on /proc')
  if (clean.startsWith('/proc/') && !PROC_FILES.has(clean)) {
    throw invalid(field, `${got} is in /proc, which only a privileged container may change`)
  }
  return clean
}

/** The kernel sends nothing through a private mount, so a promise of propagation would be silently broken. */
function checkPropagation({ mount, source, shared, slave }: ResolvedMount, field: string): void {
  const where = `${field}.propagation: the mount that holds ${JSON.stringify(source)}`
  if (mount.propagation === 'rshared' && !shared) throw precondition(`${where} is not shared`)
  if (mount.propagation === 'rslave' && !shared && !slave)
    throw precondition(`${where} is neither shared nor a slave`)
}

function checkRecursiveReadOnly({ features }: SpecInput, mount: Mount, field: string): void {
  if (!mount.recursiveReadOnly) return
  const name = `${field}.recursive_read_only`
  if (!mount.readonly) throw invalid(name, 'needs readonly')
  if (mount.propagation !== 'private') throw invalid(name, 'needs private propagation')
  if (!features.recursiveReadOnly) throw precondition(`${name}: this runtime handler cannot do it`)
}

function depthOf(destination: string): number {
  return destination.split('/').length
}
