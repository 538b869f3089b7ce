#include "shm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

enum { BASE = 0x4e545030 }; /* "NTP0" */

/* Byte offsets in struct shmTime (ntpd/refclock_shm.c). The fields are 32-bit but for the seconds. */
struct layout {
    size_t size, clock_sec, clock_usec, receive_sec, receive_usec, leap, precision, valid, clock_nsec, receive_nsec;
    int wide; /* seconds are 64-bit */
};
enum { MODE = 0, COUNT = 4 };
static const struct layout layouts[] = {
    {.size = 96, .clock_sec = 8, .clock_usec = 16, .receive_sec = 24, .receive_usec = 32, .leap = 36, .precision = 40, .valid = 48,
     .clock_nsec = 52, .receive_nsec = 56, .wide = 1},
    {.size = 80, .clock_sec = 8, .clock_usec = 12, .receive_sec = 16, .receive_usec = 20, .leap = 24, .precision = 28, .valid = 36,
     .clock_nsec = 40, .receive_nsec = 44, .wide = 0},
};

struct shm {
    unsigned char *at;
    const struct layout *layout;
};

static const int64_t last_second = INT64_MAX / NS_PER_S - 1; /* 2262 */

static int32_t load_field(const struct shm *s, size_t offset)
{
    return __atomic_load_n((const int32_t *)(const void *)(s->at + offset), __ATOMIC_RELAXED);
}

static void store_field(struct shm *s, size_t offset, int32_t value)
{
    __atomic_store_n((int32_t *)(void *)(s->at + offset), value, __ATOMIC_RELAXED);
}

/* 32-bit seconds are read as unsigned: no sample is from before 1970, so the layout lasts until 2106. */
static int64_t load_seconds(const struct shm *s, size_t offset)
{
    int64_t seconds;
    if (!s->layout->wide)
        return (uint32_t)load_field(s, offset);
    memcpy(&seconds, s->at + offset, sizeof seconds); /* the count shows a torn word */
    return seconds;
}

static void store_seconds(struct shm *s, size_t offset, int64_t seconds)
{
    if (s->layout->wide)
        memcpy(s->at + offset, &seconds, sizeof seconds);
    else
        store_field(s, offset, (int32_t)(uint32_t)seconds);
}

static int find_segment(int unit, int create, int perm, int *id)
{
    if (perm < 0)
        perm = unit < 2 ? 0600 : 0666;
    for (int i = 0; i < 2; i++) { /* twice, because another program may create it between the two calls */
        *id = shmget(BASE + unit, 0, 0);
        if (*id >= 0 || errno != ENOENT || !create)
            break;
        *id = shmget(BASE + unit, (size_t)create, IPC_CREAT | IPC_EXCL | (perm & 0777));
        if (*id >= 0 || errno != EEXIST)
            break;
    }
    return *id < 0 ? -errno : 0;
}

/* Whoever owns a segment or made it may write it, whatever its mode (ipc_perms in ipc/util.c). */
static int is_of(const struct ipc_perm *perm, uid_t also)
{
    uid_t us = geteuid(), both[2] = {perm->uid, perm->cuid};
    for (int i = 0; i < 2; i++)
        if (both[i] != us && both[i] != 0 && both[i] != also)
            return 0;
    return 1;
}

static int attach(int unit, int create, int perm, uid_t also, struct shm **out)
{
    struct shmid_ds ds;
    const struct layout *layout = NULL;
    int id;
    *out = NULL;
    if (unit < 0 || unit > 255) /* ntpd's unit numbers (refclock_shm: the low byte of 127.127.28.u) */
        return -EINVAL;
    int r = find_segment(unit, create, perm, &id);
    if (r < 0)
        return r;
    memset(&ds, 0, sizeof ds);
    if (shmctl(id, IPC_STAT, &ds) < 0) {
        /* A clock simulator in front of libc may lend a segment that the kernel does not know. Its layout is this ABI's own. */
        if (create || errno != EINVAL)
            return -errno;
        ds.shm_segsz = sizeof(time_t) == 8 ? 96 : 80;
    }
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (ds.shm_segsz == layouts[i].size)
            layout = &layouts[i];
    if (!layout)
        return -EPROTO;
    if (!is_of(&ds.shm_perm, also))
        return -EPERM;
    struct shm *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->layout = layout;
    s->at = shmat(id, NULL, 0);
    if (s->at == (void *)-1) {
        r = -errno;
        free(s);
        return r;
    }
    *out = s;
    return 0;
}

