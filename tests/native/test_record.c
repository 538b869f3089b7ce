/* record: the map, its bound, leap seconds, and the file that carries it. */
#define _GNU_SOURCE /* syscall, CLOCK_BOOTTIME */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static const int64_t second = 1000000000;
static int64_t slept_s, stepped_s; /* what REALTIME and BOOTTIME show since */

/* libc's, on a machine that can be put to sleep and whose clock can be set. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int r = (int)syscall(SYS_clock_gettime, clock, ts);
    ts->tv_sec += clock == CLOCK_REALTIME ? slept_s + stepped_s : clock == CLOCK_BOOTTIME ? slept_s : 0;
    return r;
}

static int64_t ns_of(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * second + ts.tv_nsec;
}

/* The stratum of an answer now, or so long after now. */
static int stratum_now(const struct rec *page, int64_t later_ns)
{
    struct rec_params out;
    int64_t ahead_ns = ns_of(CLOCK_REALTIME) - ns_of(CLOCK_MONOTONIC);
    CHECK_EQUAL(rec_read_now(page, ns_of(CLOCK_MONOTONIC_RAW) + later_ns, ahead_ns, &out), 0);
    return out.stratum;
}
static char directory[] = "/tmp/recXXXXXX";
static char path[64], other[64], twin[64];

static struct rec_params good(void)
{
    return (struct rec_params){.raw_ns = 1000 * second, .tai_ns = 1800000037 * second, .rate = 1e-5, .bound_ns = 100.25,
                               .bound_rate = 1e-8, .bound_wander_ns = 2, .root_delay_ns = 50, .reference_raw_ns = 999 * second,
                               .valid_until_raw_ns = 2000 * second, .tai_offset_s = 37, .refid = 0x47505300, .precision = -24, .stratum = 1};
}

static struct rec_reading at(const struct rec_params *p, int64_t raw_ns)
{
    struct rec_reading r;
    rec_at(p, raw_ns, &r);
    return r;
}

static void the_map_is_affine_and_its_bound_grows(void)
{
    struct rec_params p = good();
    struct rec_reading r = at(&p, p.raw_ns);
    CHECK_EQUAL(r.tai_ns, p.tai_ns);
    CHECK_EQUAL(r.utc_ns, 1800000000 * second);
    CHECK_EQUAL(r.bound_ns, 101); /* up */
    CHECK(r.stratum == 1 && r.leap == 0 && r.refid == 0x47505300 && r.precision == -24 && r.root_delay_ns == 50);
    CHECK_EQUAL(r.reference_utc_ns, 1799999999 * second - 10000);
    r = at(&p, p.raw_ns + 100 * second);
    CHECK_EQUAL(r.tai_ns, p.tai_ns + 100 * second + 1000000);
    CHECK_EQUAL(r.bound_ns, 100 + 1000 + 2 * 1000 + 1); /* 100 s: 1e-8 -> 1000 ns, 2 * 100^1.5 = 2000 ns */
    r = at(&p, p.raw_ns - 2 * second);
    CHECK_EQUAL(r.tai_ns, p.tai_ns - 2 * second - 20000);
    CHECK_EQUAL(r.bound_ns, 101); /* before the anchor: as at it */
    CHECK(r.reference_utc_ns == r.utc_ns); /* never in the future */
}

static void it_ends_at_the_holdover_limit_but_goes_on_counting(void)
{
    struct rec_params p = good();
    CHECK_EQUAL(at(&p, p.valid_until_raw_ns).leap, 0);
    struct rec_reading r = at(&p, p.valid_until_raw_ns + 1);
    CHECK(r.leap == 3 && r.stratum == 0 && r.utc_ns > 1800000999 * second && r.reference_utc_ns != 0);
    p.stratum = 0;
    r = at(&p, p.raw_ns);
    CHECK(r.leap == 3 && r.stratum == 0 && r.reference_utc_ns == 0);
    p.stratum = 16;
    CHECK_EQUAL(at(&p, p.raw_ns).stratum, 0);
}

static void a_record_of_the_future_is_of_another_boot(void)
{
    struct rec_params p = good();
    CHECK_EQUAL(at(&p, p.raw_ns - 60 * second).leap, 0);
    CHECK_EQUAL(at(&p, p.raw_ns - 61 * second).leap, 3);
}

