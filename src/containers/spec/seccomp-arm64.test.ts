import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultSeccomp } from '../../../test/support/spec-input.ts'
import type { OciSeccomp } from '../../model/oci.ts'
import { compileSeccomp, type SeccompTarget } from './seccomp.ts'

/*
 * The default profile on arm64, which shares it with amd64. Runtimes leave out names that they do not know, so that a
 * missing or misspelt one would show on such a node alone.
 */

/** All system calls of arm64, by number, Linux 6.16. */
const ARM64 =
  `io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie eventfd2 epoll_create1
epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get
flock mknodat mkdirat unlinkat symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs fstatfs truncate
ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2
quotactl getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4
vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create timerfd_settime
timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address unshare futex
set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module timer_create
timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
syslog ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity
sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval restart_syscall
kill tkill tgkill sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait
rt_sigqueueinfo rt_sigreturn setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid
setresgid getresgid setfsuid setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname sethostname
setdomainname getrlimit setrlimit getrusage umask prctl getcpu gettimeofday settimeofday adjtimex getpid getppid
getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen
accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead brk
munmap mremap add_key request_key keyctl clone execve mmap fadvise64 swapon swapoff mprotect msync mlock munlock
mlockall munlockall mincore madvise remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages
rt_tgsigqueueinfo perf_event_open accept4 recvmmsg wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at
open_by_handle_at clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2
copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount
fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr
quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease
futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue
statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
removexattrat open_tree_attr`.split(/\s/)

/** What is in the profile for other programs: those of 32 bits on either architecture, and amd64's own. */
const OTHERS =
  `_llseek _newselect access alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bdflush breakpoint cacheflush chmod
chown chown32 clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 clock_settime64 creat dup2
epoll_create epoll_ctl_old epoll_wait epoll_wait_old eventfd fadvise64_64 fchown32 fcntl64 fork fstat64 fstatat64
fstatfs64 ftruncate64 futex_time64 futimesat get_thread_area getdents getegid32 geteuid32 getgid32 getgroups32
getpgrp getresgid32 getresuid32 getuid32 inotify_init ioperm iopl ipc lchown lchown32 link lstat lstat64 mkdir mknod
mmap2 modify_ldt mq_timedreceive_time64 mq_timedsend_time64 nice oldfstat oldlstat oldolduname oldstat olduname open
pause pipe poll ppoll_time64 pselect6_time64 query_module readdir readlink recv recvmmsg_time64 rename rmdir
rt_sigtimedwait_time64 sched_rr_get_interval_time64 select semtimedop_time64 send sendfile64 set_thread_area set_tls
setfsgid32 setfsuid32 setgid32 setgroups32 setregid32 setresgid32 setresuid32 setreuid32 setuid32 sgetmask sigaction
signal signalfd sigpending sigprocmask sigreturn sigsuspend socketcall ssetmask stat stat64 statfs64 stime symlink
sync_file_range2 syscall sysfs time timer_gettime64 timer_settime64 timerfd timerfd_gettime64 timerfd_settime64
truncate64 ugetrlimit umount unlink uselib ustat utime utimensat_time64 utimes vfork vm86 vm86old waitpid`.split(
    /\s/,
  )

/** Not in the profile, so that a program takes the kernel for an older one (ENOSYS). */
const UNLISTED =
  `add_key request_key io_uring_setup io_uring_enter io_uring_register quotactl_fd statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules open_tree_attr`.split(/\s/)

const ALL_CAPABILITIES = [...new Set(defaultSeccomp().syscalls.flatMap(({ includes }) => includes.caps))]

const compiled = (arch: SeccompTarget['arch'], capabilities: readonly string[] = []): OciSeccomp =>
  compileSeccomp(defaultSeccomp(), { arch, capabilities, x32: false, kernel: '6.12.0' })

/** Every rule that a call has there, in order. */
const rulesOf = (profile: OciSeccomp, name: string) =>
  profile.syscalls?.filter(({ names }) => names.includes(name)).map(({ names: _, ...rule }) => rule) ?? []

test('the filter is for arm64 and its 32-bit programs, and for no other architecture', () => {
  assert.deepEqual(compiled('arm64').architectures, ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'])
  assert.deepEqual(compiled('amd64').architectures, ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'])
})

test('no name of the profile is unknown, and every call of arm64 has a rule or is one of the few without', () => {
  assert.equal(new Set(ARM64).size, 323)
  const names = new Set(defaultSeccomp().syscalls.flatMap(rule => rule.names))
  assert.deepEqual([...names].filter(name => !ARM64.includes(name)).sort(), OTHERS)
  assert.deepEqual(
    ARM64.filter(name => !names.has(name)),
    UNLISTED,
  )
})

test('what both architectures have is decided the same, with every capability and without any', () => {
  for (const capabilities of [[], ALL_CAPABILITIES]) {
    const [arm64, amd64] = [compiled('arm64', capabilities), compiled('amd64', capabilities)]
    for (const name of ARM64) assert.deepEqual(rulesOf(arm64, name), rulesOf(amd64, name), name)
  }
})

test('calls that one architecture alone has are in its filter alone', () => {
  const has = (arch: SeccompTarget['arch'], name: string) =>
    rulesOf(compiled(arch, ALL_CAPABILITIES), name).length > 0
  for (const name of ['arch_prctl', 'modify_ldt'])
    assert.deepEqual([has('arm64', name), has('amd64', name)], [false, true])
  for (const name of ['cacheflush', 'set_tls', 'arm_fadvise64_64', 'sync_file_range2'])
    assert.deepEqual([has('arm64', name), has('amd64', name)], [true, false], name)
})
