#define _GNU_SOURCE /* recvmmsg, in_pktinfo, pthread_setname_np */
#include "worker.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bucket.h"
#include "clock.h"
#include "departure.h"
#include "packet.h"
#include "record.h"
#include "socket.h"
#include "units.h"

enum {
    BATCH = 32,           /* requests per receive call */
    TURNS = 8,            /* batches of one socket before the others and wrk_shared are looked at */
    STACK = 256 * 1024,   /* bytes; mlockall locks them, so not the default 8 MiB */
    LINE = 64,            /* bytes of a cache line */
    DSCP = 0xfc,          /* in the traffic class (RFC 2474) */
    CONTROL_MIN = 12,     /* bytes of a control packet (RFC 9327 2) */
    MODE_CONTROL = 6,
    WATCHFUL_MS = 100     /* longest wait while the load is looked at without a request too, for it may have fallen */
};
static const int64_t age_limit_ns = 10 * NS_PER_S; /* no request waits that long in a receive buffer that is being served */
static const int64_t pairing_good_ns = 500;        /* uncertainty of a reading that nothing interrupted */
static const int64_t step_ns = NS_PER_MS;          /* a larger change of REALTIME - RAW is a step, beyond a slew of 1000 ppm */
static const int64_t record_ns = NS_PER_S;         /* between two looks for a new record file */
static const int64_t look_ns = 100 * NS_PER_MS;    /* between two looks at the load */
static const int64_t look_busy_ns = 5 * NS_PER_MS; /* the same while requests queue up; the buffer holds those of 50 ms and more */
/* Between two requests. To be told the traffic class of a request takes 0.1 us, 3 % of the whole (measured), so when they come faster it is
 * asked for only as long as some of them have one. */
static const int64_t class_pause_ns = NS_PER_MS / 10;
static const int64_t known_ns = NS_PER_S;          /* between two searches of the table for known clients */
static const uint32_t known_packets = 4;           /* a known client has sent at least so many requests, */
static const uint32_t known_age_s = 2;             /* the last of them that long after the first */
static const int64_t known_silence_ns = 3600 * NS_PER_S; /* and is not known any more after this without a request */

union control { /* both kinds of address come with IPv4 on a dual-stack socket; a reply has one, and two numbers */
    char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) +
               2 * CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

struct wrk {
    const struct wrk_shared *shared;
    int sockets[SRV_SOCKETS_MAX];
    int places[SRV_SOCKETS_MAX]; /* of srv_listen and srv_adopt, of each socket */
    int socket_count;
    int wake; /* eventfd: look at wrk_shared */
    pthread_t thread;
    uint32_t rules_seen; /* rules_number of the rules in use */
    struct rec *record;     /* NULL: there was none yet */
    int64_t record_raw_ns;  /* last look for it */
    struct clk_reading last; /* after the batch before */
    struct cli *clients;
    struct fld *flood;
    struct dep *departures;
    struct nts_nonces *nonces;
    size_t filter_length; /* of the filter on the sockets; 0: none */
    int64_t filter_ns;    /* since when; requests that came before did not meet it */
    int64_t looked_ns;    /* last look at the load */
    int64_t known_at_ns;  /* last search for known clients */
    int64_t kod_full_ns;  /* bucket of kisses-o'-death */
    int classes_told;     /* 1: the sockets tell traffic classes */
    int64_t received;     /* requests since the last look at the load, */
    int marked;           /* and whether one of them had a traffic class */
    int departures_stamped; /* 1: the sockets stamp departures. Not before an interleaved client comes, for it makes receiving dearer */
    int departures_awaited; /* 1: the batch in hand has replies whose stamps are awaited */
    struct srv_counts counts __attribute__((aligned(LINE)));
    /* the batch in hand */
    struct mmsghdr messages[BATCH] __attribute__((aligned(LINE)));
    struct iovec vectors[BATCH];
    struct sockaddr_in6 peers[BATCH]; /* the larger of the two families */
    union control controls[BATCH];
    /* the replies of the group in hand */
    struct dep_group group;
    struct mmsghdr out[DEP_GROUP_MAX];
    struct iovec out_vectors[DEP_GROUP_MAX];
    union control out_controls[DEP_GROUP_MAX];
    uint8_t replies[DEP_GROUP_MAX][PKT_REPLY_MAX];
    struct pkt_outcome outcomes[DEP_GROUP_MAX];
    struct sock_filter program[FLD_PROGRAM_MAX];
    uint8_t requests[BATCH][PKT_REQUEST_MAX];
};

