import { constants as os } from 'node:os'
import { cFunction, checkCode, cstring, OUT, PTR, SyscallError } from './native.ts'

const posix = {
  spawn: cFunction('posix_spawn', 'int', OUT, PTR, PTR, PTR, 'const char **', 'const char **'),
  actionsInit: cFunction('posix_spawn_file_actions_init', 'int', OUT),
  actionsDestroy: cFunction('posix_spawn_file_actions_destroy', 'int', OUT),
  dup2: cFunction('posix_spawn_file_actions_adddup2', 'int', OUT, 'int', 'int'),
  open: cFunction('posix_spawn_file_actions_addopen', 'int', OUT, 'int', PTR, 'int', 'uint'),
  chdir: cFunction('posix_spawn_file_actions_addchdir_np', 'int', OUT, PTR),
  closeFrom: cFunction('posix_spawn_file_actions_addclosefrom_np', 'int', OUT, 'int'),
  attrInit: cFunction('posix_spawnattr_init', 'int', OUT),
  setFlags: cFunction('posix_spawnattr_setflags', 'int', OUT, 'short'),
  setSigDefault: cFunction('posix_spawnattr_setsigdefault', 'int', OUT, PTR),
  setSigMask: cFunction('posix_spawnattr_setsigmask', 'int', OUT, PTR),
  setGroup: cFunction('posix_spawnattr_setpgroup', 'int', OUT, 'int'),
}

/** All signals at their defaults and unblocked; a process group or a session of its own. Reused for every child. */
function spawnAttributes(newSession: boolean): Buffer {
  const SETPGROUP = 0x02
  const SETSIGDEF = 0x04
  const SETSIGMASK = 0x08
  const SETSID = 0x80
  const call = 'posix_spawnattr'
  const attributes = Buffer.alloc(336) // glibc, 64 bit
  checkCode(posix.attrInit(attributes), call)
  checkCode(posix.setFlags(attributes, SETSIGDEF | SETSIGMASK | (newSession ? SETSID : SETPGROUP)), call)
  checkCode(posix.setSigDefault(attributes, Buffer.alloc(128, 0xff)), call)
  checkCode(posix.setSigMask(attributes, Buffer.alloc(128)), call)
  checkCode(posix.setGroup(attributes, 0), call)
  return attributes
}

const OWN_GROUP = spawnAttributes(false)
const OWN_SESSION = spawnAttributes(true)

/**
 * The usual one, whatever ours is: OCI runtimes make cgroups and mount points with it, which the users of containers
 * have to read. What our own threads create meanwhile lies in closed directories.
 */
const CHILD_UMASK = 0o022

export type SpawnRequest = {
  readonly file: string
  /** Without argv[0]. */
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string | undefined
  /**
   * Element i is our descriptor that becomes the child's i, undefined is /dev/null. Every descriptor's number must
   * be `fds.length` or more, since they are copied one after the other.
   */
  readonly fds: ReadonlyArray<number | undefined>
  readonly newSession: boolean
}

/** posix_spawn(3). ENOENT: the file or the working directory is missing. @returns the pid */
export function posixSpawn(request: SpawnRequest): number {
  const { file, fds } = request
  const call = 'posix_spawn'
  const env = Object.entries(request.env).map(([name, value]) => `${name}=${value}`)
  for (const text of [...request.args, ...env]) {
    if (text.includes('\0'))
      throw new SyscallError(os.errno.EINVAL, call, file, 'an argument contains a NUL byte')
  }
  const actions = Buffer.alloc(80) // glibc, 64 bit
  checkCode(posix.actionsInit(actions), call)
  try {
    const cwd = request.cwd === undefined ? undefined : cstring(request.cwd, call)
    if (cwd !== undefined) checkCode(posix.chdir(actions, cwd), call, request.cwd)
    const devNull = cstring('/dev/null', call)
    for (const [i, fd] of fds.entries()) {
      const code = fd === undefined ? posix.open(actions, i, devNull, 2, 0) : posix.dup2(actions, fd, i)
      checkCode(code, call, file)
    }
    // Everything of ours is close-on-exec; this also holds back what a library opened without.
    checkCode(posix.closeFrom(actions, fds.length), call, file)
    const pid = Buffer.alloc(4)
    const attributes = request.newSession ? OWN_SESSION : OWN_GROUP
    const argv = [file, ...request.args, null]
    const umask = process.umask(CHILD_UMASK)
    try {
      checkCode(posix.spawn(pid, cstring(file, call), actions, attributes, argv, [...env, null]), call, file)
    } finally {
      process.umask(umask)
    }
    return pid.readInt32LE(0)
  } finally {
    posix.actionsDestroy(actions)
  }
}
