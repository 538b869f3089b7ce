/* fake_clock: an LD_PRELOAD library that gives unmodified programs a CLOCK_REALTIME which they may step and steer.
 *
 *   REFCLOCK_FAKE_CLOCK=FILE          the clock's state, made by the first program and shared by all that name it
 *   REFCLOCK_FAKE_CLOCK_START=NS      its first reading, ns since 1970 (default: the host's)
 *
 * CLOCK_MONOTONIC_RAW is the host's. REALTIME, MONOTONIC and BOOTTIME run at its rate, changed by the frequency that adjtimex() sets;
 * settimeofday(), clock_settime() and ADJ_SETOFFSET step REALTIME. A daemon can discipline this clock like a real one, and other programs
 * (date -s) can interfere. The host's clock is never touched.
 *
 * Semantics of kernel/time/ntp.c and timekeeping.c (6.1): frequency in 2^-16 ppm up to 500 ppm; maxerror grows by 500 ppm and sets
 * STA_UNSYNC at 16 s; a step sets STA_UNSYNC and ends leap states; STA_INS and STA_DEL act at midnight UTC, with TIME_INS, TIME_OOP and
 * TIME_WAIT; TAI follows; a tick is 9000 to 11000 us in 10 ms; the PLL takes a part of ADJ_OFFSET off each second, and learns the frequency.
 * The stamps of packets that the kernel took on the host's clock are turned into this one's. Not simulated: the FLL (intervals above 256 s),
 * adjtime() but for ending it, and timers on these clocks, which are the host's. A step here does not cancel a timerfd, so a program that
 * waits for that must read the clock as well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct clock {
    uint32_t magic;
    pthread_mutex_t lock;                 /* between processes; robust: a program killed inside leaves a whole state */
    int64_t raw_ns, real_ns, mono_ns;     /* the three clocks at the last change */
    int64_t frequency;                    /* 2^-16 ppm, positive = faster */
    int64_t max_error_ns, est_error_ns;   /* as of raw_ns */
    int status, state, tai_s, tick;       /* tick: us in 10 ms */
    int64_t pll_ns, pll_now_ns;           /* phase that the PLL has still to take off, and of that in this second */
    int64_t second_ns, reference_s;       /* raw time at which this second ends; second of REALTIME of the last ADJ_OFFSET */
    int constant, nano;                   /* the PLL's time constant; STA_NANO */
    int64_t stepped_ns;                   /* all steps, either way; the last field: refclock_sim.ports.device reads it */
};
enum { MAGIC = 0x6b436b49, usual_tick = 10000, most_constant = 10 }; /* MAXTC */
static const int64_t second = 1000000000, day = 86400 * 1000000000LL;
static const int64_t limit = 500 << 16, phase_limit_ns = 16 * 1000000000LL; /* MAXFREQ, NTP_PHASE_LIMIT */
static struct clock *clock_;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int (*host_gettime)(clockid_t, struct timespec *);

static int64_t ns(const struct timespec *t)
{
    return t->tv_sec * second + t->tv_nsec;
}

static int64_t host(clockid_t id)
{
    struct timespec t;
    host_gettime(id, &t);
    return ns(&t);
}

static void make(struct clock *c)
{
    pthread_mutexattr_t shared;
    const char *start = getenv("REFCLOCK_FAKE_CLOCK_START");
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&c->lock, &shared);
    c->raw_ns = host(CLOCK_MONOTONIC_RAW);
    c->mono_ns = host(CLOCK_MONOTONIC);
    c->real_ns = start ? strtoll(start, NULL, 10) : host(CLOCK_REALTIME);
    c->status = STA_UNSYNC;
    c->state = TIME_OK;
    c->tick = usual_tick;
    c->constant = 2;
    c->nano = 1;
    c->second_ns = c->raw_ns + second;
    c->max_error_ns = c->est_error_ns = phase_limit_ns;
    c->magic = MAGIC;
}

