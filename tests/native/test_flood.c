/* flood: the programs in the kernel that they are for, on loopback, where anybody may send from 127.x.y.z. */
#define _GNU_SOURCE
#include "flood.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "socket.h"

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78 /* <linux/in6.h> */
#endif

static const struct fld_hash_key key = {{0x12345678, 0x9abcdef1, 0x0fedcba9}};
static struct sock_filter program[FLD_PROGRAM_MAX];
static const uint64_t room = 1 << 20;
static const int64_t turn = 100000000;

static struct acl_client ipv4(uint32_t address)
{
    return acl_client_of((struct acl_address){0, UINT64_C(0xffff) << 32 | address});
}

static int turned(struct fld *f, int64_t raw_ns, uint64_t queue, uint64_t size, int64_t cpu_ns, double cpu_limit)
{
    const struct fld_load load = {queue, size, cpu_ns};
    return fld_turn(f, raw_ns, &load, cpu_limit);
}

static int bound(const struct sockaddr_in *address, int shared)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(!shared || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    CHECK(bind(fd, (const struct sockaddr *)address, sizeof *address) == 0);
    return fd;
}

static struct sockaddr_in where(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    return address;
}

static int waiting(int fd)
{
    char byte;
    int found = 0;
    while (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
        found++;
    return found;
}

/* The same, after waiting for the first: loopback usually delivers before sendto returns, but need not. */
static int arrived(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    CHECK_EQUAL(poll(&polled, 1, 10000), 1);
    return waiting(fd);
}

static uint32_t drops_of(int fd)
{
    struct sok_load load;
    CHECK_EQUAL(sok_load(fd, &load), 0);
    return (uint32_t)load.drops;
}

/* Send `count` packets; how many of them get through to fd. Each has come or been dropped when it returns. */
static int sent_through(int fd, int sender, const struct sockaddr *to, socklen_t length, int count)
{
    int passed = 0;
    for (int i = 0; i < count; i++) {
        uint32_t before = drops_of(fd);
        int come = 0;
        CHECK(sendto(sender, "x", 1, 0, to, length) == 1);
        for (int tries = 0; (come = waiting(fd)) == 0 && drops_of(fd) == before; tries++) {
            CHECK(tries < 100000);
            usleep(100);
        }
        passed += come;
    }
    return passed;
}

/* How many of `count` packets from 127.x.y.z = source get through to fd. */
static int through(int fd, uint32_t source, int count)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)}, to = where(fd);
    int sender = bound(&from, 0), passed = sent_through(fd, sender, (struct sockaddr *)&to, sizeof to, count);
    close(sender);
    return passed;
}

/* IPv6 packets can be sent from addresses that this machine does not have; link-local ones are of the loopback interface. */
static int sender_of(const char *name)
{
    struct sockaddr_storage address;
    socklen_t length;
    const int on = 1;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK_EQUAL(sok_address(name, 0, &address, &length), 0);
    CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, length) == 0);
    return fd;
}

static struct acl_client ipv6(const char *name)
{
    struct sockaddr_storage address;
    struct acl_address a = {0, 0};
    socklen_t length;
    CHECK_EQUAL(sok_address(name, 0, &address, &length), 0);
    for (int i = 0; i < 8; i++) {
        a.high = a.high << 8 | ((struct sockaddr_in6 *)&address)->sin6_addr.s6_addr[i];
        a.low = a.low << 8 | ((struct sockaddr_in6 *)&address)->sin6_addr.s6_addr[i + 8];
    }
    return acl_client_of(a);
}

static int through6(int fd, const char *source, int count)
{
    struct sockaddr_in6 to;
    socklen_t length = sizeof to;
    CHECK(getsockname(fd, (struct sockaddr *)&to, &length) == 0);
    int sender = sender_of(source), passed = sent_through(fd, sender, (struct sockaddr *)&to, length, count);
    close(sender);
    return passed;
}

/* 0: no IPv6 here. */
static int bound6(int *fd, int shared)
{
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_storage address;
    socklen_t length = sizeof loopback;
    memset(&address, 0, sizeof address);
    memcpy(&address, &loopback, sizeof loopback);
    fd[0] = sok_open(&address, &length, "", 1, shared > 1);
    for (int i = 1; fd[0] >= 0 && i < shared; i++)
        CHECK((fd[i] = sok_open(&address, &length, "", 0, 1)) >= 0);
    if (fd[0] < 0)
        printf("skipped: no IPv6 here\n");
    return fd[0] >= 0;
}

