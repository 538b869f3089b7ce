/* access: addresses, the client that an address belongs to, and the rule that it meets.
 *
 * Access rules are prefixes, and the longest match decides. ppsd/config/access.py turns them into ranges once, so that a look-up is one
 * binary search for any set of prefixes. An IPv4 address is ::ffff:a.b.c.d (RFC 4291 2.5.5.2), so a rule meets a client alike on an IPv4
 * and on a dual-stack socket.
 */
#ifndef ACCESS_H
#define ACCESS_H
#include <stddef.h>
#include <stdint.h>

enum acl_action {
    ACL_ALLOW,
    ACL_AUTHENTICATED, /* only requests with a valid MAC, or with NTS */
    ACL_DENY,          /* KoD DENY where the server sends it, else silence */
    ACL_IGNORE,        /* silence */
    ACL_ACTIONS
};

/* An IPv6 or mapped IPv4 address, host order. */
struct acl_address {
    uint64_t high, low;
};

/* Addresses from `first` up to the next range's first. A table is sorted and begins at ::. */
struct acl_range {
    struct acl_address first;
    uint8_t action; /* enum acl_action */
};

/* What one client is. */
enum acl_kind {
    ACL_IPV4,  /* one IPv4 address */
    ACL_IPV6,  /* an IPv6 /64: what one subscriber has (RFC 6177) */
    ACL_LOCAL, /* one IPv6 address, where a /64 is a LAN: link-local and unique local */
    ACL_KINDS
};

/* A client of any kind. */
struct acl_client {
    uint64_t network; /* IPv4: 0x0000ffff.a.b.c.d; IPv6: upper half of the address; local: lower half */
    uint8_t kind;     /* enum acl_kind */
};

/* A prefix of at most 32 bits: an address is in it when its upper 32 bits & mask == value. */
struct acl_prefix {
    uint32_t mask, value;
};

/* The action for an address; ACL_DENY without ranges. */
int acl_find(const struct acl_range *ranges, size_t count, struct acl_address address);
/* 1: sorted, beginning at ::, with known actions only. */
int acl_valid(const struct acl_range *ranges, size_t count);
/* The client that an address belongs to. */
struct acl_client acl_client_of(struct acl_address address);
/* The prefixes of ACL_LOCAL, their number in *count. Each mask contains the next one, so they may be applied to one register in turn. */
const struct acl_prefix *acl_local_prefixes(size_t *count);
#endif
