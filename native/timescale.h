/* timescale: what time it is, as one page of shared memory.
 *
 * The clock process publishes an affine map from CLOCK_MONOTONIC_RAW to TAI with an error bound that grows by itself; the server threads
 * read it for every packet and never talk to anybody. Nothing here depends on CLOCK_REALTIME, so a step or slew of the system clock by
 * anyone cannot change the served time. The file holds two slots and a sequence number: the writer fills the idle slot and then makes
 * it current with one release store, so a writer killed half-way leaves the last complete record in force.
 *
 * Signs and units: *_ns are ns; rate = d(TAI)/d(raw) - 1 (dimensionless; positive: the local oscillator is slow).
 * bound(t) = bound_ns + bound_rate * dt + bound_wander_ns * dt_s^1.5, dt = raw - raw_ns >= 0: |served - true| is claimed to stay below it.
 */
#ifndef TIMESCALE_H
#define TIMESCALE_H
#include <stdint.h>

struct tsc_params {
    int64_t raw_ns;             /* anchor on CLOCK_MONOTONIC_RAW */
    int64_t tai_ns;             /* TAI (ns since 1970, TAI = UTC + tai_offset_s) at the anchor */
    double rate;                /* d(TAI)/d(raw) - 1 */
    double bound_ns;            /* error bound at the anchor */
    double bound_rate;          /* its growth, ns per ns: frequency uncertainty */
    double bound_wander_ns;     /* its growth, ns per s^1.5: frequency wander */
    int64_t root_delay_ns;
    int64_t reference_raw_ns;   /* raw instant of the last measurement that went in */
    int64_t valid_until_raw_ns; /* after it: unsynchronised (holdover limit) */
    int64_t leap_tai_ns;        /* TAI instant at which UTC steps; meaningful when leap_step_s != 0 */
    int32_t leap_step_s;        /* +1 inserted second, -1 deleted, 0 none known */
    int32_t tai_offset_s;       /* TAI-UTC before leap_tai_ns */
    uint32_t refid;             /* host order: 'G'<<24 | 'P'<<16 | 'S'<<8 */
    int8_t precision;           /* log2 s */
    uint8_t stratum;            /* 1..15; 0 = never synchronised (INIT) */
    uint8_t simulated;          /* 1: no real receiver behind it */
    uint8_t reserved;
};

/* The map evaluated at one instant. */
struct tsc_reading {
    int64_t utc_ns;           /* POSIX UTC; 23:59:60 repeats the number of 23:59:59 */
    int64_t tai_ns;
    int64_t bound_ns;         /* error bound, rounded up */
    int64_t root_delay_ns;
    int64_t reference_utc_ns; /* last update, never after utc_ns; 0 = never */
    uint32_t refid;
    int8_t precision;
    uint8_t stratum;          /* 0 when unsynchronised (goes on the wire as 0) */
    uint8_t leap;             /* RFC 5905 LI: 1/2 only during the last 24 h before the leap, 3 = unsynchronised */
    uint8_t simulated;
};

struct tsc;

/* Open (writer: create, mode 0644, never follow a symlink) the record file. 0 or -errno; -EPROTO: not such a file; -ENODATA: just being
 * made; -ESTALE: of another version or an earlier boot (RAW starts anew), which a writer replaces. */
int tsc_open(const char *path, int writable, struct tsc **out);
void tsc_close(struct tsc *t);
/* Make p the record in force. One writer only. */
void tsc_publish(struct tsc *t, const struct tsc_params *p);
/* Copy the record in force. 0, -ENODATA before the first publication. Wait-free against a dead writer. */
int tsc_read(const struct tsc *t, struct tsc_params *out);
/* Evaluate p at raw_ns. Unsynchronised (leap 3, stratum 0) when stratum is 0, raw_ns is past valid_until_raw_ns or a minute before the
 * anchor (a record of another boot), or the bound is no number; the time is filled in all the same. */
void tsc_at(const struct tsc_params *p, int64_t raw_ns, struct tsc_reading *out);
/* Spread a leap second near r over the 24 h from noon to noon UTC around it, linearly (the convention of the large public smears; RFC 8633
 * 3.7.1): r.utc_ns and r.reference_utc_ns are moved, r.leap never announces it. For clients that all ask smearing servers. */
void tsc_smear(const struct tsc_params *p, struct tsc_reading *r);
#endif