static void the_kernel_and_we_agree_whose_thread_it_is(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[4], met[4] = {0};
    for (int i = 0; i < 4; i++) {
        fds[i] = bound(&address, 1);
        address = where(fds[i]);
    }
    CHECK_EQUAL(sok_select(fds[0], program, fld_selector(&key, 4, program)), 0);
    for (uint32_t n = 0; n < 200; n++) {
        uint32_t source = 0x7f000000 | (n * 2654435761u & 0xffff) | 1;
        unsigned thread = fld_hash(&key, ipv4(source)) % 4;
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
        int sender = bound(&from, 0);
        CHECK(sendto(sender, "x", 1, 0, (struct sockaddr *)&address, sizeof address) == 1);
        CHECK_EQUAL(arrived(fds[thread]), 1);
        met[thread]++;
        close(sender);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(met[i] > 20); /* spread */
        close(fds[i]);
    }
}

static void and_so_for_ipv6(void)
{
    static const char *const sources[] = {"::1", "2001:db8:1:2::5", "2001:db8:1:3::6", "fd12:3456::77", "fc00::1:0:0:5",
                                          "fe80::1234:5678:9abc:def0%lo", "febf::9%lo", "fbff::1", "fec0::1"};
    int fds[4];
    for (uint32_t k = 1; k <= 12; k++) { /* one may agree by chance, but not under many keys */
        const struct fld_hash_key some = {{k * 0x9e3779b9, ~k * 0x85ebca6b, k ^ 0xc2b2ae35}};
        struct sockaddr_in6 to;
        socklen_t length = sizeof to;
        if (!bound6(fds, 4))
            return;
        CHECK_EQUAL(sok_select(fds[0], program, fld_selector(&some, 4, program)), 0);
        CHECK(getsockname(fds[0], (struct sockaddr *)&to, &length) == 0);
        for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
            int sender = sender_of(sources[i]);
            CHECK(sendto(sender, "x", 1, 0, (struct sockaddr *)&to, length) == 1);
            CHECK_EQUAL(arrived(fds[fld_hash(&some, ipv6(sources[i])) % 4]), 1);
            close(sender);
        }
        for (int i = 0; i < 4; i++)
            close(fds[i]);
    }
}

static void local_addresses_are_hashed_whole_others_by_64(void)
{
    const uint64_t global = UINT64_C(0x20010db800010002), local = UINT64_C(0xfe80) << 48, unique = UINT64_C(0xfd00) << 48;
    CHECK(fld_hash(&key, acl_client_of((struct acl_address){global, 1})) == fld_hash(&key, acl_client_of((struct acl_address){global, 2})));
    CHECK(fld_hash(&key, acl_client_of((struct acl_address){local, 1})) != fld_hash(&key, acl_client_of((struct acl_address){local, 2})));
    CHECK(fld_hash(&key, acl_client_of((struct acl_address){unique, 1})) != fld_hash(&key, acl_client_of((struct acl_address){unique, 2})));
}

/* Run a program that has no random number in it on a packet, whose network header is at the beginning. */
static uint32_t interpreted(const struct sock_filter *code, size_t length, const uint8_t *packet)
{
    uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {0};
    for (size_t i = 0; i < length; i++) {
        const struct sock_filter *c = &code[i];
        const uint8_t *at = packet + (uint32_t)(c->k - (uint32_t)SKF_NET_OFF) % 64;
        switch (c->code) {
        case BPF_LD | BPF_B | BPF_ABS: a = at[0]; break;
        case BPF_LD | BPF_W | BPF_ABS: a = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; break;
        case BPF_LDX | BPF_W | BPF_MEM: x = memory[c->k]; break;
        case BPF_ST: memory[c->k] = a; break;
        case BPF_MISC | BPF_TAX: x = a; break;
        case BPF_ALU | BPF_RSH | BPF_K: a >>= c->k; break;
        case BPF_ALU | BPF_AND | BPF_K: a &= c->k; break;
        case BPF_ALU | BPF_XOR | BPF_K: a ^= c->k; break;
        case BPF_ALU | BPF_XOR | BPF_X: a ^= x; break;
        case BPF_ALU | BPF_MUL | BPF_K: a *= c->k; break;
        case BPF_ALU | BPF_MOD | BPF_K: a %= c->k; break;
        case BPF_JMP | BPF_JA: i += c->k; break;
        case BPF_JMP | BPF_JEQ | BPF_K: i += a == c->k ? c->jt : c->jf; break;
        case BPF_RET | BPF_A: return a;
        default: CHECK(!"an instruction that the selector does not use");
        }
    }
    CHECK(!"the program ends");
    return 0;
}

