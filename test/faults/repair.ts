import assert from 'node:assert/strict'
import { mkdirSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BerthError } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import type { BerthClient } from '../../src/cri/client.ts'
import { umount } from '../../src/os/syscalls.ts'
import { command, output } from '../support/command.ts'
import type { BerthDaemon } from '../support/daemon.ts'
import { until } from '../support/wait.ts'
import type { Attempt } from './operations.ts'
import type { FaultRig } from './rig.ts'

const MNT_DETACH = 2
const HOST_PORT = 18_062
/** A repair takes some two seconds. Streams have no deadline of their own. */
const PATIENCE_MS = 20_000

/** `berth check --repair` of a node on which somebody has been at work who should not have been. */
export async function repair({ daemon, kubelet }: FaultRig): Promise<Attempt> {
  const pod = await kubelet.runPod({ port_mappings: [{ container_port: 80, host_port: HOST_PORT }] })
  const script = 'mkdir /www; echo here > /www/index.html; httpd -p 80 -h /www; echo up; sleep 100000'
  const id = await kubelet.run(pod, script)
  await kubelet.prints(id, 'up')
  const ip = await kubelet.podIp(pod)
  const { root, runRoot } = daemon
  const files = join(runRoot, 'pods', pod.id)

  rmSync(join(runRoot, 'containers', id), { recursive: true })
  umount(join(root, 'rootfs', id, 'merged'), MNT_DETACH)
  rmSync(join(files, 'hosts'))
  umount(join(files, 'shm'), MNT_DETACH)
  unlinkSync(join(daemon.ipamDir, 'pods', ip))
  for (const verb of ['-F', '-X']) await output('iptables', '-t', 'nat', verb)
  makeStrays(daemon)

  return {
    isRepair: true,
    call: client => repairOnce(client),
    /** One that a client has left may be at work still. */
    retry: () =>
      until('the repair succeeds', () => repairOnce(daemon.client).then(() => true, isBusy)).then(() => {}),
    async check() {
      assert.deepEqual(await left(daemon.client, false), [])
      assert.equal((await kubelet.exec(id, 'hostname -i')).stdout, `${ip}\n`)
      assert.match(await kubelet.outputOf(pod, 'grep /dev/shm /proc/mounts'), /^shm /)
      const answer = await command('busybox', ['wget', '-q', '-O-', `http://127.0.0.1:${HOST_PORT}/`])
      assert.equal(answer.stdout, 'here\n')
    },
  }
}

/** What a daemon has left that its database does not know. */
export function makeStrays({ root, runRoot }: BerthDaemon): void {
  const directories = [
    join(root, 'layers/999999'),
    join(root, 'rootfs', newId()),
    join(runRoot, 'pods', newId()),
    join(runRoot, 'containers', newId()),
  ]
  for (const path of directories) mkdirSync(join(path, 'left'), { recursive: true })
  writeFileSync(join(root, 'records/999999'), 'left')
}

function isBusy(error: unknown): false {
  if (error instanceof BerthError && /being checked already/.test(error.message)) return false
  throw error
}

/** @throws BerthError that names what could not be repaired */
async function repairOnce(client: BerthClient): Promise<void> {
  const problems = await left(client, true)
  if (problems.length > 0) throw new BerthError('precondition', problems.join('; '))
}

/** What is different in the end. */
async function left(client: BerthClient, repair: boolean): Promise<string[]> {
  const found: string[] = []
  const patience = AbortSignal.timeout(PATIENCE_MS)
  try {
    for await (const { difference } of client.check({ repair }, patience)) {
      if (difference === null || difference.state === 'REPAIRED') continue
      found.push(`${difference.kind} ${difference.subject} ${difference.found} ${difference.error}`)
    }
  } catch (error) {
    if (patience.aborted) throw new BerthError('deadline', 'the client has left')
    throw error
  }
  return found
}
