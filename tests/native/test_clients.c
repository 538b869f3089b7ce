/* clients: who is one client, who is replaced, who asks too often, and readers beside the writer. */
#include "clients.h"

#include <pthread.h>
#include <string.h>

#include "check.h"

static const uint8_t key[CLI_KEY_BYTES] = "0123456789abcdef";
static const int64_t second = 1000000000;

static struct acl_client ipv4(uint32_t address)
{
    return acl_client_of((struct acl_address){0, UINT64_C(0xffff) << 32 | address});
}

static struct acl_client ipv6(uint64_t high, uint64_t low)
{
    return acl_client_of((struct acl_address){high, low});
}

static struct cli *table(size_t bytes)
{
    struct cli *t;
    CHECK_EQUAL(cli_create(bytes, key, &t), 0);
    return t;
}

/* One request; the client as it is then. */
static struct cli_client request(struct cli *t, struct acl_client from, int64_t raw_ns)
{
    struct cli_client client;
    size_t place = cli_meet(t, from, cli_hash(t, from), raw_ns, &client);
    CHECK(place < cli_room(t));
    cli_keep(t, place, &client);
    return client;
}

static size_t population(const struct cli *t)
{
    struct cli_client client;
    size_t found = 0;
    for (size_t i = 0; i < cli_room(t); i++)
        found += (size_t)cli_copy(t, i, &client);
    return found;
}

static void memory_is_68_bytes_a_client(void)
{
    struct cli *t = table(16 << 20);
    CHECK(cli_room(t) > (16 << 20) / 70 && cli_room(t) * CLI_BYTES <= 16 << 20);
    cli_destroy(t);
    t = table(0);
    CHECK_EQUAL(cli_room(t), 16);
    cli_destroy(t);
}

static void ipv6_is_counted_by_64_but_for_local_addresses(void)
{
    struct cli *t = table(1 << 20);
    const uint64_t global = UINT64_C(0x20010db800010002), other = global + 1, local = UINT64_C(0xfe80) << 48, unique = UINT64_C(0xfd12) << 48;
    CHECK_EQUAL(request(t, ipv6(global, 1), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(global, 99), second).packets, 2);
    CHECK_EQUAL(request(t, ipv6(other, 1), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(local, 1), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(local, 2), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(unique, 3), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(unique, 3), second).packets, 2);
    CHECK_EQUAL(request(t, ipv4(0x0a000001), second).packets, 1);
    CHECK_EQUAL(request(t, ipv6(UINT64_C(0xffff0a000001), 0), second).packets, 1); /* the same number, another family */
    CHECK_EQUAL(population(t), 7);
    cli_destroy(t);
}

static void intervals_are_averaged(void)
{
    struct cli *t = table(1 << 20);
    struct cli_client c = request(t, ipv4(1), second);
    CHECK(c.packets == 1 && c.first_s == 1 && c.last_ns == second && c.interval_ms == 0);
    c = request(t, ipv4(1), 65 * second);
    CHECK_EQUAL(c.interval_ms, 64000);
    for (int i = 1; i <= 40; i++)
        c = request(t, ipv4(1), (65 + 16 * i) * second);
    CHECK(c.interval_ms > 15900 && c.interval_ms < 16500 && c.first_s == 1 && c.packets == 42);
    cli_destroy(t);
}

static void those_that_come_back_outlive_a_million_that_do_not(void)
{
    struct cli *t = table(1 << 20);
    uint32_t faithful = 200, lost = 0;
    for (uint32_t i = 0; i < faithful; i++) {
        request(t, ipv4(0x0a000000 + i), second);
        request(t, ipv4(0x0a000000 + i), 2 * second);
    }
    for (uint32_t i = 0; i < 1000000; i++)
        request(t, ipv4(0x20000000 + i * 7), 3 * second);
    for (uint32_t i = 0; i < faithful; i++)
        lost += request(t, ipv4(0x0a000000 + i), 4 * second).packets != 3;
    CHECK_EQUAL(lost, 0);
    CHECK(population(t) <= cli_room(t) && population(t) > cli_room(t) * 9 / 10);
    cli_destroy(t);
}