static void put64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (56 - 8 * i));
}

static uint64_t any64(void)
{
    static uint64_t x = 88172645463325252;
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

/* The programs and access.c agree on what a client is: at the edges of the local prefixes and anywhere else. */
static void the_programs_take_for_a_client_what_access_does(void)
{
    static const uint64_t edges[] = {0xfe80000000000000, 0xfebfffffffffffff, 0xfec0000000000000, 0xfe7fffffffffffff, 0xfc00000000000000,
                                     0xfdffffffffffffff, 0xfbffffffffffffff, 0xfe00000000000000, 0, UINT64_MAX};
    const unsigned many = 4294967291; /* a prime, so that the remainder tells almost all of the hash */
    size_t length = fld_selector(&key, many, program);
    for (int i = 0; i < 200000; i++) {
        uint8_t packet[68] = {0};
        struct acl_address source = {i % 3 ? edges[any64() % 10] ^ (i % 2 ? any64() >> (any64() % 64) : 0) : any64(), any64()};
        if (i % 5 == 0) {
            source = (struct acl_address){0, UINT64_C(0xffff) << 32 | (uint32_t)source.low};
            packet[0] = 0x45;
            put64(packet + 8, source.low & UINT32_MAX); /* at 12 */
        } else {
            packet[0] = 0x60;
            put64(packet + 8, source.high);
            put64(packet + 16, source.low);
        }
        CHECK_EQUAL(interpreted(program, length, packet), fld_hash(&key, acl_client_of(source)) % many);
    }
}

static void a_flooder_is_blocked_leaks_and_is_let_in_again(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0), leaked;
    uint32_t flooder = 0x7f010101, hash = fld_hash(&key, ipv4(flooder));
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(turned(f, turn, 0, room, 0, 1), 0);
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    for (int i = 0; i < 100; i++)
        CHECK_EQUAL(fld_excess(f, hash, 16), 0);
    CHECK_EQUAL(turned(f, 2 * turn, 0, room, 0, 1), 1);
    CHECK_EQUAL(fld_blocked(f), 1);
    CHECK_EQUAL(sok_filter(fd, program, fld_filter(f, 16, program)), 0);
    leaked = through(fd, flooder, 4000);
    CHECK(leaked > 125 && leaked < 400); /* one in 16 is 250; eight sigma */
    CHECK_EQUAL(through(fd, 0x7f010102, 500), 500);
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(fld_excess(f, hash, 16), 1); /* each stands for 16 */
    CHECK_EQUAL(turned(f, 3 * turn, 0, room, 0, 1), 0);
    CHECK_EQUAL(fld_blocked(f), 1);
    CHECK_EQUAL(turned(f, 4 * turn, 0, room, 0, 1), 1); /* silent for a turn */
    CHECK_EQUAL(fld_blocked(f), 0);
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    CHECK_EQUAL(sok_filter(fd, program, 0), 0);
    CHECK_EQUAL(through(fd, flooder, 500), 500);
    fld_destroy(f);
    close(fd);
}

/* Put the filter on, with as many of FLD_KNOWN_MAX known clients as the kernel has room for: how many. */
static uint32_t attached(struct fld *f, int fd, uint32_t leak)
{
    uint32_t known = FLD_KNOWN_MAX;
    for (;; known /= 2) {
        size_t length = fld_filter(f, leak, program);
        CHECK(length > 0 && length <= FLD_PROGRAM_MAX);
        int r = sok_filter(fd, program, length);
        if (r == 0)
            return known;
        CHECK(r == -ENOMEM && fld_fewer(f)); /* net.core.optmem_max: 20 KB before Linux 6.8, 128 KB since */
    }
}

