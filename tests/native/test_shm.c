/* shm: the two layouts of the NTP shared-memory segment, byte by byte, and its hand-over. */
#include "shm.h"

#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* As ntpd declares it, with 64-bit and with 32-bit time_t. */
#define SHM_TIME(name, time_type)                                                                   \
    struct name {                                                                                   \
        int mode, count;                                                                            \
        time_type clock_sec __attribute__((aligned(sizeof(time_type))));                            \
        int clock_usec;                                                                             \
        time_type receive_sec __attribute__((aligned(sizeof(time_type))));                          \
        int receive_usec, leap, precision, nsamples, valid;                                         \
        unsigned clock_nsec, receive_nsec;                                                          \
        int dummy[8];                                                                               \
    }
SHM_TIME(wide, int64_t);
SHM_TIME(narrow, int32_t);
typedef __typeof__(*_Generic((time_t *)0, int64_t *: (struct wide *)0, default: (struct narrow *)0)) native;
_Static_assert(sizeof(struct wide) == 96 && sizeof(struct narrow) == 80, "the sizes by which layouts are told apart");

static int units[256], unit_count;

/* A unit that nobody uses, far from the ones that daemons do; removed at exit. */
static int free_unit(size_t size, int permissions)
{
    for (int unit = 100 + (int)(getpid() % 100); unit < 256; unit++) {
        int id = shmget(0x4e545030 + unit, size ? size : 1, IPC_CREAT | IPC_EXCL | permissions);
        if (id < 0)
            continue;
        if (size)
            units[unit_count++] = id;
        else
            shmctl(id, IPC_RMID, NULL);
        return unit;
    }
    CHECK(!"no unit is free");
    return -1;
}

static void remove_at_exit(int unit)
{
    units[unit_count++] = shmget(0x4e545030 + unit, 0, 0);
}

static void clean_up(void)
{
    for (int i = 0; i < unit_count; i++)
        shmctl(units[i], IPC_RMID, NULL);
}

static const struct shm_sample sample = {
    .clock_ns = 1893456000123456789, .receive_ns = 1893456000999999999, .leap = 1, .precision = -23};

static void check_same(const struct shm_sample *s)
{
    CHECK(s->clock_ns == sample.clock_ns && s->receive_ns == sample.receive_ns && s->leap == 1 && s->precision == -23);
}

static void a_new_segment_is_as_this_machine_has_it_and_carries_a_sample_once(void)
{
    struct shm *s;
    struct shm_sample got;
    int unit = free_unit(0, 0600);
    CHECK_EQUAL(shm_attach(unit, 0, -1, &s), -ENOENT);
    CHECK_EQUAL(shm_attach(unit, sizeof(native), -1, &s), 0);
    remove_at_exit(unit);
    struct shmid_ds ds;
    int id = shmget(0x4e545030 + unit, 0, 0);
    CHECK_EQUAL(shmctl(id, IPC_STAT, &ds), 0);
    CHECK_EQUAL(ds.shm_segsz, sizeof(native));
    CHECK_EQUAL(ds.shm_perm.mode & 0777, 0666);
    CHECK_EQUAL(shm_read(s, &got), 0);
    CHECK_EQUAL(shm_write(s, &sample), 0);
    native *raw = shmat(id, NULL, 0);
    CHECK(raw->mode == 1 && raw->count == 2 && raw->valid == 1);
    CHECK(raw->clock_sec == 1893456000 && raw->clock_usec == 123456 && raw->clock_nsec == 123456789);
    CHECK(raw->receive_sec == 1893456000 && raw->receive_usec == 999999 && raw->receive_nsec == 999999999);
    CHECK(raw->leap == 1 && raw->precision == -23);
    CHECK_EQUAL(shm_look(s, &got), 1);
    check_same(&got);
    CHECK_EQUAL(raw->valid, 1);
    CHECK_EQUAL(shm_read(s, &got), 1);
    check_same(&got);
    CHECK_EQUAL(raw->valid, 0);
    CHECK_EQUAL(shm_read(s, &got), 0);
    CHECK_EQUAL(shm_look(s, &got), 1);
    check_same(&got);
    shmdt(raw);
    shm_detach(s);
}

static void a_new_segment_may_be_for_programs_with_another_time_t(void)
{
    struct shm *s;
    struct shmid_ds ds;
    for (int bytes = 80; bytes <= 96; bytes += 16) {
        int unit = free_unit(0, 0600);
        CHECK_EQUAL(shm_attach(unit, bytes, -1, &s), 0);
        remove_at_exit(unit);
        CHECK_EQUAL(shmctl(shmget(0x4e545030 + unit, 0, 0), IPC_STAT, &ds), 0);
        CHECK_EQUAL((int)ds.shm_segsz, bytes);
        shm_detach(s);
    }
}

static void the_permissions_are_those_asked_for(void)
{
    struct shm *s;
    struct shmid_ds ds;
    int unit = free_unit(0, 0600);
    CHECK_EQUAL(shm_attach(unit, sizeof(native), 0640, &s), 0);
    remove_at_exit(unit);
    CHECK_EQUAL(shmctl(shmget(0x4e545030 + unit, 0, 0), IPC_STAT, &ds), 0);
    CHECK_EQUAL(ds.shm_perm.mode & 0777, 0640);
    shm_detach(s);
}