static void among_those_that_come_back_the_least_recent_goes(void)
{
    struct cli *t = table(0); /* one set of 16 */
    for (uint32_t i = 0; i < 16; i++) {
        request(t, ipv4(i), second);
        request(t, ipv4(i), second + i);
    }
    request(t, ipv4(0), 2 * second); /* so that 1 is the least recent */
    request(t, ipv4(100), 3 * second);
    CHECK_EQUAL(request(t, ipv4(0), 4 * second).packets, 4);
    CHECK_EQUAL(request(t, ipv4(15), 4 * second).packets, 3);
    CHECK_EQUAL(request(t, ipv4(1), 4 * second).packets, 1);
    cli_destroy(t);
}

static void the_bucket_holds_a_burst_fills_at_the_rate_and_leaks(void)
{
    struct cli *t = table(1 << 20);
    struct cli_limits limits = {.interval_ns = second, .burst_ns = 8 * second, .leak = 0};
    struct cli_client c = request(t, ipv4(1), 100 * second);
    int passed = 0;
    for (int i = 0; i < 20; i++) /* an iburst of 8 */
        passed += cli_pay(t, &limits, 100 * second, &c);
    CHECK_EQUAL(passed, 8);
    CHECK_EQUAL(c.drops, 12);
    passed = 0;
    for (int i = 0; i < 100; i++) /* ten a second for ten seconds */
        passed += cli_pay(t, &limits, 100 * second + i * second / 10, &c);
    CHECK(passed >= 9 && passed <= 10);
    passed = 0;
    for (int i = 0; i < 60; i++) /* one each second, for ever */
        passed += cli_pay(t, &limits, (200 + i) * second, &c);
    CHECK_EQUAL(passed, 60);
    limits.leak = 16;
    passed = 0;
    for (int i = 0; i < 160000; i++)
        passed += cli_pay(t, &limits, 300 * second, &c);
    CHECK(passed > 9500 && passed < 10500);
    limits.leak = 0;
    limits.burst_ns = 2 * second; /* a tightened limit does not shut anybody out for long */
    CHECK(!cli_pay(t, &limits, 300 * second, &c));
    CHECK(cli_pay(t, &limits, 302 * second, &c));
    limits.interval_ns = 0;
    CHECK(cli_pay(t, &limits, 302 * second, &c));
    cli_destroy(t);
}

static void counters_stay_at_their_maximum(void)
{
    struct cli *t = table(1 << 20);
    struct cli_limits limits = {.interval_ns = second, .burst_ns = second, .leak = 0};
    struct cli_client c;
    size_t place = cli_meet(t, ipv4(1), cli_hash(t, ipv4(1)), second, &c);
    c.packets = c.drops = UINT32_MAX;
    c.full_ns = 100 * second;
    cli_keep(t, place, &c);
    c = request(t, ipv4(1), second + 1);
    CHECK(!cli_pay(t, &limits, second + 1, &c));
    CHECK(c.packets == UINT32_MAX && c.drops == UINT32_MAX);
    cli_destroy(t);
}

static int over;

static void *write_clients(void *argument)
{
    struct cli *t = argument;
    for (uint64_t i = 1; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++) {
        struct cli_client c = {.network = i, .last_ns = (int64_t)i, .full_ns = (int64_t)i, .receive = i, .transmit = i, .packets = (uint32_t)i,
                               .drops = (uint32_t)i, .first_s = (uint32_t)i, .interval_ms = (uint32_t)i};
        cli_keep(t, 3, &c);
    }
    return NULL;
}

