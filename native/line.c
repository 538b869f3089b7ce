#include "line.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>

#include "units.h"

static const int64_t good_ns = 500; /* uncertainty of a reading that nothing interrupted */

int lin_level(int fd, int mask)
{
    int lines;
    return ioctl(fd, TIOCMGET, &lines) < 0 ? -errno : (lines & mask) != 0;
}

int lin_wait(int fd, int mask, struct clk_reading *out)
{
    if (ioctl(fd, TIOCMIWAIT, (unsigned long)mask) < 0) /* the argument is the mask itself, not a pointer to it */
        return -errno;
    clk_read(good_ns, out);
    return lin_level(fd, mask);
}

int lin_look(int fd, int mask, int level, int64_t every_ns, int64_t timeout_ns, struct clk_reading *out)
{
    struct timespec pause = {every_ns / NS_PER_S, every_ns % NS_PER_S};
    for (int64_t end_ns = clk_raw_ns() + timeout_ns;;) {
        clk_read(good_ns, out);
        int now = lin_level(fd, mask);
        if (now != level) /* errors too */
            return now;
        if (out->raw_ns >= end_ns)
            return -ETIMEDOUT;
        if (nanosleep(&pause, 0) < 0)
            return -errno;
    }
}