static void an_inserted_second_repeats_its_number(void)
{
    struct rec_params p = good();
    int64_t midnight = 1800230400 * second; /* ends a day, more than one after the anchor */
    p.rate = 0;
    p.valid_until_raw_ns = INT64_MAX;
    p.leap_step_s = 1;
    p.leap_tai_ns = midnight + 37 * second; /* 23:59:60 begins */
    int64_t leap_raw = p.raw_ns + (p.leap_tai_ns - p.tai_ns);
    CHECK_EQUAL(at(&p, leap_raw - 86400 * second - 1).leap, 0);
    CHECK_EQUAL(at(&p, leap_raw - 86400 * second).leap, 1);
    struct rec_reading r = at(&p, leap_raw - 1);
    CHECK(r.leap == 1 && r.utc_ns == midnight - 1);
    p.reference_raw_ns = leap_raw - 1;
    r = at(&p, leap_raw);
    CHECK(r.leap == 0 && r.utc_ns == midnight - second);
    CHECK_EQUAL(r.reference_utc_ns, r.utc_ns); /* its number is later than the present one */
    CHECK_EQUAL(r.tai_ns, p.leap_tai_ns);
    CHECK_EQUAL(at(&p, leap_raw + second).utc_ns, midnight);
}

static void a_deleted_second_is_jumped_over(void)
{
    struct rec_params p = good();
    int64_t midnight = 1800230400 * second;
    p.rate = 0;
    p.valid_until_raw_ns = INT64_MAX;
    p.leap_step_s = -1;
    p.leap_tai_ns = midnight + 36 * second; /* the missing 23:59:59 would begin */
    int64_t leap_raw = p.raw_ns + (p.leap_tai_ns - p.tai_ns);
    struct rec_reading r = at(&p, leap_raw - 1);
    CHECK(r.leap == 2 && r.utc_ns == midnight - second - 1);
    r = at(&p, leap_raw);
    CHECK(r.leap == 0 && r.utc_ns == midnight);
}

static void a_senseless_record_is_unsynchronised(void)
{
    struct rec_params p = good();
    p.bound_ns = NAN;
    CHECK_EQUAL(at(&p, p.raw_ns).leap, 3);
    p.bound_ns = -1;
    CHECK_EQUAL(at(&p, p.raw_ns).leap, 3);
    p = good();
    p.bound_rate = INFINITY;
    CHECK_EQUAL(at(&p, p.raw_ns + 1).leap, 3);
    p = good();
    p.rate = NAN;
    CHECK_EQUAL(at(&p, p.raw_ns).leap, 3);
    p.rate = -0.2;
    CHECK_EQUAL(at(&p, p.raw_ns).stratum, 0);
    p = good();
    p.rate = 1e300;
    p.tai_ns = INT64_MAX;
    p.reference_raw_ns = INT64_MIN;
    p.tai_offset_s = INT32_MIN;
    p.leap_step_s = INT32_MIN;
    p.leap_tai_ns = INT64_MIN;
    at(&p, INT64_MAX); /* UBSan looks on */
    at(&p, INT64_MIN);
}

static struct rec_reading smeared(const struct rec_params *p, int64_t raw_ns)
{
    struct rec_reading r = at(p, raw_ns);
    rec_smear(p, &r);
    return r;
}

static void a_leap_second_is_smeared_from_noon_to_noon(void)
{
    const int64_t midnight = 1800057600 * second, noon = midnight - 43200 * second; /* 2027-01-16 00:00:00 UTC */
    for (int step = -1; step <= 1; step += 2) {
        struct rec_params p = good();
        p.rate = 0;
        p.raw_ns = 1000000 * second;
        p.tai_ns = noon + (37 - 86400) * second;
        p.valid_until_raw_ns = p.raw_ns + 30 * 86400 * second;
        p.reference_raw_ns = p.raw_ns - 86400 * second;
        p.leap_step_s = step;
        p.leap_tai_ns = noon + (37 + 43200 + (step < 0 ? -1 : 0)) * second;
        const int64_t start = p.raw_ns + 86400 * second, leap = start + p.leap_tai_ns - noon - 37 * second;
        const int64_t length = (86400 + step) * second; /* of SI time, while UTC runs 86400 s */
        int64_t before = 0;
        for (int64_t in = -3600 * second; in <= length + 3600 * second; in += 997 * second / 7) {
            struct rec_reading plain = at(&p, start + in), r = smeared(&p, start + in);
            double part = in <= 0 ? 0 : in >= length ? 1 : (double)in / (double)length;
            CHECK(fabs((double)(r.utc_ns - (noon + in)) + part * step * (double)second) <= 1);
            CHECK(r.leap == 0 && r.stratum == 1 && r.tai_ns == plain.tai_ns && r.bound_ns == plain.bound_ns);
            CHECK(in <= 0 || in >= length || r.utc_ns != plain.utc_ns);
            CHECK(before == 0 || r.utc_ns > before);
            before = r.utc_ns;
        }
        CHECK_EQUAL(smeared(&p, start).utc_ns, noon);
        CHECK_EQUAL(smeared(&p, start + length).utc_ns, noon + 86400 * second);
        int64_t edges[] = {start, leap, start + length}; /* nowhere does it jump: a nanosecond is one, or none, or two */
        for (int i = 0; i < 3; i++)
            for (int64_t raw_ns = edges[i] - 1000; raw_ns < edges[i] + 1000; raw_ns++) {
                int64_t moved = smeared(&p, raw_ns + 1).utc_ns - smeared(&p, raw_ns).utc_ns;
                CHECK(moved >= 0 && moved <= 2);
            }
        struct rec_reading late = smeared(&p, p.valid_until_raw_ns + 1);
        CHECK_EQUAL(late.leap, 3); /* not smeared away */
    }
}

