#define _GNU_SOURCE /* CLOCK_BOOTTIME */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

/* The file is one page: this header, then the slots. A change of the layout or of a field's meaning is a new version. */
enum { VERSION = 2, PAGE = 4096, BOOT_ID = 36, DAY_S = 86400 };
enum { TAI_OFFSET_MAX = 3600 }; /* s: TAI - UTC is 37 s since 2017, and grows by less than a second a year */
static const char magic[8] = "tscpage"; /* part of the format, so it stays */
/* A record whose anchor is this far in the future of the reader's RAW clock is of another boot. */
static const int64_t foreign_boot_ns = 60 * NS_PER_S;
/* 146 years. A larger bound says nothing, and the arithmetic would overflow. */
static const int64_t bound_limit_ns = INT64_MAX / 2;

/* No unit. A clock that runs faster or slower by a tenth is none. */
static const double rate_limit = 0.1;

/* Beyond what two readings of the clocks differ by when the thread is interrupted between them; no suspend is shorter. */
static const int64_t moved_ns = 10 * NS_PER_MS;
/* A writer publishes about once a second: three are missing. */
static const int64_t overdue_ns = 3 * NS_PER_S;

/* The clocks at the publication. */
struct clocks {
    int64_t raw_ns;
    int64_t real_ahead_ns; /* REALTIME - MONOTONIC */
    int64_t boot_ahead_ns; /* BOOTTIME - MONOTONIC: how long the machine has slept since it booted */
};

/* What a slot holds. */
struct entry {
    struct rec_params params;
    struct clocks clocks;
};

/* An entry is copied in 32-bit words, which every supported machine loads and stores at once. */
enum { WORDS = sizeof(struct entry) / 4 };
_Static_assert(sizeof(struct entry) == 120, "struct entry has no padding and one layout on all machines");

struct rec {
    char magic[8];
    uint32_t version;
    char boot_id[BOOT_ID]; /* zeros: not known */
    uint32_t sequence __attribute__((aligned(64))); /* publications so far; slot[sequence & 1] is in force; 0: none */
    uint32_t slot[2][WORDS] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct rec) <= PAGE, "one page");

/* CLOCK_MONOTONIC_RAW starts anew at each boot. A record that outlives a boot, in a run directory on a disk, is void. */
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

static int is_of_this_boot(const struct rec *page)
{
    static const char unknown[BOOT_ID];
    char id[BOOT_ID];
    read_boot_id(id);
    return !memcmp(id, unknown, BOOT_ID) || !memcmp(page->boot_id, unknown, BOOT_ID) || !memcmp(page->boot_id, id, BOOT_ID);
}

/* Only root, this process's user and the owner of the directory make a record: he can exchange every file in it anyway. Nobody else may have
 * the file open for writing, now or from before. */
static int is_trusted(const char *path, const struct stat *st)
{
    if (st->st_mode & (S_IWGRP | S_IWOTH) || st->st_nlink > 1)
        return 0;
    if (st->st_uid == geteuid() || st->st_uid == 0)
        return 1;
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX] = ".";
    struct stat above;
    if (slash && (size_t)(slash - path) + 2 > sizeof directory)
        return 0;
    if (slash)
        snprintf(directory, sizeof directory, "%.*s", (int)(slash - path) + 1, path);
    return stat(directory, &above) == 0 && above.st_uid == st->st_uid;
}

/* Map the open file. -ENODATA: empty, because a writer is at work or died before its first write. -ESTALE: another version or boot. -EPERM:
 * another user made it or may write it. The first octets are read before anything is mapped: a file whose page the writer could not allocate
 * has none, and touching it in memory on a full tmpfs is SIGBUS. */
