#define _GNU_SOURCE /* strdup */
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "record.h"
#include "socket.h"
#include "units.h"
#include "worker.h"

static const int64_t forever_ns = 1000000000 * NS_PER_S; /* longest interval of a rate: 31 years, and two of them can be added */
static const struct timespec handover_pause = {0, 200000}; /* ns; between two looks whether a worker has turned to new rules */

struct srv {
    struct wrk_shared shared;
    char *record_path;
    struct wrk_rules *rules; /* in force; the workers read shared.rules */
    struct wrk **workers;
    int threads;
    int running; /* threads started */
    int adopted; /* sockets of srv_adopt */
    struct {
        char host[SRV_HOST_MAX]; /* "": the place is free */
        uint16_t port;
    } bound[SRV_SOCKETS_MAX];
};

/* ---- rules ----------------------------------------------------------------------------------------------------------------------- */

static void free_rules(struct wrk_rules *r)
{
    if (!r)
        return;
    mac_destroy(r->keys);
    nts_destroy(r->nts);
    free(r->ranges);
    free(r);
}

static int rules_make_sense(const struct srv_rules *rules)
{
    if (rules->range_count && !acl_valid(rules->ranges, rules->range_count))
        return 0;
    if (!(rules->rate >= 0 && rules->rate <= 1e9) || (rules->rate > 0 && rules->burst == 0)) /* NaN too */
        return 0;
    return rules->kod_rate >= 0 && rules->kod_rate <= 1e6 && rules->cpu_limit > 0 && rules->dscp >= -1 && rules->dscp < 64;
}

static int64_t limit_ns(double ns)
{
    return ns > (double)forever_ns ? forever_ns : ns < 1 ? 1 : (int64_t)ns;
}

/* Rules as the workers apply them; takes from->keys and from->nts over, also when it fails. 0 or -errno. */
static int make_rules(const struct srv_rules *from, int threads, struct wrk_rules **out)
{
    struct wrk_rules *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) {
        mac_destroy(from->keys);
        nts_destroy(from->nts);
        return -ENOMEM;
    }
    *r = (struct wrk_rules){.range_count = from->range_count, .keys = from->keys, .nts = from->nts,
                            .cpu_limit = from->cpu_limit, .tell_denied = from->tell_denied, .symmetric = from->symmetric, .smear = from->smear,
                            .dscp = from->dscp};
    int error = rules_make_sense(from) ? 0 : -EINVAL;
    if (error == 0 && from->range_count) {
        r->ranges = malloc(from->range_count * sizeof *r->ranges);
        error = r->ranges ? 0 : -ENOMEM;
    }
    if (error < 0) {
        free_rules(r);
        return error;
    }
    if (from->range_count)
        memcpy(r->ranges, from->ranges, from->range_count * sizeof *r->ranges);
    r->limits.leak = from->leak;
    if (from->rate > 0) {
        r->limits.interval_ns = limit_ns(1e9 / from->rate);
        r->limits.burst_ns = limit_ns((double)r->limits.interval_ns * from->burst);
    }
    if (from->kod_rate > 0) { /* saved up: those of a second, one at least */
        r->kod_interval_ns = limit_ns(1e9 * threads / from->kod_rate);
        r->kod_depth_ns = r->kod_interval_ns > NS_PER_S ? r->kod_interval_ns : NS_PER_S;
    }
    *out = r;
    return 0;
}

int srv_configure(struct srv *s, const struct srv_rules *rules)
{
    struct wrk_rules *renewed, *old = s->rules;
    int r = make_rules(rules, s->threads, &renewed);
    if (r < 0)
        return r;
    s->rules = renewed;
    __atomic_store_n(&s->shared.rules, renewed, __ATOMIC_RELEASE);
    __atomic_store_n(&s->shared.rules_number, s->shared.rules_number + 1, __ATOMIC_RELEASE);
    for (int t = 0; t < s->running; t++) {
        wrk_wake(s->workers[t]);
        while (wrk_rules_seen(s->workers[t]) != s->shared.rules_number)
            nanosleep(&handover_pause, NULL);
    }
    free_rules(old);
    return 0;
}

/* ---- set-up ---------------------------------------------------------------------------------------------------------------------- */

