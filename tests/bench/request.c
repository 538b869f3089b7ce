/* COUNT requests of one client through a server thread, for callgrind: request FILE COUNT KIND.
 *
 * As root. FILE: a new record. KIND, batches: all are queued before the thread starts, which takes as many at once as it can; batches-keyed:
 * the same, and the server has NTS keys. alone: each waits for its reply; interleaved: the same in interleaved mode (RFC 9769); nts,
 * nts-30: the same with a cookie and AEAD 15 or 30 (RFC 8915). Two runs of different length are subtracted: cost.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "nts_client.h"
#include "record.h"
#include "server.h"

static int record_made(const char *path)
{
    struct rec *record;
    struct clk_reading now;
    clk_read(0, &now);
    struct rec_params params = {.raw_ns = now.raw_ns, .tai_ns = now.real_ns + 37000000000, .bound_ns = 1, .reference_raw_ns = now.raw_ns,
                                .valid_until_raw_ns = now.raw_ns + 3600000000000000, .tai_offset_s = 37, .refid = 0x47505300,
                                .precision = -24, .stratum = 1};
    if (rec_open(path, 1, &record) < 0)
        return -1;
    rec_publish(record, &params);
    rec_close(record);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4 || record_made(argv[1]))
        return 64;
    int count = atoi(argv[2]), queued = !strncmp(argv[3], "batches", 7), interleaved = !strcmp(argv[3], "interleaved"), nts = !strncmp(argv[3], "nts", 3);
    const struct acl_range everybody = {{0, 0}, ACL_ALLOW};
    struct srv_rules rules = {.ranges = &everybody, .range_count = 1, .cpu_limit = 1, .rate = 1e9, .burst = 1000000, .kod_rate = 10};
    struct srv *server;
    struct client client;
    char host[SRV_HOST_MAX];
    uint16_t port;
    if (nts || !strcmp(argv[3], "batches-keyed"))
        client_server_keys(&rules.nts);
    if (srv_create(argv[1], 1, 1 << 20, &server) || srv_configure(server, &rules) || srv_listen(server, "0.0.0.0", 0, "") < 0
        || srv_bound(server, 0, host, &port))
        return 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int room = 8 << 20; /* bytes: for all replies, should this thread have to wait for a processor */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        return 1;
    uint8_t reply[CLIENT_ROOM], *request = client.packet;
    if (nts && strcmp(argv[3], "nts") != 0)
        client_short_request(&client, CLIENT_PRESENT, 0);
    else if (nts)
        client_request(&client, CLIENT_PRESENT, 0);
    else
        client_begin(&client);
    ssize_t size = (ssize_t)client.length; /* of the reply too */
    for (int i = 0; queued && i < count; i++)
        if (send(fd, request, client.length, 0) != size)
            return 1;
    srv_start(server);
    for (int i = 0; i < count; i++) {
        if (!queued && send(fd, request, client.length, 0) != size)
            return 1;
        if (recv(fd, reply, sizeof reply, 0) != size)
            return 1;
        if (interleaved) { /* the last reply's receive stamp as origin, and stamps that differ */
            memcpy(request + 24, reply + 32, 8);
            request[32] = (uint8_t)(i + 1);
            request[33] = 9;
        }
    }
    srv_stop(server);
    srv_destroy(server);
    return 0;
}
