import assert from 'node:assert/strict'
import { after, afterEach, before } from 'node:test'
import { BerthDaemon, type DaemonOptions } from './daemon.ts'
import { busyboxImage } from './images.ts'
import { BUSYBOX, Kubelet } from './kubelet.ts'

/**
 * For a test file: one daemon with the busybox image for all of its tests, none if all are skipped. After each test
 * nothing of a pod may be left; when a test fails, the daemon's log follows.
 */
export function useDaemon({
  skip = false,
  ...options
}: DaemonOptions & { readonly skip?: string | false } = {}): () => Kubelet {
  let kubelet: Kubelet | undefined
  let logged = 0
  before(async () => {
    if (skip !== false) return
    const daemon = await BerthDaemon.start(options)
    kubelet = new Kubelet(daemon)
    daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
    await kubelet.pull(BUSYBOX)
  })
  afterEach(async t => {
    if (kubelet === undefined) return
    const { daemon } = kubelet
    const { passed } = t as unknown as { passed: boolean }
    try {
      // The plan of a failed test may still wait in its daemon, or have killed it: the next test is not to feel it.
      if (!passed) await daemon.restart()
      daemon.configureNetwork()
      await kubelet.removeAll()
      assert.deepEqual(await daemon.leftovers(), [])
    } finally {
      await daemon.forgetLeftovers()
      const { log } = daemon
      if (!passed) console.log(`the daemon's log of this test:\n${log.slice(logged)}`)
      logged = log.length
    }
  })
  after(() => kubelet?.daemon[Symbol.asyncDispose]())
  return () => {
    assert.ok(kubelet)
    return kubelet
  }
}