static void under_load_known_clients_all_pass_and_the_rest_as_it_can(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0), passed;
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(turned(f, turn, room * 3 / 4, room, 0, 1), 1); /* half of the room is taken */
    CHECK(fld_thinning(f) && fld_share(f) == 0.5);
    CHECK_EQUAL(turned(f, turn + 1, room * 7 / 8, room, 0, 1), 1);
    CHECK(fld_share(f) == 0.25);
    CHECK_EQUAL(turned(f, turn + 2, room * 6 / 8, room, 0, 1), 0); /* it drains: enough */
    for (uint32_t i = 0; i < FLD_KNOWN_MAX + 10; i++)
        fld_know(f, ipv4(0x7f020000 + i));
    uint32_t known = attached(f, fd, 16);
    CHECK(known >= FLD_KNOWN_MAX / 4);
    for (uint32_t i = 0; i < known; i += 13)
        CHECK_EQUAL(through(fd, 0x7f020000 + i, 20), 20);
    passed = through(fd, 0x7f030303, 4000);
    CHECK(passed > 780 && passed < 1220); /* a quarter is 1000; eight sigma */
    for (int i = 2; i < 40; i++)
        (void)turned(f, i * turn, 0, room, 0, 1);
    CHECK(!fld_thinning(f));
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    fld_destroy(f);
    close(fd);
}

static void more_processor_than_allowed_thins_too(void)
{
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(turned(f, turn, 0, room, 0, 0.5), 0);
    CHECK_EQUAL(turned(f, 2 * turn, 0, room, turn, 0.5), 1); /* all of a core, and half is allowed */
    CHECK(fld_share(f) == 0.5);
    CHECK_EQUAL(turned(f, 3 * turn, 0, room, turn + turn / 4, 0.5), 1); /* a quarter */
    CHECK(fld_share(f) == 0.625);
    fld_destroy(f);
}

static void the_largest_program_is_one_that_the_kernel_takes(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0);
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    for (uint32_t n = 0; n < 200000; n++)
        (void)fld_excess(f, n * 2654435761u % 400 * 0x01000193, 16);
    CHECK_EQUAL(turned(f, turn, room, room, 0, 1), 1);
    for (uint32_t i = 0; i < FLD_KNOWN_MAX; i++)
        fld_know(f, ipv4(0x7f020000 + i));
    CHECK(fld_blocked(f) > 100 && fld_blocked(f) <= FLD_BLOCKED_MAX);
    uint32_t known = attached(f, fd, 16);
    CHECK_EQUAL(through(fd, 0x7f020000, 50), 50);
    CHECK_EQUAL(through(fd, 0x7f020000 + known - 1, 50), 50);
    fld_destroy(f);
    close(fd);
}

static struct fld *fresh(void)
{
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(turned(f, turn, 0, room, 0, 1), 0);
    return f;
}

/* Block that source in the turn that ends at turn_ns. */
static void block(struct fld *f, struct acl_client source, int64_t turn_ns)
{
    for (int i = 0; i < 100; i++)
        (void)fld_excess(f, fld_hash(&key, source), 16);
    CHECK_EQUAL(turned(f, turn_ns, 0, room, 0, 1), 1);
}

static void attach(struct fld *f, int fd, uint32_t leak)
{
    size_t length = fld_filter(f, leak, program);
    CHECK(length > 0 && length <= FLD_PROGRAM_MAX);
    CHECK_EQUAL(sok_filter(fd, program, length), 0);
}

static void the_leak_goes_from_nothing_to_everything(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0), leaked;
    struct fld *f = fresh();
    block(f, ipv4(0x7f010101), 2 * turn);
    attach(f, fd, 0);
    CHECK(through(fd, 0x7f010101, 500) <= 1); /* one in 2^32 */
    attach(f, fd, 2);
    leaked = through(fd, 0x7f010101, 1000);
    CHECK(leaked > 374 && leaked < 626); /* eight sigma */
    attach(f, fd, 1);
    CHECK_EQUAL(through(fd, 0x7f010101, 500), 500);
    fld_destroy(f);
    close(fd);
}

