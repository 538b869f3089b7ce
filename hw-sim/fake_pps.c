/* fake_pps: an LD_PRELOAD library that gives unmodified programs kernel PPS sources and a modem control line.
 *
 *   REFCLOCK_FAKE_PPS=/dev/pps-sim0=FILE[:/dev/pps1=FILE...]   these paths behave as the character devices of <linux/pps.h>
 *   REFCLOCK_FAKE_TTY=/run/x/ttySIM0=FILE[:...]                these tty paths (a pty behind a symlink) have FILE's level as carrier
 *                                                              detect, and stat() as a ttyUSB, so that gpsd starts its pulse thread
 *   REFCLOCK_FAKE_ECHO_NS=N                                    a wire from RTS and DTR to carrier detect: a change of either comes back,
 *                                                              stamped N ns after the call of the ioctl that made it
 *
 * FILE is a `struct line` written by refclock_sim/ports/pulse_file.py. Opening a fake device opens FILE. A descriptor is recognised by
 * fstat() (device and inode), not by a table of numbers, so dup, fork, exec and close need no code. Everything else goes to libc unchanged.
 *
 * Semantics of drivers/pps/pps.c (6.1): a fetch waits for the next captured edge; a timeout of zero polls; an invalid timeout waits for
 * ever; ETIMEDOUT; EINTR on any handled signal, with SA_RESTART too; EOPNOTSUPP for KC_BIND, as without CONFIG_NTP_PPS. One difference:
 * PPS_SETPARAMS needs no CAP_SYS_TIME (params_error = EPERM simulates its absence).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/pps.h>
#include <linux/serial.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* The shared file, native byte order; pulse_file.py packs the same layout. Stamps are CLOCK_REALTIME ns. */
struct line {
    uint32_t magic, version;
    uint32_t change;      /* futex and sequence lock: odd while fields are written */
    uint32_t events;      /* captured edges: the kernel's last_ev */
    uint32_t assert_sequence, clear_sequence;
    uint32_t transitions; /* level changes, captured or not */
    uint32_t level;       /* 1 = asserted */
    int64_t assert_ns, clear_ns;
    uint32_t mode, capabilities;             /* PPS_SETPARAMS, PPS_GETCAP */
    int64_t assert_offset_ns, clear_offset_ns;
    uint32_t open_error;                     /* errno of open(); 0 = none */
    uint32_t params_error;                   /* errno of PPS_SETPARAMS */
    uint32_t fetch_error, fetch_errors_left; /* errno of the next PPS_FETCH, and how many; UINT32_MAX = all */
};
_Static_assert(sizeof(struct line) == 88 && offsetof(struct line, mode) == 48, "layout shared with pulse_file.py");

enum {
    MAGIC = 0x50507346, /* "FsPP" */
    VERSION = 1,
    DEVICES = 16,
    TTYUSB_MAJOR = 188, /* Documentation/admin-guide/devices.txt */
    PPS_MAJOR = 511,    /* the kernel's is dynamic: one from the end of its second dynamic range (fs/char_dev.c) */
    N_PPS_LDISC = 18,   /* N_PPS of <linux/tty.h> */
    TRIES = 10000,      /* of the sequence lock: a writer that died inside does not block its readers */
};
static const int64_t second = 1000000000;

struct device {
    char *path, *file;
    int is_tty;
    struct line *line; /* mapped when first needed; replaced, not unmapped (another thread may wait in it), when FILE is another file */
    dev_t dev;
    ino_t ino;
};
static struct device devices[DEVICES];
static int device_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...), (*real_openat)(int, const char *, int, ...), (*real_ioctl)(int, unsigned long, ...);
static int (*real_stat)(const char *, struct stat *), (*real_lstat)(const char *, struct stat *), (*real_fstat)(int, struct stat *);
static int (*real_fstatat)(int, const char *, struct stat *, int);
static int (*real_access)(const char *, int), (*real_faccessat)(int, const char *, int, int);

