import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before } from 'node:test'
import * as mounts from '../../src/os/mounts.ts'

/** A directory with a private tmpfs on it, for the tests of one file; every mount in it goes with it. */
export class ScratchMount {
  readonly root = mkdtempSync('/tmp/berth-os-')

  constructor() {
    before(() => {
      mounts.mount('tmpfs', this.root, 'tmpfs', mounts.MS_NODEV, 'mode=700')
      mounts.makePrivate(this.root)
    })
    after(() => {
      for (const path of mounts.mountPointsBelow(this.root)) mounts.unmount(path, { detach: true })
      rmSync(this.root, { recursive: true })
    })
  }

  path(name: string): string {
    return join(this.root, name)
  }

  /** Made with its parents. */
  directory(name: string): string {
    const path = this.path(name)
    mkdirSync(path, { recursive: true })
    return path
  }
}
