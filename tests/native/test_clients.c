/* clients: who is one client, who is replaced, who asks too often, and readers beside the writer. */
#include "clients.h"

#include <pthread.h>
#include <string.h>

#include "check.h"

static const uint8_t key[CLI_KEY_BYTES] = "0123456789abcdef";
static const int64_t second = 1000000000;

static struct acl_address ipv4(uint32_t address)
{
    return (struct acl_address){0, UINT64_C(0xffff) << 32 | address};
}

static struct cli *table(size_t bytes)
{
    struct cli *t;
    CHECK_EQUAL(cli_create(bytes, key, &t), 0);
    return t;
}

/* One request; the client as it is then. */
static struct cli_client request(struct cli *t, struct acl_address from, int64_t raw_ns)
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
    CHECK_EQUAL(request(t, (struct acl_address){global, 1}, second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){global, 99}, second).packets, 2);
    CHECK_EQUAL(request(t, (struct acl_address){other, 1}, second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){local, 1}, second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){local, 2}, second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){unique, 3}, second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){unique, 3}, second).packets, 2);
    CHECK_EQUAL(request(t, ipv4(0x0a000001), second).packets, 1);
    CHECK_EQUAL(request(t, (struct acl_address){UINT64_C(0xffff0a000001), 0}, second).packets, 1); /* the same number, another family */
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
    c.owed_ns = 100 * second;
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
        struct cli_client c = {.network = i, .last_ns = (int64_t)i, .owed_ns = (int64_t)i, .receive = i, .transmit = i, .packets = (uint32_t)i,
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
        CHECK(c.network == (uint64_t)c.last_ns && c.last_ns == c.owed_ns && c.receive == c.network && c.transmit == c.network);
        CHECK(c.packets == (uint32_t)c.network && c.drops == c.packets && c.first_s == c.packets && c.interval_ms == c.packets);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    CHECK_EQUAL(pthread_join(writer, NULL), 0);
    CHECK_EQUAL(copies, 20000);
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
    return 0;
}
