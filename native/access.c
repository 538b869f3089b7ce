#include "access.h"

static int is_below(struct acl_address a, struct acl_address b)
{
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

int acl_find(const struct acl_range *ranges, size_t count, struct acl_address address)
{
    size_t low = 0, high = count; /* the last range that begins at or before address is in [low, high) */
    if (count == 0)
        return ACL_DENY;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (is_below(address, ranges[middle].first))
            high = middle;
        else
            low = middle;
    }
    return ranges[low].action;
}

int acl_valid(const struct acl_range *ranges, size_t count)
{
    if (count == 0 || ranges[0].first.high != 0 || ranges[0].first.low != 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        if (ranges[i].action >= ACL_ACTIONS || (i && !is_below(ranges[i - 1].first, ranges[i].first)))
            return 0;
    return 1;
}

static const struct acl_prefix local_prefixes[] = {
    {0xffc00000, 0xfe800000}, /* fe80::/10, link-local (RFC 4291 2.5.6) */
    {0xfe000000, 0xfc000000}, /* fc00::/7, unique local (RFC 4193 3.1) */
};
enum { LOCAL_PREFIXES = sizeof local_prefixes / sizeof *local_prefixes };

struct acl_client acl_client_of(struct acl_address address)
{
    if (address.high == 0 && address.low >> 32 == 0xffff)
        return (struct acl_client){address.low, ACL_IPV4};
    for (int i = 0; i < LOCAL_PREFIXES; i++)
        if (((uint32_t)(address.high >> 32) & local_prefixes[i].mask) == local_prefixes[i].value)
            return (struct acl_client){address.low, ACL_LOCAL};
    return (struct acl_client){address.high, ACL_IPV6};
}

const struct acl_prefix *acl_local_prefixes(size_t *count)
{
    *count = LOCAL_PREFIXES;
    return local_prefixes;
}