int shm_attach(int unit, int create, int perm, struct shm **out)
{
    return attach(unit, create, perm, 0, out);
}

int shm_attach_of(int unit, uint32_t owner, struct shm **out)
{
    return attach(unit, 0, -1, owner, out);
}

void shm_detach(struct shm *s)
{
    if (!s)
        return;
    shmdt(s->at);
    free(s);
}

int shm_write(struct shm *s, const struct shm_sample *sample)
{
    const struct layout *l = s->layout;
    const int64_t limit = l->wide ? INT64_MAX : ((int64_t)UINT32_MAX + 1) * NS_PER_S - 1;
    if (sample->clock_ns < 0 || sample->clock_ns > limit || sample->receive_ns < 0 || sample->receive_ns > limit)
        return -ERANGE;
    int32_t clock_nsec = (int32_t)(sample->clock_ns % NS_PER_S), receive_nsec = (int32_t)(sample->receive_ns % NS_PER_S);
    uint32_t count = (uint32_t)load_field(s, COUNT);
    store_field(s, l->valid, 0);
    store_field(s, MODE, 1);
    store_field(s, COUNT, (int32_t)(count + 1));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store_seconds(s, l->clock_sec, sample->clock_ns / NS_PER_S);
    store_field(s, l->clock_usec, clock_nsec / 1000);
    store_field(s, l->clock_nsec, clock_nsec);
    store_seconds(s, l->receive_sec, sample->receive_ns / NS_PER_S);
    store_field(s, l->receive_usec, receive_nsec / 1000);
    store_field(s, l->receive_nsec, receive_nsec);
    store_field(s, l->leap, sample->leap);
    store_field(s, l->precision, sample->precision);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store_field(s, COUNT, (int32_t)(count + 2));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store_field(s, l->valid, 1);
    return 0;
}

/* Old writers fill in microseconds only. The ns field counts when it refines the us field; ntpd and chronyd decide so too. */
static int decode_stamp(int64_t seconds, int32_t usec, int32_t nsec, int64_t *ns)
{
    if (seconds < 0 || seconds > last_second || usec < 0 || usec >= 1000000)
        return -EPROTO;
    *ns = seconds * NS_PER_S + (nsec >= 0 && nsec / 1000 == usec ? nsec : usec * 1000);
    return 0;
}

/* 1, -EAGAIN or -EPROTO as shm_read; valid is neither looked at nor changed. */
static int load_sample(const struct shm *s, struct shm_sample *out)
{
    const struct layout *l = s->layout;
    int32_t count = load_field(s, COUNT), mode = load_field(s, MODE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    int64_t clock_s = load_seconds(s, l->clock_sec), receive_s = load_seconds(s, l->receive_sec);
    int32_t clock_usec = load_field(s, l->clock_usec), clock_nsec = load_field(s, l->clock_nsec);
    int32_t receive_usec = load_field(s, l->receive_usec), receive_nsec = load_field(s, l->receive_nsec);
    int32_t leap = load_field(s, l->leap), precision = load_field(s, l->precision);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    int32_t after = load_field(s, COUNT);
    if (mode == 1 && after != count)
        return -EAGAIN;
    if (mode != 0 && mode != 1)
        return -EPROTO;
    if (decode_stamp(clock_s, clock_usec, clock_nsec, &out->clock_ns) < 0 ||
        decode_stamp(receive_s, receive_usec, receive_nsec, &out->receive_ns) < 0)
        return -EPROTO;
    if (leap < 0 || leap > 3)
        return -EPROTO;
    out->leap = leap;
    out->precision = precision;
    return 1;
}

int shm_read(struct shm *s, struct shm_sample *out)
{
    if (load_field(s, s->layout->valid) == 0)
        return 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    int r = load_sample(s, out);
    store_field(s, s->layout->valid, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return r;
}

int shm_look(struct shm *s, struct shm_sample *out)
{
    return load_sample(s, out);
}
