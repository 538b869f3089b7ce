#include "access.h"

static int before(struct acl_address a, struct acl_address b)
{
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

int acl_find(const struct acl_range *ranges, size_t count, struct acl_address address)
{
    size_t low = 0, high = count; /* the last range that does not begin after address lies in [low, high) */
    if (count == 0)
        return ACL_DENY;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (before(address, ranges[middle].first))
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
        if (ranges[i].action >= ACL_ACTIONS || (i && !before(ranges[i - 1].first, ranges[i].first)))
            return 0;
    return 1;
}

int acl_is_ipv4(struct acl_address address)
{
    return address.high == 0 && address.low >> 32 == 0xffff;
}
