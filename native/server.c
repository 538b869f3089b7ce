#define _GNU_SOURCE /* recvmmsg, in_pktinfo, pthread_setname_np */
#include "server.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
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
#include "flood.h"
#include "socket.h"
#include "units.h"

enum {
    BATCH = 32,         /* requests per receive call */
    GROUP = 8,          /* replies per send call: enough to share its cost, few enough that the departures can be foretold */
    TURNS = 8,          /* batches of one socket before the others and srv_stop are looked at */
    STACK = 256 * 1024, /* locked in memory by mlockall, so not the default 8 MiB */
    LINE = 64,          /* cache line */
    PENDING = 64,       /* replies whose departure stamp is awaited */
    FILTER_PAUSE_MS = 100
};
static const int64_t age_limit_ns = 10 * NS_PER_S;   /* no request waits that long in a receive buffer that is being served */
static const int64_t pairing_good_ns = 500;             /* a reading with more was interrupted; try again */
static const int64_t step_ns = NS_PER_MS;                 /* REALTIME against RAW: at most 1000 ppm of slew and this is no step */
static const int64_t look_ns = 100 * NS_PER_MS;         /* between looks at the load */
static const int64_t look_busy_ns = 5 * NS_PER_MS;      /* the same while requests queue up; the buffer holds 50 ms of them and more */
static const int64_t known_ns = NS_PER_S;             /* between searches of the table for clients that ask decently */
static const int64_t forever_ns = 1000000000000000000LL; /* longest interval of a rate; 31 years, and sums of it fit */
static const uint32_t known_packets = 4, known_age_s = 2;

/* What sending took lately for groups of one size, ns: moving averages over some 16 of them. */
struct pace {
    double compute; /* from the clock reading to the send call, per group */
    double send;    /* of the send call, per reply */
};

struct pending {
    uint64_t receive;
    size_t place, length;
};

struct rules {
    struct srv_rules own;
    struct acl_range *ranges;
    struct cli_limits limits;
    int64_t kod_interval_ns; /* bucket of kisses-o'-death, per thread; 0: none is ever sent */
    int64_t kod_depth_ns;    /* those of a second, at least one */
};

struct worker {
    struct srv *server;
    int sockets[SRV_SOCKETS_MAX];
    int socket_count;
    int wake; /* eventfd: stop, or look at the rules */
    pthread_t thread;
    uint64_t rules_seen; /* the number of the newest rules that this thread has turned to */
    struct rec *record;
    int64_t record_raw_ns; /* when it was looked for */
    struct clk_reading last;
    struct cli *clients;
    struct fld *flood;
    int filtered; /* a filter is on the sockets */
    int64_t filter_ns; /* since when; what came before has not met it */
    int64_t looked_ns, known_at_ns, kod_full_ns;
    struct pace paces[GROUP + 1]; /* by requests in the group */
    struct pending pending[PENDING]; /* a ring */
    unsigned pending_at;
    int departures; /* asked for: not before an interleaved client comes, for it makes receiving dearer */
    struct srv_counts counts __attribute__((aligned(LINE)));
    struct mmsghdr messages[BATCH] __attribute__((aligned(LINE)));
    struct iovec vectors[BATCH];
    struct sockaddr_in6 peers[BATCH]; /* the larger of the two families */
    union control {
        char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct timespec)) + 64];
        struct cmsghdr align;
    } controls[BATCH];
    /* replies of a group */
    struct mmsghdr out[GROUP];
    struct iovec out_vectors[GROUP];
    union control out_controls[GROUP];
    uint8_t replies[GROUP][PKT_REPLY_MAX];
    struct pkt_outcome outcomes[GROUP];
    int out_count;
    struct sock_filter program[FLD_PROGRAM_MAX];
    uint8_t requests[BATCH][PKT_REQUEST_MAX];
};

struct srv {
    char *record_path;
    char *interface;
    struct worker *workers;
    int threads;
    int running;   /* threads started */
    int listeners; /* sockets that srv_bound tells of */
    int adopted;
    int stopping;
    struct rules *rules;
    uint64_t rules_number;
    struct fld_hash_key hash_key;
    struct {
        char host[SRV_HOST_MAX];
        uint16_t port;
    } bound[SRV_SOCKETS_MAX];
};

/* ---- serving ---------------------------------------------------------------------------------------------------------------- */

static void set(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED); /* one writer */
}

