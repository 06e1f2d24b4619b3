import { type Dict, dict } from '../base/dict.ts'
import { type Digest, parseDigest } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import { parseStrictJson } from '../base/strict-json.ts'
import type { ImageConfig } from '../model/image.ts'
import { type Platform, platformName } from '../registry/platform.ts'

type Json = Readonly<Record<string, unknown>>

/** Ids above wrap to negative numbers in kernels and tools that use int32; `4294967296` would be root. */
const MAX_ID = 2 ** 31 - 1

/**
 * Reads an OCI image configuration (image spec "Image Configuration"; Docker's is the same).
 *
 * @param layerCount how many layers the manifest has
 * @throws Error saying what is wrong with the document
 */
export function parseImageConfig(bytes: Buffer, platform: Platform, layerCount: number): ImageConfig {
  const document = readObject(bytes)
  const diffIds = diffIdsOf(document.rootfs, layerCount)
  const os = textOf(document.os, 'os')
  const architecture = textOf(document.architecture, 'architecture')
  // Some builders leave them out; what is there must fit.
  if (
    (os || platform.os) !== platform.os ||
    (architecture || platform.architecture) !== platform.architecture
  ) {
    throw new Error(`the image is for ${os}/${architecture}, this node is ${platformName(platform)}`)
  }
  const config = document.config ?? {}
  if (!isObject(config)) throw new Error(`config: expected an object, got ${shown(config)}`)
  const user = textOf(config.User, 'config.User')
  checkUser(user)
  return {
    os,
    architecture,
    user,
    env: textsOf(config.Env, 'config.Env'),
    entrypoint: textsOf(config.Entrypoint, 'config.Entrypoint'),
    cmd: textsOf(config.Cmd, 'config.Cmd'),
    workingDir: textOf(config.WorkingDir, 'config.WorkingDir'),
    volumes: Object.keys(membersOf(config.Volumes, 'config.Volumes')).map(path =>
      textOf(path, 'config.Volumes'),
    ),
    stopSignal: textOf(config.StopSignal, 'config.StopSignal'),
    labels: labelsOf(config.Labels),
    diffIds,
  }
}

function readObject(bytes: Buffer): Json {
  let document: unknown
  try {
    document = parseStrictJson(bytes)
  } catch (error) {
    throw new Error(`not valid JSON: ${messageOf(error)}`)
  }
  if (!isObject(document)) throw new Error('no JSON object')
  return document
}

function diffIdsOf(rootfs: unknown, layerCount: number): Digest[] {
  if (!isObject(rootfs) || rootfs.type !== 'layers' || !Array.isArray(rootfs.diff_ids)) {
    throw new Error('not a container image but an artifact: there is no list of layers in rootfs.diff_ids')
  }
  const list: readonly unknown[] = rootfs.diff_ids
  if (list.length !== layerCount) {
    throw new Error(`rootfs.diff_ids has ${list.length} entries, but the manifest has ${layerCount} layers`)
  }
  return list.map((value, index) => parseDigest(value, `rootfs.diff_ids[${index}]`))
}

/** A number is never taken for a name: a line of the image's own passwd file could then make it any user. */
function checkUser(user: string): void {
  for (const part of user.split(':')) {
    if (/^[0-9]+$/.test(part) && Number(part) > MAX_ID) {
      throw new Error(`config.User: expected ids from 0 to ${MAX_ID}, got ${shown(user)}`)
    }
  }
}

function labelsOf(value: unknown): Dict {
  const labels = membersOf(value, 'config.Labels')
  return dict(Object.keys(labels).map(key => [key, textOf(labels[key], `config.Labels[${shown(key)}]`)]))
}

function textsOf(value: unknown, field: string): string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw new Error(`${field}: expected a list, got ${shown(value)}`)
  return value.map((item, index) => textOf(item, `${field}[${index}]`))
}

function textOf(value: unknown, field: string): string {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'string') throw new Error(`${field}: expected a string, got ${shown(value)}`)
  if (value.includes('\0')) throw new Error(`${field}: a string with a NUL character`)
  return value
}

function membersOf(value: unknown, field: string): Json {
  if (value === undefined || value === null) return {}
  if (!isObject(value)) throw new Error(`${field}: expected an object, got ${shown(value)}`)
  return value
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A foreign value in a message: quoted, so without control characters, and short. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}
