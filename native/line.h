/* line: pulses on the control lines of serial ports (tty_ioctl(4)), stamped where the wait ends: before an interpreter has its say.
 *
 * ``mask``: TIOCM_CAR, TIOCM_CTS, TIOCM_DSR or TIOCM_RI. A change is answered with the line's new level, 0 or 1, and the clocks as they were
 * read before the level was: right after the wake-up. Errors: -errno; -EINTR: a signal came, nothing was seen.
 */
#ifndef LINE_H
#define LINE_H
#include <stdint.h>

#include "clock.h"

/* The level now. */
int lin_level(int fd, int mask);
/* Wait for a change, for ever if none comes. Drivers that cannot: -EINVAL, -ENOTTY, -EOPNOTSUPP or -515 (the kernel's own ENOIOCTLCMD). */
int lin_wait(int fd, int mask, struct clk_reading *out);
/* For those: look each every_ns until the level is not ``level``; -ETIMEDOUT after timeout_ns. */
int lin_look(int fd, int mask, int level, int64_t every_ns, int64_t timeout_ns, struct clk_reading *out);
#endif
