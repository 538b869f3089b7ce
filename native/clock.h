/* clock: the local clocks read together, and the kernel's control of CLOCK_REALTIME (adjtimex(2)).
 *
 * Only clk_set_frequency, clk_step and clk_report change anything; they need CAP_SYS_TIME (-EPERM). All functions: 0 or -errno.
 */
#ifndef CLOCK_H
#define CLOCK_H
#include <stdint.h>

/* Three clocks at one instant. */
struct clk_reading {
    int64_t real_ns;        /* CLOCK_REALTIME */
    int64_t mono_ns;        /* CLOCK_MONOTONIC: REALTIME minus it changes only when REALTIME is stepped, slewing moves both */
    int64_t raw_ns;         /* CLOCK_MONOTONIC_RAW */
    int64_t uncertainty_ns; /* |real - raw| is paired within it: half the span of the RAW readings around REALTIME */
};

/* The narrowest of several readings; the first one whose uncertainty is <= good_ns ends the search (0: try them all). */
int clk_read(int64_t good_ns, struct clk_reading *out);
/* CLOCK_MONOTONIC_RAW alone, ns. */
int64_t clk_raw_ns(void);

/* What the kernel says of its clock. */
struct clk_state {
    double frequency_ppm; /* positive: the clock is made to run faster */
    int64_t offset_ns;    /* what its own loop still has to slew away */
    int64_t max_error_ns;
    int64_t est_error_ns;
    int32_t tai_offset_s; /* TAI-UTC, 0 = not set */
    int32_t status;       /* STA_* of <sys/timex.h> */
    int32_t state;        /* TIME_OK, TIME_INS ... TIME_ERROR = 5: unsynchronised */
    int32_t leap;         /* 0 none, 1 insertion, 2 deletion announced, 3 unsynchronised */
};

int clk_state(struct clk_state *out);
/* Positive: speed the clock up. -ERANGE beyond +-500 ppm (what the kernel takes). */
int clk_set_frequency(double ppm);
/* Positive: move the clock forward. */
int clk_step(int64_t offset_ns);
/* Tell the kernel, and with it other programs: leap as in struct clk_state, the errors, TAI-UTC (< 0: leave it). Ends any loop of the
 * kernel's own (STA_PLL, STA_PPSFREQ ...): one loop steers. */
int clk_report(int leap, int64_t est_error_ns, int64_t max_error_ns, int tai_offset_s);

/* A descriptor that becomes readable when CLOCK_REALTIME was set by anybody, a leap second was applied, or the machine woke up. */
int clk_watch_open(int *fd);
/* 1 when that happened since the last call, 0 when not, or -errno. Never blocks. */
int clk_watch_stepped(int fd);
#endif