static void without_a_leap_second_or_with_a_senseless_one_nothing_is_smeared(void)
{
    static const int32_t steps[] = {0, 2, -2, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        struct rec_params p = good();
        p.leap_step_s = steps[i];
        p.leap_tai_ns = p.tai_ns + 3600 * second;
        struct rec_reading plain = at(&p, p.raw_ns), r = smeared(&p, p.raw_ns);
        CHECK(memcmp(&plain, &r, sizeof r) == 0);
    }
    for (int step = -1; step <= 1; step += 2) {
        static const int64_t ends[] = {INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX - 1, INT64_MAX};
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < 6; j++) { /* no undefined behaviour: the sanitizer looks on */
                struct rec_params p = good();
                p.leap_step_s = step;
                p.leap_tai_ns = ends[i];
                p.tai_ns = ends[j];
                p.tai_offset_s = j % 2 ? INT32_MAX : INT32_MIN;
                (void)smeared(&p, p.raw_ns + second);
            }
    }
}

static void the_reference_is_smeared_along(void)
{
    struct rec_params p = good();
    p.rate = 0;
    p.leap_step_s = 1;
    p.leap_tai_ns = p.tai_ns + 3600 * second;
    p.reference_raw_ns = p.raw_ns - 64 * second;
    struct rec_reading r = smeared(&p, p.raw_ns);
    CHECK(r.utc_ns - r.reference_utc_ns == 64 * second);
    p.stratum = 0; /* never: stays never */
    r = smeared(&p, p.raw_ns);
    CHECK(r.reference_utc_ns == 0 && r.leap == 3);
}

static void a_record_goes_through_the_file(void)
{
    struct rec *writer, *reader;
    struct rec_params in = good(), out;
    CHECK_EQUAL(rec_open(path, 0, &reader), -ENOENT);
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    CHECK_EQUAL(rec_open(path, 0, &reader), 0);
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0644);
    CHECK_EQUAL(rec_read(reader, &out), -ENODATA);
    for (int i = 0; i < 5; i++) {
        in.raw_ns++;
        rec_publish(writer, &in);
        CHECK_EQUAL(rec_read(reader, &out), 0);
        CHECK(memcmp(&in, &out, sizeof in) == 0);
    }
    rec_close(writer);
    CHECK_EQUAL(rec_read(reader, &out), 0);
    CHECK_EQUAL(rec_open(path, 1, &writer), 0); /* restarted: the last record stays in force, for old readers and new */
    memset(&out, 0, sizeof out);
    CHECK_EQUAL(rec_read(writer, &out), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    in.raw_ns++;
    rec_publish(writer, &in);
    CHECK_EQUAL(rec_read(reader, &out), 0);
    CHECK_EQUAL(out.raw_ns, in.raw_ns);
    rec_close(writer);
    rec_close(reader);
}

static void numbers_that_no_clock_has_are_read_as_unsynchronised(void)
{
    struct rec_params wrong[] = {good(), good(), good(), good(), good(), good(), good(), good(), good(), good()};
    wrong[0].rate = NAN;
    wrong[1].bound_ns = -1;
    wrong[2].bound_rate = -1e-9;
    wrong[3].bound_rate = INFINITY;
    wrong[4].bound_wander_ns = NAN;
    wrong[5].tai_ns = -1;
    wrong[6].leap_step_s = 2;
    wrong[7].tai_offset_s = -1;
    wrong[8].precision = 1;
    wrong[9].stratum = 16;
    struct rec *page;
    CHECK_EQUAL(rec_open(other, 1, &page), 0);
    struct rec_params p = good();
    rec_publish(page, &p);
    CHECK_EQUAL(stratum_now(page, 0), 1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        rec_publish(page, &wrong[i]);
        CHECK_EQUAL(stratum_now(page, 0), 0);
    }
    rec_close(page);
    unlink(other);
}