/* ---- counters -------------------------------------------------------------------------------------------------------------------- */

/* A counter has one writer. Where the processor cannot load 64 bits at once (ARMv6: Raspberry Pi 1 and Zero), a reader reads until it has seen
 * the same twice; these machines have one core, so it sees half of a change only when it interrupts the writer. */
static void store_counter(uint64_t *counter, uint64_t value)
{
#if __GCC_ATOMIC_LLONG_LOCK_FREE == 2
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
#else
    *(volatile uint64_t *)counter = value;
#endif
}

static uint64_t load_counter(const uint64_t *counter)
{
#if __GCC_ATOMIC_LLONG_LOCK_FREE == 2
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
#else
    uint64_t before, after = *(const volatile uint64_t *)counter;
    do {
        before = after;
        sched_yield();
        after = *(const volatile uint64_t *)counter;
    } while (before != after);
    return after;
#endif
}

static void increment_counter(uint64_t *counter)
{
    store_counter(counter, *counter + 1);
}

static void count_outcome(struct wrk *w, const struct pkt_outcome *outcome)
{
    increment_counter(&w->counts.packets[outcome->action][outcome->reason]);
    if (outcome->authenticated) {
        increment_counter(&w->counts.authenticated);
        if (outcome->authenticated == PKT_NTS)
            increment_counter(&w->counts.nts);
    }
}

/* ---- the record ------------------------------------------------------------------------------------------------------------------ */

/* The record file may appear late, and may be replaced, so it is opened anew once a second. The old one is kept until the new one holds a
 * record. */
static void find_record(struct wrk *w, int64_t raw_ns)
{
    struct rec *found;
    struct rec_params any;
    if (raw_ns - w->record_raw_ns < record_ns)
        return;
    w->record_raw_ns = raw_ns;
    if (rec_open(w->shared->record_path, 0, &found) < 0)
        return;
    int empty = rec_read(found, &any) < 0;
    rec_close(empty ? found : w->record);
    if (!empty)
        w->record = found;
}

/* Copy the record in force to *out, which stays as it is, unsynchronised, while there is none. After a suspend it is unsynchronised from the
 * first batch on, for the clocks were read after that batch had come. */
static void copy_record(const struct wrk *w, const struct clk_reading *now, struct rec_params *out)
{
    if (w->record)
        rec_read_now(w->record, now->raw_ns, now->real_ns - now->mono_ns, out);
}

/* ---- a request's arrival --------------------------------------------------------------------------------------------------------- */

/* What the kernel says of one message. */
struct envelope {
    int64_t real_ns;       /* receive stamp, CLOCK_REALTIME; -1: none */
    struct in_pktinfo to4; /* the address asked */
    struct in6_pktinfo to6;
    int family; /* of the address asked; 0: not told, for the socket is bound to one */
    uint8_t traffic_class; /* DSCP and ECN (RFC 2474, RFC 3168) */
};

static void open_envelope(struct msghdr *m, struct envelope *e)
{
    e->real_ns = -1;
    e->family = 0;
    e->traffic_class = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec ts;
            memcpy(&ts, CMSG_DATA(c), sizeof ts);
            e->real_ns = (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&e->to4, CMSG_DATA(c), sizeof e->to4);
            e->family = AF_INET;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            if (e->family == AF_INET) /* of IPv4 the other one tells more */
                continue;
            memcpy(&e->to6, CMSG_DATA(c), sizeof e->to6);
            e->family = AF_INET6;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            e->traffic_class = *CMSG_DATA(c);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            int traffic_class;
            memcpy(&traffic_class, CMSG_DATA(c), sizeof traffic_class);
            e->traffic_class = (uint8_t)traffic_class;
        }
    }
}

/* 1: the request was sent to a broadcast or multicast address. Of those IPv4 says that the local address is another one (ip(7)). */
static int is_not_unicast(const struct envelope *e)
{
    if (e->family == AF_INET)
        return e->to4.ipi_addr.s_addr != e->to4.ipi_spec_dst.s_addr;
    return e->family == AF_INET6 && IN6_IS_ADDR_MULTICAST(&e->to6.ipi6_addr);
}

