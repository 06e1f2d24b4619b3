import { type ExecFileSyncOptions, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CriPeer } from './cri-peer.ts'
import { PATH } from './handlers.ts'
import { PLUGIN_DIR, writeNetworkConfig } from './network.ts'
import type { Handler } from './peer.ts'
import { CACHE, placesOf } from './places.ts'

const PROGRAMS = join(CACHE, 'containerd/usr/bin')

/** Debian's package, unpacked beside the bench and never installed: installing it would start a service. */
export function fetchContainerd(): void {
  if (existsSync(join(PROGRAMS, 'containerd'))) return
  const scratch = join(CACHE, 'containerd.new')
  rmSync(scratch, { recursive: true, force: true })
  mkdirSync(scratch, { recursive: true })
  const options: ExecFileSyncOptions = { cwd: scratch, stdio: ['ignore', 'ignore', 'inherit'] }
  execFileSync('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', 'containerd'], options)
  const [archive] = readdirSync(scratch)
  execFileSync('dpkg-deb', ['--extract', archive!, '.'], options)
  rmSync(join(scratch, archive!))
  renameSync(scratch, join(CACHE, 'containerd'))
}

export function containerdVersion(): string {
  const said = execFileSync(join(PROGRAMS, 'containerd'), ['--version'], { encoding: 'utf8' })
  return said.split(' ')[2] ?? said
}

/** containerd with its default settings, but for what this kind of machine needs. */
export function containerd(
  handlers: ReadonlyMap<Handler, string>,
  images: { readonly workload: string; readonly pause: string },
): CriPeer {
  const { data, run } = placesOf('containerd')
  mkdirSync(run, { recursive: true })
  mkdirSync(data, { recursive: true })
  const socket = join(run, 'c.sock')
  const config = join(run, 'config.toml')
  writeFileSync(config, configuration(handlers, images.pause, socket))
  return new CriPeer({
    name: 'containerd',
    file: join(PROGRAMS, 'containerd'),
    args: ['--config', config, '--log-level', 'warn'],
    env: { PATH: `${PROGRAMS}:${PATH}` },
    socket,
    log: join(data, 'daemon.log'),
    image: images.workload,
    helpers: line => line.includes('containerd-shim') || line.startsWith('/pause '),
  })
}

function configuration(handlers: ReadonlyMap<Handler, string>, pause: string, socket: string): string {
  const { data, run } = placesOf('containerd')
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  const runtimes = [...handlers].map(
    ([name, program]) => `
[${cri}.containerd.runtimes.${name}]
runtime_type = "io.containerd.runc.v2"
[${cri}.containerd.runtimes.${name}.options]
BinaryName = "${program}"
`,
  )
  // The machine may lack CAP_SYS_RESOURCE, AppArmor's parser and the hugetlb controller.
  return `version = 2
root = "${data}"
state = "${run}/state"
[grpc]
address = "${socket}"
[${cri}]
sandbox_image = "${pause}"
restrict_oom_score_adj = true
disable_apparmor = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
[${cri}.cni]
bin_dir = "${PLUGIN_DIR}"
conf_dir = "${writeNetworkConfig('containerd')}"
[${cri}.containerd]
default_runtime_name = "runc"
${runtimes.join('')}`
}
