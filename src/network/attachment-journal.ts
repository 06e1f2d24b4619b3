import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import type { CniAttachment } from '../model/pod.ts'
import { ensureDir, writeFileAtomic } from '../os/files.ts'
import { isJsonObject } from './json.ts'

/** An attachment without its result, and what else DEL needs when nobody else knows the pod any more. */
type BegunAttachment = CniAttachment & {
  readonly netns: string
  /** Value of CNI_ARGS. */
  readonly args: string
}

/**
 * With what an ADD was begun, one file per pod, from before the first plugin runs until DEL succeeded: if the ADD
 * fails or the daemon dies in it, nobody else knows, and the configuration directory may have changed.
 */
export class AttachmentJournal {
  readonly #dir: string

  constructor(dir: string) {
    this.#dir = dir
  }

  begin(podId: string, attachment: BegunAttachment): void {
    ensureDir(this.#dir, 0o700)
    // Not synced: after a power failure DEL falls back to the present configuration, nearly always the same one.
    writeFileAtomic(this.#file(podId), JSON.stringify(attachment), 0o600)
  }

  find(podId: string): BegunAttachment | undefined {
    const text = absentAs(undefined, () => readFileSync(this.#file(podId), 'utf8'))
    return text === undefined ? undefined : parse(text)
  }

  /** Succeeds when there is no entry. */
  end(podId: string): void {
    const file = this.#file(podId)
    effectSync('network', 'forget-attachment', file, () => rmSync(file, { force: true }))
  }

  podIds(): string[] {
    const names = absentAs([], () => readdirSync(this.#dir))
    return names.filter(name => name.endsWith(SUFFIX)).map(name => name.slice(0, -SUFFIX.length))
  }

  #file(podId: string): string {
    return join(this.#dir, podId + SUFFIX)
  }
}

const SUFFIX = '.json'

function absentAs<T, D>(absent: D, read: () => T): T | D {
  try {
    return read()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return absent
    throw error
  }
}

function parse(text: string): BegunAttachment | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined // torn by a power failure
  }
  if (!isJsonObject(value)) return undefined
  const { networkName, config, result, ifName, capabilityArgs, netns, args } = value
  if (typeof networkName !== 'string' || typeof ifName !== 'string') return undefined
  if (typeof netns !== 'string' || typeof args !== 'string') return undefined
  return { networkName, config, result, ifName, capabilityArgs, netns, args }
}