static int map_file(const char *path, int fd, int writable, struct rec **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EPROTO;
    if (!is_trusted(path, &st))
        return -EPERM;
    if (st.st_size == 0)
        return -ENODATA;
    if (st.st_size != PAGE)
        return -EPROTO;
    static const char none[sizeof magic];
    char first[sizeof magic];
    if (pread(fd, first, sizeof first, 0) != (ssize_t)sizeof first || !memcmp(first, none, sizeof none))
        return -ENODATA;
    struct rec *page = mmap(NULL, PAGE, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    int r = 0;
    if (memcmp(page->magic, magic, sizeof magic))
        r = -EPROTO;
    else if (page->version != VERSION || !is_of_this_boot(page))
        r = -ESTALE;
    if (r < 0)
        munmap(page, PAGE);
    else
        *out = page;
    return r;
}

/* Write the page before it is mapped, so that a full file system is an error here. 0 or -errno. */
static int allocate(int fd)
{
    static const char zeros[PAGE];
    ssize_t n = pwrite(fd, zeros, PAGE, 0);
    if (n == PAGE)
        return 0;
    int r = n < 0 ? -errno : -ENOSPC;
    return ftruncate(fd, 0) < 0 ? -errno : r; /* a file without a page is one that is being made */
}

static int create_file(const char *path, struct rec **out)
{
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int r = map_file(path, fd, 1, out);
    if (r == -ENODATA) {
        struct rec *page = MAP_FAILED;
        r = fchmod(fd, 0644) < 0 ? -errno : allocate(fd);
        if (r == 0) {
            page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
            r = page == MAP_FAILED ? -errno : 0;
        }
        if (r == 0) {
            page->version = VERSION;
            read_boot_id(page->boot_id);
            __atomic_thread_fence(__ATOMIC_RELEASE);
            memcpy(page->magic, magic, sizeof magic);
            *out = page;
        }
    }
    close(fd);
    return r;
}

int rec_open(const char *path, int writable, struct rec **out)
{
    *out = NULL;
    if (writable) {
        int r = create_file(path, out);
        if (r == -ESTALE || r == -EPERM) /* readers find the new file when they open the path again */
            r = unlink(path) < 0 ? -errno : create_file(path, out);
        return r;
    }
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = map_file(path, fd, 0, out);
    close(fd);
    return r;
}

void rec_close(struct rec *page)
{
    if (page)
        munmap(page, PAGE);
}

static int64_t read_clock_ns(clockid_t clock)
{
    struct timespec ts;
    if (clock_gettime(clock, &ts) < 0)
        return 0; /* a clock simulator that replaces libc lacks BOOTTIME, and never sleeps */
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* How far the clock is ahead of MONOTONIC, by the narrowest of a few readings. */
static int64_t ahead_of_monotonic_ns(clockid_t clock)
{
    int64_t narrowest = INT64_MAX, ahead = 0;
    for (int i = 0; i < 4 && narrowest > moved_ns / 10; i++) {
        int64_t before = read_clock_ns(CLOCK_MONOTONIC), at = read_clock_ns(clock), after = read_clock_ns(CLOCK_MONOTONIC);
        if (at == 0)
            return 0;
        if (after - before >= narrowest)
            continue;
        narrowest = after - before;
        ahead = at - before;
    }
    return ahead;
}

void rec_publish(struct rec *page, const struct rec_params *p)
{
    uint32_t words[WORDS], next = page->sequence + 1;
    if (next == 0)
        next = 2; /* 0 means none; 2 is the next number of the same slot */
    struct entry entry = {*p, {read_clock_ns(CLOCK_MONOTONIC_RAW), ahead_of_monotonic_ns(CLOCK_REALTIME),
                               ahead_of_monotonic_ns(CLOCK_BOOTTIME)}};
    memcpy(words, &entry, sizeof words);
    /* A reader may still be copying the idle slot. It must see the sequence of the last publication before any word of this one. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (int i = 0; i < WORDS; i++)
        __atomic_store_n(&page->slot[next & 1][i], words[i], __ATOMIC_RELAXED);
    __atomic_store_n(&page->sequence, next, __ATOMIC_RELEASE);
}

static int read_entry(const struct rec *page, struct entry *out)
{
    uint32_t words[WORDS], before;
    do {
        before = __atomic_load_n(&page->sequence, __ATOMIC_ACQUIRE);
        if (before == 0)
            return -ENODATA;
        for (int i = 0; i < WORDS; i++)
            words[i] = __atomic_load_n(&page->slot[before & 1][i], __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (before != __atomic_load_n(&page->sequence, __ATOMIC_RELAXED));
    memcpy(out, words, sizeof words);
    return 0;
}

int rec_read(const struct rec *page, struct rec_params *out)
{
    struct entry entry;
    int r = read_entry(page, &entry);
    if (r == 0)
        *out = entry.params;
    return r;
}

/* a + b and a - b, limited to the range of int64_t, so that no record causes undefined behaviour. */
static int64_t add_limited(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT64_MIN : INT64_MAX) : sum;
}

static int64_t subtract_limited(int64_t a, int64_t b)
{
    int64_t difference;
    return __builtin_sub_overflow(a, b, &difference) ? (a < 0 ? INT64_MIN : INT64_MAX) : difference;
}

static int64_t clamp_to_int64(double x)
{
    if (!(x > -9e18)) /* or NaN */
        return INT64_MIN / 2;
    return x < 9e18 ? (int64_t)x : INT64_MAX / 2;
}

static int64_t tai_at(const struct rec_params *p, int64_t raw_ns)
{
    int64_t dt = subtract_limited(raw_ns, p->raw_ns);
    return add_limited(add_limited(p->tai_ns, dt), clamp_to_int64(nearbyint(p->rate * (double)dt)));
}

/* Whether the numbers can be those of a clock. A file that was damaged, or that another program wrote, parses as well. False for NaN. */
static int makes_sense(const struct rec_params *p)
{
    return fabs(p->rate) < rate_limit && p->bound_ns >= 0 && p->bound_rate >= 0 && p->bound_wander_ns >= 0
        && isfinite(p->bound_ns + p->bound_rate + p->bound_wander_ns) && p->tai_ns > 0 && p->leap_step_s >= -1 && p->leap_step_s <= 1
        && p->tai_offset_s >= 0 && p->tai_offset_s <= TAI_OFFSET_MAX && p->precision <= 0 && p->stratum <= 15;
}

/* By how much the record's own leap second has stepped REALTIME by now. */
static int64_t leapt_ns(const struct rec_params *p, int64_t raw_ns)
{
    return p->leap_step_s != 0 && tai_at(p, raw_ns) >= p->leap_tai_ns ? -p->leap_step_s * NS_PER_S : 0;
}

static int has_moved(int64_t by_ns)
{
    return by_ns > moved_ns || by_ns < -moved_ns;
}

int rec_read_now(const struct rec *page, int64_t raw_ns, int64_t ahead_ns, struct rec_params *out)
{
    struct entry entry;
    int r = read_entry(page, &entry);
    if (r < 0)
        return r;
    *out = entry.params;
    if (!makes_sense(out))
        out->stratum = 0;
    int64_t stepped_ns = subtract_limited(ahead_ns, entry.clocks.real_ahead_ns);
    int stepped = has_moved(stepped_ns) && has_moved(subtract_limited(stepped_ns, leapt_ns(out, raw_ns)));
    int overdue = subtract_limited(raw_ns, entry.clocks.raw_ns) > overdue_ns;
    if (!has_moved(stepped_ns) && !overdue) /* nearly always; BOOTTIME need not be read, for a suspend moves REALTIME too */
        return 0;
    if ((stepped && overdue) || has_moved(ahead_of_monotonic_ns(CLOCK_BOOTTIME) - entry.clocks.boot_ahead_ns))
        out->stratum = 0;
    return 0;
}

static int64_t utc_from_tai(const struct rec_params *p, int64_t tai_ns)
{
    int64_t offset_s = p->tai_offset_s;
    if (p->leap_step_s != 0 && tai_ns >= p->leap_tai_ns)
        offset_s += p->leap_step_s;
    return subtract_limited(tai_ns, offset_s * NS_PER_S);
}

static int64_t bound_at(const struct rec_params *p, int64_t dt_ns)
{
    double dt = dt_ns > 0 ? (double)dt_ns : 0, dt_s = dt / 1e9;
    double bound = ceil(p->bound_ns + p->bound_rate * dt + p->bound_wander_ns * dt_s * sqrt(dt_s));
    return bound >= 0 && bound < (double)bound_limit_ns ? (int64_t)bound : bound_limit_ns; /* also for NaN */
}

void rec_at(const struct rec_params *p, int64_t raw_ns, struct rec_reading *out)
{
    int64_t dt = subtract_limited(raw_ns, p->raw_ns);
    memset(out, 0, sizeof *out);
    out->tai_ns = tai_at(p, raw_ns);
    out->utc_ns = utc_from_tai(p, out->tai_ns);
    out->bound_ns = bound_at(p, dt);
    out->root_delay_ns = p->root_delay_ns > 0 ? p->root_delay_ns : 0;
    out->refid = p->refid;
    out->precision = p->precision;
    out->simulated = p->simulated;
    if (p->stratum != 0) {
        int64_t reference = utc_from_tai(p, tai_at(p, p->reference_raw_ns));
        out->reference_utc_ns = reference < out->utc_ns ? reference : out->utc_ns;
    }
    if (p->stratum == 0 || p->stratum > 15 || !(fabs(p->rate) < rate_limit) || raw_ns > p->valid_until_raw_ns || dt < -foreign_boot_ns || out->bound_ns >= bound_limit_ns) {
        out->leap = 3;
        return;
    }
    out->stratum = p->stratum;
    if (p->leap_step_s != 0 && out->tai_ns < p->leap_tai_ns && subtract_limited(p->leap_tai_ns, out->tai_ns) <= DAY_S * NS_PER_S)
        out->leap = p->leap_step_s > 0 ? 1 : 2;
}

int64_t rec_utc_at(const struct rec_params *p, int64_t raw_ns)
{
    return utc_from_tai(p, tai_at(p, raw_ns));
}

/* Smeared UTC at one instant. From noon to noon UTC advances by DAY_S seconds while DAY_S + step SI seconds pass. A deleted second makes
 * the first half shorter by a second. */
static int64_t smeared_utc(const struct rec_params *p, int64_t tai_ns, int64_t utc_ns)
{
    int64_t step = p->leap_step_s, start = subtract_limited(p->leap_tai_ns, (DAY_S / 2 + (step < 0 ? step : 0)) * NS_PER_S);
    int64_t in = subtract_limited(tai_ns, start), length = DAY_S + step;
    if (in < 0 || in >= length * NS_PER_S)
        return utc_ns;
    return add_limited(subtract_limited(start, (int64_t)p->tai_offset_s * NS_PER_S), in / length * DAY_S + in % length * DAY_S / length);
}

void rec_smear(const struct rec_params *p, struct rec_reading *r)
{
    if (p->leap_step_s != 1 && p->leap_step_s != -1)
        return;
    int64_t before = subtract_limited(r->utc_ns, r->reference_utc_ns), utc_ns = smeared_utc(p, r->tai_ns, r->utc_ns);
    if (r->reference_utc_ns != 0)
        r->reference_utc_ns = subtract_limited(utc_ns, before); /* keeps its age, to within the smear's 12 us/s */
    r->utc_ns = utc_ns;
    if (r->leap != 3)
        r->leap = 0;
}
