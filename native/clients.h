/* clients: who asked, how often, and who asks too often. One table of fixed size per server thread.
 *
 * What one client is: acl_client_of. The table is sets of 16 clients, 68 bytes a client. A keyed SipHash-1-3 chooses a set,
 * so nobody outside can aim at one. In a full set a newcomer replaces the least recent client. Newcomers enter in the middle of the order,
 * and only a client that comes back moves to its front. So a million addresses that are heard once replace each other, not the clients
 * that come back. Only the table's own thread writes; any thread may copy a client meanwhile (each has a sequence number).
 *
 * The limiter is a token bucket for each client (bucket.h).
 */
#ifndef CLIENTS_H
#define CLIENTS_H
#include <stddef.h>
#include <stdint.h>

#include "access.h"

enum { CLI_KEY_BYTES = 16, CLI_BYTES = 68 /* of memory per client */ };
enum cli_flag {
    CLI_AUTHENTICATED = 1, /* the last request that was answered with time was authenticated */
    CLI_INTERLEAVED = 2,   /* and asked in interleaved mode */
    CLI_NTS = 4            /* and was authenticated by NTS, not by a MAC */
};

/* One client; 64 bytes. All times are on CLOCK_MONOTONIC_RAW. */
struct cli_client {
    uint64_t network;     /* struct acl_client */
    int64_t last_ns;      /* last request; 0: an empty place */
    int64_t full_ns;      /* its bucket (bucket.h) */
    uint64_t receive;     /* NTP timestamps of the last reply, for interleaved mode (RFC 9769); 0: none */
    uint64_t transmit;
    uint32_t packets;     /* requests, dropped ones included; stays at its maximum */
    uint32_t drops;       /* requests over the rate; stays at its maximum */
    uint32_t first_s;     /* first request */
    uint32_t interval_ms; /* between requests, averaged over some eight */
    uint32_t sequence;    /* even: at rest */
    uint8_t flags;        /* enum cli_flag */
    uint8_t version;      /* NTP version of the last request */
    uint8_t kind;         /* struct acl_client */
    uint8_t spare;
};

struct cli_limits {
    int64_t interval_ns; /* one request is earned each; 0: no limit */
    int64_t burst_ns;    /* depth of the bucket: this many ns' worth of requests may be saved up */
    uint32_t leak;       /* one excess request in `leak` is answered all the same; 0: none */
};

struct cli; /* a table */

/* A table of at most `bytes`, and at least one set. 0, -ENOMEM or -EINVAL. Memory is touched as clients come. */
int cli_create(size_t bytes, const uint8_t key[CLI_KEY_BYTES], struct cli **out);
void cli_destroy(struct cli *t);
/* How many clients there is room for. */
size_t cli_room(const struct cli *t);

/* The keyed hash of a client; fetches its set into the cache. */
uint64_t cli_hash(const struct cli *t, struct acl_client who);
/* Find or make the client `who`, and count this request. Its place is for cli_keep; *client is the caller's copy. */
size_t cli_meet(struct cli *t, struct acl_client who, uint64_t hash, int64_t raw_ns, struct cli_client *client);
/* Pay for one request: 1 within the limit or leaked; 0 over it, and then counted as a drop. */
int cli_pay(struct cli *t, const struct cli_limits *limits, int64_t raw_ns, struct cli_client *client);
/* Put the copy back. */
void cli_keep(struct cli *t, size_t place, const struct cli_client *client);

/* For any thread: copy the client at place 0 .. cli_room - 1. 1: copied; 0: the place is empty. */
int cli_copy(const struct cli *t, size_t place, struct cli_client *out);
#endif
