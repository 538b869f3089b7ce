/* pps: the kernel's answers come through as they are. ioctl() is replaced here by a source that obeys the test. */
#include "pps.h"

#include <errno.h>
#include <linux/pps.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "check.h"

static struct {
    int can, error; /* error: what PPS_FETCH and PPS_SETPARAMS fail with */
    struct pps_kparams params;
    struct pps_fdata asked;
    int sets;
} source;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    (void)fd;
    if (!source.can)
        return errno = ENOTTY, -1;
    switch (request) {
    case PPS_GETCAP:
        *(int *)p = source.can;
        return 0;
    case PPS_GETPARAMS:
        *(struct pps_kparams *)p = source.params;
        return 0;
    case PPS_SETPARAMS:
        if (source.error)
            return errno = source.error, -1;
        source.params = *(struct pps_kparams *)p;
        source.sets++;
        return 0;
    case PPS_FETCH: {
        struct pps_fdata *data = p;
        source.asked = *data;
        if (source.error)
            return errno = source.error, -1;
        data->info.assert_sequence = 7;
        data->info.clear_sequence = UINT32_MAX;
        data->info.assert_tu = (struct pps_ktime){.sec = 4102444800, .nsec = 999999999};
        data->info.clear_tu = (struct pps_ktime){.sec = 1, .nsec = 100000000};
        return 0;
    }
    }
    return errno = ENOTTY, -1;
}

static void no_device_and_no_pps_are_told_apart(void)
{
    int fd = -1;
    source.can = 0;
    CHECK_EQUAL(pps_open("/nonexistent/pps0", &fd), -ENOENT);
    CHECK_EQUAL(pps_open("/dev/null", &fd), -ENOTTY);
    CHECK_EQUAL(fd, -1);
}

static void both_edges_are_captured_and_offsets_taken_off(void)
{
    source.can = PPS_CAPTUREBOTH | PPS_OFFSETASSERT | PPS_ECHOASSERT | PPS_CANWAIT | PPS_TSFMT_TSPEC;
    source.params = (struct pps_kparams){.mode = PPS_CAPTUREASSERT | PPS_OFFSETASSERT | PPS_ECHOASSERT};
    source.error = EPERM;
    CHECK_EQUAL(pps_capture_all(0), -EPERM);
    source.error = 0;
    CHECK_EQUAL(pps_capture_all(0), 0);
    CHECK_EQUAL(source.params.mode, PPS_CAPTUREBOTH | PPS_ECHOASSERT);
    CHECK_EQUAL(source.params.api_version, PPS_API_VERS_1);
}

static void a_source_that_is_already_so_is_left_alone(void)
{
    source.can = PPS_CAPTUREASSERT | PPS_CANWAIT | PPS_TSFMT_TSPEC;
    source.params = (struct pps_kparams){.mode = PPS_CAPTUREASSERT | PPS_TSFMT_TSPEC};
    source.error = EPERM;
    source.sets = 0;
    CHECK_EQUAL(pps_capture_all(0), 0);
    CHECK_EQUAL(source.sets, 0);
}

static void fetch_hands_over_both_edges(void)
{
    struct pps_event event;
    source.error = 0;
    CHECK_EQUAL(pps_fetch(0, 1500000000, &event), 0);
    CHECK_EQUAL(event.assert_ns, 4102444800999999999);
    CHECK_EQUAL(event.clear_ns, 1100000000);
    CHECK_EQUAL(event.assert_sequence, 7);
    CHECK_EQUAL(event.clear_sequence, UINT32_MAX);
    CHECK_EQUAL(source.asked.timeout.sec, 1);
    CHECK_EQUAL(source.asked.timeout.nsec, 500000000);
    CHECK_EQUAL(source.asked.timeout.flags, 0);
}

static void for_ever_and_at_once_are_different_waits(void)
{
    struct pps_event event;
    CHECK_EQUAL(pps_fetch(0, -1, &event), 0);
    CHECK_EQUAL(source.asked.timeout.flags, PPS_TIME_INVALID);
    CHECK_EQUAL(pps_fetch(0, 0, &event), 0);
    CHECK(source.asked.timeout.flags == 0 && source.asked.timeout.sec == 0 && source.asked.timeout.nsec == 0);
}

static void the_failures_of_a_fetch_are_told_apart(void)
{
    static const int errors[] = {EINTR, ETIMEDOUT, EOPNOTSUPP, ENODEV};
    struct pps_event event;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        source.error = errors[i];
        CHECK_EQUAL(pps_fetch(0, 1, &event), -errors[i]);
    }
}

int main(void)
{
    RUN(no_device_and_no_pps_are_told_apart);
    RUN(both_edges_are_captured_and_offsets_taken_off);
    RUN(a_source_that_is_already_so_is_left_alone);
    RUN(fetch_hands_over_both_edges);
    RUN(for_ever_and_at_once_are_different_waits);
    RUN(the_failures_of_a_fetch_are_told_apart);
    return 0;
}