static void an_ipv6_source_is_blocked_with_its_64_and_a_local_one_alone(void)
{
    static const char *const blocked[] = {"::1", "2001:db8:1:2::5", "fd12:3456::77", "fe80::abcd%lo"};
    int fd;
    for (int i = 0; i < 4; i++) {
        struct fld *f = fresh();
        if (bound6(&fd, 1)) {
            block(f, ipv6(blocked[i]), 2 * turn);
            attach(f, fd, 0);
            CHECK(through6(fd, blocked[i], 200) <= 1);
            CHECK_EQUAL(through6(fd, "2001:db8:1:2:ffff:ffff:ffff:fffe", 200) <= 1, i == 1);
            CHECK_EQUAL(through6(fd, "2001:db8:1:3::5", 200), 200);
            CHECK_EQUAL(through6(fd, "fd12:3456::78", 200), 200);
            CHECK_EQUAL(through6(fd, "fe80::abce%lo", 200), 200);
            close(fd);
        }
        fld_destroy(f);
    }
}

static void known_ipv6_clients_pass_under_load(void)
{
    struct fld *f = fresh();
    int fd, passed;
    CHECK_EQUAL(turned(f, turn + 1, room, room, 0, 1), 1);
    fld_know(f, ipv6("2001:db8:1:2::"));
    fld_know(f, ipv6("fe80::77"));
    if (bound6(&fd, 1)) {
        attach(f, fd, 16);
        CHECK_EQUAL(through6(fd, "2001:db8:1:2::abc", 300), 300);
        CHECK_EQUAL(through6(fd, "fd12:3456::77", 300), 300);
        passed = through6(fd, "2001:db8:1:3::abc", 1000);
        CHECK(passed > 374 && passed < 626); /* half of them; eight sigma */
        fld_forget(f);
        attach(f, fd, 16);
        passed = through6(fd, "2001:db8:1:2::abc", 1000);
        CHECK(passed > 374 && passed < 626);
        close(fd);
    }
    fld_destroy(f);
}

static void to_be_known_does_not_help_a_flooder(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0);
    struct fld *f = fresh();
    block(f, ipv4(0x7f010101), 2 * turn);
    CHECK_EQUAL(turned(f, 2 * turn + 1, room, room, 0, 1), 1);
    fld_know(f, ipv4(0x7f010101));
    fld_know(f, ipv4(0x7f010102));
    attach(f, fd, 0);
    CHECK(through(fd, 0x7f010101, 500) <= 1);
    CHECK_EQUAL(through(fd, 0x7f010102, 500), 500);
    fld_destroy(f);
    close(fd);
}

static void a_few_too_many_are_no_flood(void)
{
    struct fld *f = fresh();
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(fld_excess(f, 0x12345678, 16), 0);
    CHECK_EQUAL(turned(f, 2 * turn - 1, 0, room, 0, 1), 0); /* the turn is not over */
    CHECK_EQUAL(turned(f, 2 * turn, 0, room, 0, 1), 0);
    for (int i = 0; i < 20; i++) /* nor do they add up over turns */
        CHECK_EQUAL(fld_excess(f, 0x12345678, 16), 0);
    CHECK_EQUAL(turned(f, 3 * turn, 0, room, 0, 1), 0);
    CHECK_EQUAL(fld_blocked(f), 0);
    fld_destroy(f);
    fld_destroy(NULL);
}

static void many_sources_are_blocked_whatever_thread_is_theirs(void)
{
    /* The hashes of one thread's sources are alike modulo the number of threads. */
    for (uint32_t threads = 1; threads <= 64; threads *= 4) {
        struct fld *f = fresh();
        uint32_t hash[32], x = 2463534242;
        for (int i = 0; i < 32; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            hash[i] = x - x % threads + threads - 1;
        }
        for (int n = 0; n < 200; n++)
            for (int i = 0; i < 32; i++)
                (void)fld_excess(f, hash[i], 16);
        CHECK_EQUAL(turned(f, 2 * turn, 0, room, 0, 1), 1);
        CHECK(fld_blocked(f) >= 20); /* of two that share a place neither may be seen */
        fld_destroy(f);
    }
}

