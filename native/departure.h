/* departure: when replies leave. One for each thread of the server.
 *
 * A reply carries its transmit timestamp, so its departure is foretold: from the instant at which its group was begun and from what sending
 * groups of that size took lately. In interleaved mode the next reply tells the departure of the previous one, so the kernel stamps that
 * departure and the stamp is read back. A stamp comes with the packet that was sent; its receive timestamp tells which reply it is.
 *
 * Instants are CLOCK_MONOTONIC_RAW, ns.
 */
#ifndef DEPARTURE_H
#define DEPARTURE_H
#include <stddef.h>
#include <stdint.h>

enum { DEP_GROUP_MAX = 8 /* requests in a group: enough to share the cost of a send call, few enough to foretell the departures */ };

struct dep; /* what sending took lately, and the replies whose stamps are awaited */

/* Replies that one send call takes. */
struct dep_group {
    int requests;     /* 1..DEP_GROUP_MAX; some get no reply */
    int replies;      /* made so far */
    int64_t began_ns; /* before the first reply was made */
};

/* A reply whose departure is to be stamped. */
struct dep_reply {
    uint64_t receive; /* its receive timestamp (NTP), not 0 */
    size_t place;     /* of its client; for the caller */
    size_t length;    /* bytes */
};

/* 0 or -ENOMEM. */
int dep_create(struct dep **out);
void dep_destroy(struct dep *d);
/* When the next reply of the group will leave. */
int64_t dep_foretell(const struct dep *d, const struct dep_group *group);
/* Learn from a group: its replies were ready at ready_ns, and the send call returned at sent_ns. */
void dep_sent(struct dep *d, const struct dep_group *group, int64_t ready_ns, int64_t sent_ns);
/* Await the stamp of a reply. The oldest of 64 is given up for it. */
void dep_await(struct dep *d, const struct dep_reply *reply);
/* Take one stamp from fd's error queue. 1: *reply left at *raw_ns; 0: there is no stamp left of a reply that is awaited. */
int dep_read(struct dep *d, int fd, struct dep_reply *reply, int64_t *raw_ns);
#endif
