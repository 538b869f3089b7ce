/* flood: what the kernel is to drop before it costs this process anything, as socket filters (classic BPF, which needs no privilege).
 *
 * Two troubles, one filter. A source far over its rate is *blocked*: the kernel lets one in `leak` of its requests through, so a spoofed
 * flood cannot starve its victim, and the process never wakes for the rest. When requests come faster than they can be answered, or
 * answering takes more of the processor than it may, the others are *thinned*: clients that are known for asking decently all pass, of the
 * rest only a share that follows the load (halved at once, raised by a quarter ten times a second). The filter is a search tree over a
 * keyed 32-bit hash of the source, the same hash that spreads clients over the threads (SO_ATTACH_REUSEPORT_CBPF).
 *
 * Decides and writes programs; reads no clock and makes no system call. One for each thread.
 */
#ifndef FLOOD_H
#define FLOOD_H
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"

enum {
    FLD_KEYS = 3,
    FLD_BLOCKED_MAX = 256,
    FLD_KNOWN_MAX = 768,
    FLD_PROGRAM_MAX = 4096 /* BPF_MAXINSNS */
};

struct fld_hash_key {
    uint32_t word[FLD_KEYS]; /* random */
};

/* The hash of a client as native/clients.h names clients: an IPv4 address, a /64, or a whole local IPv6 address. */
uint32_t fld_hash(const struct fld_hash_key *key, struct acl_address source);
/* The program (room for FLD_PROGRAM_MAX) for a group of `threads` sockets: which one a source meets. Its length. */
size_t fld_selector(const struct fld_hash_key *key, unsigned threads, struct sock_filter *out);

struct fld;

/* With a key of random words. 0 or -ENOMEM. */
int fld_create(const struct fld_hash_key *key, struct fld **out);
void fld_destroy(struct fld *f);
/* A request over its rate. 1: its source is blocked already, and this one leaked through the filter. */
int fld_excess(struct fld *f, uint32_t hash, uint32_t leak);
/* Look at the load: `queue` and `room` bytes of the receive buffer, cpu_ns used by the thread so far. 1: the filter is to be renewed. */
int fld_turn(struct fld *f, int64_t raw_ns, uint64_t queue, uint64_t room, int64_t cpu_ns, double cpu_limit);
/* 1: requests of unknown clients are being thinned; the known ones are wanted (fld_know) before fld_filter. */
int fld_thinning(const struct fld *f);
/* Begin anew the list of known clients, and add one (FLD_KNOWN_MAX of them at most, more are not heard). */
void fld_forget(struct fld *f);
void fld_know(struct fld *f, struct acl_address source);
/* The kernel has no room for so long a filter: from now on half as many known clients. 0: there are none left. */
int fld_fewer(struct fld *f);
/* The filter (room for FLD_PROGRAM_MAX); its length, 0: none is needed, take it off. */
size_t fld_filter(struct fld *f, uint32_t leak, struct sock_filter *out);
/* How many sources are blocked, and the share of others let through. */
unsigned fld_blocked(const struct fld *f);
double fld_share(const struct fld *f);
#endif