static void a_segment_of_32_bit_programs_is_spoken_to_in_their_layout(void)
{
    struct shm *s;
    struct shm_sample got, late = {.clock_ns = 2200000000 * 1000000000LL + 5, .receive_ns = 1};
    int unit = free_unit(80, 0600);
    CHECK_EQUAL(shm_attach(unit, sizeof(native), -1, &s), 0);
    CHECK_EQUAL(shm_write(s, &sample), 0);
    struct narrow *raw = shmat(shmget(0x4e545030 + unit, 0, 0), NULL, 0);
    CHECK(raw->clock_sec == 1893456000 && raw->clock_usec == 123456 && raw->clock_nsec == 123456789);
    CHECK(raw->receive_sec == 1893456000 && raw->receive_usec == 999999 && raw->receive_nsec == 999999999);
    CHECK(raw->leap == 1 && raw->precision == -23 && raw->valid == 1 && raw->mode == 1);
    CHECK_EQUAL(shm_read(s, &got), 1);
    check_same(&got);
    CHECK_EQUAL(shm_write(s, &late), 0); /* after 2038 */
    CHECK_EQUAL(shm_read(s, &got), 1);
    CHECK_EQUAL(got.clock_ns, late.clock_ns);
    late.clock_ns = 4294967296 * 1000000000LL; /* 2106 */
    CHECK_EQUAL(shm_write(s, &late), -ERANGE);
    shmdt(raw);
    shm_detach(s);
}

static void microseconds_do_where_nanoseconds_are_not_filled_in(void)
{
    struct shm *s;
    struct shm_sample got;
    int unit = free_unit(96, 0600);
    CHECK_EQUAL(shm_attach(unit, 0, -1, &s), 0);
    struct wide *raw = shmat(shmget(0x4e545030 + unit, 0, 0), NULL, 0);
    *raw = (struct wide){.mode = 0, .clock_sec = 5, .clock_usec = 7, .receive_sec = 6, .receive_usec = 8, .receive_nsec = 8999, .valid = 1};
    CHECK_EQUAL(shm_read(s, &got), 1);
    CHECK_EQUAL(got.clock_ns, 5000007000);
    CHECK_EQUAL(got.receive_ns, 6000008999);
    shmdt(raw);
    shm_detach(s);
}

static void nonsense_is_consumed_and_refused(void)
{
    static const struct wide cases[] = {{.mode = 2, .valid = 1}, {.mode = 1, .clock_usec = 1000000, .valid = 1},
                                        {.mode = 1, .receive_usec = -1, .valid = 1}, {.mode = 1, .clock_sec = INT64_MAX, .valid = 1},
                                        {.mode = 1, .clock_sec = -1, .valid = 1}, {.mode = 1, .leap = 9, .valid = 1}};
    struct shm *s;
    struct shm_sample got;
    int unit = free_unit(96, 0600);
    CHECK_EQUAL(shm_attach(unit, 0, -1, &s), 0);
    struct wide *raw = shmat(shmget(0x4e545030 + unit, 0, 0), NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        *raw = cases[i];
        CHECK_EQUAL(shm_read(s, &got), -EPROTO);
        CHECK_EQUAL(raw->valid, 0);
        CHECK_EQUAL(shm_read(s, &got), 0);
    }
    shmdt(raw);
    shm_detach(s);
}

static void other_sizes_and_units_are_refused(void)
{
    struct shm *s;
    CHECK_EQUAL(shm_attach(free_unit(64, 0600), sizeof(native), -1, &s), -EPROTO);
    CHECK_EQUAL(shm_attach(-1, sizeof(native), -1, &s), -EINVAL);
    CHECK_EQUAL(shm_attach(256, sizeof(native), -1, &s), -EINVAL);
}

static void a_strangers_segment_is_neither_written_nor_believed(void)
{
    struct shm *s;
    struct shmid_ds ds;
    int unit = free_unit(96, 0666), id = shmget(0x4e545030 + unit, 0, 0);
    if (geteuid() != 0)
        return; /* only root can give a segment away */
    CHECK_EQUAL(shmctl(id, IPC_STAT, &ds), 0);
    ds.shm_perm.uid = 12345;
    CHECK_EQUAL(shmctl(id, IPC_SET, &ds), 0);
    CHECK_EQUAL(shm_attach(unit, sizeof(native), -1, &s), -EPERM);
    CHECK_EQUAL(shm_attach(unit, 0, -1, &s), -EPERM);
    CHECK_EQUAL(shm_attach_of(unit, 54321, &s), -EPERM);
    CHECK_EQUAL(shm_attach_of(unit, 12345, &s), 0);
    shm_detach(s);
}

int main(void)
{
    atexit(clean_up);
    RUN(a_new_segment_is_as_this_machine_has_it_and_carries_a_sample_once);
    RUN(a_new_segment_may_be_for_programs_with_another_time_t);
    RUN(the_permissions_are_those_asked_for);
    RUN(a_segment_of_32_bit_programs_is_spoken_to_in_their_layout);
    RUN(microseconds_do_where_nanoseconds_are_not_filled_in);
    RUN(nonsense_is_consumed_and_refused);
    RUN(other_sizes_and_units_are_refused);
    RUN(a_strangers_segment_is_neither_written_nor_believed);
    return 0;
}