static void the_share_has_a_floor_and_comes_back_a_quarter_a_turn(void)
{
    struct fld *f = fresh();
    double share = 1;
    for (int i = 1; i <= 30; i++) { /* at once, not at the end of the turn */
        CHECK_EQUAL(turned(f, turn + i, room / 2 + (uint64_t)i, room, 0, 1), share > 1.0 / 1024);
        share = share / 2 > 1.0 / 1024 ? share / 2 : 1.0 / 1024;
        CHECK(fld_share(f) == share && fld_thinning(f));
    }
    CHECK_EQUAL(turned(f, 3 * turn, room / 4, room, 0, 1), 0); /* neither full nor empty */
    int64_t turns = 4;
    for (; share < 1; turns++) {
        CHECK_EQUAL(turned(f, turns * turn, 0, room, 0, 1), 1);
        CHECK_EQUAL(turned(f, turns * turn + 1, 0, room, 0, 1), 0); /* once a turn */
        share = share * 1.25 < 1 ? share * 1.25 : 1;
        CHECK(fld_share(f) == share);
    }
    CHECK(turns == 4 + 32 && !fld_thinning(f)); /* 1024 = 1.25^31.06 */
    for (int i = 40; i < 90; i++)
        (void)turned(f, i * turn, 0, room, i * turn, 0.01); /* all of a core, where a hundredth is allowed */
    CHECK(fld_share(f) == 1.0 / 1024);
    fld_destroy(f);
}

static void a_program_of_any_size_finds_each_of_its_sources(void)
{
    static const uint32_t known[] = {1, 2, 3, 4, 5, 6, 9, 37, 127};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct fld *f = fresh();
        for (uint32_t n = 0; n < 100 * 3; n++)
            (void)fld_excess(f, fld_hash(&key, ipv4(0x7f030000 + n % 3)), 16);
        CHECK_EQUAL(turned(f, 2 * turn, room, room, 0, 1), 1);
        for (int n = 0; n < 12; n++)
            (void)turned(f, 2 * turn + 1, room, room, 0, 1);
        for (uint32_t k = 0; k < known[i]; k++)
            fld_know(f, ipv4(0x7f020000 + k));
        attach(f, fd, 0);
        for (uint32_t k = 0; k < known[i]; k++)
            CHECK_EQUAL(through(fd, 0x7f020000 + k, 5), 5);
        CHECK(through(fd, 0x7f030000, 100) <= 5 && through(fd, 0x7f090909, 100) <= 5); /* blocked, and one in 1024 */
        fld_destroy(f);
    }
    close(fd);
}

static void a_list_that_was_too_long_stays_shorter(void)
{
    struct fld *f = fresh();
    CHECK_EQUAL(fld_fewer(f), 0); /* nothing to leave out */
    CHECK_EQUAL(turned(f, turn + 1, room, room, 0, 1), 1);
    for (uint32_t i = 0; i < FLD_KNOWN_MAX; i++)
        fld_know(f, ipv4(i));
    size_t all = fld_filter(f, 16, program), half, again;
    CHECK_EQUAL(fld_fewer(f), 1);
    half = fld_filter(f, 16, program);
    CHECK(half < all * 6 / 10);
    fld_forget(f);
    for (uint32_t i = 0; i < FLD_KNOWN_MAX; i++)
        fld_know(f, ipv4(i));
    again = fld_filter(f, 16, program);
    CHECK_EQUAL(again, half);
    while (fld_fewer(f))
        ;
    CHECK(fld_filter(f, 16, program) < 64);
    fld_destroy(f);
}

int main(void)
{
    RUN(the_kernel_and_we_agree_whose_thread_it_is);
    RUN(and_so_for_ipv6);
    RUN(local_addresses_are_hashed_whole_others_by_64);
    RUN(the_programs_take_for_a_client_what_access_does);
    RUN(a_flooder_is_blocked_leaks_and_is_let_in_again);
    RUN(under_load_known_clients_all_pass_and_the_rest_as_it_can);
    RUN(more_processor_than_allowed_thins_too);
    RUN(the_largest_program_is_one_that_the_kernel_takes);
    RUN(the_leak_goes_from_nothing_to_everything);
    RUN(an_ipv6_source_is_blocked_with_its_64_and_a_local_one_alone);
    RUN(known_ipv6_clients_pass_under_load);
    RUN(to_be_known_does_not_help_a_flooder);
    RUN(a_few_too_many_are_no_flood);
    RUN(many_sources_are_blocked_whatever_thread_is_theirs);
    RUN(the_share_has_a_floor_and_comes_back_a_quarter_a_turn);
    RUN(a_program_of_any_size_finds_each_of_its_sources);
    RUN(a_list_that_was_too_long_stays_shorter);
    return 0;
}