static void after_a_suspend_the_record_is_void(void)
{
    struct rec *t;
    struct rec_params p = good();
    CHECK_EQUAL(rec_open(path, 1, &t), 0);
    rec_publish(t, &p);
    CHECK(stratum_now(t, 0) == 1 && stratum_now(t, 3600 * second) == 1); /* its writer may be dead for long */
    slept_s = 600;
    CHECK(stratum_now(t, 0) == 0 && stratum_now(t, 3600 * second) == 0);
    CHECK_EQUAL(rec_read(t, &p), 0);
    CHECK_EQUAL(p.stratum, 1); /* as it was published */
    stepped_s = -600; /* somebody set the clock back to what it was */
    CHECK(stratum_now(t, 4 * second) == 0);
    stepped_s = 0;
    rec_publish(t, &p); /* by a writer that knows of it */
    CHECK_EQUAL(stratum_now(t, 0), 1);
    slept_s = 0;
    rec_close(t);
}

static void a_step_of_the_system_clock_counts_when_the_writer_is_dead(void)
{
    struct rec *t;
    struct rec_params p = good();
    CHECK_EQUAL(rec_open(path, 1, &t), 0);
    rec_publish(t, &p);
    stepped_s = 2;
    CHECK(stratum_now(t, 0) == 1 && stratum_now(t, 2 * second) == 1);
    CHECK_EQUAL(stratum_now(t, 4 * second), 0);
    rec_publish(t, &p); /* at once by one that lives */
    CHECK_EQUAL(stratum_now(t, 3600 * second), 1);
    stepped_s = 0;
    p.leap_step_s = 1; /* the leap second of the record comes, and the kernel takes it or not */
    p.raw_ns = ns_of(CLOCK_MONOTONIC_RAW);
    p.leap_tai_ns = p.tai_ns + 10 * second;
    rec_publish(t, &p);
    CHECK(stratum_now(t, 9 * second) == 1 && stratum_now(t, 20 * second) == 1);
    stepped_s = -1;
    CHECK(stratum_now(t, 9 * second) == 0 && stratum_now(t, 20 * second) == 1);
    stepped_s = 0;
    rec_close(t);
}

/* The file's page; where things are is found, not assumed. */
static unsigned char *page(void)
{
    int fd = open(path, O_RDWR);
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    close(fd);
    return p;
}

static void a_writer_killed_half_way_leaves_the_last_record(void)
{
    struct rec *writer, *reader;
    struct rec_params first = good(), second_one = good(), out;
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    CHECK_EQUAL(rec_open(path, 0, &reader), 0);
    unsigned char *p = page();
    first.tai_ns = 0x1111111111111111;
    second_one.tai_ns = 0x2222222222222222;
    rec_publish(writer, &first);
    rec_publish(writer, &second_one);
    for (int i = 0; i + 8 <= 4096; i += 4) /* the idle slot holds the first record: half of the third one overwrites it */
        if (memcmp(p + i, &first.tai_ns, 8) == 0)
            memset(p + i, 0xff, 40);
    CHECK_EQUAL(rec_read(reader, &out), 0);
    CHECK(memcmp(&out, &second_one, sizeof out) == 0);
    rec_close(writer);
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    rec_publish(writer, &first);
    CHECK_EQUAL(rec_read(reader, &out), 0);
    CHECK(memcmp(&out, &first, sizeof out) == 0);
    munmap(p, 4096);
    rec_close(writer);
    rec_close(reader);
}

static void another_version_or_boot_is_replaced_and_nothing_else(void)
{
    struct rec *writer, *reader;
    struct rec_params out, in = good();
    unsigned char *p = page();
    CHECK(memcmp(p, "tscpage", 8) == 0);
    p[8] ^= 0x40; /* version */
    CHECK_EQUAL(rec_open(path, 0, &reader), -ESTALE);
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    CHECK_EQUAL(rec_read(writer, &out), -ENODATA);
    rec_publish(writer, &in);
    rec_close(writer);
    munmap(p, 4096);
    p = page();
    p[12] ^= 1; /* boot id */
    CHECK_EQUAL(rec_open(path, 0, &reader), -ESTALE);
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    CHECK_EQUAL(rec_read(writer, &out), -ENODATA);
    rec_close(writer);
    munmap(p, 4096);
}