static void parse(const char *variable, int is_tty)
{
    char *next, *list = getenv(variable);
    list = list ? strdup(list) : NULL;
    for (char *item = list ? strtok_r(list, ":", &next) : NULL; item && device_count < DEVICES; item = strtok_r(NULL, ":", &next)) {
        char *equals = strchr(item, '=');
        if (!equals)
            continue;
        *equals = 0;
        devices[device_count++] = (struct device){ .path = item, .file = equals + 1, .is_tty = is_tty };
    }
}

static void start(void)
{
    *(void **)&real_open = dlsym(RTLD_NEXT, "open");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat");
    *(void **)&real_ioctl = dlsym(RTLD_NEXT, "ioctl");
    *(void **)&real_stat = dlsym(RTLD_NEXT, "stat");
    *(void **)&real_lstat = dlsym(RTLD_NEXT, "lstat");
    *(void **)&real_fstat = dlsym(RTLD_NEXT, "fstat");
    *(void **)&real_fstatat = dlsym(RTLD_NEXT, "fstatat");
    *(void **)&real_access = dlsym(RTLD_NEXT, "access");
    *(void **)&real_faccessat = dlsym(RTLD_NEXT, "faccessat");
    parse("REFCLOCK_FAKE_PPS", 0);
    parse("REFCLOCK_FAKE_TTY", 1);
}

static void started(void)
{
    int saved = errno;
    pthread_once(&once, start);
    errno = saved;
}

static struct device *by_path(const char *path, int is_tty)
{
    started();
    for (struct device *d = devices; path && d < devices + device_count; d++)
        if (d->is_tty == is_tty && !strcmp(d->path, path))
            return d;
    return NULL;
}