static void a_copy_is_never_torn(void)
{
    struct cli *t = table(0);
    struct cli_client c;
    pthread_t writer;
    int copies = 0;
    CHECK_EQUAL(pthread_create(&writer, NULL, write_clients, t), 0);
    for (int tries = 0; copies < 20000 && tries < 10000000; tries++) {
        if (!cli_copy(t, 3, &c))
            continue;
        copies++;
        CHECK(c.network == (uint64_t)c.last_ns && c.last_ns == c.full_ns && c.receive == c.network && c.transmit == c.network);
        CHECK(c.packets == (uint32_t)c.network && c.drops == c.packets && c.first_s == c.packets && c.interval_ms == c.packets);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    CHECK_EQUAL(pthread_join(writer, NULL), 0);
    CHECK_EQUAL(copies, 20000);
    cli_destroy(t);
}

static void what_is_local_ends_where_its_prefix_ends(void)
{
    static const uint64_t local[] = {0xfe80000000000000, 0xfebf000000000000, 0xfc00000000000000, 0xfdffffffffffffff};
    static const uint64_t global[] = {0xfec0000000000000, 0xfe7fffffffffffff, 0xfbffffffffffffff, 0xff02000000000000};
    for (int i = 0; i < 4; i++) {
        struct cli *t = table(1 << 20);
        struct cli_client c = request(t, ipv6(local[i], 0x1111), second);
        CHECK(c.kind == ACL_LOCAL && c.network == 0x1111);
        CHECK_EQUAL(request(t, ipv6(local[i], 0x2222), second).packets, 1);
        c = request(t, ipv6(global[i], 0x1111), second);
        CHECK(c.kind == ACL_IPV6 && c.network == global[i] && c.packets == 1);
        CHECK_EQUAL(request(t, ipv6(global[i], 0x2222), second).packets, 2);
        cli_destroy(t);
    }
}

static void what_is_kept_comes_back_and_makes_no_other_client(void)
{
    struct cli *t = table(1 << 20);
    struct cli_client c, same;
    size_t place = cli_meet(t, ipv4(1), cli_hash(t, ipv4(1)), second, &c);
    c.receive = 11;
    c.transmit = 12;
    c.version = 4;
    c.flags |= CLI_AUTHENTICATED | CLI_INTERLEAVED;
    cli_keep(t, place, &c);
    c = request(t, ipv4(1), 2 * second);
    CHECK(c.packets == 2 && c.receive == 11 && c.transmit == 12 && c.version == 4 && c.flags == (CLI_AUTHENTICATED | CLI_INTERLEAVED));
    CHECK_EQUAL(cli_copy(t, place, &same), 1);
    CHECK(same.packets == 2 && same.sequence % 2 == 0);
    cli_destroy(t);
}

static void those_that_never_came_back_make_room_even_if_they_were_first(void)
{
    struct cli *t = table(0); /* one set of 16 */
    for (uint32_t i = 0; i < 16; i++) /* it is empty: these fill it, the half of those that come back, too */
        request(t, ipv4(100 + i), second);
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < 8; i++)
            request(t, ipv4(i), 2 * second);
    for (uint32_t i = 0; i < 1000; i++)
        request(t, ipv4(200 + i), 3 * second);
    for (uint32_t i = 0; i < 8; i++)
        CHECK_EQUAL(request(t, ipv4(i), 4 * second).packets, 3);
    for (uint32_t i = 1000 - 8; i < 1000; i++) /* of the newcomers the latest are remembered */
        CHECK_EQUAL(request(t, ipv4(200 + i), 4 * second).packets, 2);
    cli_destroy(t);
}

static void the_hash_spreads_neighbours_and_depends_on_the_key(void)
{
    const uint8_t other_key[CLI_KEY_BYTES] = "fedcba9876543210";
    struct cli *t = table(16 * 16 * CLI_BYTES), *other; /* 16 sets */
    struct cli_client c;
    int sets[16] = {0}, same = 0;
    CHECK_EQUAL(cli_create(16 * 16 * CLI_BYTES, other_key, &other), 0);
    for (uint32_t i = 0; i < 16000; i++) {
        size_t place = cli_meet(t, ipv4(0x0a000000 + i), cli_hash(t, ipv4(0x0a000000 + i)), second, &c);
        cli_keep(t, place, &c);
        sets[place / 16]++;
        same += cli_hash(t, ipv4(i)) == cli_hash(other, ipv4(i));
    }
    for (int i = 0; i < 16; i++)
        CHECK(sets[i] > 800 && sets[i] < 1200); /* 1000 and six standard deviations */
    CHECK_EQUAL(same, 0);
    cli_destroy(t);
    cli_destroy(other);
}

static void odd_times_do_no_harm(void)
{
    struct cli *t = table(1 << 20);
    request(t, ipv4(2), second);
    CHECK_EQUAL(request(t, ipv4(2), INT64_MAX / 2).interval_ms, UINT32_MAX); /* more than fits */
    request(t, ipv4(3), 2 * second);
    CHECK_EQUAL(request(t, ipv4(3), second).interval_ms, 0); /* backwards, as the batches of two sockets may */
    CHECK_EQUAL(request(t, ipv4(4), 0).last_ns, 1); /* 0 would be an empty place */
    CHECK_EQUAL(population(t), 3);
    cli_destroy(t);
}

