#include "pps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pps.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "units.h"

enum { FLAGS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK };
_Static_assert(PPS_MODE_ASSERT == PPS_CAPTUREASSERT && PPS_MODE_CLEAR == PPS_CAPTURECLEAR && PPS_MODE_CAN_WAIT == PPS_CANWAIT, "mode bits");


int pps_open(const char *path, int *fd)
{
    int mode, opened = open(path, O_RDWR | FLAGS);
    if (opened < 0 && (errno == EACCES || errno == EPERM || errno == EROFS))
        opened = open(path, O_RDONLY | FLAGS);
    if (opened < 0)
        return -errno;
    int r = pps_capabilities(opened, &mode);
    if (r < 0)
        close(opened);
    else
        *fd = opened;
    return r;
}

int pps_close(int fd)
{
    return close(fd) < 0 ? -errno : 0;
}

int pps_capabilities(int fd, int *mode)
{
    return ioctl(fd, PPS_GETCAP, mode) < 0 ? -errno : 0;
}

int pps_get_mode(int fd, int *mode)
{
    struct pps_kparams params;
    memset(&params, 0, sizeof params);
    if (ioctl(fd, PPS_GETPARAMS, &params) < 0)
        return -errno;
    *mode = params.mode;
    return 0;
}

int pps_capture_all(int fd)
{
    struct pps_kparams params;
    int can, r = pps_capabilities(fd, &can);
    if (r < 0)
        return r;
    memset(&params, 0, sizeof params);
    if (ioctl(fd, PPS_GETPARAMS, &params) < 0)
        return -errno;
    int wanted = ((params.mode | PPS_CAPTUREBOTH) & ~(PPS_OFFSETASSERT | PPS_OFFSETCLEAR)) & can;
    if ((params.mode & (PPS_CAPTUREBOTH | PPS_OFFSETASSERT | PPS_OFFSETCLEAR)) == (wanted & PPS_CAPTUREBOTH))
        return 0; /* nothing to change, so no privilege is needed */
    params.api_version = PPS_API_VERS;
    params.mode = wanted;
    return ioctl(fd, PPS_SETPARAMS, &params) < 0 ? -errno : 0;
}

int pps_fetch(int fd, int64_t timeout_ns, struct pps_event *out)
{
    struct pps_fdata data;
    memset(&data, 0, sizeof data);
    if (timeout_ns < 0)
        data.timeout.flags = PPS_TIME_INVALID;
    else {
        data.timeout.sec = timeout_ns / NS_PER_S;
        data.timeout.nsec = (int32_t)(timeout_ns % NS_PER_S);
    }
    if (ioctl(fd, PPS_FETCH, &data) < 0)
        return -errno;
    out->assert_ns = data.info.assert_tu.sec * NS_PER_S + data.info.assert_tu.nsec;
    out->clear_ns = data.info.clear_tu.sec * NS_PER_S + data.info.clear_tu.nsec;
    out->assert_sequence = data.info.assert_sequence;
    out->clear_sequence = data.info.clear_sequence;
    return 0;
}
