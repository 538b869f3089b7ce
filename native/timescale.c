#include "timescale.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file: one page, this header, then the slots. A change of the layout or of the meaning of a field is a new version. */
enum { VERSION = 1, PAGE = 4096, BOOT_ID = 36, DAY_S = 86400 };
static const char magic[8] = "tscpage";
static const int64_t second = 1000000000;
/* A record this far in the future of the reader's RAW clock is not of this boot. */
static const int64_t foreign_boot_ns = 60 * 1000000000LL;
/* About 146 years: beyond it a bound means nothing and the arithmetic would wrap. */
static const int64_t bound_limit_ns = INT64_MAX / 2;

/* Copied in 32-bit words: every machine that we run on loads those at once. */
enum { WORDS = sizeof(struct tsc_params) / 4 };
_Static_assert(sizeof(struct tsc_params) == 96, "struct tsc_params has no padding and the same shape everywhere");

struct tsc {
    char magic[8];
    uint32_t version;
    char boot_id[BOOT_ID];                    /* zeros: unknown */
    uint32_t sequence __attribute__((aligned(64))); /* publications so far; the record in force is slot[sequence & 1]; 0 = none */
    uint32_t slot[2][WORDS] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct tsc) <= PAGE, "one page");

/* CLOCK_MONOTONIC_RAW starts anew at every boot, so a record that survived one (a run directory on a disk) is void. */
static void read_boot_id(char id[BOOT_ID])
{
    memset(id, 0, BOOT_ID);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, id, BOOT_ID) != BOOT_ID)
        memset(id, 0, BOOT_ID);
    close(fd);
}

static int of_this_boot(const struct tsc *t)
{
    static const char unknown[BOOT_ID];
    char id[BOOT_ID];
    read_boot_id(id);
    return !memcmp(id, unknown, BOOT_ID) || !memcmp(t->boot_id, unknown, BOOT_ID) || !memcmp(t->boot_id, id, BOOT_ID);
}

/* Map the open file. -ENODATA: empty, a writer is at work or died before it had begun. -ESTALE: ours, of another version or boot. */
static int map(int fd, int writable, struct tsc **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EPROTO;
    if (st.st_size == 0)
        return -ENODATA;
    if (st.st_size != PAGE)
        return -EPROTO;
    struct tsc *t = mmap(NULL, PAGE, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (t == MAP_FAILED)
        return -errno;
    static const char none[sizeof magic];
    int r = 0;
    if (!memcmp(t->magic, none, sizeof none))
        r = -ENODATA;
    else if (memcmp(t->magic, magic, sizeof magic))
        r = -EPROTO;
    else if (t->version != VERSION || !of_this_boot(t))
        r = -ESTALE;
    if (r < 0)
        munmap(t, PAGE);
    else
        *out = t;
    return r;
}

static int create(const char *path, struct tsc **out)
{
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);
    if (fd < 0)
        return -errno;
    int r = map(fd, 1, out);
    if (r == -ENODATA) {
        struct tsc *t = MAP_FAILED;
        if (fchmod(fd, 0644) == 0 && ftruncate(fd, PAGE) == 0)
            t = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (t == MAP_FAILED)
            r = -errno;
        else {
            t->version = VERSION;
            read_boot_id(t->boot_id);
            __atomic_thread_fence(__ATOMIC_RELEASE);
            memcpy(t->magic, magic, sizeof magic);
            *out = t;
            r = 0;
        }
    }
    close(fd);
    return r;
}

int tsc_open(const char *path, int writable, struct tsc **out)
{
    *out = NULL;
    if (writable) {
        int r = create(path, out);
        if (r == -ESTALE) /* readers find the new file when they open it again */
            r = unlink(path) < 0 ? -errno : create(path, out);
        return r;
    }
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = map(fd, 0, out);
    close(fd);
    return r;
}

void tsc_close(struct tsc *t)
{
    if (t)
        munmap(t, PAGE);
}

void tsc_publish(struct tsc *t, const struct tsc_params *p)
{
    uint32_t words[WORDS], next = t->sequence + 1;
    if (next == 0)
        next = 2; /* 0 means never; stay in step with the slots */
    memcpy(words, p, sizeof words);
    /* Whoever still copies the idle slot must see the sequence of the last publication before it sees any word of this one. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (int i = 0; i < WORDS; i++)
        __atomic_store_n(&t->slot[next & 1][i], words[i], __ATOMIC_RELAXED);
    __atomic_store_n(&t->sequence, next, __ATOMIC_RELEASE);
}

int tsc_read(const struct tsc *t, struct tsc_params *out)
{
    uint32_t words[WORDS], before;
    do {
        before = __atomic_load_n(&t->sequence, __ATOMIC_ACQUIRE);
        if (before == 0)
            return -ENODATA;
        for (int i = 0; i < WORDS; i++)
            words[i] = __atomic_load_n(&t->slot[before & 1][i], __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (before != __atomic_load_n(&t->sequence, __ATOMIC_RELAXED));
    memcpy(out, words, sizeof words);
    return 0;
}

/* a + b and a - b, held at the ends of the range: a senseless record must not become undefined behaviour. */
static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT64_MIN : INT64_MAX) : sum;
}

