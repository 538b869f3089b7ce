/* ntpload: load for an NTP server on the loopback interface.
 *
 * Sends NTPv4 client requests and checks every reply: length, mode, stratum, MAC or what NTS (RFC 8915 5) has sealed, and that the origin
 * timestamp is the random transmit timestamp of a request that is still outstanding. Prints one JSON object.
 *
 * Closed loop (default): at most --window requests outstanding. Open loop (--open-rate): requests leave at a fixed rate whatever comes
 * back; what a stall of our own made late is skipped, not sent in a burst. Lost: no reply within --timeout, or before the ring of
 * requests sent is full. With --stamps nothing is loaded: bursts leave one by one and the transmit timestamp in each reply is compared
 * with the kernel's stamp of its arrival here, which on one machine are readings of one clock.
 */
#define _GNU_SOURCE /* recvmmsg */
#include <arpa/inet.h>
#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <nettle/cmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "siv.h"

enum {
    NTP_LEN = 48,
    MAC_LEN = 4 + 16,
    COOKIE_MAX = 256,
    FIELD_UNIQUE = 0x0104, /* RFC 8915 7.5 */
    FIELD_COOKIE = 0x0204,
    FIELD_AUTHENTICATOR = 0x0404,
    FIELD_HEAD = 4,
    UNIQUE = 32,
    NONCE = 16,
    SEALED_AT = 4 + NONCE, /* in an authenticator's body, behind two lengths and the nonce */
    PACKET_MAX = 512,
    BATCH = 32,
    SOCKETS = 4,
    RING_MIN = 1 << 16,
    RING_MAX = 1 << 24,
    RECEIVE_BUFFER = 16 << 20
};
static const uint64_t ntp_era_s = 2208988800u; /* 1970 in the NTP era of 1900 */

/* Log-linear histogram of nanoseconds: 64 buckets an octave, error < 1.6 %. */
enum { SUB = 6, BUCKETS = (40 - SUB) << SUB };

/* From V_LENGTH on a reply is invalid. A late one had been given up as lost. */
enum verdict { V_OK, V_KOD, V_LATE, V_LENGTH, V_MODE, V_STRATUM, V_UNSYNC, V_ORIGIN, V_DUPLICATE, V_MAC, V_NTS, V_COUNT };
static const char *const verdict_name[V_COUNT] = {"ok",      "kod",            "late",   "length",    "mode",
                                                  "stratum", "unsynchronised", "origin", "duplicate", "mac",  "nts"};

struct slot {
    uint64_t xmt, sent_ns;
    bool busy, expired;
};

static struct {
    struct sockaddr_in server;
    double secs, open_rate, timeout;
    unsigned window, srcs, count, nap_us, stamps, burst;
    pid_t pid;
    bool mac, nts;
    uint32_t mac_id;
} opt = {.secs = 5, .timeout = 0.5, .window = 128, .burst = 1};

static int fds[SOCKETS];
static struct slot *ring;
static uint32_t ring_mask;
static uint64_t slot_key, random_state;
static uint64_t head, tail; /* sequence numbers: [tail, head) may be outstanding */
static uint64_t outstanding, sent, send_errors, skipped, lost, verdicts[V_COUNT], histogram[BUCKETS], rtt_max_ns, next_source;
static uint8_t out[BATCH][PACKET_MAX], in[BATCH][PACKET_MAX];
static union control {
    char bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(struct timespec))];
    struct cmsghdr align;
} out_control[BATCH], in_control[BATCH];
static struct iovec out_vector[BATCH], in_vector[BATCH];
static struct mmsghdr out_message[BATCH], in_message[BATCH];
static struct cmac_aes128_ctx cmac;
static struct siv_key to_server, to_client;
static uint8_t cookie[COOKIE_MAX];
static size_t cookie_length;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void histogram_add(uint64_t ns)
{
    uint64_t index = ns;
    if (ns > rtt_max_ns)
        rtt_max_ns = ns;
    if (ns >= 1u << SUB) {
        unsigned octave = 63 - (unsigned)__builtin_clzll(ns) - SUB;
        index = ((octave + 1) << SUB) + ((ns >> octave) & ((1u << SUB) - 1));
    }
    histogram[index < BUCKETS ? index : BUCKETS - 1]++;
}

