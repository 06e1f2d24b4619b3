import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import type { OciSpec } from '../model/oci.ts'
import type { ProcessRef } from '../model/pod.ts'
import { ensureDir } from '../os/files.ts'
import { BUNDLE_FILES } from './bundle-files.ts'
import { ociJson } from './oci-json.ts'

/**
 * Puts back what others read in the bundle of a container that runs: what commands in it start from, and which its
 * processes are. The sockets of its monitor cannot be made again from outside.
 */
export function restoreBundle(
  bundle: string,
  spec: OciSpec,
  processes: { readonly init: ProcessRef; readonly monitor: ProcessRef },
): void {
  ensureDir(bundle, 0o700)
  const write = (name: string, text: string) =>
    effectSync('runtime', 'restore-bundle', join(bundle, name), () =>
      writeFileSync(join(bundle, name), text, { mode: 0o600 }),
    )
  write(BUNDLE_FILES.init, `${processes.init.pid}`)
  write(BUNDLE_FILES.monitor, `${processes.monitor.pid}`)
  write(BUNDLE_FILES.processes, JSON.stringify(processes))
  write(BUNDLE_FILES.spec, ociJson(spec))
}

/** The short way to a bundle, by which its monitor is reached. */
export function restoreLink(link: string, bundle: string): void {
  effectSync('runtime', 'restore-link', link, () => symlinkSync(bundle, link))
}
