/** util-linux, which every Debian has. */
const SETPRIV = '/usr/bin/setpriv'
const UNSHARE = '/usr/bin/unshare'

/** In every distribution the user that owns nothing. */
const NOBODY = '65534'

/** As setpriv(1) writes them. */
export type WorkerCapability =
  | 'chown'
  | 'dac_override'
  | 'dac_read_search'
  | 'fowner'
  | 'fsetid'
  | 'kill'
  | 'mknod'
  | 'setfcap'
  | 'setgid'
  | 'setpcap'
  | 'setuid'
  | 'sys_admin'
  | 'sys_chroot'

export type Confinement = {
  /** All that the program and whatever it starts can ever hold. */
  readonly capabilities: readonly WorkerCapability[]
  /** Network and IPC namespaces of its own, without even a loopback that is up. */
  readonly ownNetwork?: boolean
  /** Runs as the user that owns nothing, in no group. */
  readonly asNobody?: boolean
}

/**
 * The command that starts a program with fewer privileges than ours, and no way back to them (no_new_privs). All of
 * its threads have them so from the start, which a process that has already got threads could not do for itself.
 * The process id stays the same.
 */
export function confined(
  command: readonly string[],
  { capabilities, ownNetwork = false, asNobody = false }: Confinement,
): string[] {
  const user = asNobody ? [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : []
  const bounds = ['-all', ...capabilities.map(name => `+${name}`)].join(',')
  return [
    ...(ownNetwork ? [UNSHARE, '--net', '--ipc', '--'] : []),
    SETPRIV,
    ...user,
    '--no-new-privs',
    '--inh-caps=-all',
    '--ambient-caps=-all',
    `--bounding-set=${bounds}`,
    '--',
    ...command,
  ]
}