static struct acl_address address_of_peer(const struct sockaddr_in6 *peer)
{
    struct acl_address a = {0, 0};
    if (peer->sin6_family == AF_INET) {
        a.low = UINT64_C(0xffff) << 32 | ntohl(((const struct sockaddr_in *)peer)->sin_addr.s_addr);
        return a;
    }
    for (int i = 0; i < 8; i++) {
        a.high = a.high << 8 | peer->sin6_addr.s6_addr[i];
        a.low = a.low << 8 | peer->sin6_addr.s6_addr[i + 8];
    }
    return a;
}

/* A request of the batch in hand. */
struct request {
    struct envelope envelope;
    struct acl_address source;
    struct acl_client who;
    uint64_t hash; /* cli_hash */
};

/* The batch in hand: its requests, and what is the same for all of them. */
struct batch {
    int fd;
    const struct wrk_rules *rules;
    struct clk_reading now;     /* right after the receive call */
    int stepped;                /* 1: REALTIME was stepped since the last batch, so it is not known on which side a stamp lies */
    struct pkt_context context; /* of the request in hand */
    struct request requests[BATCH];
};

/* The arrival of a request, its kernel stamp carried over to RAW. */
static int64_t arrival_raw_ns(struct wrk *w, const struct batch *b, const struct envelope *e)
{
    int64_t age_ns = b->now.real_ns - e->real_ns;
    if (e->real_ns < 0) {
        increment_counter(&w->counts.unstamped);
        return b->now.raw_ns;
    }
    if (b->stepped || age_ns < 0 || age_ns > age_limit_ns) {
        increment_counter(&w->counts.stepped);
        return b->now.raw_ns;
    }
    return b->now.raw_ns - age_ns;
}

static int was_stepped(const struct clk_reading *before, const struct clk_reading *now)
{
    int64_t moved_ns = (now->real_ns - now->raw_ns) - (before->real_ns - before->raw_ns);
    return llabs(moved_ns) > step_ns + (now->raw_ns - before->raw_ns) / 1000;
}

/* ---- a reply's departure --------------------------------------------------------------------------------------------------------- */

/* Append a control message, for which union control has room. */
static void append_control(struct msghdr *m, int level, int type, const void *data, size_t size)
{
    struct cmsghdr *c = (struct cmsghdr *)((char *)m->msg_control + m->msg_controllen);
    memset(c, 0, CMSG_SPACE(size));
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    m->msg_controllen += CMSG_SPACE(size);
}

static int is_ipv4(const struct msghdr *m)
{
    const struct sockaddr_in6 *peer = m->msg_name;
    return peer->sin6_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
}

/* Let a reply leave from the address that was asked. */
static void append_origin(struct msghdr *m, struct envelope *e)
{
    if (e->family == AF_INET) {
        e->to4.ipi_ifindex = 0; /* routing chooses: the way back need not be the way in */
        append_control(m, IPPROTO_IP, IP_PKTINFO, &e->to4, sizeof e->to4);
    } else if (e->family == AF_INET6) {
        if (!IN6_IS_ADDR_LINKLOCAL(&e->to6.ipi6_addr))
            e->to6.ipi6_ifindex = 0;
        append_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &e->to6, sizeof e->to6);
    }
}

/* Address reply i of the group to the client, from the address that it asked. traffic_class: of the reply. stamped: ask for a stamp of its
 * departure. */
