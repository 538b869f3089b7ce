/* shm: NTP shared memory (ntpd driver 28), by which gpsd and others hand samples to chronyd, ntpd and this program.
 *
 * The size of a segment tells its layout: 96 bytes with a 64-bit time_t, 80 with a 32-bit one. clock_ns - receive_ns is the offset; it is
 * positive when the local clock is behind. All functions: 0 or -errno where nothing else is said.
 */
#ifndef SHM_H
#define SHM_H
#include <stdint.h>

struct shm_sample {
    int64_t clock_ns;   /* UTC of the reference, since 1970 */
    int64_t receive_ns; /* CLOCK_REALTIME at that instant */
    int32_t leap;       /* 0..3 as in NTP */
    int32_t precision;  /* log2 s */
};

struct shm; /* an attached segment */

/* Attach a unit (0..255; key 0x4e545030 + unit). create: when there is none, make one of this many bytes (80 or 96: as long as the other
 * program's time_t wants it; 0: make none), with the permissions perm (negative: 0600 for units 0 and 1, 0666 for the others, as ntpd, chronyd
 * and gpsd expect). -ENOENT: there is none. -EPERM: the segment belongs neither to this user nor to root. -EPROTO: neither layout. -EACCES: no
 * permission. */
int shm_attach(int unit, int create, int perm, struct shm **out);
/* The same for reading a segment that may also belong to the user owner. */
int shm_attach_of(int unit, uint32_t owner, struct shm **out);
void shm_detach(struct shm *s);
/* Leave one sample for the reader (mode 1). One writer only. -ERANGE: the layout cannot hold a stamp. */
int shm_write(struct shm *s, const struct shm_sample *sample);
/* Take the sample. 1: taken. 0: there is none. -EAGAIN: it clashed with the writer and is lost. -EPROTO: nonsense. One reader only. */
int shm_read(struct shm *s, struct shm_sample *out);
/* Look at the latest sample, and leave it to the one reader, who may have taken it already. 1, -EAGAIN or -EPROTO as shm_read. It may be half
 * written: it is whole when the next look, milliseconds later, finds the same. */
int shm_look(struct shm *s, struct shm_sample *out);
#endif