static void bump(uint64_t *counter)
{
    set(counter, *counter + 1);
}

static void count(struct worker *w, const struct pkt_outcome *outcome)
{
    bump(&w->counts.packets[outcome->action][outcome->reason]);
}

/* The record file may appear late or be replaced, so it is opened anew once a second; until a new one holds a record the old one lasts. */
static void find_record(struct worker *w, int64_t raw_ns)
{
    struct rec *found;
    struct rec_params any;
    if (raw_ns - w->record_raw_ns < NS_PER_S)
        return;
    w->record_raw_ns = raw_ns;
    if (rec_open(w->server->record_path, 0, &found) < 0)
        return;
    int empty = rec_read(found, &any) < 0;
    rec_close(empty ? found : w->record);
    if (!empty)
        w->record = found;
}

/* What the kernel said of one message. */
struct envelope {
    int64_t real_ns;       /* receive stamp, -1 = none */
    struct in_pktinfo to4; /* the address asked */
    struct in6_pktinfo to6;
    int family; /* of the address asked; 0: not told, the socket is bound to one */
};

static void open_envelope(struct msghdr *m, struct envelope *e)
{
    e->real_ns = -1;
    e->family = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec ts;
            memcpy(&ts, CMSG_DATA(c), sizeof ts);
            e->real_ns = (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&e->to4, CMSG_DATA(c), sizeof e->to4);
            e->family = AF_INET;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(&e->to6, CMSG_DATA(c), sizeof e->to6);
            e->family = AF_INET6;
        }
    }
}

static struct acl_address source_of(const struct sockaddr_in6 *peer)
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

/* Kernel stamp to RAW. `stepped`: REALTIME was stepped since the last batch, so it cannot be told on which side the stamp lies. */
static int64_t arrival(struct worker *w, const struct envelope *e, const struct clk_reading *now, int stepped)
{
    int64_t age = now->real_ns - e->real_ns;
    if (e->real_ns < 0) {
        bump(&w->counts.unstamped);
        return now->raw_ns;
    }
    if (stepped || age < 0 || age > age_limit_ns) {
        bump(&w->counts.stepped);
        return now->raw_ns;
    }
    return now->raw_ns - age;
}

static int was_stepped(const struct clk_reading *before, const struct clk_reading *now)
{
    int64_t moved = (now->real_ns - now->raw_ns) - (before->real_ns - before->raw_ns);
    return llabs(moved) > step_ns + (now->raw_ns - before->raw_ns) / 1000;
}

/* ---- departures ------------------------------------------------------------------------------------------------------------------ */

/* Append a control message that fits (see union control). */
static void add_control(struct msghdr *m, int level, int type, const void *data, size_t size)
{
    struct cmsghdr *c = (struct cmsghdr *)((char *)m->msg_control + m->msg_controllen);
    memset(c, 0, CMSG_SPACE(size));
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    m->msg_controllen += CMSG_SPACE(size);
}

/* Address reply number i: to the one who asked, from the address that was asked, with its departure stamped if that is wanted. */
static void address_reply(struct worker *w, int i, const struct msghdr *request, struct envelope *e, int stamped)
{
    const uint32_t flags = SOF_TIMESTAMPING_TX_SOFTWARE;
    struct msghdr *m = &w->out[i].msg_hdr;
    m->msg_name = request->msg_name;
    m->msg_namelen = request->msg_namelen;
    m->msg_control = w->out_controls[i].bytes;
    m->msg_controllen = 0;
    if (e->family == AF_INET) {
        e->to4.ipi_ifindex = 0; /* routing chooses: the way back need not be the way in */
        add_control(m, IPPROTO_IP, IP_PKTINFO, &e->to4, sizeof e->to4);
    } else if (e->family == AF_INET6) {
        if (!IN6_IS_ADDR_LINKLOCAL(&e->to6.ipi6_addr))
            e->to6.ipi6_ifindex = 0;
        add_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &e->to6, sizeof e->to6);
    }
    if (stamped)
        add_control(m, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
    if (m->msg_controllen == 0)
        m->msg_control = NULL;
}

static void learn(double *average, double value)
{
    if (value < 4 * *average + 4000) /* more: we were interrupted */
        *average += (value - *average) / 16;
    else
        *average += 100; /* or it has become slower for good */
}

