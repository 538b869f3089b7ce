#define _GNU_SOURCE /* recvmmsg, in_pktinfo, pthread_setname_np */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

enum {
    BATCH = 16,               /* as chrony (MAX_RECV_MESSAGES): more gains nothing measurable and delays the last of the batch */
    TURNS = 8,                /* batches of one socket before the others and srv_stop are looked at */
    STACK = 256 * 1024,       /* locked in memory by mlockall, so not the default 8 MiB */
    RECEIVE_BUFFER = 4 << 20, /* some 5000 requests: a second's burst of a large network */
    LINE = 64                 /* cache line */
};
static const int64_t second = 1000000000;
static const int64_t age_limit_ns = 10 * 1000000000LL; /* no request waits that long in a receive buffer that is being served */
static const int64_t pairing_good_ns = 500;            /* a reading with more was interrupted; try again */
static const int64_t step_ns = 1000000;                /* REALTIME against RAW: at most 1000 ppm of slew and this is no step */

struct worker {
    struct srv *server;
    int sockets[SRV_SOCKETS_MAX];
    int socket_count;
    pthread_t thread;
    struct tsc *record;
    int64_t record_raw_ns; /* when it was looked for */
    struct clk_reading last;
    struct srv_counts counts __attribute__((aligned(LINE)));
    struct mmsghdr messages[BATCH] __attribute__((aligned(LINE)));
    struct iovec vectors[BATCH];
    struct sockaddr_in6 peers[BATCH]; /* the larger of the two families */
    union {
        char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct timespec)) + 64];
        struct cmsghdr align;
    } controls[BATCH];
    uint8_t requests[BATCH][PKT_REQUEST_MAX];
};

struct srv {
    char *record_path;
    struct worker *workers;
    int threads;
    int running;   /* threads started */
    int listeners; /* sockets that srv_bound tells of */
    int adopted;
    struct {
        char host[SRV_HOST_MAX];
        uint16_t port;
    } bound[SRV_SOCKETS_MAX];
    int stop; /* eventfd, readable = end */
};

/* ---- serving ---------------------------------------------------------------------------------------------------------------- */

static void bump(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); /* one writer */
}

/* The record file may appear late or be replaced, so it is opened anew once a second; until a new one holds a record the old one lasts. */
static void find_record(struct worker *w, int64_t raw_ns)
{
    struct tsc *found;
    struct tsc_params any;
    if (raw_ns - w->record_raw_ns < second)
        return;
    w->record_raw_ns = raw_ns;
    if (tsc_open(w->server->record_path, 0, &found) < 0)
        return;
    int empty = tsc_read(found, &any) < 0;
    tsc_close(empty ? found : w->record);
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
            e->real_ns = (int64_t)ts.tv_sec * second + ts.tv_nsec;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&e->to4, CMSG_DATA(c), sizeof e->to4);
            e->family = AF_INET;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(&e->to6, CMSG_DATA(c), sizeof e->to6);
            e->family = AF_INET6;
        }
    }
}