static double quantile_us(double q)
{
    uint64_t want = (uint64_t)(q * (double)verdicts[V_OK]), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > want) {
            unsigned octave = i >> SUB;
            uint64_t low = octave ? (uint64_t)((1u << SUB) + (i & ((1u << SUB) - 1))) << (octave - 1) : i;
            return (double)low / 1e3;
        }
    }
    return 0;
}

static void make_mac(const uint8_t *packet, uint8_t *code)
{
    cmac_aes128_update(&cmac, NTP_LEN, packet);
    cmac_aes128_digest(&cmac, MAC_LEN - 4, code); /* and begins anew */
}

static void parse_mac(char *spec)
{
    char *id = strtok(spec, ":"), *hex = strtok(NULL, ":");
    uint8_t key[16];
    if (!id || !hex || strlen(hex) != 2 * sizeof key) {
        fprintf(stderr, "--mac wants ID:32 hexadecimal digits\n");
        exit(2);
    }
    for (size_t i = 0; i < sizeof key; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &key[i]) != 1)
            exit(2);
    opt.mac = true;
    opt.mac_id = htonl((uint32_t)strtoul(id, NULL, 10));
    cmac_aes128_set_key(&cmac, key);
}

/* Two keys of a session (RFC 8915 5.1), to the server and to the client, and one cookie, which every request carries. */
static void read_session(const char *path)
{
    uint8_t keys[2][SIV_KEY];
    FILE *f = fopen(path, "rb");
    if (!f || fread(keys, sizeof keys, 1, f) != 1)
        die(path);
    cookie_length = fread(cookie, 1, sizeof cookie, f);
    fclose(f);
    siv_expand(&to_server, keys[0], 0);
    siv_expand(&to_client, keys[1], 0);
    opt.nts = true;
}

static uint8_t *put_field(uint8_t *p, unsigned type, size_t body)
{
    const uint8_t head[FIELD_HEAD] = {(uint8_t)(type >> 8), (uint8_t)type, (uint8_t)((FIELD_HEAD + body) >> 8), (uint8_t)(FIELD_HEAD + body)};
    memcpy(p, head, sizeof head);
    return p + FIELD_HEAD;
}

/* The fields behind the header: unique identifier, cookie, authenticator of an empty text. */
static size_t add_fields(uint8_t *packet, uint64_t xmt)
{
    static const uint8_t lengths[4] = {0, NONCE, 0, SIV_TAG}, none;
    uint8_t *p = put_field(packet + NTP_LEN, FIELD_UNIQUE, UNIQUE);
    for (int i = 0; i < UNIQUE; i += 8)
        memcpy(p + i, &xmt, 8);
    p = put_field(p + UNIQUE, FIELD_COOKIE, cookie_length);
    memcpy(p, cookie, cookie_length);
    uint8_t *end = p + cookie_length;
    p = put_field(end, FIELD_AUTHENTICATOR, SEALED_AT + SIV_TAG);
    memcpy(p, lengths, sizeof lengths);
    for (int i = 0; i < NONCE; i += 8) {
        uint64_t random = next_random();
        memcpy(p + 4 + i, &random, 8);
    }
    const struct siv_data data[2] = {{packet, (size_t)(end - packet)}, {p + 4, NONCE}};
    siv_seal(&to_server, data, 2, &none, 0, p + SEALED_AT);
    return (size_t)(p + SEALED_AT + SIV_TAG - packet);
}