/* Send the group; each reply that the kernel does not take is counted as such, the others as what they are. began: when it was begun. */
static void send_group(struct worker *w, int fd, struct pace *pace, int64_t began_ns)
{
    int done = 0, all = w->out_count;
    if (all == 0)
        return;
    int64_t ready_ns = clk_raw_ns();
    while (done < all) {
        int sent = sendmmsg(fd, w->out + done, (unsigned)(all - done), MSG_DONTWAIT | MSG_NOSIGNAL);
        for (int i = 0; i < sent; i++)
            count(w, &w->outcomes[done + i]);
        done += sent > 0 ? sent : 0;
        if (done < all && sent <= 0) /* this one will not go; the next may */
            bump(&w->counts.packets[PKT_DROP][PKT_SEND_FAILED]), done++;
    }
    w->out_count = 0;
    learn(&pace->compute, (double)(ready_ns - began_ns));
    learn(&pace->send, (double)(clk_raw_ns() - ready_ns) / all);
}

static void await_departure(struct worker *w, struct pending reply)
{
    for (int i = 0; !w->departures && i < w->socket_count; i++)
        (void)sok_stamps_departures(w->sockets[i]); /* where it cannot be, interleaved clients get the foretold departure */
    w->departures = 1;
    w->pending[w->pending_at++ % PENDING] = reply;
}

/* The departures that the kernel stamped, into the table: the next reply to that client tells it (RFC 9769). A stamp comes with the packet
 * sent, headers in front; which one it is tells its receive timestamp. */
static void read_departures(struct worker *w, int fd, const struct rec_params *record, int smear)
{
    for (;;) {
        uint8_t packet[PKT_REPLY_MAX + 128];
        union control control;
        struct iovec vector = {packet, sizeof packet};
        struct msghdr m = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct clk_reading now;
        ssize_t n = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
        int64_t real_ns = -1;
        if (n < 0)
            return;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPING) {
                struct timespec ts;
                memcpy(&ts, CMSG_DATA(c), sizeof ts);
                real_ns = (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
            }
        clk_read(pairing_good_ns, &now);
        if (real_ns < 0 || now.real_ns - real_ns > age_limit_ns || now.real_ns < real_ns)
            continue;
        for (int i = 0; i < PENDING; i++) {
            struct pending *p = &w->pending[i];
            struct cli_client client;
            uint64_t receive;
            if (p->receive == 0 || (size_t)n < p->length)
                continue;
            memcpy(&receive, packet + (size_t)n - p->length + 32, sizeof receive); /* RFC 5905 figure 8 */
            if (be64toh(receive) != p->receive)
                continue;
            if (cli_copy(w->clients, p->place, &client) && client.receive == p->receive) {
                client.transmit = pkt_timestamp(record, now.raw_ns - (now.real_ns - real_ns), smear);
                cli_keep(w->clients, p->place, &client);
                bump(&w->counts.departures);
            }
            p->receive = 0;
            break;
        }
    }
}

/* ---- one request ----------------------------------------------------------------------------------------------------------------- */

/* A request on its way through. */
struct request {
    struct envelope envelope;
    struct acl_address source;
    struct acl_client who;
    uint64_t hash;
};

/* What the table knows and the limiter says of the client, into the context. */
static size_t meet_client(struct worker *w, const struct rules *rules, const struct request *r, int64_t raw_ns, struct pkt_context *context,
                          struct cli_client *client)
{
    size_t place = cli_meet(w->clients, r->who, r->hash, raw_ns, client);
    context->receive = client->receive;
    context->transmit = client->transmit;
    context->over_rate = !cli_pay(w->clients, &rules->limits, raw_ns, client);
    if (context->over_rate && fld_excess(w->flood, fld_hash(&w->server->hash_key, r->who), rules->limits.leak) &&
        context->rx_raw_ns > w->filter_ns)
        context->over_rate = 0; /* the kernel has thrown the dice for this one already */
    return place;
}

static void remember(struct worker *w, size_t place, struct cli_client *client, const uint8_t *request, const struct pkt_outcome *outcome,
                     size_t length)
{
    if (outcome->reason != PKT_SHORT) /* perhaps empty */
        client->version = request[0] >> 3 & 7;
    if (outcome->receive) {
        client->receive = outcome->receive;
        client->transmit = outcome->transmit;
        client->flags &= (uint8_t)~(CLI_MAC | CLI_INTERLEAVED);
        client->flags |= (uint8_t)((outcome->authenticated ? CLI_MAC : 0) | (outcome->reason == PKT_INTERLEAVED ? CLI_INTERLEAVED : 0));
        if (outcome->reason == PKT_INTERLEAVED)
            await_departure(w, (struct pending){outcome->receive, place, length});
    }
    cli_keep(w->clients, place, client);
}