static void address_reply(struct wrk *w, int i, const struct msghdr *request, struct envelope *e, int traffic_class, int stamped)
{
    const uint32_t flags = SOF_TIMESTAMPING_TX_SOFTWARE;
    struct msghdr *m = &w->out[i].msg_hdr;
    m->msg_name = request->msg_name;
    m->msg_namelen = request->msg_namelen;
    m->msg_control = w->out_controls[i].bytes;
    m->msg_controllen = 0;
    append_origin(m, e);
    if (traffic_class && is_ipv4(m))
        append_control(m, IPPROTO_IP, IP_TOS, &traffic_class, sizeof traffic_class);
    else if (traffic_class)
        append_control(m, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
    if (stamped)
        append_control(m, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
    if (m->msg_controllen == 0)
        m->msg_control = NULL;
}

/* Send the group. A reply that the kernel does not take is counted as such, the others by their outcomes. */
static void send_group(struct wrk *w, int fd)
{
    int done = 0, all = w->group.replies;
    if (all == 0)
        return;
    int64_t ready_ns = clk_raw_ns();
    while (done < all) {
        int sent = sendmmsg(fd, w->out + done, (unsigned)(all - done), MSG_DONTWAIT | MSG_NOSIGNAL);
        for (int i = 0; i < sent; i++)
            count_outcome(w, &w->outcomes[done + i]);
        done += sent > 0 ? sent : 0;
        if (done < all && sent <= 0) { /* the kernel does not take this one; it may take the next */
            increment_counter(&w->counts.packets[PKT_DROP][PKT_SEND_FAILED]);
            done++;
        }
    }
    dep_sent(w->departures, &w->group, ready_ns, clk_raw_ns());
}

static void await_departure(struct wrk *w, const struct dep_reply *reply)
{
    for (int i = 0; !w->departures_stamped && i < w->socket_count; i++)
        (void)sok_stamps_departures(w->sockets[i]); /* a socket that cannot: its interleaved clients get the foretold departure */
    w->departures_stamped = w->departures_awaited = 1;
    dep_await(w->departures, reply);
}

/* Put the departures that the kernel has stamped into the table. The next reply to each of these clients tells its one (RFC 9769). */
static void take_departures(struct wrk *w, int fd, const struct rec_params *record, int smear)
{
    struct dep_reply reply;
    struct cli_client client;
    int64_t raw_ns;
    while (dep_read(w->departures, fd, &reply, &raw_ns)) {
        if (!cli_copy(w->clients, reply.place, &client) || client.receive != reply.receive)
            continue;
        client.transmit = pkt_timestamp(record, raw_ns, smear);
        cli_keep(w->clients, reply.place, &client);
        increment_counter(&w->counts.departures);
    }
}

/* ---- one request ----------------------------------------------------------------------------------------------------------------- */

/* Put into the context what the table knows of the client, and whether it is over its rate. Returns the client's place. */
static size_t meet_client(struct wrk *w, struct batch *b, const struct request *r, struct cli_client *client)
{
    const struct cli_limits *limits = &b->rules->limits;
    size_t place = cli_meet(w->clients, r->who, r->hash, b->now.raw_ns, client);
    b->context.receive = client->receive;
    b->context.transmit = client->transmit;
    b->context.over_rate = !cli_pay(w->clients, limits, b->now.raw_ns, client);
    if (b->context.over_rate && fld_excess(w->flood, fld_hash(&w->shared->hash_key, r->who), limits->leak) &&
        b->context.rx_raw_ns > w->filter_ns)
        b->context.over_rate = 0; /* the filter has let this one leak through already */
    return place;
}

/* Keep in the table what the next reply to this client needs. length: of this reply. */
static void keep_client(struct wrk *w, size_t place, struct cli_client *client, const uint8_t *request, size_t length)
{
    static const uint8_t proofs[] = {[PKT_NOTHING] = 0, [PKT_MAC] = CLI_AUTHENTICATED, [PKT_NTS] = CLI_AUTHENTICATED | CLI_NTS};
    const struct pkt_outcome *outcome = &w->outcomes[w->group.replies];
    if (outcome->reason != PKT_SHORT) /* a short request may be empty */
        client->version = request[0] >> 3 & 7;
    if (outcome->receive) {
        client->receive = outcome->receive;
        client->transmit = outcome->transmit;
        client->flags = (uint8_t)(proofs[outcome->authenticated] | (outcome->reason == PKT_INTERLEAVED ? CLI_INTERLEAVED : 0));
        if (outcome->reason == PKT_INTERLEAVED)
            await_departure(w, &(struct dep_reply){outcome->receive, place, length});
    }
    cli_keep(w->clients, place, client);
}

/* 1: a kiss-o'-death may be sent to that address now. */
static int may_kod(struct wrk *w, const struct batch *b, int access)
{
    const struct wrk_rules *rules = b->rules;
    if (rules->kod_interval_ns == 0 || !bkt_has(&w->kod_full_ns, rules->kod_interval_ns, rules->kod_depth_ns, b->now.raw_ns))
        return 0;
    return access == ACL_ALLOW || rules->tell_denied;
}

/* Where the reply to a control packet goes. */
struct way_back {
    struct sockaddr_in6 peer;
    socklen_t peer_length;
    int place;
    struct envelope envelope;
};
_Static_assert(sizeof(struct way_back) <= SRV_RETURN, "SRV_RETURN has no room for it");

static int is_loopback(struct acl_address source)
{
    return source.high == 0 && (source.low == 1 || source.low >> 24 == (UINT64_C(0xffff) << 8 | 127));
}

/* Hand control packet i of the batch over, when it comes from this machine and somebody takes it. Its outcome is then a reply. */
__attribute__((noinline, cold)) static void hand_over(struct wrk *w, const struct batch *b, int i, struct pkt_outcome *outcome)
{
    const struct request *r = &b->requests[i];
    const struct msghdr *m = &w->messages[i].msg_hdr;
    uint8_t where[SRV_RETURN] = {0};
    struct iovec parts[2] = {{where, sizeof where}, {w->requests[i], w->messages[i].msg_len}};
    const struct msghdr out = {.msg_iov = parts, .msg_iovlen = 2};
    struct way_back back;
    if (w->shared->controls < 0 || w->messages[i].msg_len < CONTROL_MIN || m->msg_flags & MSG_TRUNC || !is_loopback(r->source) ||
        b->context.access > ACL_AUTHENTICATED || b->context.source_port == 0)
        return;
    memset(&back, 0, sizeof back); /* the same for all packets of one socket */
    memcpy(&back.peer, &w->peers[i], m->msg_namelen < sizeof back.peer ? m->msg_namelen : sizeof back.peer);
    back.peer_length = m->msg_namelen;
    back.envelope.family = r->envelope.family;
    if (r->envelope.family == AF_INET)
        back.envelope.to4 = r->envelope.to4;
    else if (r->envelope.family == AF_INET6)
        back.envelope.to6 = r->envelope.to6;
    for (int n = 0; n < w->socket_count; n++)
        if (w->sockets[n] == b->fd)
            back.place = w->places[n];
    memcpy(where, &back, sizeof back);
    if (sendmsg(w->shared->controls, &out, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        *outcome = (struct pkt_outcome){.action = PKT_REPLY, .reason = PKT_MODE_CONTROL};
}

int wrk_control_reply(const struct wrk *w, const uint8_t *where, const uint8_t *packet, size_t length)
{
    struct way_back back;
    union control control;
    struct iovec part = {(void *)packet, length};
    memcpy(&back, where, sizeof back);
    struct msghdr m = {.msg_name = &back.peer, .msg_namelen = back.peer_length, .msg_iov = &part, .msg_iovlen = 1,
                       .msg_control = control.bytes};
    append_origin(&m, &back.envelope);
    if (m.msg_controllen == 0)
        m.msg_control = NULL;
    for (int i = 0; i < w->socket_count; i++)
        if (w->places[i] == back.place)
            return sendmsg(w->sockets[i], &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
    return -ENOENT;
}

/* Answer request i of the batch: its reply, if it gets one, is the next of the group. */
static void serve_request(struct wrk *w, struct batch *b, int i)
{
    struct request *r = &b->requests[i];
    struct msghdr *m = &w->messages[i].msg_hdr;
    struct pkt_outcome *outcome = &w->outcomes[w->group.replies];
    struct pkt_context *context = &b->context;
    struct cli_client client = {.last_ns = 0};
    size_t place = 0, length = w->messages[i].msg_len + (m->msg_flags & MSG_TRUNC ? 1 : 0); /* one that was cut is too long */
    context->tx_raw_ns = dep_foretell(w->departures, &w->group);
    context->source = r->source;
    context->source_port = ntohs(w->peers[i].sin6_port); /* at the same place in sockaddr_in */
    context->rx_raw_ns = arrival_raw_ns(w, b, &r->envelope);
    context->access = (uint8_t)acl_find(b->rules->ranges, b->rules->range_count, r->source);
    context->receive = context->over_rate = 0;
    context->not_unicast = (uint8_t)is_not_unicast(&r->envelope);
    context->may_kod = (uint8_t)may_kod(w, b, context->access);
    if (context->access <= ACL_AUTHENTICATED && !context->not_unicast)
        place = meet_client(w, b, r, &client);
    length = pkt_respond(context, w->requests[i], length, w->replies[w->group.replies], outcome);
    if (client.last_ns)
        keep_client(w, place, &client, w->requests[i], length);
    if (length == 0) {
        if ((w->requests[i][0] & 7) == MODE_CONTROL)
            hand_over(w, b, i, outcome);
        count_outcome(w, outcome);
        return;
    }
    if (outcome->action == PKT_KOD && outcome->reason != PKT_NTS_NAK) /* without a NAK the client would ask in vain */
        bkt_take(&w->kod_full_ns, b->rules->kod_interval_ns, b->now.raw_ns);
    int traffic_class = (b->rules->dscp < 0 ? r->envelope.traffic_class : b->rules->dscp << 2) & DSCP;
    address_reply(w, w->group.replies, m, &r->envelope, traffic_class, outcome->reason == PKT_INTERLEAVED);
    w->out_vectors[w->group.replies++].iov_len = length;
}

/* ---- a batch of requests --------------------------------------------------------------------------------------------------------- */

/* Answer requests first .. last - 1 of the batch; their replies leave together. */
static void serve_group(struct wrk *w, struct batch *b, int first, int last)
{
    w->group = (struct dep_group){.requests = last - first, .replies = 0, .began_ns = clk_raw_ns()};
    for (int i = first; i < last; i++)
        serve_request(w, b, i);
    send_group(w, b->fd);
}

/* Receive the requests that wait at fd, and answer them. 1: there may be more. */
static int serve_batch(struct wrk *w, int fd, const struct wrk_rules *rules)
{
    struct batch b;
    for (int i = 0; i < BATCH; i++) {
        w->messages[i].msg_hdr.msg_namelen = sizeof w->peers[i];
        w->messages[i].msg_hdr.msg_controllen = sizeof w->controls[i].bytes;
    }
    int n = recvmmsg(fd, w->messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            increment_counter(&w->counts.receive_errors);
        return 0;
    }
    clk_read(pairing_good_ns, &b.now);
    w->received += n;
    b.fd = fd;
    b.rules = rules;
    b.stepped = was_stepped(&w->last, &b.now);
    b.context = (struct pkt_context){.keys = rules->keys, .nts = rules->nts, .nonces = w->nonces, .symmetric = rules->symmetric,
                                     .smear = rules->smear, .system_ahead_ns = b.now.real_ns - b.now.raw_ns};
    w->last = b.now;
    find_record(w, b.now.raw_ns);
    copy_record(w, &b.now, &b.context.record);
    for (int i = 0; i < n; i++) {
        open_envelope(&w->messages[i].msg_hdr, &b.requests[i].envelope);
        w->marked |= b.requests[i].envelope.traffic_class;
        b.requests[i].source = address_of_peer(&w->peers[i]);
        b.requests[i].who = acl_client_of(b.requests[i].source);
        b.requests[i].hash = cli_hash(w->clients, b.requests[i].who); /* its set comes into the cache meanwhile */
    }
    w->departures_awaited = 0;
    for (int i = 0; i < n; i += DEP_GROUP_MAX)
        serve_group(w, &b, i, i + DEP_GROUP_MAX < n ? i + DEP_GROUP_MAX : n);
    if (w->departures_awaited)
        take_departures(w, fd, &b.context.record, rules->smear);
    return n == BATCH;
}

/* ---- load ------------------------------------------------------------------------------------------------------------------------ */

/* Tell the filter the clients that came back several times, within their rate, and lately. */
static void find_known(struct wrk *w, int64_t raw_ns)
{
    struct cli_client c;
    fld_forget(w->flood);
    for (size_t i = 0; i < cli_room(w->clients); i++) {
        if (!cli_copy(w->clients, i, &c) || c.packets < known_packets || c.drops > c.packets / 4)
            continue;
        if (c.last_ns / NS_PER_S - c.first_s < known_age_s || raw_ns - c.last_ns > known_silence_ns)
            continue;
        fld_know(w->flood, (struct acl_client){c.network, c.kind});
    }
}

/* Put the program of that length on all sockets; 0: take the filter off. 0 or -errno. */
static int attach_filter(struct wrk *w, size_t length)
{
    int r = 0;
    for (int i = 0; r == 0 && i < w->socket_count; i++) {
        r = sok_filter(w->sockets[i], w->program, length);
        if (r == -ENOMEM) { /* no room for the old and the new one at once (net.core.optmem_max) */
            (void)sok_filter(w->sockets[i], NULL, 0);
            r = sok_filter(w->sockets[i], w->program, length);
        }
    }
    return r;
}

static void renew_filter(struct wrk *w, const struct wrk_rules *rules, int64_t raw_ns)
{
    if (fld_thinning(w->flood) && raw_ns - w->known_at_ns > known_ns) {
        find_known(w, raw_ns);
        w->known_at_ns = raw_ns;
    }
    size_t length = fld_filter(w->flood, rules->limits.leak, w->program);
    if (length || w->filter_length) {
        int r = attach_filter(w, length);
        while (r == -ENOMEM && fld_fewer(w->flood)) {
            length = fld_filter(w->flood, rules->limits.leak, w->program);
            r = attach_filter(w, length);
        }
        w->filter_ns = r < 0 ? INT64_MAX : clk_raw_ns(); /* without a filter the limiter alone goes on */
    }
    w->filter_length = length;
    increment_counter(&w->counts.filters);
}

/* Let the sockets tell traffic classes when replies are to have that of the request, and it is cheap or in use. */
static void choose_classes(struct wrk *w, const struct wrk_rules *rules, int64_t raw_ns)
{
    int few = w->received <= (raw_ns - w->looked_ns) / class_pause_ns, wanted = rules->dscp < 0 && (few || w->marked);
    for (int i = 0; wanted != w->classes_told && i < w->socket_count; i++)
        sok_tell_class(w->sockets[i], wanted);
    w->classes_told = wanted;
    w->received = w->marked = 0;
}

static void look_at_load(struct wrk *w, const struct wrk_rules *rules, int64_t raw_ns)
{
    struct sok_load fullest = {0, 1, 0}, load;
    struct timespec used = {0, 0};
    choose_classes(w, rules, raw_ns);
    w->looked_ns = raw_ns;
    for (int i = 0; i < w->socket_count; i++)
        if (sok_load(w->sockets[i], &load) == 0 && load.queue * fullest.room > fullest.queue * load.room)
            fullest = load;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    const struct fld_load told = {fullest.queue, fullest.room, (int64_t)used.tv_sec * NS_PER_S + used.tv_nsec};
    if (fld_turn(w->flood, raw_ns, &told, rules->cpu_limit))
        renew_filter(w, rules, raw_ns);
    store_counter(&w->counts.blocked, fld_blocked(w->flood));
    store_counter(&w->counts.let_through, (uint64_t)lrint(fld_share(w->flood) * 1000));
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------------- */

static void *serve_until_stopped(void *argument)
{
    struct wrk *w = argument;
    const struct wrk_shared *shared = w->shared;
    struct pollfd polled[SRV_SOCKETS_MAX + 1] = {{.fd = w->wake, .events = POLLIN}};
    for (int i = 0; i < w->socket_count; i++)
        polled[i + 1] = (struct pollfd){.fd = w->sockets[i], .events = POLLIN};
    clk_read(0, &w->last);
    for (;;) {
        uint64_t woken;
        uint32_t number = __atomic_load_n(&shared->rules_number, __ATOMIC_ACQUIRE);
        const struct wrk_rules *rules = __atomic_load_n(&shared->rules, __ATOMIC_ACQUIRE);
        int busy = 0;
        __atomic_store_n(&w->rules_seen, number, __ATOMIC_RELEASE);
        int watchful = w->filter_length || (rules->dscp < 0 && !w->classes_told);
        if (poll(polled, (nfds_t)w->socket_count + 1, watchful ? WATCHFUL_MS : -1) < 0)
            continue;
        if (polled[0].revents) {
            if (__atomic_load_n(&shared->stopping, __ATOMIC_ACQUIRE))
                return NULL;
            (void)!read(w->wake, &woken, sizeof woken);
            continue;
        }
        for (int i = 0; i < w->socket_count; i++) {
            if (polled[i + 1].revents & POLLERR) { /* stamps of departures that came late */
                struct rec_params record = {.stratum = 0};
                copy_record(w, &w->last, &record);
                take_departures(w, w->sockets[i], &record, rules->smear);
            }
            int more = polled[i + 1].revents & POLLIN ? TURNS : 0;
            for (; more > 0 && serve_batch(w, w->sockets[i], rules); more--)
                busy = 1;
        }
        int64_t raw_ns = watchful ? clk_raw_ns() : w->last.raw_ns;
        if (raw_ns - w->looked_ns >= (busy ? look_busy_ns : look_ns))
            look_at_load(w, rules, raw_ns);
    }
}

/* ---- its life -------------------------------------------------------------------------------------------------------------------- */

static void point_messages(struct wrk *w)
{
    for (int i = 0; i < BATCH; i++) {
        w->vectors[i] = (struct iovec){w->requests[i], sizeof w->requests[i]};
        w->messages[i].msg_hdr = (struct msghdr){.msg_name = &w->peers[i], .msg_iov = &w->vectors[i], .msg_iovlen = 1,
                                                .msg_control = w->controls[i].bytes};
    }
    for (int i = 0; i < DEP_GROUP_MAX; i++) {
        w->out_vectors[i].iov_base = w->replies[i];
        w->out[i].msg_hdr = (struct msghdr){.msg_iov = &w->out_vectors[i], .msg_iovlen = 1};
    }
}

int wrk_create(const struct wrk_shared *shared, size_t table_bytes, struct wrk **out)
{
    uint8_t key[CLI_KEY_BYTES], seed[NTS_SEED];
    struct wrk *w = aligned_alloc(LINE, sizeof *w);
    *out = NULL;
    if (!w)
        return -ENOMEM;
    memset(w, 0, sizeof *w);
    w->shared = shared;
    w->record_raw_ns = INT64_MIN / 2; /* look for it at the first packet */
    w->classes_told = 1;
    store_counter(&w->counts.let_through, 1000);
    point_messages(w);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = w->wake < 0 || getrandom(key, sizeof key, 0) != sizeof key || getrandom(seed, sizeof seed, 0) != sizeof seed ? -errno : 0;
    if (r == 0)
        r = cli_create(table_bytes, key, &w->clients);
    if (r == 0)
        r = fld_create(&shared->hash_key, &w->flood);
    if (r == 0)
        r = dep_create(&w->departures);
    if (r == 0)
        r = nts_nonces_create(seed, &w->nonces);
    if (r < 0)
        wrk_destroy(w);
    else
        *out = w;
    return r;
}

void wrk_destroy(struct wrk *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->socket_count; i++)
        close(w->sockets[i]);
    if (w->wake >= 0)
        close(w->wake);
    rec_close(w->record);
    cli_destroy(w->clients);
    fld_destroy(w->flood);
    dep_destroy(w->departures);
    nts_nonces_destroy(w->nonces);
    free(w);
}

void wrk_add_socket(struct wrk *w, int fd, int place)
{
    if (w->filter_length)
        (void)sok_filter(fd, w->program, w->filter_length); /* without it: until the filter is renewed */
    sok_tell_class(fd, w->classes_told);
    w->departures_stamped = 0; /* not on this one */
    w->places[w->socket_count] = place;
    w->sockets[w->socket_count++] = fd;
}

void wrk_drop_sockets(struct wrk *w, int place)
{
    struct sok_load load;
    int kept = 0;
    for (int i = 0; i < w->socket_count; i++) {
        if (w->places[i] == place) {
            if (sok_load(w->sockets[i], &load) == 0)
                store_counter(&w->counts.kernel_drops, w->counts.kernel_drops + load.drops);
            close(w->sockets[i]);
            continue;
        }
        w->places[kept] = w->places[i];
        w->sockets[kept++] = w->sockets[i];
    }
    w->socket_count = kept;
}

int wrk_socket_count(const struct wrk *w)
{
    return w->socket_count;
}

int wrk_socket(const struct wrk *w, int i)
{
    return w->sockets[i];
}

int wrk_start(struct wrk *w, int number)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    uint64_t woken;
    char name[16];
    (void)!read(w->wake, &woken, sizeof woken); /* of an earlier stop */
    int r = pthread_attr_init(&attributes);
    if (r)
        return -r;
    r = pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&all); /* signals are for the threads of the program around us, */
    sigdelset(&all, SIGSYS); /* but for a thread's own refused system call (native/sandbox.h) */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r == 0)
        r = pthread_create(&w->thread, &attributes, serve_until_stopped, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r)
        return -r;
    snprintf(name, sizeof name, "ntp-%d", number);
    pthread_setname_np(w->thread, name);
    return 0;
}

void wrk_wake(const struct wrk *w)
{
    const uint64_t one = 1;
    (void)!write(w->wake, &one, sizeof one);
}

void wrk_join(struct wrk *w)
{
    pthread_join(w->thread, NULL);
}

/* ---- for the server -------------------------------------------------------------------------------------------------------------- */

uint32_t wrk_rules_seen(const struct wrk *w)
{
    return __atomic_load_n(&w->rules_seen, __ATOMIC_ACQUIRE);
}

void wrk_count(const struct wrk *w, struct srv_counts *out)
{
    const uint64_t *counts = (const uint64_t *)&w->counts;
    uint64_t *copies = (uint64_t *)out;
    struct sok_load load;
    for (size_t i = 0; i < sizeof *out / sizeof *copies; i++)
        copies[i] = load_counter(&counts[i]);
    for (int i = 0; i < w->socket_count; i++)
        if (sok_load(w->sockets[i], &load) == 0) {
            out->kernel_drops += load.drops;
            out->receive_buffer = out->receive_buffer == 0 || load.room < out->receive_buffer ? load.room : out->receive_buffer;
        }
}

const struct cli *wrk_clients(const struct wrk *w)
{
    return w->clients;
}