/* What a reply says behind its header: the identifier of the request, and an authenticator that seals one cookie. */
static bool fields_good(const uint8_t *packet, size_t length, uint64_t origin)
{
    uint8_t unique[FIELD_HEAD + UNIQUE], text[PACKET_MAX];
    put_field(unique, FIELD_UNIQUE, UNIQUE);
    for (int i = 0; i < UNIQUE; i += 8)
        memcpy(unique + FIELD_HEAD + i, &origin, 8);
    const size_t covered = NTP_LEN + sizeof unique, sealed = SIV_TAG + FIELD_HEAD + cookie_length;
    if (length != covered + FIELD_HEAD + SEALED_AT + sealed || memcmp(packet + NTP_LEN, unique, sizeof unique) != 0)
        return false;
    const uint8_t *body = packet + covered + FIELD_HEAD;
    const struct siv_data data[2] = {{packet, covered}, {body + 4, NONCE}};
    return siv_open(&to_client, data, 2, body + SEALED_AT, sealed, text) == 1;
}

/* ---- sending and receiving ------------------------------------------------------------------------------------------------------ */

static size_t build_request(uint8_t *p, uint32_t slot, uint64_t *xmt)
{
    *xmt = (next_random() & ~(uint64_t)(RING_MAX - 1)) | ((slot ^ slot_key) & (RING_MAX - 1));
    memset(p, 0, NTP_LEN);
    p[0] = 4 << 3 | 3;
    p[2] = 6;
    p[3] = 0x20;
    memcpy(p + 40, xmt, 8);
    if (opt.nts)
        return add_fields(p, *xmt);
    if (!opt.mac)
        return NTP_LEN;
    memcpy(p + NTP_LEN, &opt.mac_id, 4);
    make_mac(p, p + NTP_LEN + 4);
    return NTP_LEN + MAC_LEN;
}

/* 127.1.0.1 onwards: all of 127/8 is local, so every source gets its reply. */
static void set_source(int i)
{
    struct msghdr *m = &out_message[i].msg_hdr;
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(0x7f010001u + (uint32_t)(next_source++ % opt.srcs))};
    m->msg_name = &opt.server;
    m->msg_namelen = sizeof opt.server;
    m->msg_control = out_control[i].bytes;
    m->msg_controllen = CMSG_SPACE(sizeof info);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
}

static void give_up_oldest(void)
{
    struct slot *s = &ring[tail++ & ring_mask];
    if (!s->busy)
        return;
    s->busy = false;
    s->expired = true;
    outstanding--;
    lost++;
}

static void send_batch(int fd, unsigned want)
{
    uint64_t now = now_ns();
    unsigned done = 0;
    while (head + want > tail + ring_mask + 1)
        give_up_oldest();
    for (unsigned i = 0; i < want; i++) {
        uint32_t at = (uint32_t)head++ & ring_mask;
        struct slot *s = &ring[at];
        out_vector[i].iov_len = build_request(out[i], at, &s->xmt);
        s->sent_ns = now;
        s->busy = true;
        s->expired = false;
        if (opt.srcs)
            set_source((int)i);
    }
    while (done < want) {
        int r = sendmmsg(fd, out_message + done, want - done, 0);
        if (r <= 0)
            break; /* e.g. ECONNREFUSED: the rest is not sent */
        done += (unsigned)r;
    }
    for (unsigned i = done; i < want; i++)
        ring[--head & ring_mask].busy = false;
    send_errors += want - done;
    sent += done;
    outstanding += done;
}

static enum verdict check_reply(const uint8_t *p, unsigned length, struct slot **slot)
{
    uint64_t origin;
    *slot = NULL;
    if (length < NTP_LEN)
        return V_LENGTH;
    memcpy(&origin, p + 24, 8);
    uint64_t at = (origin ^ slot_key) & (RING_MAX - 1);
    if (at > ring_mask || ring[at].xmt != origin)
        return V_ORIGIN;
    if (!ring[at].busy)
        return ring[at].expired ? V_LATE : V_DUPLICATE;
    *slot = &ring[at];
    if ((p[0] & 7) != 4 || (p[0] >> 3 & 7) != 4)
        return V_MODE;
    if (p[1] == 0)
        return V_KOD;
    if (p[0] >> 6 == 3 || p[1] == 16)
        return V_UNSYNC;
    if (p[1] > 16)
        return V_STRATUM;
    if (opt.nts)
        return fields_good(p, length, origin) ? V_OK : V_NTS;
    if (!opt.mac)
        return length == NTP_LEN ? V_OK : V_LENGTH;
    uint8_t code[MAC_LEN - 4];
    if (length != NTP_LEN + MAC_LEN || memcmp(p + NTP_LEN, &opt.mac_id, 4) != 0)
        return V_MAC;
    make_mac(p, code);
    return memcmp(code, p + NTP_LEN + 4, sizeof code) == 0 ? V_OK : V_MAC;
}

