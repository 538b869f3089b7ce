/* bucket: a token bucket in its virtual-scheduling form (GCRA, ITU-T I.371).
 *
 * A bucket earns one token every interval_ns and holds at most depth_ns / interval_ns of them. Its whole state is one instant, full_ns, at
 * which it will be full again if nothing more is taken. 0 is a full bucket. All instants are on one clock.
 */
#ifndef BUCKET_H
#define BUCKET_H
#include <stdint.h>

/* 1: the bucket holds a token at now_ns. A depth that was lowered since the last call takes effect here. */
static inline int bkt_has(int64_t *full_ns, int64_t interval_ns, int64_t depth_ns, int64_t now_ns)
{
    int64_t missing_ns = *full_ns > now_ns ? *full_ns - now_ns : 0;
    if (missing_ns > depth_ns)
        *full_ns = now_ns + depth_ns;
    return missing_ns <= depth_ns - interval_ns;
}

/* Take a token that is there. */
static inline void bkt_take(int64_t *full_ns, int64_t interval_ns, int64_t now_ns)
{
    *full_ns = (*full_ns > now_ns ? *full_ns : now_ns) + interval_ns;
}
#endif
