#define _GNU_SOURCE /* REG_RAX, syscall, setresuid */
#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- user and capabilities ------------------------------------------------------------------------------------------------------- */

int sbx_become(uint32_t user, uint32_t group, uint32_t second_group, uint32_t third_group)
{
    const gid_t others[2] = {second_group, third_group};
    /* The saved numbers are tried first: they can be taken back. */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setresgid((gid_t)-1, (gid_t)-1, group) < 0 ||
        setresuid((uid_t)-1, (uid_t)-1, user) < 0 || setgroups(2, others) < 0) {
        int r = -errno;
        if (setresgid((gid_t)-1, (gid_t)-1, getegid()) < 0 || setresuid((uid_t)-1, (uid_t)-1, geteuid()) < 0)
            return -errno;
        return r;
    }
    return setresgid(group, group, group) < 0 || setresuid(user, user, user) < 0 ? -errno : 0;
}

int sbx_keep(uint64_t keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    for (int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted; /* a change of the user has cleared them */
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    for (int number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++) /* until the last one of this kernel */
        if (!(keep >> number & 1))
            (void)prctl(PR_CAPBSET_DROP, number, 0, 0, 0); /* needs CAP_SETPCAP; who has none keeps a bound that it cannot use */
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(keep >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* ---- system calls ---------------------------------------------------------------------------------------------------------------- */

/* How a filter knows the machine, and where a signal handler sets the result of the call that it interrupted. */
#if defined __x86_64__ && !defined __ILP32__
#define MACHINE AUDIT_ARCH_X86_64
#define RESULT(context) (context)->uc_mcontext.gregs[REG_RAX]
#elif defined __i386__
#define MACHINE AUDIT_ARCH_I386
#define RESULT(context) (context)->uc_mcontext.gregs[REG_EAX]
#elif defined __aarch64__ && defined __AARCH64EL__
#define MACHINE AUDIT_ARCH_AARCH64
#define RESULT(context) (context)->uc_mcontext.regs[0]
#elif defined __arm__ && defined __ARM_EABI__ && defined __ARMEL__
#define MACHINE AUDIT_ARCH_ARM
#define RESULT(context) (context)->uc_mcontext.arm_r0
#elif defined __riscv && __riscv_xlen == 64
#define MACHINE AUDIT_ARCH_RISCV64
#define RESULT(context) (context)->uc_mcontext.__gregs[REG_A0]
#endif

enum { NONE, CLOCK = 1 << SBX_CLOCK, SERVE = 1 << SBX_SERVE, BOTH = CLOCK | SERVE };

struct call {
    const char *name;
    const char *number; /* as the kernel's header has it: "45" or "(0 + 45)"; "SYS_name" where the machine has no such call */
    int made_by;
};
#define TEXT_OF(value) #value
#define NUMBER_TEXT(value) TEXT_OF(value)
#define CALL(name, made_by) {#name, NUMBER_TEXT(SYS_##name), made_by}

/* Every system call by name, and who makes it. Python and libc choose between the variants of a call, so all of them are listed. Not listed
 * as made: to run a program, to trace or to change another process, modules, mounts, keys, namespaces, other users, io_uring. */
static const struct call calls[] = {
    /* the packet path, first: a filter is read from its beginning */
    CALL(recvmmsg, BOTH), CALL(recvmmsg_time64, BOTH), CALL(sendmmsg, BOTH), CALL(sendmsg, BOTH), CALL(recvmsg, BOTH), CALL(ppoll, BOTH),
    CALL(ppoll_time64, BOTH), CALL(poll, BOTH), CALL(epoll_wait, BOTH), CALL(epoll_pwait, BOTH), CALL(epoll_pwait2, BOTH),
    CALL(clock_gettime, BOTH), CALL(clock_gettime64, BOTH), CALL(futex, BOTH), CALL(futex_time64, BOTH),
    /* files, sockets, memory, threads, signals: what any Python program makes */
    CALL(read, BOTH), CALL(write, BOTH), CALL(readv, BOTH), CALL(writev, BOTH), CALL(pread64, BOTH), CALL(pwrite64, BOTH),
    CALL(lseek, BOTH), CALL(_llseek, BOTH), CALL(sendto, BOTH), CALL(send, BOTH), CALL(recvfrom, BOTH), CALL(recv, BOTH),
    CALL(_newselect, BOTH), CALL(select, BOTH), CALL(pselect6, BOTH), CALL(pselect6_time64, BOTH), CALL(epoll_create, BOTH),
    CALL(epoll_create1, BOTH), CALL(epoll_ctl, BOTH), CALL(eventfd, BOTH), CALL(eventfd2, BOTH), CALL(signalfd, BOTH),
    CALL(signalfd4, BOTH), CALL(inotify_init, BOTH), CALL(inotify_init1, BOTH), CALL(inotify_add_watch, BOTH), CALL(inotify_rm_watch, BOTH),
    CALL(timerfd_create, BOTH), CALL(timerfd_settime, BOTH), CALL(timerfd_settime64, BOTH), CALL(timerfd_gettime, BOTH),
    CALL(timerfd_gettime64, BOTH), CALL(clock_getres, BOTH), CALL(clock_getres_time64, BOTH), CALL(clock_nanosleep, BOTH),
    CALL(clock_nanosleep_time64, BOTH), CALL(nanosleep, BOTH), CALL(gettimeofday, BOTH), CALL(time, BOTH), CALL(times, BOTH),
    /* the same under the names of musl on 32-bit machines */
    CALL(clock_gettime32, BOTH), CALL(clock_getres_time32, BOTH), CALL(clock_nanosleep_time32, BOTH), CALL(gettimeofday_time32, BOTH),
    CALL(timerfd_settime32, BOTH), CALL(timerfd_gettime32, BOTH),
    CALL(pause, BOTH), CALL(socket, BOTH), CALL(socketcall, BOTH), CALL(socketpair, BOTH), CALL(bind, BOTH), CALL(listen, BOTH),
    CALL(accept, BOTH), CALL(accept4, BOTH), CALL(connect, BOTH), CALL(shutdown, BOTH), CALL(getsockname, BOTH), CALL(getpeername, BOTH),
    CALL(getsockopt, BOTH), CALL(setsockopt, BOTH), CALL(open, BOTH), CALL(openat, BOTH), CALL(openat2, BOTH), CALL(creat, BOTH),
    CALL(close, BOTH), CALL(close_range, BOTH), CALL(dup, BOTH), CALL(dup2, BOTH), CALL(dup3, BOTH), CALL(fcntl, BOTH), CALL(fcntl64, BOTH),
    CALL(flock, BOTH), CALL(ioctl, BOTH), CALL(pipe, BOTH), CALL(pipe2, BOTH), CALL(stat, BOTH), CALL(stat64, BOTH), CALL(lstat, BOTH),
    CALL(lstat64, BOTH), CALL(fstat, BOTH), CALL(fstat64, BOTH), CALL(fstatat64, BOTH), CALL(newfstatat, BOTH), CALL(statx, BOTH),
    CALL(statfs, BOTH), CALL(statfs64, BOTH), CALL(fstatfs, BOTH), CALL(fstatfs64, BOTH), CALL(access, BOTH), CALL(faccessat, BOTH),
    CALL(faccessat2, BOTH), CALL(readlink, BOTH), CALL(readlinkat, BOTH), CALL(getdents, BOTH), CALL(getdents64, BOTH), CALL(getcwd, BOTH),
    CALL(getxattr, BOTH), CALL(lgetxattr, BOTH), CALL(fgetxattr, BOTH), CALL(fadvise64, BOTH), CALL(fadvise64_64, BOTH),
    CALL(arm_fadvise64_64, BOTH), CALL(chmod, BOTH), CALL(fchmod, BOTH), CALL(fchmodat, BOTH), CALL(fchmodat2, BOTH), CALL(chown, BOTH),
    CALL(chown32, BOTH), CALL(lchown, BOTH), CALL(lchown32, BOTH), CALL(fchown, BOTH), CALL(fchown32, BOTH), CALL(fchownat, BOTH),
    CALL(mkdir, BOTH), CALL(mkdirat, BOTH), CALL(unlink, BOTH), CALL(unlinkat, BOTH), CALL(rename, BOTH), CALL(renameat, BOTH),
    CALL(renameat2, BOTH), CALL(umask, BOTH), CALL(chdir, BOTH), CALL(fchdir, BOTH),
    CALL(ftruncate, BOTH), CALL(ftruncate64, BOTH), CALL(fallocate, BOTH), CALL(fsync, BOTH),
    CALL(fdatasync, BOTH), CALL(brk, BOTH), CALL(mmap, BOTH), CALL(mmap2, BOTH), CALL(munmap, BOTH), CALL(mremap, BOTH),
    CALL(mprotect, BOTH), CALL(madvise, BOTH), CALL(msync, BOTH), CALL(membarrier, BOTH), CALL(mlock, BOTH), CALL(munlock, BOTH),
    CALL(mlockall, BOTH), CALL(munlockall, BOTH), CALL(clone, BOTH), CALL(clone3, BOTH), CALL(exit, BOTH), CALL(exit_group, BOTH),
    CALL(set_robust_list, BOTH), CALL(get_robust_list, BOTH), CALL(rseq, BOTH), CALL(set_tid_address, BOTH), CALL(set_thread_area, BOTH),
    CALL(get_thread_area, BOTH), CALL(arch_prctl, BOTH), CALL(prctl, BOTH), CALL(restart_syscall, BOTH), CALL(getcpu, BOTH),
    CALL(rt_sigaction, BOTH), CALL(rt_sigprocmask, BOTH), CALL(rt_sigreturn, BOTH), CALL(rt_sigsuspend, BOTH), CALL(rt_sigpending, BOTH),
    CALL(rt_sigtimedwait, BOTH), CALL(rt_sigtimedwait_time64, BOTH), CALL(sigreturn, BOTH), CALL(sigaltstack, BOTH), CALL(tgkill, BOTH),
    CALL(tkill, BOTH), CALL(sched_yield, BOTH), CALL(sched_getaffinity, BOTH), CALL(sched_getparam, BOTH), CALL(sched_getscheduler, BOTH),
    CALL(sched_get_priority_max, BOTH), CALL(sched_get_priority_min, BOTH), CALL(getpid, BOTH), CALL(gettid, BOTH), CALL(getppid, BOTH),
    CALL(getpgrp, BOTH), CALL(getpgid, BOTH), CALL(getsid, BOTH), CALL(getuid, BOTH), CALL(getuid32, BOTH), CALL(geteuid, BOTH),
    CALL(geteuid32, BOTH), CALL(getgid, BOTH), CALL(getgid32, BOTH), CALL(getegid, BOTH), CALL(getegid32, BOTH), CALL(getresuid, BOTH),
    CALL(getresuid32, BOTH), CALL(getresgid, BOTH), CALL(getresgid32, BOTH), CALL(getgroups, BOTH), CALL(getgroups32, BOTH),
    CALL(capget, BOTH), CALL(capset, BOTH), CALL(getrlimit, BOTH), CALL(ugetrlimit, BOTH), CALL(prlimit64, BOTH), CALL(getrusage, BOTH),
    CALL(getpriority, BOTH), CALL(sysinfo, BOTH), CALL(uname, BOTH), CALL(getrandom, BOTH), CALL(wait4, BOTH), CALL(waitid, BOTH),
    CALL(riscv_flush_icache, BOTH), CALL(riscv_hwprobe, BOTH),
    /* the system clock, shared memory, the rank of pulse threads */
    CALL(clock_adjtime, CLOCK), CALL(clock_adjtime64, CLOCK), CALL(adjtimex, CLOCK), CALL(shmget, CLOCK), CALL(shmat, CLOCK),
    CALL(shmdt, CLOCK), CALL(shmctl, CLOCK), CALL(ipc, CLOCK), CALL(sched_setscheduler, CLOCK), CALL(sched_setparam, CLOCK),
    /* made by neither */
    CALL(acct, NONE), CALL(add_key, NONE), CALL(alarm, NONE), CALL(arm_sync_file_range, NONE), CALL(bpf, NONE), CALL(cachestat, NONE),
    CALL(chroot, NONE), CALL(clock_settime, NONE), CALL(clock_settime64, NONE), CALL(copy_file_range, NONE),
    CALL(delete_module, NONE), CALL(execve, NONE), CALL(execveat, NONE), CALL(fanotify_init, NONE), CALL(fanotify_mark, NONE),
    CALL(finit_module, NONE), CALL(flistxattr, NONE), CALL(fork, NONE), CALL(fremovexattr, NONE), CALL(fsconfig, NONE),
    CALL(fsetxattr, NONE), CALL(fsmount, NONE), CALL(fsopen, NONE), CALL(fspick, NONE), CALL(futex_requeue, NONE), CALL(futex_wait, NONE),
    CALL(futex_waitv, NONE), CALL(futex_wake, NONE), CALL(futimesat, NONE), CALL(get_mempolicy, NONE), CALL(getitimer, NONE),
    CALL(init_module, NONE), CALL(io_cancel, NONE), CALL(io_destroy, NONE), CALL(io_getevents, NONE), CALL(io_pgetevents, NONE),
    CALL(io_pgetevents_time64, NONE), CALL(io_setup, NONE), CALL(io_submit, NONE), CALL(io_uring_enter, NONE),
    CALL(io_uring_register, NONE), CALL(io_uring_setup, NONE), CALL(ioperm, NONE), CALL(iopl, NONE), CALL(ioprio_get, NONE),
    CALL(ioprio_set, NONE), CALL(kcmp, NONE), CALL(kexec_file_load, NONE), CALL(kexec_load, NONE), CALL(keyctl, NONE), CALL(kill, NONE),
    CALL(landlock_add_rule, NONE), CALL(landlock_create_ruleset, NONE), CALL(landlock_restrict_self, NONE), CALL(link, NONE),
    CALL(linkat, NONE), CALL(listmount, NONE), CALL(listxattr, NONE), CALL(llistxattr, NONE), CALL(lremovexattr, NONE),
    CALL(lsetxattr, NONE), CALL(lsm_get_self_attr, NONE), CALL(lsm_list_modules, NONE), CALL(lsm_set_self_attr, NONE),
    CALL(map_shadow_stack, NONE), CALL(mbind, NONE), CALL(memfd_create, NONE), CALL(memfd_secret, NONE), CALL(migrate_pages, NONE),
    CALL(mincore, NONE), CALL(mknod, NONE), CALL(mknodat, NONE), CALL(mlock2, NONE), CALL(mount, NONE), CALL(mount_setattr, NONE),
    CALL(move_mount, NONE), CALL(move_pages, NONE), CALL(mq_getsetattr, NONE), CALL(mq_notify, NONE), CALL(mq_open, NONE),
    CALL(mq_timedreceive, NONE), CALL(mq_timedreceive_time64, NONE), CALL(mq_timedsend, NONE), CALL(mq_timedsend_time64, NONE),
    CALL(mq_unlink, NONE), CALL(mseal, NONE), CALL(msgctl, NONE), CALL(msgget, NONE), CALL(msgrcv, NONE), CALL(msgsnd, NONE),
    CALL(name_to_handle_at, NONE), CALL(nice, NONE), CALL(open_by_handle_at, NONE), CALL(open_tree, NONE), CALL(perf_event_open, NONE),
    CALL(personality, NONE), CALL(pidfd_getfd, NONE), CALL(pidfd_open, NONE), CALL(pidfd_send_signal, NONE), CALL(pivot_root, NONE),
    CALL(pkey_alloc, NONE), CALL(pkey_free, NONE), CALL(pkey_mprotect, NONE), CALL(preadv, NONE), CALL(preadv2, NONE),
    CALL(process_madvise, NONE), CALL(process_mrelease, NONE), CALL(process_vm_readv, NONE), CALL(process_vm_writev, NONE),
    CALL(ptrace, NONE), CALL(pwritev, NONE), CALL(pwritev2, NONE), CALL(quotactl, NONE), CALL(quotactl_fd, NONE), CALL(readahead, NONE),
    CALL(readdir, NONE), CALL(reboot, NONE), CALL(remap_file_pages, NONE), CALL(removexattr, NONE), CALL(request_key, NONE),
    CALL(rmdir, NONE), CALL(rt_sigqueueinfo, NONE), CALL(rt_tgsigqueueinfo, NONE), CALL(sched_getattr, NONE),
    CALL(sched_rr_get_interval, NONE), CALL(sched_rr_get_interval_time64, NONE), CALL(sched_setaffinity, NONE), CALL(sched_setattr, NONE),
    CALL(seccomp, NONE), CALL(semctl, NONE), CALL(semget, NONE), CALL(semop, NONE), CALL(semtimedop, NONE), CALL(semtimedop_time64, NONE),
    CALL(sendfile, NONE), CALL(sendfile64, NONE), CALL(set_mempolicy, NONE), CALL(set_mempolicy_home_node, NONE), CALL(setdomainname, NONE),
    CALL(setfsgid, NONE), CALL(setfsgid32, NONE), CALL(setfsuid, NONE), CALL(setfsuid32, NONE), CALL(setgid, NONE), CALL(setgid32, NONE),
    CALL(setgroups, NONE), CALL(setgroups32, NONE), CALL(sethostname, NONE), CALL(setitimer, NONE), CALL(setns, NONE), CALL(setpgid, NONE),
    CALL(setpriority, NONE), CALL(setregid, NONE), CALL(setregid32, NONE), CALL(setresgid, NONE), CALL(setresgid32, NONE),
    CALL(setresuid, NONE), CALL(setresuid32, NONE), CALL(setreuid, NONE), CALL(setreuid32, NONE), CALL(setrlimit, NONE), CALL(setsid, NONE),
    CALL(settimeofday, NONE), CALL(setuid, NONE), CALL(setuid32, NONE), CALL(setxattr, NONE), CALL(sigaction, NONE), CALL(signal, NONE),
    CALL(sigpending, NONE), CALL(sigprocmask, NONE), CALL(sigsuspend, NONE), CALL(splice, NONE), CALL(statmount, NONE), CALL(stime, NONE),
    CALL(swapoff, NONE), CALL(swapon, NONE), CALL(symlink, NONE), CALL(symlinkat, NONE), CALL(sync, NONE), CALL(sync_file_range, NONE),
    CALL(sync_file_range2, NONE), CALL(syncfs, NONE), CALL(syslog, NONE), CALL(tee, NONE), CALL(timer_create, NONE),
    CALL(timer_delete, NONE), CALL(timer_getoverrun, NONE), CALL(timer_gettime, NONE), CALL(timer_gettime64, NONE),
    CALL(timer_settime, NONE), CALL(timer_settime64, NONE), CALL(truncate, NONE), CALL(truncate64, NONE), CALL(umount, NONE),
    CALL(umount2, NONE), CALL(unshare, NONE), CALL(userfaultfd, NONE), CALL(utime, NONE), CALL(utimensat, NONE),
    CALL(utimensat_time64, NONE), CALL(utimes, NONE), CALL(vfork, NONE), CALL(vhangup, NONE), CALL(vmsplice, NONE), CALL(waitpid, NONE),
};
enum { CALLS = sizeof calls / sizeof *calls, NUMBERS = 1024 };

/* The number of a call; -1 where the machine has none. */
static int number_of(const struct call *call)
{
    int sum = 0;
    if (call->number[0] == 'S' || call->number[0] == '_')
        return -1;
    for (const char *at = call->number; *at; at++)
        if (*at >= '0' && *at <= '9') {
            char *end;
            sum += (int)strtol(at, &end, 0);
            at = end - 1;
        }
    return sum;
}

const char *sbx_call_name(int number)
{
    for (size_t i = 0; i < CALLS; i++)
        if (number_of(&calls[i]) == number)
            return calls[i].name;
    return "";
}

static uint32_t refused[NUMBERS / 32]; /* a bit for each number; a larger one counts as the last */

int sbx_refused(void)
{
    for (int word = 0; word < NUMBERS / 32; word++) {
        uint32_t bits = __atomic_load_n(&refused[word], __ATOMIC_RELAXED);
        if (bits) {
            int bit = __builtin_ctz(bits);
            __atomic_fetch_and(&refused[word], ~(UINT32_C(1) << bit), __ATOMIC_RELAXED);
            return word * 32 + bit;
        }
    }
    return -1;
}

#ifdef MACHINE
static void note_refusal(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    ucontext_t *interrupted = context;
    int number = info->si_syscall >= 0 && info->si_syscall < NUMBERS ? info->si_syscall : NUMBERS - 1;
    __atomic_fetch_or(&refused[number / 32], UINT32_C(1) << number % 32, __ATOMIC_RELAXED);
    RESULT(interrupted) = -ENOSYS; /* libc and Python then do without, as on an older kernel */
}

int sbx_restrict(int process)
{
    struct sock_filter program[2 * CALLS + 8];
    const struct sigaction action = {.sa_sigaction = note_refusal, .sa_flags = SA_SIGINFO | SA_RESTART};
    size_t length = 0;
    if (process < 0 || process >= SBX_PROCESSES)
        return -EINVAL;
    program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < CALLS; i++) {
        int number = number_of(&calls[i]);
        if (number < 0 || !(calls[i].made_by >> process & 1))
            continue;
        program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1);
        program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
#ifdef __arm__ /* numbers of the ARM kernel alone, without names in the header: cacheflush, set_tls */
    for (uint32_t number = 0x0f0002; number <= 0x0f0005; number += 3) {
        program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
#endif
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    const struct sock_fprog filter = {(unsigned short)length, program};
    if (sigaction(SIGSYS, &action, NULL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    /* SPEC_ALLOW: older kernels slow down every thread with a filter against attacks by code that it runs; we run none of others. */
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter);
    if (r < 0 && errno == EINVAL)
        r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    return r < 0 ? -errno : r > 0 ? -EBUSY : 0; /* a positive number is a thread that has another filter */
}
#else
int sbx_restrict(int process)
{
    (void)process;
    return -ENOTSUP;
}
#endif