static void start(void)
{
    const char *file = getenv("REFCLOCK_FAKE_CLOCK");
    *(void **)&host_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int fd = file ? open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    flock(fd, LOCK_EX); /* only one program makes the state */
    void *m = ftruncate(fd, sizeof *clock_) ? MAP_FAILED : mmap(NULL, sizeof *clock_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m != MAP_FAILED) {
        clock_ = m;
        if (clock_->magic != MAGIC)
            make(clock_);
    }
    flock(fd, LOCK_UN); /* the mapping would hold the lock after close() */
    close(fd);
}

static int64_t grown(const struct clock *c, int64_t elapsed)
{
    const int64_t unit = 65536LL * 1000000, frequency = c->frequency + (int64_t)(c->tick - usual_tick) * 100 * 65536;
    return elapsed + (int64_t)((double)elapsed * (double)frequency / (double)unit);  // exact to 1 ns for years; __int128 is not everywhere
}

static void leap(struct clock *c, int64_t before)
{
    int midnight = c->real_ns / day > before / day;
    if (c->state == TIME_OK && c->status & (STA_INS | STA_DEL))
        c->state = c->status & STA_INS ? TIME_INS : TIME_DEL;
    else if ((c->state == TIME_INS || c->state == TIME_DEL) && !(c->status & (STA_INS | STA_DEL)))
        c->state = TIME_OK;
    else if (c->state == TIME_WAIT && !(c->status & (STA_INS | STA_DEL)))
        c->state = TIME_OK;
    if (c->state == TIME_INS && midnight) {
        c->real_ns -= second;
        c->tai_s++;
        c->state = TIME_OOP;
    } else if (c->state == TIME_OOP && midnight)
        c->state = TIME_WAIT;
    else if (c->state == TIME_DEL && c->real_ns / second % 86400 == 86399) {
        c->real_ns += second;
        c->tai_s--;
        c->state = TIME_WAIT;
    }
}

/* The clock brought up to now, locked. NULL: there is none, use the host's. */
static struct clock *enter(void)
{
    int saved = errno;
    pthread_once(&once, start);
    errno = saved;
    struct clock *c = clock_;
    if (!c)
        return NULL;
    if (pthread_mutex_lock(&c->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&c->lock);
    int64_t raw = host(CLOCK_MONOTONIC_RAW), before = c->real_ns;
    c->max_error_ns += (raw - c->raw_ns) / 2000; /* 500 ppm */
    if (c->max_error_ns >= phase_limit_ns) {
        c->max_error_ns = phase_limit_ns;
        c->status |= STA_UNSYNC;
    }
    while (c->raw_ns < raw) {
        int64_t until = raw < c->second_ns ? raw : c->second_ns, elapsed = until - c->raw_ns;
        int64_t step = grown(c, elapsed) + c->pll_now_ns * elapsed / second;
        c->raw_ns = until;
        c->real_ns += step;
        c->mono_ns += step;
        if (until == c->second_ns) { /* second_overflow() */
            c->second_ns += second;
            c->pll_now_ns = c->pll_ns / (1 << (2 + c->constant));
            c->pll_ns -= c->pll_now_ns;
        }
    }
    leap(c, before);
    return c;
}

static void leave(struct clock *c)
{
    pthread_mutex_unlock(&c->lock);
}

static void stepped(struct clock *c, int64_t to_ns)
{
    c->stepped_ns += to_ns > c->real_ns ? to_ns - c->real_ns : c->real_ns - to_ns;
    c->real_ns = to_ns;
    c->status |= STA_UNSYNC;
    c->state = TIME_OK;
    c->max_error_ns = c->est_error_ns = phase_limit_ns;
}

static int64_t whole(int64_t value_ns) /* us, rounded up: adjtimex() has microseconds */
{
    return value_ns / 1000 + (value_ns % 1000 != 0);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    struct clock *c = enter();
    int64_t value;
    if (!c || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE && id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE &&
               id != CLOCK_BOOTTIME && id != CLOCK_TAI)) {
        if (c)
            leave(c);
        return host_gettime(id, t);
    }
    value = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE ? c->real_ns : id == CLOCK_TAI ? c->real_ns + c->tai_s * second : c->mono_ns;
    leave(c);
    t->tv_sec = value / second;
    t->tv_nsec = value % second;
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){ now.tv_sec, now.tv_nsec / 1000 };
    return 0;
}