static int may_kod(struct worker *w, const struct rules *rules, int64_t raw_ns)
{
    return rules->kod_interval_ns && bkt_has(&w->kod_full_ns, rules->kod_interval_ns, rules->kod_depth_ns, raw_ns);
}

static void serve_one(struct worker *w, const struct rules *rules, int i, struct request *r, struct pkt_context *context,
                      const struct clk_reading *now, int stepped)
{
    struct msghdr *m = &w->messages[i].msg_hdr;
    struct pkt_outcome *outcome = &w->outcomes[w->out_count];
    struct cli_client client = {.last_ns = 0};
    size_t place = 0, length = w->messages[i].msg_len + (m->msg_flags & MSG_TRUNC ? 1 : 0); /* a cut one is longer than we look at */
    context->source = r->source;
    context->source_port = ntohs(w->peers[i].sin6_port); /* the same place in sockaddr_in */
    context->rx_raw_ns = arrival(w, &r->envelope, now, stepped);
    context->access = (uint8_t)acl_find(rules->ranges, rules->own.range_count, r->source);
    context->receive = context->over_rate = 0;
    context->may_kod = (uint8_t)may_kod(w, rules, now->raw_ns);
    if (context->access != ACL_ALLOW)
        context->may_kod &= rules->own.tell_denied;
    if (context->access <= ACL_AUTHENTICATED)
        place = meet_client(w, rules, r, now->raw_ns, context, &client);
    length = pkt_respond(context, w->requests[i], length, w->replies[w->out_count], outcome);
    if (client.last_ns)
        remember(w, place, &client, w->requests[i], outcome, length);
    if (length == 0) {
        count(w, outcome);
        return;
    }
    if (outcome->action == PKT_KOD)
        bkt_take(&w->kod_full_ns, rules->kod_interval_ns, now->raw_ns);
    address_reply(w, w->out_count, m, &r->envelope, outcome->reason == PKT_INTERLEAVED);
    w->out_vectors[w->out_count++].iov_len = length;
}

/* Requests first .. last - 1 of the batch, their replies leaving together. */
static void serve_group(struct worker *w, int fd, const struct rules *rules, int first, int last, struct request *requests,
                        struct pkt_context *context, const struct clk_reading *now, int stepped)
{
    struct pace *pace = &w->paces[last - first];
    int64_t began_ns = clk_raw_ns();
    for (int i = first; i < last; i++) {
        context->tx_raw_ns = began_ns + (int64_t)(pace->compute + (w->out_count + 0.5) * pace->send);
        serve_one(w, rules, i, &requests[i], context, now, stepped);
    }
    send_group(w, fd, pace, began_ns);
}

/* 1: there may be more. */
static int serve_batch(struct worker *w, int fd, const struct rules *rules)
{
    struct pkt_context context = {.record = {.stratum = 0}, .keys = rules->own.keys, .symmetric = rules->own.symmetric, .smear = rules->own.smear};
    struct request requests[BATCH];
    struct clk_reading now;
    for (int i = 0; i < BATCH; i++) {
        w->messages[i].msg_hdr.msg_namelen = sizeof w->peers[i];
        w->messages[i].msg_hdr.msg_controllen = sizeof w->controls[i].bytes;
    }
    int n = recvmmsg(fd, w->messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            bump(&w->counts.receive_errors);
        return 0;
    }
    clk_read(pairing_good_ns, &now);
    int stepped = was_stepped(&w->last, &now);
    w->last = now;
    find_record(w, now.raw_ns);
    if (w->record)
        rec_read(w->record, &context.record); /* before the first publication: stays unsynchronised */
    for (int i = 0; i < n; i++) {
        open_envelope(&w->messages[i].msg_hdr, &requests[i].envelope);
        requests[i].source = source_of(&w->peers[i]);
        requests[i].who = acl_client_of(requests[i].source);
        requests[i].hash = cli_hash(w->clients, requests[i].who); /* and its set is on its way into the cache */
    }
    unsigned awaited = w->pending_at;
    for (int i = 0; i < n; i += GROUP)
        serve_group(w, fd, rules, i, i + GROUP < n ? i + GROUP : n, requests, &context, &now, stepped);
    if (w->pending_at != awaited)
        read_departures(w, fd, &context.record, rules->own.smear);
    return n == BATCH;
}

