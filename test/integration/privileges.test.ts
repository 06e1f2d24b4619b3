import assert from 'node:assert/strict'
import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { output } from '../support/command.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { FOREVER } from '../support/kubelet.ts'
import { heldBy } from '../support/privileges.ts'
import { useDaemon } from '../support/use-daemon.ts'

const kubelet = useDaemon({ label: 'own' })

test('the daemon and its monitors keep all that containers may ask for', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPodWith({}, { linux: { security_context: { privileged: true } } })
  const id = await kubelet().run(pod, FOREVER, { linux: { security_context: { privileged: true } } })
  const { pid } = await kubelet().containerInfo(id)
  assert.deepEqual(heldBy(pid).capabilities, heldBy(daemon.pid).capabilities)
})

/** Below these everything is a container's: its root file system, its layers and what they hide. */
const OF_CONTAINERS = /^state\/(layers|rootfs|containers|empty)\/[^/]+\/|^run\/pods\/[^/]+\/(ns|shm)\//

/** What others than root may see or pass, and why. */
const EXCEPTIONS: ReadonlyArray<readonly [RegExp, number]> = [
  // Ways through, without a look inside: to the socket, and to root file systems and files of user namespaces.
  [/^(state|run|run\/pods|state\/rootfs)$/, 0o711],
  [/^run\/pods\/[^/]+$/, 0o711],
  // Who may use the socket, its group decides: root's.
  [/^run\/berth\.sock$/, 0o660],
  // The root directories of file systems, which have to look as their images say, in directories of root's alone.
  [/^state\/(layers|empty)\/[^/]+$/, 0o755],
  // The monitor's and the runtime's own, in directories of root's alone.
  [/^run\/containers\/[^/]+\/(conmon-pidfile|pidfile|ctl|winsz)$/, 0o644],
  [/^run\/containers\/[^/]+\/attach$/, 0o700],
  [/^run\/runtimes\/[^/]+\/[^/]+$/, 0o711],
  [/^run\/runtimes\/[^/]+\/[^/]+\/exec\.fifo$/, 0o622],
  // The root file system of the first process of a pod that shares its processes.
  [/^run\/pods\/[^/]+\/init-root(\/|$)/, 0o755],
  // Every user of a container reads these.
  [/^run\/pods\/[^/]+\/(hostname|resolv\.conf|hosts)$/, 0o644],
  [/^run\/pods\/[^/]+\/shm$/, 0o1777],
]

test('what the daemon makes is for root alone, but what containers and clients have to reach', async () => {
  const { daemon } = kubelet()
  const image = await kubelet().image('modes', { files: { '/etc/motd': 'x' }, volumes: ['/data'] })
  const pod = await kubelet().runPod({ dns_config: { servers: ['10.0.0.1'] } })
  const shared = await kubelet().runPodWith({ pid: 'POD' })
  await kubelet().run(pod, FOREVER, { image: { image }, stdin: true })
  await kubelet().run(shared, FOREVER, { tty: true })
  await kubelet().exited(await kubelet().run(pod, 'exit 1'))
  await kubelet().create(pod, FOREVER)
  const wrong: string[] = []
  let seen = 0
  const look = (path: string, name: string) => {
    const stat = lstatSync(path)
    if (stat.isSymbolicLink()) return
    seen++
    const fallback = stat.isDirectory() ? 0o700 : 0o600
    const allowed = EXCEPTIONS.find(([pattern]) => pattern.test(name))?.[1] ?? fallback
    const mode = stat.mode & 0o7777
    if ((mode & ~allowed) !== 0 || stat.uid !== 0 || stat.gid !== 0) {
      wrong.push(`${name}: ${mode.toString(8)} ${stat.uid}:${stat.gid}, at most ${allowed.toString(8)}`)
    }
    if (!stat.isDirectory()) return
    for (const child of readdirSync(path)) {
      if (!OF_CONTAINERS.test(`${name}/${child}`)) look(join(path, child), `${name}/${child}`)
    }
  }
  look(daemon.root, 'state')
  look(daemon.runRoot, 'run')
  assert.ok(seen > 50, String(seen))
  assert.deepEqual(wrong, [])
})

/** Says `served` once the server speaks HTTP/2, `closed` if it hangs up, else why it cannot connect. */
const KNOCK = String.raw`
use Socket;
socket(my $socket, PF_UNIX, SOCK_STREAM, 0) or die;
connect($socket, pack_sockaddr_un($ARGV[0])) or do { print $!{EACCES} ? 'EACCES' : $!; exit };
$SIG{PIPE} = 'IGNORE';
syswrite($socket, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0");
print sysread($socket, my $byte, 1) ? 'served' : 'closed';`

async function knock(socket: string, uid: number, groups: readonly number[] = []): Promise<string> {
  const supplementary = groups.length > 0 ? `--groups=${groups}` : '--clear-groups'
  const user = [`--reuid=${uid}`, `--regid=${uid}`, supplementary]
  return output('setpriv', ...user, 'perl', '-e', KNOCK, socket)
}

test('who is not root gets no connection, unless the configuration names its user or one of its groups', async () => {
  assert.equal(await knock(kubelet().daemon.socket, 65_534), 'EACCES')
  await using byGroup = await BerthDaemon.start({ config: () => '[crio.api]\nlisten_group = "65533"\n' })
  const { mode, gid } = lstatSync(byGroup.socket)
  assert.deepEqual([mode & 0o777, gid], [0o660, 65_533])
  assert.equal(await knock(byGroup.socket, 65_531, [7, 65_533]), 'served')
  assert.equal(await knock(byGroup.socket, 65_533), 'served')
  assert.equal(await knock(byGroup.socket, 65_531, [7]), 'EACCES')
  await using byUser = await BerthDaemon.start({ config: () => '[crio.api]\nlisten_uids = ["65532"]\n' })
  assert.equal(lstatSync(byUser.socket).mode & 0o777, 0o666)
  assert.equal(await knock(byUser.socket, 65_532), 'served')
  assert.equal(await knock(byUser.socket, 65_531, [65_532]), 'closed')
  assert.match(byUser.log, /connection refused: .*pid=\d+ uid=65531 gid=65531 command=perl/)
  await byUser.client.runtime('Version', {})
})
