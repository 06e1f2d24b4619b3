import { join } from 'node:path'

/**
 * Where everything is. `root` survives a reboot, `runRoot` is on tmpfs and does not. Every path of a pod or a
 * container derives from its id, so that recovery needs only the row, and two daemons with different roots share
 * nothing.
 */
export class NodePaths {
  readonly root: string
  readonly runRoot: string

  constructor(root: string, runRoot: string) {
    this.root = root
    this.runRoot = runRoot
  }

  get database(): string {
    return join(this.root, 'berth.db')
  }

  /** The init of shared PID namespaces, as a file that a policy of SELinux lets containers execute. */
  get labelledInit(): string {
    return join(this.root, 'init')
  }

  /** Held by the kernel (flock) for as long as the daemon lives. */
  get lock(): string {
    return join(this.root, 'berth.lock')
  }

  get pods(): string {
    return join(this.runRoot, 'pods')
  }

  pod(id: string): PodPaths {
    return new PodPaths(join(this.pods, id))
  }

  get bundles(): string {
    return join(this.runRoot, 'containers')
  }

  /** Bundle of a container: runtime and monitor files. */
  bundle(id: string): string {
    return join(this.bundles, id)
  }

  get persistent(): string {
    return join(this.root, 'containers')
  }

  /** What the monitor leaves at a container's exit, kept over a reboot. */
  persist(id: string): string {
    return join(this.persistent, id)
  }

  /** One file per exited container, named by its id. */
  get exits(): string {
    return join(this.runRoot, 'exits')
  }

  /** Short: `<sockets>/<64 hex>/attach` must fit the 107 bytes of a unix socket address. */
  get sockets(): string {
    return join(this.runRoot, 's')
  }

  /** TMPDIR of the monitors, which make console sockets there. */
  get temporary(): string {
    return join(this.runRoot, 'tmp')
  }

  /** Beginnings of layers whose download was broken off. */
  get partials(): string {
    return join(this.root, 'partial')
  }

  /** Attachments to networks: begun ones and the configuration they began with. */
  get cni(): string {
    return join(this.root, 'cni')
  }

  /** Private files of commands that run in containers, one directory each. */
  get execs(): string {
    return join(this.runRoot, 'execs')
  }
}

class PodPaths {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /** Bind mounts of the pod's namespaces: `net`, `ipc`, `uts`, `user`. */
  get namespaces(): string {
    return join(this.directory, 'ns')
  }

  namespace(type: 'net' | 'ipc' | 'uts' | 'user'): string {
    return join(this.namespaces, type)
  }

  get shm(): string {
    return join(this.directory, 'shm')
  }

  get resolvConf(): string {
    return join(this.directory, 'resolv.conf')
  }

  get hostname(): string {
    return join(this.directory, 'hostname')
  }

  /** For clients that mount no /etc/hosts of their own. */
  get hosts(): string {
    return join(this.directory, 'hosts')
  }

  /** Root file system of the init process of a shared PID namespace. */
  get initRoot(): string {
    return join(this.directory, 'init-root')
  }
}
