import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import type { CniAttachment } from '../model/pod.ts'
import { ensureDir, writeFileAtomic } from '../os/files.ts'
import { isJsonObject } from './json.ts'

/**
 * By which configuration an ADD was begun, one file per pod, from before the first plugin runs until DEL succeeded:
 * if the ADD fails or the daemon dies in it, nobody else knows, and the configuration directory may have changed.
 */
export class AttachmentJournal {
  readonly #dir: string

  constructor(dir: string) {
    this.#dir = dir
  }

  begin(podId: string, attachment: CniAttachment): void {
    ensureDir(this.#dir, 0o700)
    // Not synced: after a power failure DEL falls back to the present configuration, nearly always the same one.
    writeFileAtomic(this.#file(podId), JSON.stringify(attachment), 0o600)
  }

  find(podId: string): CniAttachment | undefined {
    let text: string
    try {
      text = readFileSync(this.#file(podId), 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
    return parse(text)
  }

  end(podId: string): void {
    const file = this.#file(podId)
    effectSync('network', 'forget-attachment', file, () => rmSync(file, { force: true }))
  }

  #file(podId: string): string {
    return join(this.#dir, `${podId}.json`)
  }
}

function parse(text: string): CniAttachment | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined // torn by a power failure
  }
  if (!isJsonObject(value)) return undefined
  const { networkName, config, result, ifName, capabilityArgs } = value
  if (typeof networkName !== 'string' || typeof ifName !== 'string') return undefined
  return { networkName, config, result, ifName, capabilityArgs }
}