static int receive_batch(int fd, void (*each)(const uint8_t *packet, struct msghdr *m))
{
    for (int i = 0; i < BATCH; i++)
        in_message[i].msg_hdr.msg_controllen = each ? sizeof in_control[i].bytes : 0;
    int n = recvmmsg(fd, in_message, BATCH, MSG_DONTWAIT, NULL);
    uint64_t now = now_ns();
    for (int i = 0; i < n; i++) {
        struct slot *s;
        enum verdict v = check_reply(in[i], in_message[i].msg_len, &s);
        verdicts[v]++;
        if (!s)
            continue;
        s->busy = false;
        outstanding--;
        if (v == V_OK)
            histogram_add(now - s->sent_ns);
        if (v == V_OK && each)
            each(in[i], &in_message[i].msg_hdr);
    }
    return n > 0 ? n : 0;
}

static void expire(uint64_t now)
{
    while (tail < head) {
        const struct slot *s = &ring[tail & ring_mask];
        if (s->busy && now < s->sent_ns + (uint64_t)(opt.timeout * 1e9))
            break;
        give_up_oldest();
    }
}

static void wait_for_all(uint64_t until_ns)
{
    for (uint64_t now; outstanding && (now = now_ns()) < until_ns;) {
        for (int i = 0; i < SOCKETS; i++)
            receive_batch(fds[i], NULL);
        expire(now);
    }
    lost += outstanding;
}

/* ---- the load -------------------------------------------------------------------------------------------------------------------- */

static unsigned wanted(uint64_t elapsed_ns)
{
    uint64_t want, gone = sent + send_errors + skipped;
    if (opt.open_rate > 0) {
        uint64_t due = (uint64_t)((double)elapsed_ns * 1e-9 * opt.open_rate);
        want = due > gone ? due - gone : 0;
        if (want > BATCH && !opt.nap_us) { /* a stall of our own: do not make it a burst */
            skipped += want - 1;
            want = 1;
        }
    } else {
        uint64_t share = (opt.window + SOCKETS - 1) / SOCKETS; /* of one socket */
        want = outstanding < opt.window ? opt.window - outstanding : 0;
        want = want > share ? share : want;
    }
    if (opt.count && want > opt.count - gone)
        want = opt.count - gone;
    return want > BATCH ? BATCH : (unsigned)want;
}

/* The time it took, seconds. */
static double load(void)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(opt.secs * 1e9), now, stopped;
    bool all_at_once = opt.count && opt.count <= opt.window;
    for (unsigned turn = 0; (now = now_ns()) < end && !(opt.count && sent + send_errors + skipped >= opt.count); turn++) {
        unsigned want = wanted(now - start);
        if (want)
            send_batch(fds[turn % SOCKETS], want);
        if (opt.open_rate > 0)
            for (int i = 0; i < SOCKETS; i++)
                receive_batch(fds[i], NULL);
        else if (!all_at_once)
            receive_batch(fds[(turn + 1) % SOCKETS], NULL);
        expire(now);
        if (opt.nap_us)
            usleep(opt.nap_us);
    }
    stopped = now_ns();
    wait_for_all(stopped + (uint64_t)(opt.timeout * 1e9) + 1000000);
    return (double)(stopped - start) / 1e9;
}

/* ---- honesty of the transmit timestamps ------------------------------------------------------------------------------------------- */

static int64_t *errors;
static size_t error_count;