/* ---- load ------------------------------------------------------------------------------------------------------------------------ */

/* Who came back several times, at a decent rate, and lately. */
static void find_known(struct worker *w, int64_t raw_ns)
{
    struct cli_client c;
    fld_forget(w->flood);
    for (size_t i = 0; i < cli_room(w->clients); i++) {
        if (!cli_copy(w->clients, i, &c) || c.packets < known_packets || c.drops > c.packets / 4)
            continue;
        if (c.last_ns / NS_PER_S - c.first_s < known_age_s || raw_ns - c.last_ns > 3600 * NS_PER_S)
            continue;
        fld_know(w->flood, (struct acl_client){c.network, c.kind});
    }
}

static int put_filter(struct worker *w, size_t length)
{
    int r = 0;
    for (int i = 0; r == 0 && i < w->socket_count; i++) {
        r = sok_filter(w->sockets[i], w->program, length);
        if (r == -ENOMEM) { /* no room for two at once (net.core.optmem_max) */
            (void)sok_filter(w->sockets[i], NULL, 0);
            r = sok_filter(w->sockets[i], w->program, length);
        }
    }
    return r;
}

static void renew_filter(struct worker *w, const struct rules *rules, int64_t raw_ns)
{
    if (fld_thinning(w->flood) && raw_ns - w->known_at_ns > known_ns) {
        find_known(w, raw_ns);
        w->known_at_ns = raw_ns;
    }
    size_t length = fld_filter(w->flood, rules->limits.leak, w->program);
    if (length || w->filtered) {
        int r = put_filter(w, length);
        while (r == -ENOMEM && fld_fewer(w->flood)) {
            length = fld_filter(w->flood, rules->limits.leak, w->program);
            r = put_filter(w, length);
        }
        w->filter_ns = r < 0 ? INT64_MAX : clk_raw_ns(); /* refused: the limiter alone goes on */
    }
    w->filtered = length != 0;
    bump(&w->counts.filters);
}

static void look_at_load(struct worker *w, const struct rules *rules, int64_t raw_ns)
{
    struct sok_load fullest = {0, 1, 0}, load;
    struct timespec used = {0, 0};
    w->looked_ns = raw_ns;
    for (int i = 0; i < w->socket_count; i++)
        if (sok_load(w->sockets[i], &load) == 0 && load.queue * fullest.room > fullest.queue * load.room)
            fullest = load;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    struct fld_load busy = {fullest.queue, fullest.room, (int64_t)used.tv_sec * NS_PER_S + used.tv_nsec};
    if (fld_turn(w->flood, raw_ns, &busy, rules->own.cpu_limit))
        renew_filter(w, rules, raw_ns);
    set(&w->counts.blocked, fld_blocked(w->flood));
    set(&w->counts.let_through, (uint64_t)lrint(fld_share(w->flood) * 1000));
}

static void *srv_loop(void *argument)
{
    struct worker *w = argument;
    struct srv *s = w->server;
    struct pollfd polled[SRV_SOCKETS_MAX + 1] = {{.fd = w->wake, .events = POLLIN}};
    for (int i = 0; i < w->socket_count; i++)
        polled[i + 1] = (struct pollfd){.fd = w->sockets[i], .events = POLLIN};
    clk_read(0, &w->last);
    for (;;) {
        uint64_t number = __atomic_load_n(&s->rules_number, __ATOMIC_ACQUIRE), woken;
        const struct rules *rules = __atomic_load_n(&s->rules, __ATOMIC_ACQUIRE);
        int busy = 0;
        __atomic_store_n(&w->rules_seen, number, __ATOMIC_RELEASE);
        if (poll(polled, (nfds_t)w->socket_count + 1, w->filtered ? FILTER_PAUSE_MS : -1) < 0)
            continue;
        if (polled[0].revents) {
            if (__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE))
                return NULL;
            (void)!read(w->wake, &woken, sizeof woken);
            continue;
        }
        for (int i = 0; i < w->socket_count; i++) {
            if (polled[i + 1].revents & POLLERR) { /* departure stamps that came late */
                struct rec_params record = {.stratum = 0};
                if (w->record)
                    rec_read(w->record, &record);
                read_departures(w, w->sockets[i], &record, rules->own.smear);
            }
            int more = polled[i + 1].revents & POLLIN ? TURNS : 0;
            for (; more > 0 && serve_batch(w, w->sockets[i], rules); more--)
                busy = 1;
        }
        int64_t raw_ns = w->filtered ? clk_raw_ns() : w->last.raw_ns;
        if (raw_ns - w->looked_ns >= (busy ? look_busy_ns : look_ns))
            look_at_load(w, rules, raw_ns);
    }
}

