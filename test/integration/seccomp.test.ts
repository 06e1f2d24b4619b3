import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { LinuxContainerSecurityContext } from '../../src/cri/generated/runtime/v1/LinuxContainerSecurityContext.ts'
import { runtimeFilesOf } from '../support/elf.ts'
import type { TestPod } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'

const skip = process.arch === 'x64' ? false : 'the numbers of system calls below are those of x86-64'

const kubelet = useDaemon({ skip })

/** x86-64, from 0. */
const FIRST = `read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget
shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom
sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve
exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate
ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown
lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid
setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid
setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime
mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam
sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock
mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct
settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module
delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid
readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr
lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy
io_getevents io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old
remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group
epoll_wait epoll_ctl tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat
linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee
sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime
timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs
sendmmsg setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2
pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq`

/** Those of all architectures, from 424. */
const SHARED = `pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr
quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
set_mempolicy_home_node`

/** They do not come back, come back twice, or keep the node's disks busy. */
const UNTRIED = new Set('rt_sigreturn pause clone fork vfork clone3 exit exit_group sync'.split(' '))

const numbers = new Map(
  [
    ...FIRST.split(/\s/).map((name, number) => [name, number] as const),
    ...SHARED.split(/\s/).map((name, index) => [name, 424 + index] as const),
  ].filter(([name]) => !UNTRIED.has(name)),
)

/** What a container has no business with: the node's clock, modules, swap and kernels, memory of others, old interfaces. */
const BLOCKED = new Set(
  `uselib ustat sysfs vhangup _sysctl acct settimeofday swapon swapoff sethostname setdomainname iopl ioperm
  create_module init_module delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall
  tuxcall security lookup_dcookie clock_settime vserver kexec_load add_key request_key migrate_pages vmsplice
  move_pages perf_event_open fanotify_init open_by_handle_at kcmp finit_module kexec_file_load bpf userfaultfd
  io_pgetevents io_uring_setup io_uring_enter io_uring_register process_madvise quotactl_fd`.split(/\s+/),
)

const [EPERM, ENOSYS, EUSERS] = [1, 38, 87]

/** Where −1 is a family or a personality that there is not, or a queue that the next run would find. */
const FIRST_ARGUMENT: Readonly<Record<string, number>> = { socket: 1, personality: 0xffffffff, msgget: 0 }

/**
 * Makes each call in a process of its own, all arguments −1: nothing comes of it, and what the kernel says to that is
 * something else than what a filter says.
 */
const PROBE = `
for (@ARGV) {
  my ($number, $first) = map { 0 + $_ } split /,/; # what is text would be passed by its address
  my $child = fork;
  if ($child == 0) {
    alarm 20;
    my $result = syscall($number, $first, (-1) x 5);
    syswrite STDOUT, "$number " . ($result == -1 ? $! + 0 : 0) . "\\n";
    exit 0;
  }
  waitpid $child, 0;
  syswrite STDOUT, "$number signal " . ($? & 127) . "\\n" if $? & 127;
}`

const PERL = '/usr/bin/perl'

/** The errno of each call by name, '0' for success. */
async function outcomes(
  pod: TestPod,
  names: readonly string[],
  security: LinuxContainerSecurityContext,
): Promise<Map<string, string>> {
  const asked = names.map(name => `${numbers.get(name)},${FIRST_ARGUMENT[name] ?? -1}`)
  const text = await kubelet().outputOf(pod, '', {
    command: [PERL, '-e', PROBE, ...asked],
    mounts: [PERL, ...runtimeFilesOf(PERL)].map(path => ({
      host_path: path,
      container_path: path,
      readonly: true,
    })),
    linux: { security_context: security },
  })
  const byNumber = new Map(
    text.split('\n').map(line => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  )
  return new Map(names.map(name => [name, byNumber.get(String(numbers.get(name))) ?? 'no answer']))
}

/** Calls whose outcome differs, `name: expected, got`. */
function differences(expected: ReadonlyMap<string, string>, got: ReadonlyMap<string, string>): string[] {
  return [...expected].flatMap(([name, outcome]) =>
    got.get(name) === outcome ? [] : [`${name}: ${outcome}, got ${got.get(name)}`],
  )
}

const without = (map: ReadonlyMap<string, string>, names: ReadonlySet<string>) =>
  new Map([...map].filter(([name]) => !names.has(name)))

test('every system call, under no profile, the default one and one from a file: what each blocks', {
  skip,
}, async () => {
  const pod = await kubelet().runPod()
  const all = [...numbers.keys()]
  const free = await outcomes(pod, all, { seccomp: { profile_type: 'Unconfined' } })
  assert.deepEqual(
    [...free].filter(([, outcome]) => !/^\d+$/.test(outcome)),
    [],
  )
  const filtered = await outcomes(pod, all, { seccomp: { profile_type: 'RuntimeDefault' } })
  assert.deepEqual(differences(without(free, BLOCKED), filtered), [])
  const open = [...BLOCKED].filter(name => ![`${EPERM}`, `${ENOSYS}`].includes(filtered.get(name)!))
  assert.deepEqual(open, [])
  const denied = new Set(['mkdir', 'symlink', 'getpriority', 'io_uring_setup'])
  const profile = join(kubelet().daemon.directory, 'deny.json')
  const rule = { names: [...denied], action: 'SCMP_ACT_ERRNO', errnoRet: EUSERS }
  writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }))
  const own = await outcomes(pod, all, {
    seccomp: { profile_type: 'Localhost', localhost_ref: profile },
  })
  assert.deepEqual(differences(without(free, denied), own), [])
  assert.deepEqual(new Set([...denied].map(name => own.get(name))), new Set([`${EUSERS}`]))
})

test('a capability brings the system calls that it is for, and no others', { skip }, async () => {
  const pod = await kubelet().runPod()
  const capabilities = { add_capabilities: ['SYS_TIME', 'SYS_PTRACE'] }
  const brought = ['clock_settime', 'settimeofday', 'kcmp', 'process_madvise']
  const others = new Set(['bpf', 'init_module', 'sethostname'])
  const names = [...brought, ...others]
  const free = await outcomes(pod, names, { capabilities, seccomp: { profile_type: 'Unconfined' } })
  const filtered = await outcomes(pod, names, { capabilities, seccomp: { profile_type: 'RuntimeDefault' } })
  assert.deepEqual(differences(without(free, others), filtered), [])
  for (const name of brought) assert.notEqual(filtered.get(name), `${EPERM}`, name)
  for (const name of others) assert.equal(filtered.get(name), `${EPERM}`, name)
})