time_t time(time_t *t)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}

int clock_settime(clockid_t id, const struct timespec *t)
{
    struct clock *c = id == CLOCK_REALTIME ? enter() : NULL;
    if (!c || t->tv_sec < 0 || t->tv_nsec < 0 || t->tv_nsec >= second) {
        if (c)
            leave(c);
        errno = c || id != CLOCK_REALTIME ? EINVAL : EPERM; /* never the host's */
        return -1;
    }
    stepped(c, ns(t));
    leave(c);
    return 0;
}

int settimeofday(const struct timeval *t, const struct timezone *zone)
{
    (void)zone;
    return clock_settime(CLOCK_REALTIME, &(struct timespec){ t->tv_sec, t->tv_usec * 1000 });
}

static int refused(struct clock *c, int error)
{
    leave(c);
    errno = error;
    return -1;
}

static int64_t within(int64_t value, int64_t most)
{
    return value > most ? most : value < -most ? -most : value;
}

/* ntp_update_offset(): the phase goes to the PLL, and the frequency takes its share of it by the time since the last one. */
static void update_offset(struct clock *c, int64_t offset_ns)
{
    int64_t now_s = c->real_ns / second, since_s = c->status & STA_FREQHOLD ? 0 : now_s - c->reference_s;
    int64_t longest_s = 1 << (3 + c->constant), root = 1 << (4 + c->constant);
    c->reference_s = now_s;
    c->pll_ns = within(offset_ns, second / 2);
    if (since_s > longest_s)
        since_s = longest_s;
    c->frequency = within(c->frequency + (int64_t)((double)(c->pll_ns * since_s) / ((double)root * (double)root) / 1000 * 65536), limit);
}

int clock_adjtime(clockid_t id, struct timex *tx)
{
    struct clock *c = id == CLOCK_REALTIME ? enter() : NULL;
    if (!c) {
        errno = id == CLOCK_REALTIME ? EPERM : EOPNOTSUPP; /* never the host's */
        return -1;
    }
    unsigned modes = tx->modes == ADJ_OFFSET_SINGLESHOT && tx->offset == 0 ? 0 : tx->modes;
    int64_t unit = modes & ADJ_NANO ? 1 : 1000, part = (int64_t)tx->time.tv_usec * unit;
    if (modes & ~(unsigned)(ADJ_FREQUENCY | ADJ_STATUS | ADJ_ESTERROR | ADJ_MAXERROR | ADJ_TAI | ADJ_SETOFFSET | ADJ_NANO | ADJ_MICRO | ADJ_TICK |
                           ADJ_OFFSET | ADJ_TIMECONST))
        return refused(c, EINVAL);
    if (modes & ADJ_TICK && (tx->tick < 9000 || tx->tick > 11000))
        return refused(c, EINVAL);
    if (modes & ADJ_SETOFFSET) {
        if (part < 0 || part >= second)
            return refused(c, EINVAL);
        stepped(c, c->real_ns + tx->time.tv_sec * second + part);
    }
    if (modes & ADJ_NANO)
        c->nano = 1;
    if (modes & ADJ_MICRO)
        c->nano = 0;
    if (modes & ADJ_STATUS) {
        if (!(c->status & STA_PLL) && tx->status & STA_PLL)
            c->reference_s = c->real_ns / second;
        c->status = tx->status & (STA_INS | STA_DEL | STA_UNSYNC | STA_PLL | STA_FREQHOLD);
        leap(c, c->real_ns);
    }
    if (modes & ADJ_TICK)
        c->tick = (int)tx->tick;
    if (modes & ADJ_FREQUENCY)
        c->frequency = tx->freq > limit ? limit : tx->freq < -limit ? -limit : tx->freq;
    if (modes & ADJ_TIMECONST) {
        int64_t constant = tx->constant + (c->nano ? 0 : 4);
        c->constant = (int)(constant < 0 ? 0 : constant > most_constant ? most_constant : constant);
    }
    if (modes & ADJ_OFFSET && c->status & STA_PLL)
        update_offset(c, tx->offset * (c->nano ? 1 : 1000));
    if (modes & ADJ_MAXERROR)
        c->max_error_ns = tx->maxerror * 1000;
    if (modes & ADJ_ESTERROR)
        c->est_error_ns = tx->esterror * 1000;
    if (modes & ADJ_TAI && !(modes & ADJ_TIMECONST))
        c->tai_s = (int)tx->constant;
    int state = c->status & STA_UNSYNC ? TIME_ERROR : c->state;
    memset(tx, 0, sizeof *tx);
    tx->modes = modes;
    tx->freq = c->frequency;
    tx->maxerror = whole(c->max_error_ns);
    tx->esterror = whole(c->est_error_ns);
    tx->status = c->status | (c->nano ? STA_NANO : 0);
    tx->offset = c->pll_ns / (c->nano ? 1 : 1000);
    tx->constant = c->constant;
    tx->tai = c->tai_s;
    tx->tolerance = limit;
    tx->precision = 1;
    tx->tick = c->tick;
    tx->time.tv_sec = c->real_ns / second;
    tx->time.tv_usec = c->real_ns % second / (c->nano ? 1 : 1000);
    leave(c);
    return state;
}