/* ---- rules ------------------------------------------------------------------------------------------------------------------- */

static void free_rules(struct rules *r)
{
    if (!r)
        return;
    mac_destroy(r->own.keys);
    free(r->ranges);
    free(r);
}

static int make_rules(const struct srv *s, const struct srv_rules *from, struct rules **out)
{
    struct rules *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) {
        mac_destroy(from->keys);
        return -ENOMEM;
    }
    r->own = *from;
    int sound = from->range_count == 0 || acl_valid(from->ranges, from->range_count);
    sound = sound && from->rate >= 0 && from->rate <= 1e9 && from->kod_rate >= 0 && from->kod_rate <= 1e6 && from->cpu_limit > 0;
    r->ranges = malloc(from->range_count * sizeof *r->ranges + 1);
    if (!sound || !r->ranges || (from->rate > 0 && from->burst == 0)) {
        int error = sound && !r->ranges ? -ENOMEM : -EINVAL;
        free_rules(r);
        return error;
    }
    if (from->range_count)
        memcpy(r->ranges, from->ranges, from->range_count * sizeof *r->ranges);
    r->own.ranges = r->ranges;
    if (from->rate > 0) {
        double interval = 1e9 / from->rate, saved;
        r->limits.interval_ns = interval < 1 ? 1 : interval > (double)forever_ns ? forever_ns : (int64_t)interval;
        saved = (double)r->limits.interval_ns * from->burst;
        r->limits.burst_ns = saved > (double)forever_ns ? forever_ns : (int64_t)saved;
    }
    r->limits.leak = from->leak;
    if (from->kod_rate > 0) {
        double interval = 1e9 * s->threads / from->kod_rate;
        r->kod_interval_ns = interval > (double)forever_ns ? forever_ns : (int64_t)interval;
        r->kod_depth_ns = r->kod_interval_ns > NS_PER_S ? r->kod_interval_ns : NS_PER_S;
    }
    *out = r;
    return 0;
}

static void nudge(const struct worker *w)
{
    const uint64_t one = 1;
    (void)!write(w->wake, &one, sizeof one);
}

int srv_configure(struct srv *s, const struct srv_rules *rules)
{
    struct rules *renewed, *old = s->rules;
    int r = make_rules(s, rules, &renewed);
    if (r < 0)
        return r;
    __atomic_store_n(&s->rules, renewed, __ATOMIC_RELEASE);
    __atomic_store_n(&s->rules_number, s->rules_number + 1, __ATOMIC_RELEASE);
    for (int t = 0; t < s->running; t++) {
        const struct timespec pause = {0, 200000};
        nudge(&s->workers[t]);
        while (__atomic_load_n(&s->workers[t].rules_seen, __ATOMIC_ACQUIRE) != s->rules_number)
            nanosleep(&pause, NULL);
    }
    free_rules(old);
    return 0;
}

/* ---- set-up ----------------------------------------------------------------------------------------------------------------- */

static int make_worker(struct srv *s, struct worker *w, size_t table_bytes)
{
    uint8_t key[CLI_KEY_BYTES];
    w->server = s;
    w->record_raw_ns = INT64_MIN / 2; /* look at the first packet */
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    set(&w->counts.let_through, 1000);
    for (int i = 0; i < BATCH; i++) {
        w->vectors[i] = (struct iovec){w->requests[i], sizeof w->requests[i]};
        w->messages[i].msg_hdr = (struct msghdr){.msg_name = &w->peers[i], .msg_iov = &w->vectors[i], .msg_iovlen = 1,
                                                .msg_control = w->controls[i].bytes};
    }
    for (int i = 0; i < GROUP; i++) {
        w->out_vectors[i].iov_base = w->replies[i];
        w->out[i].msg_hdr = (struct msghdr){.msg_iov = &w->out_vectors[i], .msg_iovlen = 1};
    }
    if (w->wake < 0 || getrandom(key, sizeof key, 0) != sizeof key)
        return -errno;
    int r = cli_create(table_bytes, key, &w->clients);
    return r < 0 ? r : fld_create(&s->hash_key, &w->flood);
}