int srv_create(const char *record_path, int threads, size_t table_bytes, struct srv **out)
{
    static const struct srv_rules closed = {.cpu_limit = 1};
    *out = NULL;
    if (threads < 1 || threads > SRV_THREADS_MAX)
        return -EINVAL;
    struct srv *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->record_path = strdup(record_path);
    s->workers = calloc((size_t)threads, sizeof *s->workers);
    s->shared.record_path = s->record_path;
    s->shared.controls = -1;
    int r = s->record_path && s->workers ? 0 : -ENOMEM;
    if (r == 0 && getrandom(&s->shared.hash_key, sizeof s->shared.hash_key, 0) != sizeof s->shared.hash_key)
        r = -errno;
    for (; r == 0 && s->threads < threads; s->threads += r == 0)
        r = wrk_create(&s->shared, table_bytes / (size_t)threads, &s->workers[s->threads]);
    if (r == 0)
        r = srv_configure(s, &closed);
    if (r < 0)
        srv_destroy(s);
    else
        *out = s;
    return r;
}

/* A free place; -ENOSPC. No worker has more sockets than places are taken. */
static int free_place(const struct srv *s)
{
    for (int place = 0; place < SRV_SOCKETS_MAX; place++)
        if (!s->bound[place].host[0])
            return place;
    return -ENOSPC;
}

/* Remember where the sockets of a place are bound, for srv_bound. */
static int note_bound(struct srv *s, int place, const struct sockaddr_storage *address, socklen_t length)
{
    return sok_name(address, length, s->bound[place].host, SRV_HOST_MAX, &s->bound[place].port);
}

/* Stop the threads for a change of their sockets. 1: they ran. */
static int pause_threads(struct srv *s)
{
    int running = s->running > 0;
    srv_stop(s);
    return running;
}

int srv_listen(struct srv *s, const char *host, uint16_t port, const char *interface)
{
    struct sockaddr_storage address;
    struct sock_filter program[FLD_PROGRAM_MAX];
    socklen_t length;
    int fds[SRV_THREADS_MAX], opened = 0, place = free_place(s), r = place < 0 ? place : sok_address(host, port, &address, &length);
    while (r == 0 && opened < s->threads) {
        fds[opened] = sok_open(&address, &length, interface, opened == 0, s->threads > 1);
        if (fds[opened] < 0)
            r = fds[opened];
        else
            opened++;
    }
    if (r == 0 && s->threads > 1)
        r = sok_select(fds[0], program, fld_selector(&s->shared.hash_key, (unsigned)s->threads, program));
    if (r == 0)
        r = note_bound(s, place, &address, length);
    int running = r == 0 && pause_threads(s);
    for (int i = 0; i < opened; i++) {
        if (r < 0)
            close(fds[i]);
        else
            wrk_add_socket(s->workers[i], fds[i], place);
    }
    if (running)
        r = srv_start(s);
    return r < 0 ? r : place;
}

int srv_adopt(struct srv *s, int fd)
{
    struct sockaddr_storage address;
    socklen_t length;
    int place = free_place(s), ours = place < 0 ? place : sok_adopt(fd, &address, &length);
    if (ours < 0)
        return ours;
    int r = note_bound(s, place, &address, length);
    if (r < 0) {
        close(ours);
        return r;
    }
    int running = pause_threads(s);
    wrk_add_socket(s->workers[s->adopted++ % s->threads], ours, place);
    if (running)
        r = srv_start(s);
    return r < 0 ? r : place;
}

static int is_taken(const struct srv *s, int place)
{
    return place >= 0 && place < SRV_SOCKETS_MAX && s->bound[place].host[0];
}

int srv_leave(struct srv *s, int place)
{
    if (!is_taken(s, place))
        return -ENOENT;
    int running = pause_threads(s);
    for (int t = 0; t < s->threads; t++)
        wrk_drop_sockets(s->workers[t], place);
    s->bound[place].host[0] = 0;
    return running ? srv_start(s) : 0;
}

int srv_bound(const struct srv *s, int place, char *host, uint16_t *port)
{
    if (!is_taken(s, place))
        return -ENOENT;
    memcpy(host, s->bound[place].host, SRV_HOST_MAX);
    *port = s->bound[place].port;
    return 0;
}

int srv_start(struct srv *s)
{
    int r = 0;
    if (s->running)
        return -EALREADY;
    __atomic_store_n(&s->shared.stopping, 0, __ATOMIC_RELEASE);
    for (; r == 0 && s->running < s->threads; s->running += r == 0)
        r = wrk_start(s->workers[s->running], s->running);
    if (r < 0)
        srv_stop(s);
    return r;
}

