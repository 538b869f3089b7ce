#define _GNU_SOURCE /* be64toh */
#include "departure.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "clock.h"
#include "packet.h"
#include "units.h"

enum {
    AWAITED = 64,       /* replies */
    HEADERS = 128,      /* bytes; a stamp's packet begins with link, IP and UDP headers */
    RECEIVE_OFFSET = 32 /* of the receive timestamp in a reply (RFC 5905 figure 8) */
};
static const int64_t age_limit_ns = 10 * NS_PER_S; /* an older stamp is of a clock that was stepped */
static const int64_t pairing_good_ns = 500;        /* uncertainty of a reading that nothing interrupted */

/* What sending took lately for groups of one size, ns: moving averages over some 16 of them. */
struct pace {
    double compute; /* from the beginning to the send call, per group */
    double send;    /* of the send call, per reply */
};

struct dep {
    struct pace paces[DEP_GROUP_MAX + 1]; /* by requests in the group */
    struct dep_reply awaited[AWAITED];    /* a ring; receive = 0: nothing */
    unsigned next;
};

int dep_create(struct dep **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}

void dep_destroy(struct dep *d)
{
    free(d);
}

/* ---- foretelling ----------------------------------------------------------------------------------------------------------------- */

int64_t dep_foretell(const struct dep *d, const struct dep_group *group)
{
    const struct pace *pace = &d->paces[group->requests];
    return group->began_ns + (int64_t)(pace->compute + (group->replies + 0.5) * pace->send);
}

static void update_average(double *average, double value)
{
    if (value < 4 * *average + 4000)
        *average += (value - *average) / 16;
    else
        *average += 100; /* the thread was interrupted, or sending has become slower for good */
}

void dep_sent(struct dep *d, const struct dep_group *group, int64_t ready_ns, int64_t sent_ns)
{
    struct pace *pace = &d->paces[group->requests];
    update_average(&pace->compute, (double)(ready_ns - group->began_ns));
    update_average(&pace->send, (double)(sent_ns - ready_ns) / group->replies);
}

/* ---- the kernel's stamps ----------------------------------------------------------------------------------------------------------- */

void dep_await(struct dep *d, const struct dep_reply *reply)
{
    d->awaited[d->next++ % AWAITED] = *reply;
}

/* Stop awaiting the reply of this packet, and copy it to *reply. 0: it is not awaited. */
static int take_awaited(struct dep *d, const uint8_t *packet, size_t size, struct dep_reply *reply)
{
    for (int i = 0; i < AWAITED; i++) {
        struct dep_reply *r = &d->awaited[i];
        uint64_t receive;
        if (r->receive == 0 || size < r->length)
            continue;
        memcpy(&receive, packet + size - r->length + RECEIVE_OFFSET, sizeof receive);
        if (be64toh(receive) != r->receive)
            continue;
        *reply = *r;
        r->receive = 0;
        return 1;
    }
    return 0;
}

/* The kernel's stamp (CLOCK_REALTIME) in a message of the error queue; -1: none. */
static int64_t stamp_real_ns(struct msghdr *m)
{
    int64_t real_ns = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPING) {
            struct timespec ts;
            memcpy(&ts, CMSG_DATA(c), sizeof ts);
            real_ns = (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
        }
    return real_ns;
}

int dep_read(struct dep *d, int fd, struct dep_reply *reply, int64_t *raw_ns)
{
    for (;;) {
        uint8_t packet[HEADERS + PKT_REPLY_MAX];
        union {
            char bytes[256];
            struct cmsghdr align;
        } control;
        struct iovec vector = {packet, sizeof packet};
        struct msghdr m = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct clk_reading now;
        ssize_t size = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (size < 0)
            return 0;
        int64_t real_ns = stamp_real_ns(&m);
        clk_read(pairing_good_ns, &now);
        if (real_ns < 0 || now.real_ns - real_ns > age_limit_ns || now.real_ns < real_ns)
            continue;
        *raw_ns = now.raw_ns - (now.real_ns - real_ns);
        if (take_awaited(d, packet, (size_t)size, reply))
            return 1;
    }
}
