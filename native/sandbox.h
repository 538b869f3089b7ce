/* sandbox: what a process gives up for good once it has opened what it needs: its user, its capabilities, and the system calls that it never
 * makes. Whoever takes the process over can do no more than it could. All functions: 0 or -errno where nothing else is said.
 */
#ifndef SANDBOX_H
#define SANDBOX_H
#include <stdint.h>

/* The processes, by the system calls that they make. */
enum sbx_process {
    SBX_CLOCK, /* receivers, pulses, the system clock */
    SBX_SERVE, /* the network */
    SBX_PROCESSES
};

/* Become user and group, in no other groups but these two (-EPERM: not permitted; -EINVAL: this user namespace has no such user; nothing has
 * changed then). Capabilities are kept for sbx_keep. */
int sbx_become(uint32_t user, uint32_t group, uint32_t second_group, uint32_t third_group);
/* Keep of the capabilities that the process has those in keep (bit n: capability n of capabilities(7)), and gain none by running a program
 * (no_new_privs). Holds for this thread and those that it starts. */
int sbx_keep(uint64_t keep);
/* Refuse all threads, with ENOSYS, the system calls that process does not make. -EINVAL: this kernel has no filters. -ENOTSUP: no filter is
 * known for this machine. */
int sbx_restrict(int process);
/* A system call that was refused since the last call, each number once; -1: none. */
int sbx_refused(void);
/* Its name on this machine; "" when it is not known. */
const char *sbx_call_name(int number);
#endif
