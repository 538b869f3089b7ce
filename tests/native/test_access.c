/* access: which rule an address meets, and whose address it is. */
#include "access.h"

#include "check.h"

static const struct acl_address lowest = {0, 0}, highest = {UINT64_MAX, UINT64_MAX};

static struct acl_address four(uint32_t address)
{
    return (struct acl_address){0, UINT64_C(0xffff00000000) | address};
}

static struct acl_address next(struct acl_address a)
{
    a.low++;
    a.high += a.low == 0;
    return a;
}

static struct acl_address previous(struct acl_address a)
{
    a.high -= a.low == 0;
    a.low--;
    return a;
}

static int same(struct acl_address a, struct acl_address b)
{
    return a.high == b.high && a.low == b.low;
}

static void without_rules_everybody_is_denied(void)
{
    CHECK_EQUAL(acl_find(NULL, 0, lowest), ACL_DENY);
    CHECK_EQUAL(acl_find(NULL, 0, four(0x7f000001)), ACL_DENY);
    CHECK_EQUAL(acl_find(NULL, 0, highest), ACL_DENY);
}

static void one_rule_is_for_all(void)
{
    for (int action = 0; action < ACL_ACTIONS; action++) {
        const struct acl_range all[] = {{{0, 0}, (uint8_t)action}};
        CHECK(acl_valid(all, 1));
        CHECK_EQUAL(acl_find(all, 1, lowest), action);
        CHECK_EQUAL(acl_find(all, 1, four(0)), action);
        CHECK_EQUAL(acl_find(all, 1, highest), action);
    }
}

static void a_range_goes_from_its_first_to_the_next_ones_first(void)
{
    /* 192.0.2.0/24 allowed but for .7; 2001:db8::/32 authenticated, its last address ignored; the rest denied. */
    const struct acl_range ranges[] = {
        {{0, 0}, ACL_DENY},
        {four(0xc0000200), ACL_ALLOW},
        {four(0xc0000207), ACL_IGNORE},
        {four(0xc0000208), ACL_ALLOW},
        {four(0xc0000300), ACL_DENY},
        {{0x20010db800000000, 0}, ACL_AUTHENTICATED},
        {{0x20010db8ffffffff, UINT64_MAX}, ACL_IGNORE},
        {{0x20010db900000000, 0}, ACL_DENY},
    };
    const size_t count = sizeof ranges / sizeof *ranges;
    CHECK(acl_valid(ranges, count));
    for (size_t i = 0; i < count; i++) {
        CHECK_EQUAL(acl_find(ranges, count, ranges[i].first), ranges[i].action);
        CHECK_EQUAL(acl_find(ranges, count, next(ranges[i].first)), same(next(ranges[i].first), ranges[(i + 1) % count].first)
                                                                        ? ranges[(i + 1) % count].action
                                                                        : ranges[i].action);
        if (i)
            CHECK_EQUAL(acl_find(ranges, count, previous(ranges[i].first)), ranges[i - 1].action);
    }
    CHECK_EQUAL(acl_find(ranges, count, highest), ACL_DENY);
    CHECK_EQUAL(acl_find(ranges, count, (struct acl_address){0, 0xc0000201}), ACL_DENY); /* ::192.0.2.1 is not mapped */
}

static void the_search_agrees_with_a_walk_for_any_number_of_ranges(void)
{
    struct acl_range ranges[67];
    for (size_t count = 1; count <= sizeof ranges / sizeof *ranges; count++) {
        for (size_t i = 0; i < count; i++) /* in both halves of the address */
            ranges[i] = (struct acl_range){{i / 8 * 10, i % 8 * 10}, (uint8_t)(i * 7 % ACL_ACTIONS)};
        CHECK(acl_valid(ranges, count));
        for (uint64_t high = 0; high < 95; high++)
            for (uint64_t low = 0; low < 95; low += 3) {
                size_t at = 0;
                for (size_t i = 0; i < count; i++)
                    if (ranges[i].first.high < high || (ranges[i].first.high == high && ranges[i].first.low <= low))
                        at = i;
                CHECK_EQUAL(acl_find(ranges, count, (struct acl_address){high, low}), ranges[at].action);
            }
    }
}

