import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { crictlPath } from '../support/daemon.ts'
import { GuestNode } from '../support/guest/node.ts'
import type { TestPod } from '../support/kubelet.ts'

/*
 * What systemd may take from the daemon without taking it from pods, and what it may not: the unit's settings are
 * inherited by all that the daemon starts.
 */

/** Each does most services good. */
const HARDENED = `[Service]
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
CapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_MODULE
ProtectHome=yes
`

const PROPAGATED = { host_path: '/srv/volume', container_path: '/volume' }

let node: GuestNode
let pod: TestPod

before(async () => {
  node = await GuestNode.start({
    prepare: async guest => {
      await guest.output(
        'mkdir -p /srv/volume && mount --bind /srv/volume /srv/volume && mount --make-shared /srv/volume',
      )
      if (crictlPath() !== '') {
        await guest.write('/usr/bin/crictl', readFileSync(crictlPath()))
        await guest.output('chmod 755 /usr/bin/crictl')
      }
    },
  })
  pod = await node.kubelet.runPod({
    linux: { security_context: { privileged: true, namespace_options: { pid: 'CONTAINER' } } },
  })
})
after(() => node?.[Symbol.asyncDispose]())

function privileged(script: string): Promise<string> {
  return node.kubelet.run(pod, `${script}; exec sleep 100000`, {
    linux: { security_context: { privileged: true } },
    mounts: [{ ...PROPAGATED, propagation: 'PROPAGATION_BIDIRECTIONAL' }],
  })
}

/** `CapBnd`, `Seccomp` and `NoNewPrivs` of a process in the guest. */
function confinementOf(pid: number | string): Promise<string> {
  return node.guest.output(`grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs):' /proc/${pid}/status`)
}

test('a privileged container has all that the first process of the machine has', async () => {
  const id = await privileged('linux32 uname -m')
  const { pid } = await node.kubelet.containerInfo(id)
  assert.equal(await confinementOf(pid), await confinementOf(1))
  await node.kubelet.prints(id, 'i686')
  assert.equal((await node.kubelet.exec(id, 'linux32 uname -m')).stdout, 'i686\n')
})

test('mounts reach the node from a pod and a pod from the node, also when the daemon was started anew', async () => {
  const id = await privileged(
    'mkdir -p /volume/inside /volume/outside; mount -t tmpfs inside /volume/inside; echo mounted',
  )
  await node.kubelet.prints(id, 'mounted')
  assert.match(await node.guest.output('findmnt -n -o FSTYPE /srv/volume/inside'), /tmpfs/)
  await node.guest.output('systemctl restart berth')
  await node.connectWhenServing()
  await node.guest.output('mount -t tmpfs outside /srv/volume/outside && touch /srv/volume/outside/seen')
  assert.equal((await node.kubelet.exec(id, 'ls /volume/outside')).stdout, 'seen\n')
  await node.kubelet.stop(id)
  await node.guest.output('umount /srv/volume/outside /srv/volume/inside')
})

test('port-forward', {
  skip: crictlPath() === '' && 'crictl is built with Go, which is missing',
}, async () => {
  const id = await node.kubelet.run(pod, 'echo listens; nc -l -p 7001 -e echo forwarded')
  await node.kubelet.prints(id, 'listens')
  const crictl = 'crictl -c /dev/null -r unix:///run/berth/berth.sock -t 60s'
  const said = await node.guest.output(
    `${crictl} port-forward ${pod.id} 7001:7001 >/tmp/forward 2>&1 & ` +
      'until grep -q Forwarding /tmp/forward; do sleep 0.2; done; ' +
      `/opt/berth/bin/node -e 'require("node:net").connect(7001, "127.0.0.1").pipe(process.stdout)'; kill %1 || true`,
  )
  assert.match(said, /forwarded/)
})

test('what is set holds, and what systemd thinks of it', async t => {
  const pid = (await node.guest.output('systemctl show -p MainPID --value berth')).trim()
  assert.equal(await node.guest.output(`grep Umask /proc/${pid}/status`), 'Umask:\t0077\n')
  assert.equal(
    await node.guest.output(`readlink /proc/${pid}/ns/mnt`),
    await node.guest.output('readlink /proc/1/ns/mnt'),
  )
  const report = await node.guest.output('systemd-analyze security --no-pager berth.service')
  t.diagnostic(/Overall exposure level.*/.exec(report)?.[0] ?? report)
  assert.doesNotMatch(await node.log(), /its unit must not set/)
})

test('a unit that is hardened like others is told of, since its pods feel it', async () => {
  await node.kubelet.removePod(pod.id)
  await node.guest.write('/etc/systemd/system/berth.service.d/hardened.conf', HARDENED)
  await node.guest.output('systemctl daemon-reload && systemctl restart berth')
  await node.connectWhenServing()
  const log = await node.log()
  for (const told of [
    /seccomp filter/,
    /no_new_privs/,
    /CAP_SYS_MODULE, CAP_SYS_TIME/,
    /mount namespace of its own/,
  ])
    assert.match(log, told)
  pod = await node.kubelet.runPod({
    linux: { security_context: { privileged: true, namespace_options: { pid: 'CONTAINER' } } },
  })
  const id = await privileged('linux32 uname -m || echo refused')
  const { pid } = await node.kubelet.containerInfo(id)
  const now = await confinementOf(pid)
  assert.match(now, /NoNewPrivs:\t1\nSeccomp:\t2/)
  assert.notEqual(/CapBnd:.*/.exec(now)?.[0], /CapBnd:.*/.exec(await confinementOf(1))?.[0])
  await node.kubelet.prints(id, 'refused')
  await node.guest.output(
    'rm -r /etc/systemd/system/berth.service.d/hardened.conf && systemctl daemon-reload',
  )
  await node.kubelet.removePod(pod.id)
})