int srv_create(const char *record_path, int threads, size_t table_bytes, const char *interface, struct srv **out)
{
    static const struct srv_rules closed = {.cpu_limit = 1};
    *out = NULL;
    if (threads < 1 || threads > SRV_THREADS_MAX)
        return -EINVAL;
    struct srv *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->record_path = strdup(record_path);
    s->interface = strdup(interface);
    s->workers = aligned_alloc(LINE, sizeof *s->workers * (size_t)threads);
    int r = s->record_path && s->interface && s->workers ? 0 : -ENOMEM;
    if (s->workers) {
        memset(s->workers, 0, sizeof *s->workers * (size_t)threads);
        s->threads = threads;
    }
    for (int t = 0; t < s->threads; t++)
        s->workers[t].wake = -1;
    if (r == 0 && getrandom(&s->hash_key, sizeof s->hash_key, 0) != sizeof s->hash_key)
        r = -errno;
    for (int t = 0; r == 0 && t < threads; t++)
        r = make_worker(s, &s->workers[t], table_bytes / (size_t)threads);
    if (r == 0)
        r = srv_configure(s, &closed);
    if (r < 0) {
        srv_destroy(s);
        return r;
    }
    *out = s;
    return 0;
}

static int has_room(const struct srv *s)
{
    if (s->running)
        return -EALREADY;
    if (s->listeners == SRV_SOCKETS_MAX)
        return -ENOSPC;
    for (int t = 0; t < s->threads; t++)
        if (s->workers[t].socket_count == SRV_SOCKETS_MAX)
            return -ENOSPC;
    return 0;
}

/* Remember where a socket is bound, for people. */
static int note_bound(struct srv *s, const struct sockaddr_storage *address, socklen_t length)
{
    int r = sok_name(address, length, s->bound[s->listeners].host, SRV_HOST_MAX, &s->bound[s->listeners].port);
    s->listeners += r == 0;
    return r;
}

static void give(struct worker *w, int fd)
{
    w->sockets[w->socket_count++] = fd;
}

int srv_listen(struct srv *s, const char *host, uint16_t port)
{
    struct sockaddr_storage address;
    struct sock_filter *program = s->workers[0].program; /* no thread runs yet */
    socklen_t length;
    int fds[SRV_THREADS_MAX], opened = 0, r = has_room(s);
    if (r == 0)
        r = sok_address(host, port, &address, &length);
    while (r == 0 && opened < s->threads) {
        fds[opened] = sok_open(&address, &length, s->interface, opened == 0, s->threads > 1);
        if (fds[opened] < 0)
            r = fds[opened];
        else
            opened++;
    }
    if (r == 0 && s->threads > 1)
        r = sok_select(fds[0], program, fld_selector(&s->hash_key, (unsigned)s->threads, program));
    if (r == 0)
        r = note_bound(s, &address, length);
    for (int i = 0; i < opened; i++) {
        if (r < 0)
            close(fds[i]);
        else
            give(&s->workers[i], fds[i]);
    }
    return r;
}

int srv_adopt(struct srv *s, int fd)
{
    struct sockaddr_storage address;
    socklen_t length;
    int r = has_room(s), ours;
    if (r < 0)
        return r;
    ours = sok_adopt(fd, &address, &length);
    if (ours < 0)
        return ours;
    r = note_bound(s, &address, length);
    if (r < 0)
        close(ours);
    else
        give(&s->workers[s->adopted++ % s->threads], ours);
    return r;
}

int srv_bound(const struct srv *s, int i, char *host, uint16_t *port)
{
    if (i < 0 || i >= s->listeners)
        return -ENOENT;
    memcpy(host, s->bound[i].host, SRV_HOST_MAX);
    *port = s->bound[i].port;
    return 0;
}

