/** Network plugins that hang, crash, print nonsense, or leave things behind. See docs/reliability.md. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { BerthClient } from '../../src/cri/client.ts'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon({ label: 'plugins' })
const protoDir = join(import.meta.dirname, '../../proto')

/** A last plugin of the network that does this for one verb. */
function onVerb(verb: string, shell: string, cniVersion = '1.0.0'): void {
  const { daemon } = kubelet()
  const odd = daemon.networkPlugin('odd', `[ "$CNI_COMMAND" = ${verb} ] && { ${shell}; }`)
  daemon.configureNetwork({ plugins: [odd], cniVersion })
}

async function podsOf(): Promise<string[]> {
  return (await kubelet().daemon.client.runtime('ListPodSandbox', {})).items.map(({ state }) => state)
}

test('ADD that crashes, prints nonsense, too much or another version: nothing is left of the pod', async () => {
  const { daemon } = kubelet()
  const cases: Array<[shell: string, message: RegExp]> = [
    ['kill -SEGV $$', /exited with 139 and without a CNI error/],
    ['echo "{}}" ; exit 0', /expected a result as a JSON object/],
    ['printf "\\033[2J"; exit 3', /exited with 3 and without a CNI error/],
    ['yes | head -c 20000000; exit 0', /result is larger than 1048576 bytes/],
    ['yes | head -c 20000000 >&2; exit 1', /exited with 1 and without a CNI error, printed "y y/],
    [`echo '{"cniVersion":"9.9.9"}'; exit 0`, /result.cniVersion: expected 1.0.0, found/],
    [
      `echo '{"cniVersion":"1.0.0","ips":[{"address":"x"}]}'; exit 0`,
      /ips\[0\].address: expected an IP address/,
    ],
    [`echo '{"cniVersion":"1.0.0"}'; exit 0`, /gave the pod no address/],
  ]
  const config = kubelet().podConfig()
  for (const [shell, message] of cases) {
    onVerb('ADD', shell)
    await assert.rejects(kubelet().runPodAs(config), (error: Error) => {
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /[\x00-\x1f]/)
      assert.ok(error.message.length < 5000)
      return true
    })
    assert.deepEqual(await podsOf(), [], shell)
  }
  assert.deepEqual(
    readdirSync(join(daemon.ipamDir, 'pods')).filter(name => /^\d/.test(name)),
    [],
  )
  daemon.configureNetwork()
  assert.equal((await kubelet().podStatus(await kubelet().runPodAs(config))).state, 'SANDBOX_READY')
})

test('ADD that hangs: the call ends by its deadline, others are served, a retry joins it', async () => {
  const { daemon } = kubelet()
  const hold = join(daemon.directory, 'hold')
  writeFileSync(hold, '')
  onVerb('ADD', `while [ -e ${hold} ]; do sleep 0.1; done`)
  const config = kubelet().podConfig()
  using hasty = await BerthClient.connect(daemon.socket, protoDir, { timeoutMs: 1500 })
  await assert.rejects(hasty.runtime('RunPodSandbox', { config }), failure('deadline'))
  const noNetwork = await kubelet().runPodWith({ network: 'NODE' })
  assert.equal(await kubelet().outputOf(noNetwork, 'echo works'), 'works')
  const joined = kubelet().runPodAs(config)
  rmSync(hold)
  assert.equal((await kubelet().podStatus(await joined)).state, 'SANDBOX_READY')
})

test('DEL that fails: the pod stays, not ready, and lets go by itself once it works', async () => {
  const { daemon } = kubelet()
  const obstacle = join(daemon.directory, 'obstacle')
  onVerb('DEL', `[ -e ${obstacle} ] && { echo '{"code":7,"msg":"not now"}'; exit 1; }`)
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const address = join(daemon.ipamDir, 'pods', await kubelet().podIp(pod))
  writeFileSync(obstacle, '')
  await assert.rejects(
    kubelet().stopPod(pod.id),
    failure('internal', /the network of the pod could not be given back: .*not now/),
  )
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
  assert.ok(existsSync(address))
  await until('it is tried again', () =>
    /what had failed has failed again what="stopping pod/.test(daemon.log),
  )
  rmSync(obstacle)
  // Nobody asks again.
  await until('the address is given back', () => !existsSync(address))
  await until('that is logged', () => /what had failed is done what="stopping pod/.test(daemon.log))
  assert.equal((await kubelet().podStatus(pod.id)).state, 'SANDBOX_NOTREADY')
})

test('ADD that fails after it made things, and DEL too: kept until DEL works, then the same pod comes up', async () => {
  const { daemon } = kubelet()
  const held = join(daemon.directory, 'held')
  const obstacle = join(daemon.directory, 'obstacle')
  mkdirSync(held)
  writeFileSync(obstacle, '')
  const leak = `[ "$CNI_COMMAND" = ADD ] && { touch ${held}/$CNI_CONTAINERID; exit 1; }`
  const keep = `[ "$CNI_COMMAND" = DEL ] && { [ -e ${obstacle} ] && exit 1; rm -f ${held}/$CNI_CONTAINERID; }`
  daemon.configureNetwork({ plugins: [daemon.networkPlugin('odd', `${leak}; ${keep}`)] })
  const config = kubelet().podConfig()
  await assert.rejects(
    kubelet().runPodAs(config),
    failure('internal', /exited with 1 and without a CNI error/),
  )
  assert.equal(readdirSync(held).length, 1)
  assert.deepEqual(await podsOf(), ['SANDBOX_NOTREADY'])
  rmSync(obstacle)
  await until('what it made is taken back', () => readdirSync(held).length === 0)
  daemon.configureNetwork()
  assert.equal((await kubelet().podStatus(await kubelet().runPodAs(config))).state, 'SANDBOX_READY')
  assert.deepEqual(await podsOf(), ['SANDBOX_READY'])
})

test('STATUS that fails: the network is not ready, in the words of the plugin, until it is', async () => {
  const { daemon } = kubelet()
  const obstacle = join(daemon.directory, 'obstacle')
  writeFileSync(obstacle, '')
  const refuse = `[ -e ${obstacle} ] && { echo '{"code":50,"msg":"no uplink"}'; exit 1; }`
  // The reference plugins of older distributions know no STATUS: this network is only asked, not used.
  const odd = daemon.networkPlugin('odd', `[ "$CNI_COMMAND" = STATUS ] && { ${refuse}; }`)
  const list = { cniVersion: '1.1.0', name: 'pods', plugins: [odd] }
  writeFileSync(join(daemon.cniConfDir, '10-pods.conflist'), JSON.stringify(list))
  const condition = async () => {
    const { status } = await daemon.client.runtime('Status', {})
    return status!.conditions.find(({ type }) => type === 'NetworkReady')!
  }
  await until('it is noticed', async () => !(await condition()).status)
  assert.match((await condition()).message, /no uplink/)
  assert.match((await daemon.berth('status')).stdout, /no uplink/)
  rmSync(obstacle)
  await until('it is ready again', async () => (await condition()).status)
  assert.match(daemon.log, /network plugins are ready again/)
})