/* Send from the address that was asked. 0, or -1 and errno. */
static int reply_to(int fd, const struct msghdr *request, struct envelope *e, const uint8_t *reply, size_t length)
{
    if (!e->family) /* bound to that address */
        return sendto(fd, reply, length, MSG_DONTWAIT | MSG_NOSIGNAL, request->msg_name, request->msg_namelen) < 0 ? -1 : 0;
    union {
        char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    size_t size = e->family == AF_INET ? sizeof e->to4 : sizeof e->to6;
    struct iovec vector = {(void *)(uintptr_t)reply, length};
    struct msghdr m = {.msg_name = request->msg_name, .msg_namelen = request->msg_namelen, .msg_iov = &vector, .msg_iovlen = 1,
                       .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_len = CMSG_LEN(size);
    if (e->family == AF_INET) {
        e->to4.ipi_ifindex = 0; /* routing chooses: the way back need not be the way in */
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        memcpy(CMSG_DATA(c), &e->to4, size);
    } else {
        if (!IN6_IS_ADDR_LINKLOCAL(&e->to6.ipi6_addr))
            e->to6.ipi6_ifindex = 0;
        c->cmsg_level = IPPROTO_IPV6;
        c->cmsg_type = IPV6_PKTINFO;
        memcpy(CMSG_DATA(c), &e->to6, size);
    }
    return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
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

static void serve_one(struct worker *w, int fd, int i, struct pkt_context *context, const struct clk_reading *now, int stepped)
{
    struct msghdr *m = &w->messages[i].msg_hdr;
    struct pkt_outcome outcome;
    struct envelope envelope;
    uint8_t reply[PKT_REPLY_MAX];
    open_envelope(m, &envelope);
    context->source_port = ntohs(w->peers[i].sin6_port); /* the same place in sockaddr_in */
    context->rx_raw_ns = arrival(w, &envelope, now, stepped);
    size_t length = w->messages[i].msg_len + (m->msg_flags & MSG_TRUNC ? 1 : 0); /* a cut one is longer than we look at */
    context->tx_raw_ns = clk_raw_ns();
    length = pkt_respond(context, w->requests[i], length, reply, &outcome);
    if (length && reply_to(fd, m, &envelope, reply, length) < 0)
        outcome = (struct pkt_outcome){PKT_DROP, PKT_SEND_FAILED};
    bump(&w->counts.packets[outcome.action][outcome.reason]);
}

/* 1: there may be more. */
static int serve_batch(struct worker *w, int fd)
{
    struct pkt_context context = {.record = {.stratum = 0}};
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
        tsc_read(w->record, &context.record); /* before the first publication: stays unsynchronised */
    for (int i = 0; i < n; i++)
        serve_one(w, fd, i, &context, &now, stepped);
    return n == BATCH;
}

static void *srv_loop(void *argument)
{
    struct worker *w = argument;
    struct pollfd polled[SRV_SOCKETS_MAX + 1] = {{.fd = w->server->stop, .events = POLLIN}};
    for (int i = 0; i < w->socket_count; i++)
        polled[i + 1] = (struct pollfd){.fd = w->sockets[i], .events = POLLIN};
    clk_read(0, &w->last);
    for (;;) {
        if (poll(polled, (nfds_t)w->socket_count + 1, -1) < 0)
            continue;
        if (polled[0].revents)
            return NULL;
        for (int i = 0; i < w->socket_count; i++)
            for (int turns = polled[i + 1].revents ? TURNS : 0; turns > 0 && serve_batch(w, w->sockets[i]); turns--)
                ;
    }
}

/* ---- set-up ----------------------------------------------------------------------------------------------------------------- */

static int switch_on(int fd, int level, int option)
{
    const int on = 1;
    return setsockopt(fd, level, option, &on, sizeof on) < 0 ? -errno : 0;
}

static int is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* Ask for what each request's envelope must tell. */
static int prepare(int fd, const struct sockaddr_storage *bound)
{
    int r = switch_on(fd, SOL_SOCKET, SO_TIMESTAMPNS);
    if (r < 0 || !is_wildcard(bound))
        return r;
    return bound->ss_family == AF_INET ? switch_on(fd, IPPROTO_IP, IP_PKTINFO) : switch_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
}

/* Remember where socket s is bound, for people. */
static int note_bound(struct srv *s, const struct sockaddr_storage *address, socklen_t length)
{
    char port[8];
    if (getnameinfo((const struct sockaddr *)address, length, s->bound[s->listeners].host, SRV_HOST_MAX, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -EINVAL;
    s->bound[s->listeners++].port = (uint16_t)atoi(port);
    return 0;
}

/* A socket at address. The first of a port is bound alone, so that a second server is refused, and shared (SO_REUSEPORT) afterwards. */
static int open_socket(struct sockaddr_storage *address, socklen_t *length, int first, int shared)
{
    const int size = RECEIVE_BUFFER;
    int fd = socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
    if (fd < 0)
        return -errno;
    r = address->ss_family == AF_INET6 ? switch_on(fd, IPPROTO_IPV6, IPV6_V6ONLY) : 0;
    if (r == 0 && shared && !first)
        r = switch_on(fd, SOL_SOCKET, SO_REUSEPORT);
    if (r == 0 && bind(fd, (struct sockaddr *)address, *length) < 0)
        r = -errno;
    if (r == 0 && shared && first)
        r = switch_on(fd, SOL_SOCKET, SO_REUSEPORT);
    if (r == 0 && getsockname(fd, (struct sockaddr *)address, length) < 0)
        r = -errno;
    if (r == 0)
        r = prepare(fd, address);
    if (r < 0) {
        close(fd);
        return r;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0) /* needs CAP_NET_ADMIN; */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);    /* else as much as net.core.rmem_max allows */
    return fd;
}

int srv_create(const char *record_path, int threads, struct srv **out)
{
    *out = NULL;
    if (threads < 1 || threads > SRV_THREADS_MAX)
        return -EINVAL;
    struct srv *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->threads = threads;
    s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = s->stop < 0 ? -errno : -ENOMEM;
    s->record_path = strdup(record_path);
    s->workers = aligned_alloc(LINE, sizeof *s->workers * (size_t)threads);
    if (s->stop < 0 || !s->record_path || !s->workers) {
        if (s->stop >= 0)
            close(s->stop);
        free(s->record_path);
        free(s->workers);
        free(s);
        return r;
    }
    memset(s->workers, 0, sizeof *s->workers * (size_t)threads);
    for (int t = 0; t < threads; t++) {
        struct worker *w = &s->workers[t];
        w->server = s;
        w->record_raw_ns = INT64_MIN / 2; /* look at the first packet */
        for (int i = 0; i < BATCH; i++) {
            w->vectors[i] = (struct iovec){w->requests[i], sizeof w->requests[i]};
            w->messages[i].msg_hdr = (struct msghdr){.msg_name = &w->peers[i], .msg_iov = &w->vectors[i], .msg_iovlen = 1,
                                                    .msg_control = w->controls[i].bytes};
        }
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

static void give(struct worker *w, int fd)
{
    w->sockets[w->socket_count++] = fd;
}

int srv_listen(struct srv *s, const char *host, uint16_t port)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_DGRAM};
    struct sockaddr_storage address;
    struct addrinfo *found;
    char service[8];
    int fds[SRV_THREADS_MAX], opened = 0, r = has_room(s);
    if (r < 0)
        return r;
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EINVAL;
    socklen_t length = found->ai_addrlen;
    memset(&address, 0, sizeof address);
    memcpy(&address, found->ai_addr, length);
    freeaddrinfo(found);
    while (opened < s->threads) {
        fds[opened] = open_socket(&address, &length, opened == 0, s->threads > 1);
        if (fds[opened] < 0) {
            r = fds[opened];
            break;
        }
        opened++;
    }
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
    socklen_t length = sizeof address, size = sizeof(int);
    int type, ours, r = has_room(s);
    if (r < 0)
        return r;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return -errno;
    if (type != SOCK_DGRAM || (address.ss_family != AF_INET && address.ss_family != AF_INET6))
        return -EPROTOTYPE;
    ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (ours < 0)
        return -errno;
    r = prepare(ours, &address);
    if (r == 0)
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
    uint64_t stops;
    char name[16];
    if (s->running)
        return -EALREADY;
    (void)!read(s->stop, &stops, sizeof stops); /* of an earlier srv_stop */
    int r = pthread_attr_init(&attributes);
    if (r)
        return -r;
    r = pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&all); /* signals are for the threads of the program around us */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (r == 0 && s->running < s->threads) {
        struct worker *w = &s->workers[s->running];
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
    const uint64_t one = 1;
    if (!s->running)
        return;
    (void)!write(s->stop, &one, sizeof one);
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
        for (int i = 0; i < s->workers[t].socket_count; i++)
            close(s->workers[t].sockets[i]);
        tsc_close(s->workers[t].record);
    }
    close(s->stop);
    free(s->record_path);
    free(s->workers);
    free(s);
}

void srv_count(const struct srv *s, struct srv_counts *out)
{
    memset(out, 0, sizeof *out);
    uint64_t *sums = (uint64_t *)out;
    for (int t = 0; t < s->threads; t++) {
        const uint64_t *counts = (const uint64_t *)&s->workers[t].counts;
        for (size_t i = 0; i < sizeof *out / sizeof *sums; i++)
            sums[i] += __atomic_load_n(&counts[i], __ATOMIC_RELAXED);
    }
}