void srv_stop(struct srv *s)
{
    __atomic_store_n(&s->shared.stopping, 1, __ATOMIC_RELEASE);
    for (int t = 0; t < s->running; t++)
        wrk_wake(s->workers[t]);
    for (int t = 0; t < s->running; t++)
        wrk_join(s->workers[t]);
    s->running = 0;
}

void srv_destroy(struct srv *s)
{
    if (!s)
        return;
    srv_stop(s);
    for (int t = 0; t < s->threads; t++)
        wrk_destroy(s->workers[t]);
    free_rules(s->rules);
    free(s->record_path);
    free(s->workers);
    free(s);
}

/* ---- counters and clients -------------------------------------------------------------------------------------------------------- */

void srv_count(const struct srv *s, struct srv_counts *out)
{
    uint64_t *sums = (uint64_t *)out, let_through = 1000, receive_buffer = 0;
    memset(out, 0, sizeof *out);
    for (int t = 0; t < s->threads; t++) {
        struct srv_counts counts;
        wrk_count(s->workers[t], &counts);
        for (size_t i = 0; i < sizeof counts / sizeof *sums; i++)
            sums[i] += ((const uint64_t *)&counts)[i];
        let_through = counts.let_through < let_through ? counts.let_through : let_through;
        if (counts.receive_buffer && (receive_buffer == 0 || counts.receive_buffer < receive_buffer))
            receive_buffer = counts.receive_buffer;
    }
    out->let_through = let_through;
    out->receive_buffer = receive_buffer;
}

int64_t srv_now(void)
{
    return clk_raw_ns();
}

size_t srv_clients(const struct srv *s, size_t *place, struct cli_client *out, size_t room)
{
    size_t found = 0, of_one = cli_room(wrk_clients(s->workers[0])), all = of_one * (size_t)s->threads;
    for (; *place < all && found < room; ++*place)
        found += (size_t)cli_copy(wrk_clients(s->workers[*place / of_one]), *place % of_one, &out[found]);
    return found;
}

/* ---- control packets ------------------------------------------------------------------------------------------------------------- */

void srv_hand_over(struct srv *s, int fd)
{
    s->shared.controls = fd;
}

int srv_control_reply(struct srv *s, const uint8_t *where, const uint8_t *packet, size_t length)
{
    int r = -ENOENT;
    for (int t = 0; r == -ENOENT && t < s->threads; t++) /* an adopted socket is one worker's alone */
        r = wrk_control_reply(s->workers[t], where, packet, length);
    return r;
}

/* ---- broadcasts ------------------------------------------------------------------------------------------------------------------ */

static int read_record(const struct srv *s, struct rec_params *out)
{
    struct rec *record;
    struct clk_reading now;
    int r = rec_open(s->record_path, 0, &record);
    if (r < 0)
        return r;
    clk_read(0, &now);
    r = rec_read_now(record, now.raw_ns, now.real_ns - now.mono_ns, out);
    rec_close(record);
    return r;
}

/* A served socket of that family; -EAFNOSUPPORT. */
static int socket_of_family(const struct srv *s, sa_family_t family)
{
    for (int i = 0; i < wrk_socket_count(s->workers[0]); i++) {
        struct sockaddr_storage own;
        socklen_t length = sizeof own;
        int fd = wrk_socket(s->workers[0], i);
        if (getsockname(fd, (struct sockaddr *)&own, &length) == 0 && own.ss_family == family)
            return fd;
    }
    return -EAFNOSUPPORT;
}

int srv_broadcast(struct srv *s, const char *host, uint16_t port, uint32_t key, int poll)
{
    const int on = 1;
    struct sockaddr_storage address;
    socklen_t length;
    uint8_t packet[PKT_REPLY_MAX];
    struct pkt_context context = {.keys = s->rules->keys, .smear = s->rules->smear};
    int r = sok_address(host, port, &address, &length);
    if (r < 0)
        return r;
    if (!mac_find(s->rules->keys, key))
        return -ENOKEY;
    if (read_record(s, &context.record) < 0)
        return -EAGAIN;
    context.tx_raw_ns = clk_raw_ns();
    size_t size = pkt_broadcast(&context, key, poll, packet);
    if (size == 0)
        return -EAGAIN;
    int fd = socket_of_family(s, address.ss_family); /* clients look at the port that it comes from */
    if (fd < 0)
        return fd;
    if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) < 0)
        return -errno;
    return sendto(fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0 ? -errno : 0;
}