static void what_leaks_is_no_drop_and_costs_nothing(void)
{
    static const uint32_t leaks[] = {0, 1, 2, 4};
    enum { EXCESS = 40000 };
    for (int i = 0; i < 4; i++) {
        struct cli *t = table(0);
        struct cli_limits limits = {.interval_ns = second, .burst_ns = 8 * second, .leak = leaks[i]};
        struct cli_client c = {.last_ns = 1};
        int64_t passed = -8, expected = leaks[i] ? EXCESS / leaks[i] : 0;
        for (int n = 0; n < 8 + EXCESS; n++)
            passed += cli_pay(t, &limits, 100 * second, &c);
        CHECK(leaks[i] > 1 ? llabs(passed - expected) < 600 : passed == expected); /* six standard deviations */
        CHECK(c.drops == EXCESS - passed && c.full_ns == 108 * second);
        cli_destroy(t);
    }
}

static void who_keeps_to_the_rate_is_never_refused(void)
{
    struct cli *t = table(0);
    struct cli_limits limits = {.interval_ns = second, .burst_ns = 2 * second, .leak = 0};
    struct cli_client c = {.last_ns = 1};
    for (int i = 0; i < 10000; i++) /* with the jitter of a network */
        CHECK(cli_pay(t, &limits, (100 + i) * second + i % 3 * second / 3, &c));
    limits.burst_ns = second; /* no burst at all */
    for (int i = 0; i < 1000; i++)
        CHECK(cli_pay(t, &limits, (20000 + i) * second, &c));
    CHECK_EQUAL(c.drops, 0);
    cli_destroy(t);
}

/* Clients come, go and come back, each consistent in itself, their places changing hands. */
static void *meet_clients(void *argument)
{
    struct cli *t = argument;
    for (uint32_t n = 1; !__atomic_load_n(&over, __ATOMIC_RELAXED); n++) {
        struct cli_client c;
        struct acl_client from = ipv4(n % 4 ? n % 4 : n % 1000003 + 4);
        size_t place = cli_meet(t, from, cli_hash(t, from), n, &c);
        c.receive = ~(uint64_t)n;
        c.transmit = c.network + n;
        c.drops = c.packets;
        c.first_s = n;
        c.version = (uint8_t)n;
        cli_keep(t, place, &c);
    }
    return NULL;
}

static void nor_is_one_of_a_place_that_changes_hands(void)
{
    struct cli *t = table(0);
    struct cli_client c;
    pthread_t writer;
    __atomic_store_n(&over, 0, __ATOMIC_RELAXED);
    CHECK_EQUAL(pthread_create(&writer, NULL, meet_clients, t), 0);
    for (int copies = 0; copies < 200000;)
        for (size_t place = 0; place < cli_room(t); place++) {
            if (!cli_copy(t, place, &c))
                continue;
            copies++;
            uint32_t n = (uint32_t)c.last_ns;
            CHECK(c.receive == ~(uint64_t)n && c.transmit == c.network + n && c.drops == c.packets);
            CHECK(c.first_s == n && c.version == (uint8_t)n && c.sequence % 2 == 0);
        }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    CHECK_EQUAL(pthread_join(writer, NULL), 0);
    cli_destroy(t);
}

int main(void)
{
    RUN(memory_is_68_bytes_a_client);
    RUN(ipv6_is_counted_by_64_but_for_local_addresses);
    RUN(intervals_are_averaged);
    RUN(those_that_come_back_outlive_a_million_that_do_not);
    RUN(among_those_that_come_back_the_least_recent_goes);
    RUN(the_bucket_holds_a_burst_fills_at_the_rate_and_leaks);
    RUN(counters_stay_at_their_maximum);
    RUN(a_copy_is_never_torn);
    RUN(what_is_local_ends_where_its_prefix_ends);
    RUN(what_is_kept_comes_back_and_makes_no_other_client);
    RUN(those_that_never_came_back_make_room_even_if_they_were_first);
    RUN(the_hash_spreads_neighbours_and_depends_on_the_key);
    RUN(odd_times_do_no_harm);
    RUN(what_leaks_is_no_drop_and_costs_nothing);
    RUN(who_keeps_to_the_rate_is_never_refused);
    RUN(nor_is_one_of_a_place_that_changes_hands);
    return 0;
}