static void rules_that_make_no_sense_are_told(void)
{
    struct acl_range ranges[] = {{{0, 0}, ACL_DENY}, {{1, 5}, ACL_ALLOW}, {{2, 4}, ACL_DENY}};
    CHECK(acl_valid(ranges, 3));
    CHECK(!acl_valid(ranges, 0));
    CHECK(!acl_valid(ranges + 1, 2)); /* what lies below the first? */
    ranges[0].first.low = 1;
    CHECK(!acl_valid(ranges, 3));
    ranges[0].first.low = 0;
    ranges[2].first = ranges[1].first; /* twice */
    CHECK(!acl_valid(ranges, 3));
    ranges[2].first = (struct acl_address){1, 4}; /* backwards */
    CHECK(!acl_valid(ranges, 3));
    ranges[2].first = (struct acl_address){0, 6};
    CHECK(!acl_valid(ranges, 3));
    ranges[2].first = (struct acl_address){1, 6};
    CHECK(acl_valid(ranges, 3));
    ranges[2].action = ACL_ACTIONS;
    CHECK(!acl_valid(ranges, 3));
    ranges[0].action = 255;
    CHECK(!acl_valid(ranges, 1));
}

static int is_client(struct acl_address address, uint64_t network, int kind)
{
    struct acl_client c = acl_client_of(address);
    return c.network == network && c.kind == kind;
}

static void ipv4_is_what_is_mapped(void)
{
    CHECK(is_client(four(0), four(0).low, ACL_IPV4) && is_client(four(UINT32_MAX), four(UINT32_MAX).low, ACL_IPV4));
    CHECK(is_client(lowest, 0, ACL_IPV6) && is_client(highest, UINT64_MAX, ACL_IPV6));
    CHECK(is_client(previous(four(0)), 0, ACL_IPV6) && is_client(next(four(UINT32_MAX)), 0, ACL_IPV6));
    CHECK(is_client((struct acl_address){1, four(1).low}, 1, ACL_IPV6));
}

static void a_client_is_a_64_unless_its_prefix_is_local(void)
{
    static const uint64_t local[] = {0xfe80000000000000, 0xfebfffffffffffff, 0xfc00000000000000, 0xfdffffffffffffff};
    static const uint64_t global[] = {0xfec0000000000000, 0xfe7fffffffffffff, 0xfbffffffffffffff, 0xfe00000000000000, 0x20010db800010002};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        CHECK(is_client((struct acl_address){local[i], 77}, 77, ACL_LOCAL));
    for (size_t i = 0; i < sizeof global / sizeof *global; i++)
        CHECK(is_client((struct acl_address){global[i], 77}, global[i], ACL_IPV6));
}

static void the_local_masks_are_nested(void)
{
    size_t count;
    const struct acl_prefix *prefix = acl_local_prefixes(&count);
    CHECK_EQUAL(count, 2);
    for (size_t i = 0; i < count; i++) {
        CHECK((prefix[i].value & ~prefix[i].mask) == 0);
        CHECK(i == 0 || (prefix[i].mask & ~prefix[i - 1].mask) == 0); /* the programs of flood.c apply them in turn */
    }
}

int main(void)
{
    RUN(without_rules_everybody_is_denied);
    RUN(one_rule_is_for_all);
    RUN(a_range_goes_from_its_first_to_the_next_ones_first);
    RUN(the_search_agrees_with_a_walk_for_any_number_of_ranges);
    RUN(rules_that_make_no_sense_are_told);
    RUN(ipv4_is_what_is_mapped);
    RUN(a_client_is_a_64_unless_its_prefix_is_local);
    RUN(the_local_masks_are_nested);
    return 0;
}
