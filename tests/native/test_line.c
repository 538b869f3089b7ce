/* line: a change is answered with its level and the clocks at it. ioctl() is replaced here by a serial port that obeys the test. */
#include "line.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "check.h"

static struct {
    int lines, error, wait_error; /* error: what TIOCMGET fails with, wait_error: TIOCMIWAIT */
    int looks, change_at;         /* at this look the lines are inverted */
    unsigned long waited_for;
    int64_t woke_ns;
} port;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    (void)fd;
    if (request == TIOCMIWAIT) {
        port.waited_for = (unsigned long)p;
        port.woke_ns = clk_raw_ns();
        return port.wait_error ? (errno = port.wait_error, -1) : 0;
    }
    if (request != TIOCMGET || port.error)
        return errno = port.error ? port.error : ENOTTY, -1;
    port.looks++;
    *(int *)p = port.change_at && port.looks >= port.change_at ? ~port.lines : port.lines;
    return 0;
}

static void a_level_is_that_of_its_line_only(void)
{
    port.lines = TIOCM_CTS | TIOCM_RI;
    CHECK_EQUAL(lin_level(0, TIOCM_CTS), 1);
    CHECK_EQUAL(lin_level(0, TIOCM_CAR), 0);
    port.error = ENOTTY;
    CHECK_EQUAL(lin_level(0, TIOCM_CAR), -ENOTTY);
    port.error = 0;
}

static void a_wait_ends_with_the_clocks_and_the_level(void)
{
    struct clk_reading at;
    port.lines = TIOCM_CAR;
    CHECK_EQUAL(lin_wait(0, TIOCM_CAR, &at), 1);
    CHECK_EQUAL(port.waited_for, TIOCM_CAR);
    CHECK(at.raw_ns >= port.woke_ns && at.raw_ns <= clk_raw_ns());
    port.wait_error = EINTR;
    CHECK_EQUAL(lin_wait(0, TIOCM_CAR, &at), -EINTR);
    port.wait_error = 515;
    CHECK_EQUAL(lin_wait(0, TIOCM_CAR, &at), -515);
    port.wait_error = 0;
}

static void looking_ends_at_the_first_look_that_shows_a_change(void)
{
    struct clk_reading at;
    int64_t before_ns = clk_raw_ns();
    port.lines = 0;
    port.looks = 0;
    port.change_at = 4;
    CHECK_EQUAL(lin_look(0, TIOCM_CAR, 0, 1000, 60000000000, &at), 1);
    CHECK_EQUAL(port.looks, 4);
    CHECK(at.raw_ns >= before_ns + 3 * 1000 && at.raw_ns <= clk_raw_ns());
    port.change_at = 0;
}

static void looking_ends_in_vain_and_when_the_port_is_gone(void)
{
    struct clk_reading at;
    CHECK_EQUAL(lin_look(0, TIOCM_CAR, 0, 1000, 100000, &at), -ETIMEDOUT);
    port.error = EIO;
    CHECK_EQUAL(lin_look(0, TIOCM_CAR, 0, 1000, 60000000000, &at), -EIO);
    port.error = 0;
}

int main(void)
{
    RUN(a_level_is_that_of_its_line_only);
    RUN(a_wait_ends_with_the_clocks_and_the_level);
    RUN(looking_ends_at_the_first_look_that_shows_a_change);
    RUN(looking_ends_in_vain_and_when_the_port_is_gone);
    return 0;
}
