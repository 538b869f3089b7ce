/* flood: socket filters that drop requests before they cost this process anything (classic BPF, which needs no privilege).
 *
 * One filter does two things. It *blocks* a source far over its rate: the kernel passes one in `leak` of its requests and the process does
 * not wake for the rest, so a spoofed flood does not starve its victim. It *thins* the others when requests come faster than they can be
 * answered, or when answering takes more of the processor than it may: known clients that ask decently all pass, and of the rest a share
 * that follows the load (halved at once, raised by a quarter ten times a second). The filter is a search tree over a keyed 32-bit hash of
 * the client. The same hash spreads clients over the threads (SO_ATTACH_REUSEPORT_CBPF).
 *
 * This unit decides, and writes programs. It reads no clock and makes no system call. One for each thread.
 */
#ifndef FLOOD_H
#define FLOOD_H
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"

enum {
    FLD_KEYS = 3,
    FLD_BLOCKED_MAX = 256, /* sources */
    FLD_KNOWN_MAX = 768,   /* clients */
    FLD_PROGRAM_MAX = 4096 /* instructions; BPF_MAXINSNS */
};

struct fld_hash_key {
    uint32_t word[FLD_KEYS]; /* random */
};

/* The hash of a client. The programs compute the same hash of a packet's source. */
uint32_t fld_hash(const struct fld_hash_key *key, struct acl_client who);
/* Write the program (room: FLD_PROGRAM_MAX) that chooses one of `threads` sockets for a source. Its length in instructions. */
size_t fld_selector(const struct fld_hash_key *key, unsigned threads, struct sock_filter *out);

struct fld; /* what is blocked and thinned */

/* 0 or -ENOMEM. The key's words are random. */
int fld_create(const struct fld_hash_key *key, struct fld **out);
void fld_destroy(struct fld *f);
/* Take notice of a request over its rate. 1: its source is blocked already, so this request leaked through the filter. */
int fld_excess(struct fld *f, uint32_t hash, uint32_t leak);
/* How busy a thread is. */
struct fld_load {
    uint64_t queue, room; /* bytes that wait in the fullest receive buffer, and its size */
    int64_t cpu_ns;       /* processor time that the thread has used so far */
};
/* Look at the load. cpu_limit: the share of a core that the thread may use; 1: no limit. 1: the filter is to be renewed. */
int fld_turn(struct fld *f, int64_t raw_ns, const struct fld_load *load, double cpu_limit);
/* 1: requests of unknown clients are being thinned, so fld_filter needs the known ones (fld_know). */
int fld_thinning(const struct fld *f);
/* Empty the list of known clients. */
void fld_forget(struct fld *f);
/* Add a known client; beyond FLD_KNOWN_MAX they are left out. */
void fld_know(struct fld *f, struct acl_client who);
/* Halve the list, now and from now on, because the kernel has no room for the filter. 0: it is empty already. */
int fld_fewer(struct fld *f);
/* Write the filter (room: FLD_PROGRAM_MAX). Its length in instructions; 0: none is needed. */
size_t fld_filter(struct fld *f, uint32_t leak, struct sock_filter *out);
/* How many sources are blocked. */
unsigned fld_blocked(const struct fld *f);
/* The share of requests of unknown sources that is let through, 0..1. */
double fld_share(const struct fld *f);
#endif
