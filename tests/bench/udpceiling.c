/* udpceiling: the least that an NTP server on a UDP socket can do, as a practical ceiling.
 *
 * recvmmsg, kernel receive timestamps, a 48-byte reply, sendmmsg; one thread on 127.0.0.1. No access control, no client table, no
 * authentication, no conversion of the stamps.
 */
#define _GNU_SOURCE /* recvmmsg */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, NTP_LEN = 48, PACKET_MAX = 256 };
static const uint32_t ntp_era_s = 2208988800u;

static uint64_t ntp_time(const struct timespec *ts)
{
    uint64_t fraction = ((uint64_t)ts->tv_nsec << 32) / 1000000000u;
    return htobe64((uint64_t)(uint32_t)(ts->tv_sec + ntp_era_s) << 32 | fraction);
}

static void receive_time(struct msghdr *m, struct timespec *ts)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            memcpy(ts, CMSG_DATA(c), sizeof *ts);
            return;
        }
    clock_gettime(CLOCK_REALTIME, ts);
}

static int make_reply(uint8_t *p, unsigned length, uint64_t received)
{
    struct timespec now;
    uint64_t reference, transmit;
    if (length < NTP_LEN || (p[0] & 7) != 3)
        return 0;
    p[0] = (uint8_t)((p[0] & 0x38) | 4);
    p[1] = 1;
    p[3] = (uint8_t)-24;
    memset(p + 4, 0, 8);
    memcpy(p + 12, "GPS", 4);
    memcpy(p + 24, p + 40, 8);
    memcpy(p + 32, &received, 8);
    clock_gettime(CLOCK_REALTIME, &now);
    transmit = ntp_time(&now);
    now.tv_nsec = 0;
    reference = ntp_time(&now);
    memcpy(p + 16, &reference, 8);
    memcpy(p + 40, &transmit, 8);
    return 1;
}

int main(int argc, char **argv)
{
    static uint8_t data[BATCH][PACKET_MAX];
    static struct sockaddr_in peer[BATCH];
    static union {
        char bytes[64];
        struct cmsghdr align;
    } control[BATCH];
    struct iovec in_vector[BATCH], out_vector[BATCH];
    struct mmsghdr in[BATCH], out[BATCH];
    const int on = 1, size = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 2) {
        fprintf(stderr, "usage: udpceiling PORT\n");
        return 2;
    }
    const struct sockaddr_in local = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&local, sizeof local) < 0) {
        perror("bind");
        return 1;
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            in_vector[i] = (struct iovec){data[i], sizeof data[i]};
            in[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_namelen = sizeof peer[i], .msg_iov = &in_vector[i],
                                            .msg_iovlen = 1, .msg_control = control[i].bytes, .msg_controllen = sizeof control[i].bytes};
        }
        int n = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL), replies = 0;
        for (int i = 0; i < n; i++) {
            struct timespec ts;
            receive_time(&in[i].msg_hdr, &ts);
            if (!make_reply(data[i], in[i].msg_len, ntp_time(&ts)))
                continue;
            out_vector[replies] = (struct iovec){data[i], NTP_LEN};
            out[replies].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_namelen = sizeof peer[i], .msg_iov = &out_vector[replies],
                                                   .msg_iovlen = 1};
            replies++;
        }
        for (int done = 0; done < replies;) {
            int r = sendmmsg(fd, out + done, (unsigned)(replies - done), 0);
            done += r > 0 ? r : 1;
        }
    }
}