static void somebody_elses_file_is_left_alone(void)
{
    struct rec *t;
    int fd = open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(write(fd, "hello", 5) == 5);
    CHECK_EQUAL(rec_open(other, 1, &t), -EPROTO);
    CHECK_EQUAL(rec_open(other, 0, &t), -EPROTO);
    static const char filled[4096] = "hello";
    CHECK(pwrite(fd, filled, sizeof filled, 0) == sizeof filled);
    CHECK_EQUAL(rec_open(other, 1, &t), -EPROTO);
    CHECK_EQUAL(ftruncate(fd, 0), 0);
    CHECK_EQUAL(rec_open(other, 0, &t), -ENODATA);
    close(fd);
    unlink(other);
    CHECK_EQUAL(symlink(path, other), 0);
    CHECK_EQUAL(rec_open(other, 1, &t), -ELOOP);
    CHECK_EQUAL(rec_open(other, 0, &t), -ELOOP);
    unlink(other);
    CHECK_EQUAL(rec_open(directory, 0, &t), -EPROTO);
}

static void a_record_that_others_may_write_is_not_believed_and_is_replaced(void)
{
    struct rec *writer, *reader;
    struct rec_params out, in = good();
    CHECK_EQUAL(rec_open(other, 1, &writer), 0);
    rec_publish(writer, &in);
    rec_close(writer);
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            CHECK_EQUAL(chmod(other, 0666), 0);
        else if (i == 1)
            CHECK_EQUAL(link(other, twin), 0);
        else if (geteuid() != 0 || chown(other, 12345, 12345) < 0)
            break; /* only root can give a file away */
        CHECK_EQUAL(rec_open(other, 0, &reader), -EPERM);
        CHECK_EQUAL(rec_open(other, 1, &writer), 0);
        CHECK_EQUAL(rec_read(writer, &out), -ENODATA);
        rec_publish(writer, &in);
        CHECK_EQUAL(rec_open(other, 0, &reader), 0);
        rec_close(writer);
        rec_close(reader);
        unlink(twin);
    }
    unlink(other);
}

static int done;

static void *publish_many(void *argument)
{
    struct rec_params p = good();
    for (int i = 0; i < 200000; i++) {
        p.raw_ns = p.tai_ns = p.root_delay_ns = p.reference_raw_ns = p.valid_until_raw_ns = p.leap_tai_ns = i;
        rec_publish(argument, &p);
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void a_reader_never_sees_half_of_two_records(void)
{
    struct rec *writer, *reader;
    struct rec_params p;
    pthread_t thread;
    CHECK_EQUAL(rec_open(path, 1, &writer), 0);
    CHECK_EQUAL(rec_open(path, 0, &reader), 0);
    p = good();
    p.raw_ns = p.tai_ns = p.root_delay_ns = p.reference_raw_ns = p.valid_until_raw_ns = p.leap_tai_ns = 0;
    rec_publish(writer, &p);
    pthread_create(&thread, NULL, publish_many, writer);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        CHECK_EQUAL(rec_read(reader, &p), 0);
        CHECK(p.raw_ns == p.tai_ns && p.raw_ns == p.root_delay_ns && p.raw_ns == p.reference_raw_ns);
        CHECK(p.raw_ns == p.valid_until_raw_ns && p.raw_ns == p.leap_tai_ns);
    }
    pthread_join(thread, NULL);
    rec_close(writer);
    rec_close(reader);
}

int main(void)
{
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/timescale", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    snprintf(twin, sizeof twin, "%s/twin", directory);
    RUN(the_map_is_affine_and_its_bound_grows);
    RUN(it_ends_at_the_holdover_limit_but_goes_on_counting);
    RUN(a_record_of_the_future_is_of_another_boot);
    RUN(an_inserted_second_repeats_its_number);
    RUN(a_deleted_second_is_jumped_over);
    RUN(a_senseless_record_is_unsynchronised);
    RUN(a_leap_second_is_smeared_from_noon_to_noon);
    RUN(without_a_leap_second_or_with_a_senseless_one_nothing_is_smeared);
    RUN(the_reference_is_smeared_along);
    RUN(a_record_goes_through_the_file);
    RUN(numbers_that_no_clock_has_are_read_as_unsynchronised);
    RUN(after_a_suspend_the_record_is_void);
    RUN(a_step_of_the_system_clock_counts_when_the_writer_is_dead);
    RUN(a_writer_killed_half_way_leaves_the_last_record);
    RUN(another_version_or_boot_is_replaced_and_nothing_else);
    RUN(somebody_elses_file_is_left_alone);
    RUN(a_record_that_others_may_write_is_not_believed_and_is_replaced);
    RUN(a_reader_never_sees_half_of_two_records);
    unlink(path);
    rmdir(directory);
    return 0;
}
