import { existsSync, globSync } from 'node:fs'
import { join } from 'node:path'

const CACHE = join(import.meta.dirname, '../../.cache')

/** What `scripts/setup.sh test` built or unpacked for the conformance tests. */
export type Tools = {
  readonly critest: string
  readonly ginkgo: string
  readonly nonewprivs: string
  readonly nginx: string
  /** Newer than Debian's. */
  readonly runc: string
  /** Folder of CNI plugins newer than Debian's. */
  readonly cniPlugins: string
}

/** undefined when Go was missing at set-up. */
export function findTools(): Tools | undefined {
  const built = (pattern: string) => globSync(join(CACHE, pattern)).sort().at(-1) ?? ''
  const tools: Tools = {
    critest: built('cri-tools-*/critest.test'),
    ginkgo: built('cri-tools-*/ginkgo'),
    nonewprivs: built('cri-tools-*/nonewprivs'),
    nginx: built('nginx/usr/sbin/nginx'),
    runc: built('runc-*/runc'),
    cniPlugins: built('cni-plugins-*'),
  }
  return Object.values(tools).every(path => path !== '' && existsSync(path)) ? tools : undefined
}