/* Map the device's file. NULL and errno: it does not exist, or is no pulse file. */
static struct line *map(struct device *d)
{
    struct stat st;
    struct line *found = NULL;
    if (real_stat(d->file, &st) < 0)
        return NULL;
    pthread_mutex_lock(&lock);
    if (d->line && d->dev == st.st_dev && d->ino == st.st_ino)
        found = d->line;
    else {
        int fd = real_open(d->file, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            struct line *m = MAP_FAILED;
            if (real_fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof *m)
                m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (m != MAP_FAILED && m->magic == MAGIC && m->version == VERSION) {
                d->dev = st.st_dev, d->ino = st.st_ino;
                found = d->line = m;
            } else {
                if (m != MAP_FAILED)
                    munmap(m, sizeof *m);
                errno = ENXIO;
            }
            int saved = errno;
            close(fd);
            errno = saved;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* The line of the pulse device (is_tty 0) or tty (1) that fd is, or NULL. Keeps errno. */
static struct line *by_descriptor(int fd, int is_tty)
{
    started();
    int saved = errno;
    struct stat st, named;
    struct line *found = NULL;
    if (device_count && real_fstat(fd, &st) == 0)
        for (struct device *d = devices; d < devices + device_count && !found; d++)
            if (d->is_tty == is_tty && real_stat(is_tty ? d->path : d->file, &named) == 0 && st.st_dev == named.st_dev && st.st_ino == named.st_ino)
                found = map(d);
    errno = saved;
    return found;
}

/* ---- pulses ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* The errno of an injected fault, which is counted down; 0 = none. */
static int injected(struct line *l)
{
    uint32_t error = load(&l->fetch_error), left = load(&l->fetch_errors_left);
    while (error && left) {
        if (left == UINT32_MAX || __atomic_compare_exchange_n(&l->fetch_errors_left, &left, left - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return (int)error;
    }
    return 0;
}

enum { FOR_EVER = -1, FOR_EVER_RESTARTED = -2 };

/* Wait until *counter changes. 0, or -1 with EINTR, ETIMEDOUT or an injected error. A handler with SA_RESTART also ends a PPS_FETCH (pps.c
 * turns ERESTARTSYS into EINTR), but not a TIOCMIWAIT (uart_wait_modem_status returns ERESTARTSYS; glibc's setuid() interrupts every
 * thread that way). FUTEX_WAIT does the same: with a timeout it ends, without one it is restarted (signal(7)). */
static int wait_change(struct line *l, const uint32_t *counter, int64_t wait_ns)
{
    struct timespec now, slice;
    uint32_t before = load(counter);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end = now.tv_sec * second + now.tv_nsec + wait_ns;
    for (;;) {
        uint32_t change = load(&l->change);
        if (load(counter) != before && !(change & 1))
            return 0;
        int error = wait_ns == FOR_EVER_RESTARTED ? 0 : injected(l); /* only PPS_FETCH has injected faults */
        if (error)
            return fail(error);
        int64_t left = 3600 * second;
        if (wait_ns >= 0) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            left = end - (now.tv_sec * second + now.tv_nsec);
            if (left <= 0)
                return fail(ETIMEDOUT);
        }
        slice.tv_sec = left / second;
        slice.tv_nsec = left % second;
        if (syscall(SYS_futex, &l->change, FUTEX_WAIT, change, wait_ns == FOR_EVER_RESTARTED ? NULL : &slice, NULL, 0) < 0 && errno == EINTR)
            return -1;
    }
}

static struct pps_ktime ktime(int64_t ns)
{
    struct pps_ktime t = { .sec = ns / second, .nsec = (int32_t)(ns % second) };
    if (t.nsec < 0)
        t.sec--, t.nsec += (int32_t)second;
    return t;
}

static int64_t ns_of(struct pps_ktime t)
{
    return t.sec * second + t.nsec;
}

/* A consistent copy of the counters and stamps. */
static void snapshot(const struct line *l, struct pps_kinfo *info)
{
    struct line copy = { 0 };
    for (int i = 0; i < TRIES; i++) {
        uint32_t change = load(&l->change);
        memcpy(&copy, l, sizeof copy);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(change & 1) && load(&l->change) == change)
            break;
        sched_yield();
    }
    memset(info, 0, sizeof *info);
    info->assert_sequence = copy.assert_sequence;
    info->clear_sequence = copy.clear_sequence;
    info->assert_tu = ktime(copy.assert_ns + (copy.assert_ns && copy.mode & PPS_OFFSETASSERT ? copy.assert_offset_ns : 0));
    info->clear_tu = ktime(copy.clear_ns + (copy.clear_ns && copy.mode & PPS_OFFSETCLEAR ? copy.clear_offset_ns : 0));
    info->current_mode = (int)copy.mode;
}

static int fetch(struct line *l, struct pps_fdata *data)
{
    int error = injected(l);
    if (error)
        return fail(error);
    int for_ever = data->timeout.flags & PPS_TIME_INVALID;
    int64_t wait_ns = for_ever ? FOR_EVER : ns_of(data->timeout);
    if (!(load(&l->capabilities) & PPS_CANWAIT) && wait_ns)
        return fail(EOPNOTSUPP);
    if (wait_ns && wait_change(l, &l->events, wait_ns) < 0)
        return -1;
    snapshot(l, &data->info);
    return 0;
}

static int set_params(struct line *l, const struct pps_kparams *params)
{
    uint32_t mode = (uint32_t)params->mode, can = load(&l->capabilities), error = load(&l->params_error);
    if (error)
        return fail((int)error);
    if (!(mode & PPS_CAPTUREBOTH) || mode & ~can)
        return fail(EINVAL);
    if (!(mode & (PPS_TSFMT_TSPEC | PPS_TSFMT_NTPFP)))
        mode |= PPS_TSFMT_TSPEC;
    __atomic_store_n(&l->assert_offset_ns, ns_of(params->assert_off_tu), __ATOMIC_RELEASE);
    __atomic_store_n(&l->clear_offset_ns, ns_of(params->clear_off_tu), __ATOMIC_RELEASE);
    __atomic_store_n(&l->mode, mode | (can & PPS_CANWAIT), __ATOMIC_RELEASE);
    return 0;
}

static int pulse_ioctl(struct line *l, unsigned long request, void *argument)
{
    struct pps_kparams *params = argument;
    if (!argument)
        return fail(EFAULT);
    switch (request) {
    case PPS_GETCAP:
        *(int *)argument = (int)load(&l->capabilities);
        return 0;
    case PPS_GETPARAMS:
        memset(params, 0, sizeof *params);
        params->api_version = PPS_API_VERS;
        params->mode = (int)load(&l->mode);
        params->assert_off_tu = ktime(__atomic_load_n(&l->assert_offset_ns, __ATOMIC_ACQUIRE));
        params->clear_off_tu = ktime(__atomic_load_n(&l->clear_offset_ns, __ATOMIC_ACQUIRE));
        return 0;
    case PPS_SETPARAMS:
        return set_params(l, params);
    case PPS_FETCH:
        return fetch(l, argument);
    default: /* PPS_KC_BIND */
        return fail(EOPNOTSUPP);
    }
}

/* ---- modem control lines --------------------------------------------------------------------------------------------------------- */

/* RTS or DTR was set to level, and the wire carries it to carrier detect. Writes an edge like refclock_sim/ports/pulse_file.py, which must
 * not write at the same time. */
static void echo(struct line *l, uint32_t level)
{
    const char *late = getenv("REFCLOCK_FAKE_ECHO_NS");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!late || load(&l->level) == level)
        return;
    int64_t stamp = now.tv_sec * second + now.tv_nsec + atoll(late);
    do
        clock_gettime(CLOCK_REALTIME, &now);
    while (now.tv_sec * second + now.tv_nsec < stamp);
    __atomic_add_fetch(&l->change, 1, __ATOMIC_ACQ_REL);
    l->level = level;
    l->transitions++;
    if (l->mode & (level ? PPS_CAPTUREASSERT : PPS_CAPTURECLEAR)) {
        *(level ? &l->assert_ns : &l->clear_ns) = stamp;
        ++*(level ? &l->assert_sequence : &l->clear_sequence);
        l->events++;
    }
    __atomic_add_fetch(&l->change, 1, __ATOMIC_ACQ_REL);
    syscall(SYS_futex, &l->change, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static int modem_ioctl(struct line *l, int fd, unsigned long request, void *argument)
{
    switch (request) {
    case TIOCMIWAIT: /* the argument is the mask itself; only carrier detect changes here */
        return (uintptr_t)argument & TIOCM_CAR ? wait_change(l, &l->transitions, FOR_EVER_RESTARTED) : fail(EINVAL);
    case TIOCMGET:
        *(int *)argument = TIOCM_DTR | TIOCM_RTS | TIOCM_CTS | TIOCM_DSR | (load(&l->level) ? TIOCM_CAR : 0);
        return 0;
    case TIOCMSET:
        return 0;
    case TIOCMBIS:
    case TIOCMBIC:
        if (*(int *)argument & (TIOCM_RTS | TIOCM_DTR))
            echo(l, request == TIOCMBIS);
        return 0;
    case TIOCGICOUNT:
        memset(argument, 0, sizeof(struct serial_icounter_struct));
        ((struct serial_icounter_struct *)argument)->dcd = (int)load(&l->transitions);
        return 0;
    case TIOCSETD: /* as without pps_ldisc */
        if (*(int *)argument == N_PPS_LDISC)
            return fail(EINVAL);
        break;
    }
    return real_ioctl(fd, request, argument);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    started();
    struct line *l;
    switch (request) {
    case PPS_GETCAP:
    case PPS_GETPARAMS:
    case PPS_SETPARAMS:
    case PPS_FETCH:
    case PPS_KC_BIND:
        if ((l = by_descriptor(fd, 0)))
            return pulse_ioctl(l, request, argument);
        break;
    case TIOCMIWAIT:
    case TIOCMGET:
    case TIOCMSET:
    case TIOCMBIS:
    case TIOCMBIC:
    case TIOCGICOUNT:
    case TIOCSETD:
        if ((l = by_descriptor(fd, 1)))
            return modem_ioctl(l, fd, request, argument);
        break;
    }
    return real_ioctl(fd, request, argument);
}

#if __SIZEOF_LONG__ == 4 && defined(__GLIBC__)
/* The name in programs that are built with a 64-bit time_t (glibc 2.34). No request that is answered here has a time_t in it. */
int __ioctl_time64(int fd, unsigned long request, ...) __THROW __attribute__((alias("ioctl")));
#endif

/* ---- paths ----------------------------------------------------------------------------------------------------------------------- */

/* Open a fake device, without the flags that are for a device or a new file. */
static int open_pulse(struct device *d, int flags)
{
    struct line *l = map(d);
    if (!l)
        return -1;
    uint32_t error = load(&l->open_error);
    return error ? fail((int)error) : real_open(d->file, O_RDWR | (flags & (O_CLOEXEC | O_NONBLOCK)));
}

#define OPEN(NAME) \
    int NAME(const char *path, int flags, ...) \
    { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        struct device *d = by_path(path, 0); \
        return d ? open_pulse(d, flags) : real_open(path, flags | LARGE, mode); \
    }
#define OPENAT(NAME) \
    int NAME(int directory, const char *path, int flags, ...) \
    { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        struct device *d = by_path(path, 0); \
        return d ? open_pulse(d, flags) : real_openat(directory, path, flags | LARGE, mode); \
    }
/* _FORTIFY_SOURCE turns an open without a mode into these; glibc exports them, no header declares them. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int directory, const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags);
#define LARGE 0
OPEN(open)
OPENAT(openat)
int __open_2(const char *path, int flags)
{
    return open(path, flags, 0);
}
int __openat_2(int directory, const char *path, int flags)
{
    return openat(directory, path, flags, 0);
}
#undef LARGE
#define LARGE O_LARGEFILE
OPEN(open64)
OPENAT(openat64)
int __open64_2(const char *path, int flags)
{
    return open64(path, flags, 0);
}
int __openat64_2(int directory, const char *path, int flags)
{
    return openat64(directory, path, flags, 0);
}

int access(const char *path, int how)
{
    struct device *d = by_path(path, 0);
    return real_access(d ? d->file : path, how);
}

int faccessat(int directory, const char *path, int how, int flags)
{
    struct device *d = by_path(path, 0);
    return real_faccessat(directory, d ? d->file : path, how, flags);
}

/* Turn the result of stat() on FILE into that of the device node. */
static int as_pulse(int result, struct stat *st, const struct device *d)
{
    if (result == 0) {
        st->st_mode = S_IFCHR | 0600;
        st->st_rdev = makedev(PPS_MAJOR, (unsigned)(d - devices));
        st->st_size = st->st_blocks = 0;
    }
    return result;
}

static int as_tty(int result, struct stat *st, const struct device *d)
{
    if (result == 0 && S_ISCHR(st->st_mode))
        st->st_rdev = makedev(TTYUSB_MAJOR, (unsigned)(d - devices));
    return result;
}

int stat(const char *path, struct stat *st)
{
    struct device *d = by_path(path, 0);
    if (d)
        return as_pulse(real_stat(d->file, st), st, d);
    d = by_path(path, 1);
    return d ? as_tty(real_stat(path, st), st, d) : real_stat(path, st);
}

int lstat(const char *path, struct stat *st)
{
    struct device *d = by_path(path, 0);
    return d ? as_pulse(real_stat(d->file, st), st, d) : real_lstat(path, st);
}

int fstatat(int directory, const char *path, struct stat *st, int flags)
{
    return by_path(path, 0) || by_path(path, 1) ? stat(path, st) : real_fstatat(directory, path, st, flags);
}

int fstat(int fd, struct stat *st)
{
    started();
    int result = real_fstat(fd, st);
    for (struct device *d = devices; result == 0 && S_ISREG(st->st_mode) && d < devices + device_count; d++)
        if (!d->is_tty && d->line && d->dev == st->st_dev && d->ino == st->st_ino)
            return as_pulse(0, st, d);
    return result;
}

#if __SIZEOF_POINTER__ == 8 /* where struct stat64 is struct stat (glibc, 64 bit) */
int stat64(const char *path, struct stat64 *st)
{
    return stat(path, (struct stat *)st);
}
int lstat64(const char *path, struct stat64 *st)
{
    return lstat(path, (struct stat *)st);
}
int fstat64(int fd, struct stat64 *st)
{
    return fstat(fd, (struct stat *)st);
}
int fstatat64(int directory, const char *path, struct stat64 *st, int flags)
{
    return fstatat(directory, path, (struct stat *)st, flags);
}
#endif
