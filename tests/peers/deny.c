/* deny WHAT COMMAND...: runs COMMAND where the kernel refuses a call that only looks, as hosts and containers do.
 *   clock     adjtimex, clock_adjtime: EPERM (systemd's ProtectClock, the seccomp profiles of container runtimes)
 *   netlink   socket(AF_NETLINK): EAFNOSUPPORT (systemd's RestrictAddressFamilies)
 *   watch     timerfd_create: ENOSYS (emulated kernels)
 *   cpus      sched_getaffinity: EPERM */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(value, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, n)
#define REFUSE(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static struct sock_filter clock_calls[] = {LOAD(nr), SKIP_UNLESS(SYS_adjtimex, 1), REFUSE(EPERM), SKIP_UNLESS(SYS_clock_adjtime, 1),
                                           REFUSE(EPERM), ALLOW};
static struct sock_filter netlink[] = {LOAD(nr), SKIP_UNLESS(SYS_socket, 3), LOAD(args[0]), SKIP_UNLESS(AF_NETLINK, 1),
                                       REFUSE(EAFNOSUPPORT), ALLOW};
static struct sock_filter watch[] = {LOAD(nr), SKIP_UNLESS(SYS_timerfd_create, 1), REFUSE(ENOSYS), ALLOW};
static struct sock_filter cpus[] = {LOAD(nr), SKIP_UNLESS(SYS_sched_getaffinity, 1), REFUSE(EPERM), ALLOW};
static const struct {
    const char *what;
    struct sock_fprog program;
} filters[] = {
    {"clock", {sizeof clock_calls / sizeof *clock_calls, clock_calls}},
    {"netlink", {sizeof netlink / sizeof *netlink, netlink}},
    {"watch", {sizeof watch / sizeof *watch, watch}},
    {"cpus", {sizeof cpus / sizeof *cpus, cpus}},
};

int main(int count, char **words)
{
    if (count < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return 64;
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(words[1], filters[i].what) && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filters[i].program) == 0) {
            execvp(words[2], words + 2);
            perror(words[2]);
            return 127;
        }
    return 64;
}