int srv_start(struct srv *s)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    uint64_t woken;
    char name[16];
    if (s->running)
        return -EALREADY;
    __atomic_store_n(&s->stopping, 0, __ATOMIC_RELEASE);
    int r = pthread_attr_init(&attributes);
    if (r)
        return -r;
    r = pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&all); /* signals are for the threads of the program around us */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (r == 0 && s->running < s->threads) {
        struct worker *w = &s->workers[s->running];
        (void)!read(w->wake, &woken, sizeof woken); /* of an earlier srv_stop */
        r = pthread_create(&w->thread, &attributes, srv_loop, w);
        if (r)
            break;
        snprintf(name, sizeof name, "ntp-%d", s->running++);
        pthread_setname_np(w->thread, name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r)
        srv_stop(s);
    return -r;
}

void srv_stop(struct srv *s)
{
    __atomic_store_n(&s->stopping, 1, __ATOMIC_RELEASE);
    for (int t = 0; t < s->running; t++)
        nudge(&s->workers[t]);
    for (int t = 0; t < s->running; t++)
        pthread_join(s->workers[t].thread, NULL);
    s->running = 0;
}

void srv_destroy(struct srv *s)
{
    if (!s)
        return;
    srv_stop(s);
    for (int t = 0; t < s->threads; t++) {
        struct worker *w = &s->workers[t];
        for (int i = 0; i < w->socket_count; i++)
            close(w->sockets[i]);
        if (w->wake >= 0)
            close(w->wake);
        rec_close(w->record);
        cli_destroy(w->clients);
        fld_destroy(w->flood);
    }
    free_rules(s->rules);
    free(s->record_path);
    free(s->interface);
    free(s->workers);
    free(s);
}

/* ---- for others ----------------------------------------------------------------------------------------------------------------- */

void srv_count(const struct srv *s, struct srv_counts *out)
{
    memset(out, 0, sizeof *out);
    uint64_t *sums = (uint64_t *)out, through = 1000, room = 0;
    for (int t = 0; t < s->threads; t++) {
        const struct worker *w = &s->workers[t];
        const uint64_t *counts = (const uint64_t *)&w->counts;
        struct sok_load load;
        uint64_t drops = 0;
        for (size_t i = 0; i < sizeof *out / sizeof *sums; i++)
            sums[i] += __atomic_load_n(&counts[i], __ATOMIC_RELAXED);
        for (int i = 0; i < w->socket_count; i++)
            if (sok_load(w->sockets[i], &load) == 0) {
                drops += load.drops;
                room = room == 0 || load.room < room ? load.room : room;
            }
        out->kernel_drops += drops;
        uint64_t share = __atomic_load_n(&w->counts.let_through, __ATOMIC_RELAXED);
        through = share < through ? share : through;
    }
    out->let_through = through;
    out->receive_buffer = room;
}

int64_t srv_now(void)
{
    return clk_raw_ns();
}

size_t srv_clients(const struct srv *s, size_t *place, struct cli_client *out, size_t room)
{
    size_t found = 0, of_one = cli_room(s->workers[0].clients), all = of_one * (size_t)s->threads;
    for (; *place < all && found < room; ++*place)
        found += (size_t)cli_copy(s->workers[*place / of_one].clients, *place % of_one, &out[found]);
    return found;
}

int srv_broadcast(struct srv *s, const char *host, uint16_t port, uint32_t key, int poll)
{
    const int on = 1;
    struct sockaddr_storage address, own;
    struct rec_params params;
    struct rec *record;
    socklen_t length, own_length;
    uint8_t packet[PKT_REPLY_MAX];
    int r = sok_address(host, port, &address, &length);
    if (r < 0)
        return r;
    if (!mac_find(s->rules->own.keys, key))
        return -ENOKEY;
    r = rec_open(s->record_path, 0, &record);
    if (r < 0)
        return -EAGAIN;
    r = rec_read(record, &params);
    rec_close(record);
    size_t size = r < 0 ? 0 : pkt_broadcast(&params, clk_raw_ns(), s->rules->own.smear, poll, s->rules->own.keys, key, packet);
    if (size == 0)
        return -EAGAIN;
    for (int i = 0; i < s->workers[0].socket_count; i++) { /* from the port that is served: clients look at it */
        int fd = s->workers[0].sockets[i];
        own_length = sizeof own;
        if (getsockname(fd, (struct sockaddr *)&own, &own_length) < 0 || own.ss_family != address.ss_family)
            continue;
        if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) < 0)
            return -errno;
        return sendto(fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0 ? -errno : 0;
    }
    return -EAFNOSUPPORT;
}
