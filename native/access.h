/* access: which rule an address meets.
 *
 * Rules by prefix, the longest match deciding, arrive here flattened into ranges (ppsd/access.py does that once, where it can be read and
 * tested), so that a look-up is one binary search whatever the prefixes are. IPv4 is ::ffff:a.b.c.d (RFC 4291 2.5.5.2): a rule meets a
 * client the same way on an IPv4 and on a dual-stack socket.
 */
#ifndef ACCESS_H
#define ACCESS_H
#include <stddef.h>
#include <stdint.h>

enum acl_action {
    ACL_ALLOW,
    ACL_AUTHENTICATED, /* only with a valid MAC */
    ACL_DENY,          /* told so now and then (KoD DENY), if the server is to tell */
    ACL_IGNORE,        /* silence */
    ACL_ACTIONS
};

/* An IPv6 or mapped IPv4 address, host order. */
struct acl_address {
    uint64_t high, low;
};

/* From `first` to the next range's first. Sorted; the first one begins at ::. */
struct acl_range {
    struct acl_address first;
    uint8_t action; /* enum acl_action */
};

/* The action for an address; ACL_DENY without ranges. */
int acl_find(const struct acl_range *ranges, size_t count, struct acl_address address);
/* 1: sorted, beginning at ::, known actions only. */
int acl_valid(const struct acl_range *ranges, size_t count);
/* ::ffff:0:0/96. */
int acl_is_ipv4(struct acl_address address);
#endif
