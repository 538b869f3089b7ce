/* pps: the kernel's pulse-per-second sources (RFC 2783 on Linux: <linux/pps.h>, drivers/pps/pps.c).
 *
 * open(), ioctl() and close() go through libc, and only PPS_GETCAP says whether a path is a PPS source, so a preloaded library can stand in
 * for the device. Stamps are CLOCK_REALTIME, ns; 0: that edge was never seen. All functions: 0 or -errno.
 */
#ifndef PPS_H
#define PPS_H
#include <stdint.h>

/* Mode bits, as in <linux/pps.h>. */
enum { PPS_MODE_ASSERT = 0x01, PPS_MODE_CLEAR = 0x02, PPS_MODE_CAN_WAIT = 0x100 };

struct pps_event {
    int64_t assert_ns;        /* CLOCK_REALTIME of the last rising edge */
    int64_t clear_ns;         /* of the last falling edge */
    uint32_t assert_sequence; /* edges so far, modulo 2^32 */
    uint32_t clear_sequence;
};

/* Open for reading and writing, or for reading only without permission. -ENOTTY: not a PPS source. */
int pps_open(const char *path, int *fd);
int pps_close(int fd);
/* Mode bits: what the source can do. */
int pps_capabilities(int fd, int *mode);
/* Mode bits: what it is set to do. */
int pps_get_mode(int fd, int *mode);
/* Capture every edge that the source can capture, and add no offset to the stamps. -EPERM without CAP_SYS_TIME. The setting is the
 * device's, not fd's, so other programs see it too. */
int pps_capture_all(int fd);
/* Wait for a new edge of either kind, then copy the last edges. timeout_ns < 0: wait without a limit; 0: do not wait. The kernel counts in
 * ticks of 1 to 10 ms, so a shorter timeout is no wait. -ETIMEDOUT; -EINTR; -EOPNOTSUPP: the source cannot wait; -ENODEV: it is gone. */
int pps_fetch(int fd, int64_t timeout_ns, struct pps_event *out);
#endif
