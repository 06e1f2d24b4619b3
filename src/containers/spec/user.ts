import { invalid } from '../../base/errors.ts'
import type { ProcessUser } from './spec.ts'

/** Ids above wrap to negative numbers in kernels and tools that use int32; `4294967296` would be root. */
const MAX_ID = 2 ** 31 - 1

/** Longer lines of a passwd or group file are skipped: no real one comes near. */
const MAX_LINE = 1 << 20

export type UserRequest = {
  readonly runAsUser?: number
  readonly runAsGroup?: number
  readonly runAsUsername: string
  readonly supplementalGroups: readonly number[]
  readonly supplementalGroupsPolicy: 'merge' | 'strict'
}

export type UserFiles = {
  /** Texts of the image's /etc/passwd and /etc/group; '' if it has none. */
  readonly passwd: string
  readonly group: string
}

type PasswdEntry = {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

/**
 * The user that a container's processes get: the request before the image's USER.
 * @param imageUser `user`, `uid`, `user:group` and so on (OCI image config `User`), '' for root
 * @throws BerthError invalid, when a name has no entry, an id is out of range or the request contradicts itself
 */
export function resolveUser(request: UserRequest, imageUser: string, files: UserFiles): ProcessUser {
  const { uid, entry, imageGroup } = primaryUser(request, imageUser, files)
  const gid = request.runAsGroup ?? groupOf(imageGroup, files.group) ?? entry?.gid ?? 0
  checkId('config.linux.security_context.run_as_group', gid)
  for (const group of request.supplementalGroups)
    checkId('config.linux.security_context.supplemental_groups', group)
  // The primary group belongs in the list: without it a directory that denies the group lets its members in.
  const groups = new Set([gid, ...request.supplementalGroups])
  if (request.supplementalGroupsPolicy === 'merge' && entry !== undefined) {
    for (const group of groupsWithMember(files.group, entry.name)) groups.add(group)
  }
  return { uid, gid, supplementalGroups: [...groups], home: homeOf(entry) }
}

/** What an image's USER says about the user, without its files: a uid or a name (CRI Image.uid, Image.username). */
export function parseImageUser(user: string): { readonly uid?: number; readonly username: string } {
  const name = user.split(':', 1)[0]!
  return isNumber(name) ? { uid: parseId("the image's USER", name), username: '' } : { username: name }
}

type Primary = {
  readonly uid: number
  readonly entry: PasswdEntry | undefined
  readonly imageGroup: string | undefined
}

function primaryUser(request: UserRequest, imageUser: string, files: UserFiles): Primary {
  const { runAsUser, runAsUsername } = request
  if (runAsUser !== undefined && runAsUsername !== '') {
    throw invalid('config.linux.security_context', 'run_as_user and run_as_username exclude each other')
  }
  if (request.runAsGroup !== undefined && runAsUser === undefined && runAsUsername === '') {
    throw invalid('config.linux.security_context.run_as_group', 'needs run_as_user or run_as_username')
  }
  if (runAsUser !== undefined) {
    checkId('config.linux.security_context.run_as_user', runAsUser)
    return { uid: runAsUser, entry: findUser(files.passwd, runAsUser), imageGroup: undefined }
  }
  if (runAsUsername !== '') {
    if (isNumber(runAsUsername)) {
      throw invalid(
        'config.linux.security_context.run_as_username',
        `a number is no name; use run_as_user ${runAsUsername}`,
      )
    }
    const entry = requireUser('config.linux.security_context.run_as_username', files.passwd, runAsUsername)
    return { uid: entry.uid, entry, imageGroup: undefined }
  }
  const colon = imageUser.indexOf(':')
  const imageGroup = colon < 0 ? undefined : imageUser.slice(colon + 1)
  const { uid, username } = parseImageUser(imageUser)
  if (uid !== undefined) return { uid, entry: findUser(files.passwd, uid), imageGroup }
  if (username === '') return { uid: 0, entry: findUser(files.passwd, 0), imageGroup }
  const entry = requireUser("the image's USER", files.passwd, username)
  return { uid: entry.uid, entry, imageGroup }
}

function groupOf(group: string | undefined, file: string): number | undefined {
  if (group === undefined || group === '') return undefined
  if (isNumber(group)) return parseId("the image's USER", group)
  for (const [name, , gid] of entries(file)) {
    if (name === group && gid !== undefined && isId(gid)) return Number(gid)
  }
  throw invalid("the image's USER", `group ${JSON.stringify(group)} has no entry in the image's /etc/group`)
}

/** By name, or by uid when `who` is a number. A line that is no entry, or whose ids are none, does not count. */
function findUser(passwd: string, who: string | number): PasswdEntry | undefined {
  for (const [name, , uid, gid, , home] of entries(passwd)) {
    if (name === undefined || uid === undefined || gid === undefined || !isId(uid) || !isId(gid)) continue
    if (typeof who === 'number' ? Number(uid) !== who : name !== who) continue
    return { name, uid: Number(uid), gid: Number(gid), home: home ?? '' }
  }
  return undefined
}

function requireUser(field: string, passwd: string, name: string): PasswdEntry {
  const entry = findUser(passwd, name)
  if (entry !== undefined) return entry
  throw invalid(field, `user ${JSON.stringify(name)} has no entry in the image's /etc/passwd`)
}

function* groupsWithMember(file: string, user: string): Iterable<number> {
  for (const [, , gid, members] of entries(file)) {
    if (gid !== undefined && isId(gid) && members?.split(',').includes(user) === true) yield Number(gid)
  }
}

function homeOf(entry: PasswdEntry | undefined): string {
  const home = entry?.home ?? ''
  return home.startsWith('/') && !/[\x00-\x1f\x7f]/.test(home) ? home : '/'
}

/** The fields of each line, one line at a time: the file comes from the image and may be megabytes. */
function* entries(file: string): Iterable<readonly (string | undefined)[]> {
  for (let start = 0; start < file.length; ) {
    const newline = file.indexOf('\n', start)
    const end = newline < 0 ? file.length : newline
    if (end > start && end - start <= MAX_LINE && file[start] !== '#') yield file.slice(start, end).split(':')
    start = end + 1
  }
}

function isNumber(text: string): boolean {
  return /^[0-9]+$/.test(text)
}

function isId(text: string): boolean {
  return isNumber(text) && Number(text) <= MAX_ID
}

function parseId(field: string, digits: string): number {
  if (!isId(digits)) throw invalid(field, `expected an id from 0 to ${MAX_ID}, got ${digits.slice(0, 40)}`)
  return Number(digits)
}

function checkId(field: string, id: number): void {
  if (Number.isInteger(id) && id >= 0 && id <= MAX_ID) return
  throw invalid(field, `expected an id from 0 to ${MAX_ID}, got ${id}`)
}
