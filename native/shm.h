/* shm: NTP shared-memory segments (ntpd driver 28), the way gpsd and others hand samples to chronyd and ntpd, and to us.
 *
 * The segment's size tells its layout: 96 bytes with 64-bit time_t, 80 with 32-bit. Every stamp is ns; clock - receive = offset
 * (positive: the local clock is behind). All functions: 0 or -errno where nothing else is said.
 */
#ifndef SHM_H
#define SHM_H
#include <stdint.h>

struct shm_sample {
    int64_t clock_ns;   /* UTC of the reference */
    int64_t receive_ns; /* CLOCK_REALTIME at that instant */
    int32_t leap;       /* 0..3 as in NTP */
    int32_t precision;  /* log2 s */
};

struct shm;

/* Attach unit (key 0x4e545030 + unit), creating it with permissions perm when there is none (perm < 0: 0600 for units 0 and 1, 0666 for
 * the others, as ntpd, chronyd and gpsd expect; create = 0: -ENOENT). -EPERM: a segment to be written belongs to somebody who is neither
 * us nor root. -EPROTO: neither layout. -EACCES: not permitted to us. */
int shm_attach(int unit, int create, int perm, struct shm **out);
void shm_detach(struct shm *s);
/* Leave one sample for the reader (mode 1). One writer only. -ERANGE: a stamp that the layout cannot hold. */
int shm_write(struct shm *s, const struct shm_sample *sample);
/* Take the sample there is: 1 = taken, 0 = none, -EAGAIN = clashed with the writer and lost, -EPROTO = nonsense. One reader only. */
int shm_read(struct shm *s, struct shm_sample *out);
#endif
