/* clock: signs and units at the kernel's door. clock_adjtime() is replaced here, so no clock is ever touched. */
#define _GNU_SOURCE
#include "clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static struct timex asked, answer;
static int result;

int clock_adjtime(clockid_t clock, struct timex *tx)
{
    CHECK_EQUAL(clock, CLOCK_REALTIME);
    asked = *tx;
    if (tx->modes == 0)
        *tx = answer;
    if (result < 0)
        errno = EPERM;
    return result;
}

static void one_reading_pairs_the_three_clocks(void)
{
    struct clk_reading first, next;
    CHECK_EQUAL(clk_read(0, &first), 0);
    CHECK_EQUAL(clk_read(1000000000, &next), 0);
    CHECK(first.uncertainty_ns >= 0 && first.uncertainty_ns < 1000000000);
    CHECK(next.raw_ns > first.raw_ns && next.raw_ns <= clk_raw_ns());
    int64_t real = next.real_ns - first.real_ns, mono = next.mono_ns - first.mono_ns, raw = next.raw_ns - first.raw_ns;
    CHECK(llabs(real - mono) < 1000000 && llabs(real - raw) < 1000000);
}

static void positive_frequency_speeds_the_clock_up(void)
{
    CHECK_EQUAL(clk_set_frequency(1.5), 0);
    CHECK_EQUAL(asked.modes, ADJ_FREQUENCY);
    CHECK_EQUAL(asked.freq, 98304); /* 1.5 * 2^16 */
    CHECK_EQUAL(clk_set_frequency(-500), 0);
    CHECK_EQUAL(asked.freq, -500 * 65536);
}

static void a_frequency_that_the_kernel_would_clamp_is_refused(void)
{
    asked.modes = 0;
    CHECK_EQUAL(clk_set_frequency(500.1), -ERANGE);
    CHECK_EQUAL(clk_set_frequency(NAN), -ERANGE);
    CHECK_EQUAL(asked.modes, 0);
}

static void a_step_back_keeps_its_fraction_positive(void)
{
    CHECK_EQUAL(clk_step(-1), 0);
    CHECK_EQUAL(asked.modes, ADJ_SETOFFSET | ADJ_NANO);
    CHECK_EQUAL(asked.time.tv_sec, -1);
    CHECK_EQUAL(asked.time.tv_usec, 999999999);
    CHECK_EQUAL(clk_step(-2000000000), 0);
    CHECK(asked.time.tv_sec == -2 && asked.time.tv_usec == 0);
    CHECK_EQUAL(clk_step(3000000007), 0);
    CHECK(asked.time.tv_sec == 3 && asked.time.tv_usec == 7);
}

static void errors_are_reported_rounded_up_and_leaps_as_flags(void)
{
    CHECK_EQUAL(clk_report(1, 1, 1001, 37), 0);
    CHECK_EQUAL(asked.modes, ADJ_STATUS | ADJ_ESTERROR | ADJ_MAXERROR | ADJ_TAI);
    CHECK(asked.status == STA_INS && asked.esterror == 1 && asked.maxerror == 2 && asked.constant == 37);
    CHECK_EQUAL(clk_report(2, -5, INT64_MAX, -1), 0);
    CHECK_EQUAL(asked.modes, ADJ_STATUS | ADJ_ESTERROR | ADJ_MAXERROR);
    CHECK(asked.status == STA_DEL && asked.esterror == 0 && asked.maxerror == INT32_MAX);
    CHECK_EQUAL(clk_report(3, 0, 0, -1), 0);
    CHECK_EQUAL(asked.status, STA_UNSYNC);
    CHECK_EQUAL(clk_report(0, 0, 0, -1), 0);
    CHECK_EQUAL(asked.status, 0);
    CHECK_EQUAL(clk_report(4, 0, 0, -1), -EINVAL);
}

static void the_state_is_read_without_changing_anything(void)
{
    struct clk_state state;
    answer = (struct timex){.freq = -131072, .offset = -250, .maxerror = 3, .esterror = 2, .tai = 37, .status = STA_INS};
    result = TIME_INS;
    CHECK_EQUAL(clk_state(&state), 0);
    CHECK_EQUAL(asked.modes, 0);
    CHECK(fabs(state.frequency_ppm + 2) < 1e-9);
    CHECK(state.offset_ns == -250000 && state.max_error_ns == 3000 && state.est_error_ns == 2000);
    CHECK(state.tai_offset_s == 37 && state.leap == 1 && state.state == TIME_INS);
    answer.status |= STA_NANO | STA_UNSYNC;
    CHECK_EQUAL(clk_state(&state), 0);
    CHECK(state.offset_ns == -250 && state.leap == 3);
}

static void refusal_comes_back_as_an_error(void)
{
    struct clk_state state;
    result = -1;
    CHECK_EQUAL(clk_step(1), -EPERM);
    CHECK_EQUAL(clk_set_frequency(0), -EPERM);
    CHECK_EQUAL(clk_report(0, 0, 0, 0), -EPERM);
    CHECK_EQUAL(clk_state(&state), -EPERM);
    result = 0;
}

static void a_clock_that_nobody_sets_has_not_stepped(void)
{
    int fd = -1;
    CHECK_EQUAL(clk_watch_open(&fd), 0);
    CHECK_EQUAL(clk_watch_stepped(fd), 0);
    close(fd);
    CHECK_EQUAL(clk_watch_stepped(fd), -EBADF);
}

int main(void)
{
    RUN(one_reading_pairs_the_three_clocks);
    RUN(positive_frequency_speeds_the_clock_up);
    RUN(a_frequency_that_the_kernel_would_clamp_is_refused);
    RUN(a_step_back_keeps_its_fraction_positive);
    RUN(errors_are_reported_rounded_up_and_leaps_as_flags);
    RUN(the_state_is_read_without_changing_anything);
    RUN(refusal_comes_back_as_an_error);
    RUN(a_clock_that_nobody_sets_has_not_stepped);
    return 0;
}
