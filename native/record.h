/* record: the served timescale, as one page of shared memory.
 *
 * The clock process publishes a record: an affine map from CLOCK_MONOTONIC_RAW to TAI, and an error bound that grows by itself. The server
 * threads read it for every batch of requests and need nothing else. CLOCK_REALTIME does not occur in it, so a step or a slew of the system
 * clock, by anyone, does not change the served time.
 *
 * Beside each record the file keeps how far CLOCK_REALTIME and CLOCK_BOOTTIME were ahead of CLOCK_MONOTONIC when it was published. Slewing
 * changes neither. BOOTTIME gains by a suspend, in which RAW stands still; REALTIME gains by the same suspend, and by steps. So the server
 * knows by itself that a record is void (rec_read_now), without waiting for the clock process, which may be dead or not awake yet.
 *
 * The file holds two slots and a sequence number. The writer fills the idle slot, then makes it current with one release store. A writer
 * that is killed half-way leaves the last complete record in force.
 *
 * Signs and units: *_ns are ns. rate = d(TAI)/d(raw) - 1 has no unit; it is positive when the local oscillator is slow.
 * bound(t) = bound_ns + bound_rate * dt + bound_wander_ns * dt_s^1.5, where dt = raw - raw_ns >= 0. The claim:
 * |served - true| < bound(t) + root_delay_ns / 2. The root delay of a reference clock is 0.
 */
#ifndef RECORD_H
#define RECORD_H
#include <stdint.h>

struct rec_params {
    int64_t raw_ns;             /* anchor: CLOCK_MONOTONIC_RAW */
    int64_t tai_ns;             /* TAI at the anchor, since 1970; TAI = UTC + tai_offset_s */
    double rate;                /* d(TAI)/d(raw) - 1 */
    double bound_ns;            /* error bound at the anchor, >= 0, beyond half of root_delay_ns: the root dispersion */
    double bound_rate;          /* growth of the bound, ns/ns: uncertainty of the frequency */
    double bound_wander_ns;     /* growth of the bound, ns/s^1.5: wander of the frequency */
    int64_t root_delay_ns;
    int64_t reference_raw_ns;   /* the last measurement that went in, on RAW */
    int64_t valid_until_raw_ns; /* end of holdover, or of certainty about a leap second, on RAW: unsynchronised after it */
    int64_t leap_tai_ns;        /* TAI at which UTC steps; no meaning when leap_step_s = 0 */
    int32_t leap_step_s;        /* +1: a second is inserted; -1: deleted; 0: none is known */
    int32_t tai_offset_s;       /* TAI - UTC before leap_tai_ns */
    uint32_t refid;             /* host order: 'G'<<24 | 'P'<<16 | 'S'<<8 */
    int8_t precision;           /* log2 s */
    uint8_t stratum;            /* 1..15; 0: never synchronised (INIT) */
    uint8_t simulated;          /* 1: it comes from no real receiver */
    uint8_t reserved;
};

/* A record evaluated at one instant. */
struct rec_reading {
    int64_t utc_ns;           /* POSIX UTC since 1970; 23:59:60 has the number of 23:59:59 */
    int64_t tai_ns;
    int64_t bound_ns;         /* error bound, rounded up */
    int64_t root_delay_ns;
    int64_t reference_utc_ns; /* last update, <= utc_ns; 0: never */
    uint32_t refid;
    int8_t precision;
    uint8_t stratum;          /* 0: unsynchronised */
    uint8_t leap;             /* RFC 5905 LI: 1, 2 in the last 24 h before a leap second; 3: unsynchronised */
    uint8_t simulated;
};

struct rec; /* a mapped record file */

/* Open the record file; a writer creates it with mode 0644. Symbolic links are not followed. 0 or -errno. -EPROTO: another kind of file.
 * -ENODATA: it is being made. -ESTALE: of another version or an earlier boot (RAW starts anew at each boot). -EPERM: another user made it or
 * may write it. A writer replaces the last two. */
int rec_open(const char *path, int writable, struct rec **out);
void rec_close(struct rec *page);
/* Put p in force. One writer only, which publishes about once a second, the same record again if need be. */
void rec_publish(struct rec *page, const struct rec_params *p);
/* Copy the record in force. 0; -ENODATA before the first publication. A dead writer does not block it. */
int rec_read(const struct rec *page, struct rec_params *out);
/* The same for an answer now, at raw_ns, when REALTIME is ahead of MONOTONIC by ahead_ns: stratum is 0 when no clock can have these numbers
 * (NaN, a rate of a tenth, a negative bound, a TAI-UTC beyond an hour), when the machine has slept since the publication, or when that is
 * more than 3 s ago and REALTIME has been stepped since, other than by the record's leap second. A step alone does not count while the writer
 * lives: it sees the step itself, and RAW. */
int rec_read_now(const struct rec *page, int64_t raw_ns, int64_t ahead_ns, struct rec_params *out);
/* Evaluate p at raw_ns. The result is unsynchronised (leap 3, stratum 0) when stratum is not 1..15, when raw_ns is after
 * valid_until_raw_ns, when raw_ns is more than a minute before the anchor (a record of another boot), or when its rate or its
 * bound is no number.
 * The times are filled in all the same. */
void rec_at(const struct rec_params *p, int64_t raw_ns, struct rec_reading *out);
/* The utc_ns of that reading alone. */
int64_t rec_utc_at(const struct rec_params *p, int64_t raw_ns);
/* Smear a leap second near r: spread it linearly over the 24 h from noon to noon UTC around it, as the large public servers do (RFC 8633
 * 3.7.1). r.utc_ns and r.reference_utc_ns are moved; r.leap no longer announces it. Only for clients whose servers all smear. */
void rec_smear(const struct rec_params *p, struct rec_reading *r);
#endif