int adjtimex(struct timex *tx)
{
    return clock_adjtime(CLOCK_REALTIME, tx);
}

int ntp_adjtime(struct timex *tx)
{
    return clock_adjtime(CLOCK_REALTIME, tx);
}

int adjtime(const struct timeval *delta, struct timeval *left)
{
    if (left)
        *left = (struct timeval){ 0 };
    if (!delta || (delta->tv_sec == 0 && delta->tv_usec == 0))
        return 0;
    errno = EPERM; /* never the host's */
    return -1;
}

/* A stamp of the host's clock as this one's; it is recent. */
static void restamp(struct timespec *stamp)
{
    struct clock *c = enter();
    if (!c)
        return;
    int64_t at = c->real_ns - (host(CLOCK_REALTIME) - ns(stamp));
    leave(c);
    *stamp = (struct timespec){ at / second, at % second };
}

static void restamp_all(struct msghdr *message)
{
    for (struct cmsghdr *m = CMSG_FIRSTHDR(message); m; m = CMSG_NXTHDR(message, m)) {
        struct timespec stamp;
        if (m->cmsg_level != SOL_SOCKET)
            continue;
        if (m->cmsg_type == SCM_TIMESTAMPNS || m->cmsg_type == SCM_TIMESTAMPING) { /* of the latter the first is software's */
            memcpy(&stamp, CMSG_DATA(m), sizeof stamp);
            if (ns(&stamp))
                restamp(&stamp);
            memcpy(CMSG_DATA(m), &stamp, sizeof stamp);
        } else if (m->cmsg_type == SCM_TIMESTAMP) {
            struct timeval micro;
            memcpy(&micro, CMSG_DATA(m), sizeof micro);
            stamp = (struct timespec){ micro.tv_sec, micro.tv_usec * 1000 };
            restamp(&stamp);
            micro = (struct timeval){ stamp.tv_sec, stamp.tv_nsec / 1000 };
            memcpy(CMSG_DATA(m), &micro, sizeof micro);
        }
    }
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static ssize_t (*next)(int, struct msghdr *, int);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "recvmsg");
    ssize_t n = next(fd, message, flags);
    if (n >= 0)
        restamp_all(message);
    return n;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    static int (*next)(int, struct mmsghdr *, unsigned, int, struct timespec *);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "recvmmsg");
    int n = next(fd, messages, count, flags, timeout);
    for (int i = 0; i < n; i++)
        restamp_all(&messages[i].msg_hdr);
    return n;
}
