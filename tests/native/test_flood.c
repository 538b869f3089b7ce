/* flood: the programs in the kernel that they are for, on loopback, where anybody may send from 127.x.y.z. */
#define _GNU_SOURCE
#include "flood.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "socket.h"

static const struct fld_hash_key key = {{0x12345678, 0x9abcdef1, 0x0fedcba9}};
static struct sock_filter program[FLD_PROGRAM_MAX];
static const uint64_t room = 1 << 20;
static const int64_t turn = 100000000;

static struct acl_address ipv4(uint32_t address)
{
    return (struct acl_address){0, UINT64_C(0xffff) << 32 | address};
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

/* How many of `count` packets from 127.x.y.z = source get through to fd. */
static int through(int fd, uint32_t source, int count)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)}, to = where(fd);
    int sender = bound(&from, 0), passed = 0;
    for (int i = 0; i < count; i++) {
        CHECK(sendto(sender, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1); /* loopback delivers before sendto returns */
        passed += waiting(fd);
    }
    close(sender);
    return passed;
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
        CHECK_EQUAL(waiting(fds[thread]), 1);
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
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t length = sizeof address;
    const int on = 1;
    int fds[4], sender = socket(AF_INET6, SOCK_DGRAM, 0);
    char byte;
    if (sender < 0 || bind(sender, (struct sockaddr *)&address, sizeof address) < 0) {
        printf("skipped: no IPv6 here\n");
        return;
    }
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_INET6, SOCK_DGRAM, 0);
        CHECK(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
        CHECK(bind(fds[i], (struct sockaddr *)&address, sizeof address) == 0);
        CHECK(getsockname(fds[i], (struct sockaddr *)&address, &length) == 0);
    }
    CHECK_EQUAL(sok_select(fds[0], program, fld_selector(&key, 4, program)), 0);
    CHECK(sendto(sender, "x", 1, 0, (struct sockaddr *)&address, sizeof address) == 1);
    CHECK_EQUAL(recv(fds[fld_hash(&key, (struct acl_address){0, 1}) % 4], &byte, 1, MSG_DONTWAIT), 1);
    close(sender);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

static void local_addresses_are_hashed_whole_others_by_64(void)
{
    const uint64_t global = UINT64_C(0x20010db800010002), local = UINT64_C(0xfe80) << 48, unique = UINT64_C(0xfd00) << 48;
    CHECK(fld_hash(&key, (struct acl_address){global, 1}) == fld_hash(&key, (struct acl_address){global, 2}));
    CHECK(fld_hash(&key, (struct acl_address){local, 1}) != fld_hash(&key, (struct acl_address){local, 2}));
    CHECK(fld_hash(&key, (struct acl_address){unique, 1}) != fld_hash(&key, (struct acl_address){unique, 2}));
}

static void a_flooder_is_blocked_leaks_and_is_let_in_again(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0), leaked;
    uint32_t flooder = 0x7f010101, hash = fld_hash(&key, ipv4(flooder));
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(fld_turn(f, turn, 0, room, 0, 1), 0);
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    for (int i = 0; i < 100; i++)
        CHECK_EQUAL(fld_excess(f, hash, 16), 0);
    CHECK_EQUAL(fld_turn(f, 2 * turn, 0, room, 0, 1), 1);
    CHECK_EQUAL(fld_blocked(f), 1);
    CHECK_EQUAL(sok_filter(fd, program, fld_filter(f, 16, program)), 0);
    leaked = through(fd, flooder, 4000);
    CHECK(leaked > 125 && leaked < 400); /* one in 16 is 250; eight sigma */
    CHECK_EQUAL(through(fd, 0x7f010102, 500), 500);
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(fld_excess(f, hash, 16), 1); /* each stands for 16 */
    CHECK_EQUAL(fld_turn(f, 3 * turn, 0, room, 0, 1), 0);
    CHECK_EQUAL(fld_blocked(f), 1);
    CHECK_EQUAL(fld_turn(f, 4 * turn, 0, room, 0, 1), 1); /* silent for a turn */
    CHECK_EQUAL(fld_blocked(f), 0);
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    CHECK_EQUAL(sok_filter(fd, program, 0), 0);
    CHECK_EQUAL(through(fd, flooder, 500), 500);
    fld_destroy(f);
    close(fd);
}

static void under_load_known_clients_all_pass_and_the_rest_as_it_can(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = bound(&address, 0), passed;
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(fld_turn(f, turn, room * 3 / 4, room, 0, 1), 1); /* half of the room is taken */
    CHECK(fld_thinning(f) && fld_share(f) == 0.5);
    CHECK_EQUAL(fld_turn(f, turn + 1, room * 7 / 8, room, 0, 1), 1);
    CHECK(fld_share(f) == 0.25);
    CHECK_EQUAL(fld_turn(f, turn + 2, room * 6 / 8, room, 0, 1), 0); /* it drains: enough */
    for (uint32_t i = 0; i < FLD_KNOWN_MAX + 10; i++)
        fld_know(f, ipv4(0x7f020000 + i));
    size_t length = fld_filter(f, 16, program);
    CHECK(length > 0 && length < FLD_PROGRAM_MAX);
    CHECK_EQUAL(sok_filter(fd, program, length), 0);
    for (uint32_t i = 0; i < FLD_KNOWN_MAX; i += 13)
        CHECK_EQUAL(through(fd, 0x7f020000 + i, 20), 20);
    passed = through(fd, 0x7f030303, 4000);
    CHECK(passed > 780 && passed < 1220); /* a quarter is 1000; eight sigma */
    for (int i = 2; i < 40; i++)
        (void)fld_turn(f, i * turn, 0, room, 0, 1);
    CHECK(!fld_thinning(f));
    CHECK_EQUAL(fld_filter(f, 16, program), 0);
    fld_destroy(f);
    close(fd);
}

static void more_processor_than_allowed_thins_too(void)
{
    struct fld *f;
    CHECK_EQUAL(fld_create(&key, &f), 0);
    CHECK_EQUAL(fld_turn(f, turn, 0, room, 0, 0.5), 0);
    CHECK_EQUAL(fld_turn(f, 2 * turn, 0, room, turn, 0.5), 1); /* all of a core, and half is allowed */
    CHECK(fld_share(f) == 0.5);
    CHECK_EQUAL(fld_turn(f, 3 * turn, 0, room, turn + turn / 4, 0.5), 1); /* a quarter */
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
    CHECK_EQUAL(fld_turn(f, turn, room, room, 0, 1), 1);
    for (uint32_t i = 0; i < FLD_KNOWN_MAX; i++)
        fld_know(f, ipv4(0x7f020000 + i));
    CHECK(fld_blocked(f) > 100 && fld_blocked(f) <= FLD_BLOCKED_MAX);
    CHECK_EQUAL(sok_filter(fd, program, fld_filter(f, 16, program)), 0);
    CHECK_EQUAL(through(fd, 0x7f020000, 50), 50);
    fld_destroy(f);
    close(fd);
}

int main(void)
{
    RUN(the_kernel_and_we_agree_whose_thread_it_is);
    RUN(and_so_for_ipv6);
    RUN(local_addresses_are_hashed_whole_others_by_64);
    RUN(a_flooder_is_blocked_leaks_and_is_let_in_again);
    RUN(under_load_known_clients_all_pass_and_the_rest_as_it_can);
    RUN(more_processor_than_allowed_thins_too);
    RUN(the_largest_program_is_one_that_the_kernel_takes);
    return 0;
}
