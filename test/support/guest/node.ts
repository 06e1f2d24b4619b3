import { BerthClient } from '../../../src/cri/client.ts'
import { protoDir } from '../cri.ts'
import { busyboxImage } from '../images.ts'
import { BUSYBOX, Kubelet, type TestNode } from '../kubelet.ts'
import { TestRegistry } from '../registry.ts'
import { until } from '../wait.ts'
import { Guest } from './guest.ts'

/** Everything inside is about ten times slower than on the host. */
const CALL_TIMEOUT_MS = 180_000

/** Registries whose names lead to the one on the host. */
const MIRRORED = ['docker.io', 'registry.k8s.io', 'k8s.gcr.io', 'gcr.io']

export type GuestNodeOptions = {
  /** TOML of a drop-in. */
  readonly config?: string
  /** Where host-local keeps which pod has which address. */
  readonly ipamDir?: string
  /** Further network plugins, behind the bridge. */
  readonly plugins?: readonly object[]
  /** Boots it, instead of going on from a frozen machine: its boot id is no other guest's. */
  readonly cold?: boolean
  /** Before its daemon is started for the first time. */
  readonly prepare?: (guest: Guest) => Promise<void>
}

/** A guest whose systemd runs the packed daemon, and a registry on the host that it pulls from. */
export class GuestNode implements TestNode, AsyncDisposable {
  readonly guest: Guest
  readonly registry: TestRegistry
  readonly kubelet: Kubelet<GuestNode>
  readonly logs = '/var/log/pods'
  readonly cgroup = '/kubepods'
  readonly readText = (path: string) => this.guest.output(`cat '${path}'`)
  #client: BerthClient | undefined

  /** With the busybox image pulled. */
  static async start(options: GuestNodeOptions = {}): Promise<GuestNode> {
    const registry = await TestRegistry.start()
    let node: GuestNode | undefined
    try {
      node = new GuestNode(await (options.cold === true ? Guest.boot() : Guest.start()), registry)
      await node.#configure(options)
      await options.prepare?.(node.guest)
      await node.startUnit()
      registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
      await node.kubelet.pull(BUSYBOX)
      return node
    } catch (error) {
      console.log(await node?.log().catch(() => 'the guest does not answer'))
      for (const { method, path, headers, status, sent } of registry.requests)
        console.log(`${method} ${path} ${headers.range ?? ''} → ${status} ${sent}`)
      if (node === undefined) await registry.close()
      else await node[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(guest: Guest, registry: TestRegistry) {
    this.guest = guest
    this.registry = registry
    this.kubelet = new Kubelet<GuestNode>(this)
  }

  get client(): BerthClient {
    if (this.#client === undefined) throw new Error('the daemon of the guest is not connected')
    return this.#client
  }

  /** `systemctl start`, which returns when the daemon says that it is ready; then connects. */
  async startUnit(): Promise<void> {
    const { code } = await this.guest.run('systemctl start berth')
    if (code !== 0) throw new Error(`berth.service does not start:\n${await this.log()}`)
    await this.connect()
  }

  /** Anew, after the daemon or the guest was started again. */
  async connect(): Promise<void> {
    this.#client?.[Symbol.dispose]()
    const socket = await this.guest.forwardSocket('/run/berth/berth.sock')
    this.#client = await BerthClient.connect(socket, protoDir, { timeoutMs: CALL_TIMEOUT_MS })
  }

  /** After the daemon was killed: systemd starts it again by itself. */
  async connectWhenServing(): Promise<void> {
    await until(
      'the daemon serves again',
      async () => {
        const { stdout } = await this.guest.run('systemctl is-active berth')
        return stdout.trim() === 'active'
      },
      CALL_TIMEOUT_MS,
    )
    await this.connect()
  }

  /** After the guest was started again; its daemon is enabled. */
  async reconnect(): Promise<void> {
    await this.guest.admit(this.#registryPort)
    await this.connectWhenServing()
  }

  /** What the unit wrote. */
  log(): Promise<string> {
    return this.guest.output('journalctl -u berth --no-pager -o cat | tail -n 200')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.[Symbol.dispose]()
    await this.guest[Symbol.asyncDispose]()
    await this.registry.close()
  }

  get #registryPort(): number {
    return Number(this.registry.address.split(':')[1])
  }

  async #configure({ config = '', ipamDir, plugins = [] }: GuestNodeOptions): Promise<void> {
    const { guest, registry } = this
    await guest.admit(this.#registryPort)
    const mirrors = MIRRORED.map(
      name =>
        `[[registry]]\nprefix = "${name}"\nlocation = "${name}"\n` +
        `[[registry.mirror]]\nlocation = "${registry.address}/${name}"\ninsecure = true\n`,
    )
    await guest.write('/etc/containers/registries.conf', mirrors.join(''))
    await guest.write('/etc/berth/berth.conf.d/10-test.conf', config)
    const bridge = {
      type: 'bridge',
      bridge: 'pods0',
      isGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: '10.88.0.0/16' }]],
        routes: [{ dst: '0.0.0.0/0' }],
        dataDir: ipamDir,
      },
    }
    const list = { cniVersion: '1.0.0', name: 'pods', plugins: [bridge, ...plugins] }
    await guest.write('/etc/cni/net.d/10-pods.conflist', JSON.stringify(list))
  }
}
