/* What a process has given up it cannot have back, and what it is refused has a name. Each test is a process of its own. */
#define _GNU_SOURCE /* syscall, setresuid */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* The search for leaks at exit traces the process, which is refused here. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* Run test in a child process. */
static void in_a_child(void (*test)(void))
{
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        test();
        fflush(stdout);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
}

static uint64_t permitted(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    CHECK_EQUAL(syscall(SYS_capget, &header, data), 0);
    CHECK(data[0].permitted == data[0].effective && data[1].permitted == data[1].effective);
    return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

static void root_becomes_another_user_for_good(void)
{
    const uint64_t bind = UINT64_C(1) << CAP_NET_BIND_SERVICE;
    const gid_t also = 54321;
    if (geteuid() != 0 || permitted() == 0)
        return; /* only root may */
    uint64_t before = permitted();
    int r = sbx_become(12345, 12346, also, also);
    if (r == -EINVAL) /* a user namespace without that user */
        CHECK(geteuid() == 0 && permitted() == before);
    if (r < 0)
        return;
    CHECK_EQUAL(sbx_keep(bind), 0);
    CHECK(getuid() == 12345 && geteuid() == 12345 && getgid() == 12346 && getegid() == 12346);
    gid_t groups[8];
    CHECK(getgroups(8, groups) == 2 && groups[0] == also && groups[1] == also);
    CHECK(permitted() == (before & bind));
    CHECK(setuid(0) < 0 && errno == EPERM);
    CHECK(setgid(0) < 0 && errno == EPERM);
    CHECK(open("/etc/shadow", O_RDONLY) < 0);
    CHECK(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0 && prctl(PR_CAPBSET_READ, CAP_NET_BIND_SERVICE, 0, 0, 0) == 1);
    CHECK_EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
}

static void anybody_gives_up_capabilities(void)
{
    CHECK_EQUAL(sbx_keep(0), 0);
    CHECK(permitted() == 0);
    CHECK_EQUAL(sbx_keep(~UINT64_C(0)), 0);
    CHECK(permitted() == 0);
    CHECK_EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
}

static int is_restricted(int process)
{
    int r = sbx_restrict(process);
    CHECK(r == 0 || r == -EINVAL || r == -ENOSYS || r == -ENOTSUP);
    if (r < 0)
        printf("   (no filter of system calls here: %s)\n", strerror(-r));
    return r == 0;
}

static void what_is_refused_has_a_name(void)
{
    char byte;
    CHECK_EQUAL(sbx_restrict(SBX_PROCESSES), -EINVAL);
    if (!is_restricted(SBX_SERVE))
        return;
    CHECK_EQUAL(sbx_refused(), -1);
    CHECK(syscall(SYS_ptrace, PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == ENOSYS);
    CHECK(execl("/bin/true", "true", NULL) == -1 && errno == ENOSYS);
    CHECK(execl("/bin/true", "true", NULL) == -1 && errno == ENOSYS);
    int first = sbx_refused(), second = sbx_refused();
    CHECK((first == SYS_ptrace && second == SYS_execve) || (first == SYS_execve && second == SYS_ptrace));
    CHECK(strcmp(sbx_call_name(SYS_ptrace), "ptrace") == 0 && strcmp(sbx_call_name(SYS_execve), "execve") == 0);
    CHECK(*sbx_call_name(100000) == '\0');
    CHECK_EQUAL(sbx_refused(), -1);
    int fd = open("/proc/self/comm", O_RDONLY); /* the rest goes on */
    CHECK(fd >= 0 && read(fd, &byte, 1) == 1);
    close(fd);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQUAL(sbx_refused(), -1);
}

static void the_clock_has_shared_memory_and_no_other_filter(void)
{
    if (!is_restricted(SBX_CLOCK))
        return;
    CHECK(shmget(0x7fffff01, 0, 0) == -1 && errno == ENOENT);
    CHECK_EQUAL(sbx_restrict(SBX_SERVE), -ENOSYS); /* what is in force cannot be changed */
}

static void the_server_has_no_shared_memory(void)
{
    if (!is_restricted(SBX_SERVE))
        return;
    CHECK(shmget(0x7fffff01, 0, 0) == -1 && errno == ENOSYS);
    CHECK(strncmp(sbx_call_name(sbx_refused()), "shmget", 6) == 0 || sizeof(long) == 4); /* ipc(2) on some machines of 32 bits */
}

static void *try_to_trace(void *errors)
{
    if (syscall(SYS_ptrace, PTRACE_TRACEME, 0, NULL, NULL) == -1)
        *(int *)errors = errno;
    return NULL;
}

static void threads_of_later_are_restricted_too(void)
{
    pthread_t thread;
    sigset_t all;
    int error = 0;
    if (!is_restricted(SBX_SERVE))
        return;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* as the server's threads do */
    CHECK_EQUAL(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, try_to_trace, &error), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(error, ENOSYS);
    CHECK_EQUAL(sbx_refused(), SYS_ptrace);
}

#define RUN_IN_A_CHILD(test) (in_a_child(test), printf("ok %s\n", #test))

int main(void)
{
    RUN_IN_A_CHILD(root_becomes_another_user_for_good);
    RUN_IN_A_CHILD(anybody_gives_up_capabilities);
    RUN_IN_A_CHILD(what_is_refused_has_a_name);
    RUN_IN_A_CHILD(the_clock_has_shared_memory_and_no_other_filter);
    RUN_IN_A_CHILD(the_server_has_no_shared_memory);
    RUN_IN_A_CHILD(threads_of_later_are_restricted_too);
    return 0;
}
