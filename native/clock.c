#define _GNU_SOURCE /* clock_adjtime */
#include "clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

enum { TRIES = 8 };
static const double kernel_ppm = 65536; /* struct timex.freq: 2^-16 ppm, adjtimex(2) */
static const double limit_ppm = 500;    /* MAXFREQ, include/linux/timex.h */

static int64_t read_clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clk_raw_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC_RAW);
}

int clk_read(int64_t good_ns, struct clk_reading *out)
{
    int64_t narrowest = INT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        int64_t raw0 = read_clock_ns(CLOCK_MONOTONIC_RAW);
        int64_t real = read_clock_ns(CLOCK_REALTIME);
        int64_t raw1 = read_clock_ns(CLOCK_MONOTONIC_RAW);
        int64_t mono = read_clock_ns(CLOCK_MONOTONIC);
        int64_t raw2 = read_clock_ns(CLOCK_MONOTONIC_RAW);
        if (raw2 - raw0 >= narrowest)
            continue;
        narrowest = raw2 - raw0;
        out->raw_ns = raw0 + (raw1 - raw0) / 2;
        out->real_ns = real;
        out->mono_ns = mono - (raw2 - raw0) / 2; /* back from the middle of raw1..raw2 to that of raw0..raw1 */
        out->uncertainty_ns = (raw1 - raw0 + 1) / 2;
        if (out->uncertainty_ns <= good_ns)
            break;
    }
    return 0;
}

int clk_state(struct clk_state *out)
{
    struct timex tx;
    memset(&tx, 0, sizeof tx);
    int state = clock_adjtime(CLOCK_REALTIME, &tx);
    if (state < 0)
        return -errno;
    memset(out, 0, sizeof *out);
    out->frequency_ppm = (double)tx.freq / kernel_ppm;
    out->offset_ns = (int64_t)tx.offset * (tx.status & STA_NANO ? 1 : 1000);
    out->max_error_ns = (int64_t)tx.maxerror * 1000;
    out->est_error_ns = (int64_t)tx.esterror * 1000;
    out->tai_offset_s = tx.tai;
    out->status = tx.status;
    out->state = state;
    out->leap = tx.status & STA_UNSYNC ? 3 : tx.status & STA_INS ? 1 : tx.status & STA_DEL ? 2 : 0;
    return 0;
}

static int adjust_clock(struct timex *tx)
{
    return clock_adjtime(CLOCK_REALTIME, tx) < 0 ? -errno : 0;
}

int clk_set_frequency(double ppm)
{
    struct timex tx;
    if (!(fabs(ppm) <= limit_ppm)) /* or NaN */
        return -ERANGE;
    memset(&tx, 0, sizeof tx);
    tx.modes = ADJ_FREQUENCY;
    tx.freq = lrint(ppm * kernel_ppm);
    return adjust_clock(&tx);
}

int clk_step(int64_t offset_ns)
{
    struct timex tx;
    memset(&tx, 0, sizeof tx);
    tx.modes = ADJ_SETOFFSET | ADJ_NANO;
    int64_t fraction = offset_ns % NS_PER_S;
    if (fraction < 0)
        fraction += NS_PER_S; /* tv_usec, here ns, must be 0..1e9-1, for a negative step too (adjtimex(2)) */
    tx.time.tv_sec = (time_t)((offset_ns - fraction) / NS_PER_S);
    tx.time.tv_usec = (suseconds_t)fraction;
    return adjust_clock(&tx);
}

static long microseconds_up(int64_t ns)
{
    int64_t us = ns <= 0 ? 0 : ns / 1000 + (ns % 1000 != 0);
    return us > INT32_MAX ? INT32_MAX : (long)us;
}

int clk_report(int leap, int64_t est_error_ns, int64_t max_error_ns, int tai_offset_s)
{
    static const int status[4] = {0, STA_INS, STA_DEL, STA_UNSYNC};
    struct timex tx;
    if (leap < 0 || leap > 3)
        return -EINVAL;
    memset(&tx, 0, sizeof tx);
    tx.modes = ADJ_STATUS | ADJ_ESTERROR | ADJ_MAXERROR;
    tx.status = status[leap];
    tx.esterror = microseconds_up(est_error_ns);
    tx.maxerror = microseconds_up(max_error_ns);
    if (tai_offset_s >= 0) {
        tx.modes |= ADJ_TAI;
        tx.constant = tai_offset_s;
    }
    return adjust_clock(&tx);
}

int clk_watch_open(int *fd)
{
    /* A timer that does not expire before 2116: half of what the kernel's ktime_t holds. */
    const struct itimerspec never = {.it_value.tv_sec = sizeof(time_t) > 4 ? (time_t)(INT64_MAX / 2 / NS_PER_S) : INT32_MAX};
    int timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer < 0)
        return -errno;
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0) {
        int r = -errno;
        close(timer);
        return r;
    }
    *fd = timer;
    return 0;
}

int clk_watch_stepped(int fd)
{
    uint64_t expirations;
    if (read(fd, &expirations, sizeof expirations) >= 0)
        return 0;
    return errno == ECANCELED ? 1 : errno == EAGAIN || errno == EINTR ? 0 : -errno;
}
