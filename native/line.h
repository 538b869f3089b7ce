/* line: pulses on the control lines of serial ports (tty_ioctl(4)), stamped in C right after the wake-up.
 *
 * mask: TIOCM_CAR, TIOCM_CTS, TIOCM_DSR or TIOCM_RI. A function that waits returns the line's new level, 0 or 1. It reads the clocks first
 * and the level after, so reading the level does not make the stamp late. Errors: -errno; -EINTR: a signal ended the wait.
 */
#ifndef LINE_H
#define LINE_H
#include <stdint.h>

#include "clock.h"

/* The level now, 0 or 1. */
int lin_level(int fd, int mask);
/* Wait for a change, without a limit. Drivers that cannot wait: -EINVAL, -ENOTTY, -EOPNOTSUPP or -515 (the kernel's own ENOIOCTLCMD). */
int lin_wait(int fd, int mask, struct clk_reading *out);
/* For those drivers: read the level every every_ns until it is not `level`. -ETIMEDOUT: it stayed so for timeout_ns. */
int lin_look(int fd, int mask, int level, int64_t every_ns, int64_t timeout_ns, struct clk_reading *out);
#endif