/* Arrival here minus the transmit timestamp that it carries. */
static void note_error(const uint8_t *packet, struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct timespec arrival;
        uint64_t transmit;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SO_TIMESTAMPNS)
            continue;
        memcpy(&arrival, CMSG_DATA(c), sizeof arrival);
        memcpy(&transmit, packet + 40, 8);
        transmit = be64toh(transmit);
        int64_t seconds = arrival.tv_sec - (int64_t)((transmit >> 32) - ntp_era_s);
        errors[error_count++] = seconds * 1000000000 + arrival.tv_nsec - (int64_t)(((transmit & 0xffffffff) * 1000000000) >> 32);
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void stamps(void)
{
    errors = calloc((size_t)opt.stamps * opt.burst, sizeof *errors);
    for (unsigned i = 0; i < opt.stamps; i++) {
        uint64_t began = now_ns(), until = began + (uint64_t)(opt.timeout * 1e9), now;
        send_batch(fds[0], opt.burst);
        while (outstanding && (now = now_ns()) < until) { /* asleep, the server's first send would pay for waking us: no network does */
            receive_batch(fds[0], note_error);
            expire(now);
        }
        uint64_t pause_us = opt.nap_us - opt.nap_us / 8 + next_random() % (opt.nap_us / 4 + 1); /* not in step with the tick */
        now = now_ns();
        if (now < began + pause_us * 1000)
            usleep((useconds_t)(pause_us - (now - began) / 1000));
    }
    qsort(errors, error_count, sizeof *errors, compare);
    printf("{\"sent\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"errors_ns\": [", sent, lost + outstanding);
    for (size_t i = 0; i < error_count; i++)
        printf("%s%" PRId64, i ? ", " : "", errors[i]);
    printf("]}\n");
}

/* ---- what the server spends -------------------------------------------------------------------------------------------------------- */

static double server_cpu_s(void) /* all threads, ns resolution */
{
    char path[300];
    double total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", opt.pid);
    DIR *d = opendir(path);
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        unsigned long long ns;
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", opt.pid, e->d_name);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%llu", &ns) == 1)
            total += (double)ns / 1e9;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return total;
}

static void report(double elapsed_s, double cpu_s)
{
    uint64_t invalid = 0;
    for (int i = V_LENGTH; i < V_COUNT; i++)
        invalid += verdicts[i];
    printf("{\"secs\": %.3f, \"sent\": %" PRIu64 ", \"valid\": %" PRIu64 ", \"invalid\": %" PRIu64 ", \"kod\": %" PRIu64 ", ", elapsed_s,
           sent, verdicts[V_OK], invalid, verdicts[V_KOD]);
    printf("\"lost\": %" PRIu64 ", \"late\": %" PRIu64 ", \"send_errors\": %" PRIu64 ", \"skipped\": %" PRIu64 ", \"rps\": %.0f, ", lost,
           verdicts[V_LATE], send_errors, skipped, (double)verdicts[V_OK] / elapsed_s);
    printf("\"why_invalid\": {");
    for (int i = V_LENGTH, some = 0; i < V_COUNT; i++)
        if (verdicts[i])
            printf("%s\"%s\": %" PRIu64, some++ ? ", " : "", verdict_name[i], verdicts[i]);
    printf("}, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, ", quantile_us(0.5), quantile_us(0.99), (double)rtt_max_ns / 1e3);
    printf("\"cpu_s\": %.4f, \"cpu_s_per_million\": %.4f}\n", cpu_s, sent ? cpu_s / (double)sent * 1e6 : 0);
}

