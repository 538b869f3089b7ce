/* clock: paired readings of the local clocks, and the kernel's control of CLOCK_REALTIME (adjtimex(2)).
 *
 * Only clk_set_frequency, clk_step and clk_report change anything; they need CAP_SYS_TIME (-EPERM). All functions: 0 or -errno.
 */
#ifndef CLOCK_H
#define CLOCK_H
#include <stdint.h>

/* Three clocks at one instant. */
struct clk_reading {
    int64_t real_ns;        /* CLOCK_REALTIME */
    int64_t mono_ns;        /* CLOCK_MONOTONIC; REALTIME - MONOTONIC changes only by a step, for slewing moves both */
    int64_t raw_ns;         /* CLOCK_MONOTONIC_RAW */
    int64_t uncertainty_ns; /* of the pair REALTIME, RAW: half the span of the RAW readings around REALTIME */
};

/* Take the narrowest of 8 readings. The first one with uncertainty_ns <= good_ns ends the search (0: take all). */
int clk_read(int64_t good_ns, struct clk_reading *out);
/* CLOCK_MONOTONIC_RAW alone, ns. */
int64_t clk_raw_ns(void);

/* The state of the kernel's clock (adjtimex(2)). */
struct clk_state {
    double frequency_ppm; /* correction in force; positive: the clock is made to run faster */
    int64_t offset_ns;    /* what the kernel's own loop has still to slew away; positive: forward */
    int64_t max_error_ns;
    int64_t est_error_ns;
    int32_t tai_offset_s; /* TAI - UTC; 0: not set */
    int32_t status;       /* STA_* of <sys/timex.h> */
    int32_t state;        /* TIME_*; TIME_ERROR = 5: unsynchronised */
    int32_t leap;         /* 1: insertion is announced; 2: deletion; 3: unsynchronised; else 0 */
};

/* Read it. */
int clk_state(struct clk_state *out);
/* Correct the frequency. Positive: the clock runs faster. -ERANGE: more than 500 ppm, the kernel's limit. */
int clk_set_frequency(double ppm);
/* Move the clock at once. Positive: forward. */
int clk_step(int64_t offset_ns);
/* Tell the kernel, and through it other programs: leap as in struct clk_state, the errors, TAI - UTC (negative: leave it). This ends the
 * kernel's own loops (STA_PLL, STA_PPSFREQ), so that one loop steers. */
int clk_report(int leap, int64_t est_error_ns, int64_t max_error_ns, int tai_offset_s);

/* Open a descriptor that becomes readable when anybody sets CLOCK_REALTIME, a leap second is applied, or the machine wakes up. */
int clk_watch_open(int *fd);
/* 1: that happened since the last call; 0: it did not. Never blocks. */
int clk_watch_stepped(int fd);
#endif