static int64_t minus(int64_t a, int64_t b)
{
    int64_t difference;
    return __builtin_sub_overflow(a, b, &difference) ? (a < 0 ? INT64_MIN : INT64_MAX) : difference;
}

static int64_t whole(double x)
{
    if (!(x > -9e18)) /* also NaN */
        return INT64_MIN / 2;
    return x < 9e18 ? (int64_t)x : INT64_MAX / 2;
}

static int64_t tai_of(const struct tsc_params *p, int64_t raw_ns)
{
    int64_t dt = minus(raw_ns, p->raw_ns);
    return plus(plus(p->tai_ns, dt), whole(nearbyint(p->rate * (double)dt)));
}

static int64_t utc_of(const struct tsc_params *p, int64_t tai_ns)
{
    int64_t offset_s = p->tai_offset_s;
    if (p->leap_step_s != 0 && tai_ns >= p->leap_tai_ns)
        offset_s += p->leap_step_s;
    return minus(tai_ns, offset_s * second);
}

static int64_t bound_of(const struct tsc_params *p, int64_t dt_ns)
{
    double dt = dt_ns > 0 ? (double)dt_ns : 0, dt_s = dt / 1e9;
    double bound = ceil(p->bound_ns + p->bound_rate * dt + p->bound_wander_ns * dt_s * sqrt(dt_s));
    return bound >= 0 && bound < (double)bound_limit_ns ? (int64_t)bound : bound_limit_ns; /* NaN and nonsense: the limit */
}

void tsc_at(const struct tsc_params *p, int64_t raw_ns, struct tsc_reading *out)
{
    int64_t dt = minus(raw_ns, p->raw_ns);
    memset(out, 0, sizeof *out);
    out->tai_ns = tai_of(p, raw_ns);
    out->utc_ns = utc_of(p, out->tai_ns);
    out->bound_ns = bound_of(p, dt);
    out->root_delay_ns = p->root_delay_ns > 0 ? p->root_delay_ns : 0;
    out->refid = p->refid;
    out->precision = p->precision;
    out->simulated = p->simulated;
    if (p->stratum != 0) {
        int64_t reference = utc_of(p, tai_of(p, p->reference_raw_ns));
        out->reference_utc_ns = reference < out->utc_ns ? reference : out->utc_ns;
    }
    if (p->stratum == 0 || p->stratum > 15 || raw_ns > p->valid_until_raw_ns || dt < -foreign_boot_ns || out->bound_ns >= bound_limit_ns) {
        out->leap = 3;
        return;
    }
    out->stratum = p->stratum;
    if (p->leap_step_s != 0 && out->tai_ns < p->leap_tai_ns && minus(p->leap_tai_ns, out->tai_ns) <= DAY_S * second)
        out->leap = p->leap_step_s > 0 ? 1 : 2;
}

/* One instant, smeared. UTC runs 86400 s of its own while DAY_S + step SI seconds pass, noon to noon; a deleted second makes the first half
 * of them shorter. */
static int64_t smeared(const struct tsc_params *p, int64_t tai_ns, int64_t utc_ns)
{
    int64_t step = p->leap_step_s, start = minus(p->leap_tai_ns, (DAY_S / 2 + (step < 0 ? step : 0)) * second);
    int64_t in = minus(tai_ns, start), length = DAY_S + step;
    if (in < 0 || in >= length * second)
        return utc_ns;
    return plus(minus(start, (int64_t)p->tai_offset_s * second), in / length * DAY_S + in % length * DAY_S / length);
}

void tsc_smear(const struct tsc_params *p, struct tsc_reading *r)
{
    if (p->leap_step_s != 1 && p->leap_step_s != -1)
        return;
    int64_t before = minus(r->utc_ns, r->reference_utc_ns), utc_ns = smeared(p, r->tai_ns, r->utc_ns);
    if (r->reference_utc_ns != 0)
        r->reference_utc_ns = minus(utc_ns, before); /* its age to within the smear's 12 us/s */
    r->utc_ns = utc_ns;
    if (r->leap != 3)
        r->leap = 0;
}