static void set_up(void)
{
    const int size = RECEIVE_BUFFER, on = 1;
    uint32_t room = RING_MIN;
    while (room < RING_MAX && (room < opt.window * 4 || room < opt.open_rate * opt.timeout * 2))
        room *= 2;
    ring = calloc(room, sizeof *ring);
    if (!ring)
        die("calloc");
    ring_mask = room - 1;
    random_state = now_ns() ^ (uint64_t)getpid() << 32;
    slot_key = next_random();
    for (int i = 0; i < BATCH; i++) {
        out_vector[i].iov_base = out[i];
        out_message[i].msg_hdr = (struct msghdr){.msg_iov = &out_vector[i], .msg_iovlen = 1};
        in_vector[i] = (struct iovec){in[i], PACKET_MAX};
        in_message[i].msg_hdr = (struct msghdr){.msg_iov = &in_vector[i], .msg_iovlen = 1, .msg_control = in_control[i].bytes};
    }
    for (int i = 0; i < SOCKETS; i++) {
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        if (fd < 0)
            die("socket");
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        if (opt.stamps && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0)
            die("SO_TIMESTAMPNS");
        const struct sockaddr_in any = {.sin_family = AF_INET};
        if (opt.srcs ? bind(fd, (const struct sockaddr *)&any, sizeof any) < 0
                     : connect(fd, (const struct sockaddr *)&opt.server, sizeof opt.server) < 0)
            die("bind or connect");
        fds[i] = fd;
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: ntpload --port N [--secs 5] [--window 128] [--open-rate PER_SECOND] [--timeout 0.5] [--pid SERVER]\n"
                    "               [--srcs N] [--count N] [--nap-us N] [--mac ID:HEX | --nts FILE] [--stamps BURSTS [--burst N]]\n"
                    "--srcs    send from so many addresses in turn, 127.1.0.1 onwards\n"
                    "--count   send so many requests in all; when they fit in the window, all before looking at a reply\n"
                    "--nap-us  sleep between turns (--stamps: between bursts) instead of spinning\n"
                    "--mac     AES-128-CMAC with that key\n"
                    "--nts     NTS with AEAD 15: the file holds the key to the server, that to the client (32 bytes each), and a cookie\n");
    exit(2);
}

int main(int argc, char **argv)
{
    enum { PORT = 256, SECS, WINDOW, RATE, TIMEOUT, SRCS, COUNT, NAP, PID, MAC, NTS, STAMPS, BURST };
    static const struct option options[] = {
        {"port", 1, 0, PORT},   {"secs", 1, 0, SECS},     {"window", 1, 0, WINDOW}, {"open-rate", 1, 0, RATE}, {"timeout", 1, 0, TIMEOUT},
        {"srcs", 1, 0, SRCS},   {"count", 1, 0, COUNT},   {"nap-us", 1, 0, NAP},    {"pid", 1, 0, PID},        {"mac", 1, 0, MAC},
        {"nts", 1, 0, NTS},     {"stamps", 1, 0, STAMPS}, {"burst", 1, 0, BURST}, {0}};
    int port = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case PORT: port = atoi(optarg); break;
        case SECS: opt.secs = atof(optarg); break;
        case WINDOW: opt.window = (unsigned)atoi(optarg); break;
        case RATE: opt.open_rate = atof(optarg); break;
        case TIMEOUT: opt.timeout = atof(optarg); break;
        case SRCS: opt.srcs = (unsigned)atoi(optarg); break;
        case COUNT: opt.count = (unsigned)atoi(optarg); break;
        case NAP: opt.nap_us = (unsigned)atoi(optarg); break;
        case PID: opt.pid = atoi(optarg); break;
        case MAC: parse_mac(optarg); break;
        case NTS: read_session(optarg); break;
        case STAMPS: opt.stamps = (unsigned)atoi(optarg); break;
        case BURST: opt.burst = (unsigned)atoi(optarg); break;
        default: usage();
        }
    }
    if (!port || optind < argc || !opt.window || opt.srcs > 16000000 || opt.secs > 3600 || opt.burst < 1 || opt.burst > BATCH)
        usage();
    opt.server = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    set_up();
    if (opt.stamps) {
        stamps();
        return 0;
    }
    double cpu_s = opt.pid ? server_cpu_s() : 0, elapsed_s = load();
    report(elapsed_s, opt.pid ? server_cpu_s() - cpu_s : 0);
    return 0;
}
