/* worker: one thread of the server: its loop, a batch of requests, one request, and the load. Used by server.c alone.
 *
 * A worker owns its sockets, its table of clients, its counters and its buffers. With the other threads it shares struct wrk_shared only,
 * which it reads without a lock.
 */
#ifndef WORKER_H
#define WORKER_H
#include <stddef.h>
#include <stdint.h>

#include "clients.h"
#include "flood.h"
#include "server.h"

/* Rules as a worker applies them. They do not change while they are in force. */
struct wrk_rules {
    struct acl_range *ranges;
    size_t range_count;
    struct mac_keys *keys;    /* NULL: none */
    struct nts_keys *nts;     /* NULL: no NTS */
    struct cli_limits limits; /* of each client */
    int64_t kod_interval_ns;  /* bucket of kisses-o'-death, per worker (bucket.h); 0: none is ever sent */
    int64_t kod_depth_ns;
    double cpu_limit;         /* share of a core that a worker may use; 1: no limit */
    uint8_t tell_denied;      /* struct srv_rules */
    uint8_t symmetric, smear; /* struct pkt_context */
    int dscp;                 /* struct srv_rules */
};

/* What the workers of one server share. The server changes rules, number and stopping, atomically, and wakes the workers. */
struct wrk_shared {
    const char *record_path;
    struct fld_hash_key hash_key;
    const struct wrk_rules *rules;
    uint32_t rules_number; /* of changes of the rules; it is stored after them */
    int stopping;
    int controls; /* srv_hand_over; it does not change while they run */
};

struct wrk; /* a worker */

/* A worker without sockets; table_bytes: for its clients. 0 or -errno. */
int wrk_create(const struct wrk_shared *shared, size_t table_bytes, struct wrk **out);
/* Close its sockets and free it. It does not run. */
void wrk_destroy(struct wrk *w);
/* Give it a socket, of that place in the server's list; at most SRV_SOCKETS_MAX. It does not run. */
void wrk_add_socket(struct wrk *w, int fd, int place);
/* Close its sockets of a place. It does not run. */
void wrk_drop_sockets(struct wrk *w, int place);
int wrk_socket_count(const struct wrk *w);
/* Its socket 0 .. wrk_socket_count - 1. */
int wrk_socket(const struct wrk *w, int i);
/* Start its thread, ntp-<number>, which runs until shared->stopping. 0 or -errno. */
int wrk_start(struct wrk *w, int number);
/* Let it look at what is shared, now. */
void wrk_wake(const struct wrk *w);
/* Wait for the end of its thread. */
void wrk_join(struct wrk *w);
/* The rules_number of the rules that it applies; older ones it no longer looks at. */
uint32_t wrk_rules_seen(const struct wrk *w);
/* Its counters. receive_buffer is 0 without a socket. */
void wrk_count(const struct wrk *w, struct srv_counts *out);
/* srv_control_reply for a packet that this worker, or another one with sockets of the same places, has handed over. */
int wrk_control_reply(const struct wrk *w, const uint8_t *where, const uint8_t *packet, size_t length);
/* Its clients, for cli_room and cli_copy. */
const struct cli *wrk_clients(const struct wrk *w);
#endif
