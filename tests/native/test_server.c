/* server: real datagrams on loopback through the threads, under the sanitizers. */
#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"

static char directory[] = "/tmp/srvXXXXXX";
static char path[64];

static int client(uint16_t port, const char *host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    const struct timeval patience = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, host, &to.sin_addr);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0); /* replies from any other address do not come through */
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    return fd;
}

static ssize_t ask(int fd, size_t length, uint8_t reply[2100])
{
    static uint8_t request[60000] = {4 << 3 | 3};
    CHECK(send(fd, request, length, 0) == (ssize_t)length);
    return recv(fd, reply, 2100, 0);
}

static void publish(void)
{
    struct tsc *t;
    struct clk_reading now;
    clk_read(0, &now);
    struct tsc_params p = {.raw_ns = now.raw_ns, .tai_ns = now.real_ns + 37000000000, .bound_ns = 1, .reference_raw_ns = now.raw_ns,
                           .valid_until_raw_ns = now.raw_ns + 3600000000000, .tai_offset_s = 37,
                           .refid = 0x47505300, .precision = -24, .stratum = 1};
    CHECK_EQUAL(tsc_open(path, 1, &t), 0);
    tsc_publish(t, &p);
    tsc_close(t);
}

static uint16_t port_of(const struct srv *s, int i)
{
    char host[SRV_HOST_MAX];
    uint16_t port;
    CHECK_EQUAL(srv_bound(s, i, host, &port), 0);
    return port;
}

static void the_record_is_found_when_it_appears(void)
{
    struct srv *s;
    uint8_t reply[2100];
    CHECK_EQUAL(srv_create(path, 1, &s), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK(reply[0] >> 6 == 3 && reply[1] == 0);
    publish();
    for (int tries = 0; tries < 50 && reply[0] >> 6 == 3; tries++) {
        usleep(100000);
        CHECK_EQUAL(ask(fd, 48, reply), 48);
    }
    CHECK(reply[0] >> 6 == 0 && reply[1] == 1);
    unlink(path); /* the run directory is gone: the record in hand stays good */
    usleep(1100000);
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK_EQUAL(reply[1], 1);
    struct tsc *empty; /* and so it does while the clock process has made a new one and not published yet */
    CHECK_EQUAL(tsc_open(path, 1, &empty), 0);
    tsc_close(empty);
    usleep(1100000);
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK_EQUAL(reply[1], 1);
    close(fd);
    srv_destroy(s);
    publish();
}

static void every_packet_is_counted_once_by_whichever_thread(void)
{
    struct srv *s;
    struct srv_counts counts;
    uint8_t reply[2100];
    CHECK_EQUAL(srv_create(path, 3, &s), 0);
    CHECK_EQUAL(srv_listen(s, "0.0.0.0", 0), 0);
    CHECK_EQUAL(srv_listen(s, "::1", 0), 0);
    CHECK_EQUAL(srv_start(s), 0);
    CHECK_EQUAL(srv_start(s), -EALREADY);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0), -EALREADY);
    for (int i = 0; i < 32; i++) {
        int fd = client(port_of(s, 0), i % 2 ? "127.0.0.2" : "127.0.0.1");
        CHECK(send(fd, reply, 0, 0) == 0);
        static uint8_t large[50000];
        large[0] = 4 << 3 | 3;
        CHECK(send(fd, large, sizeof large, 0) == sizeof large);
        CHECK_EQUAL(ask(fd, 48 + 20, reply), 52);
        CHECK_EQUAL(ask(fd, 48, reply), 48);
        close(fd);
    }
    srv_stop(s);
    srv_count(s, &counts);
    CHECK_EQUAL(counts.packets[PKT_DROP][PKT_SHORT], 32);
    CHECK_EQUAL(counts.packets[PKT_DROP][PKT_LONG], 32);
    CHECK_EQUAL(counts.packets[PKT_NAK][PKT_UNKNOWN_KEY], 32);
    CHECK_EQUAL(counts.packets[PKT_REPLY][PKT_BASIC], 32);
    uint64_t all = 0;
    for (int a = 0; a < PKT_ACTIONS; a++)
        for (int r = 0; r < PKT_REASONS; r++)
            all += counts.packets[a][r];
    CHECK_EQUAL(all, 128);
    CHECK(counts.unstamped == 0 && counts.receive_errors == 0);
    srv_destroy(s);
}

static void it_stops_and_starts_again(void)
{
    struct srv *s;
    uint8_t reply[2100];
    CHECK_EQUAL(srv_create(path, 2, &s), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(srv_start(s), 0);
        int fd = client(port_of(s, 0), "127.0.0.1");
        CHECK_EQUAL(ask(fd, 48, reply), 48);
        close(fd);
        srv_stop(s);
    }
    srv_destroy(s);
}

static void an_address_belongs_to_one_server(void)
{
    struct srv *first, *second;
    CHECK_EQUAL(srv_create(path, 2, &first), 0);
    CHECK_EQUAL(srv_create(path, 2, &second), 0);
    CHECK_EQUAL(srv_listen(first, "127.0.0.1", 0), 0);
    CHECK_EQUAL(srv_listen(second, "127.0.0.1", port_of(first, 0)), -EADDRINUSE);
    CHECK_EQUAL(srv_listen(second, "localhost", 0), -EINVAL);
    CHECK_EQUAL(srv_listen(second, "192.0.2.1", 0), -EADDRNOTAVAIL);
    char host[SRV_HOST_MAX];
    uint16_t port;
    CHECK_EQUAL(srv_bound(second, 0, host, &port), -ENOENT);
    for (int i = 0; i < SRV_SOCKETS_MAX; i++)
        CHECK_EQUAL(srv_listen(second, "127.0.0.1", 0), 0);
    CHECK_EQUAL(srv_listen(second, "127.0.0.1", 0), -ENOSPC);
    srv_destroy(first);
    srv_destroy(second);
    CHECK_EQUAL(srv_create(path, 0, &first), -EINVAL);
    CHECK_EQUAL(srv_create(path, SRV_THREADS_MAX + 1, &first), -EINVAL);
}

static void an_inherited_socket_is_served_and_left_to_its_owner(void)
{
    struct srv *s;
    uint8_t reply[2100];
    struct sockaddr_in any = {.sin_family = AF_INET};
    int inherited = socket(AF_INET, SOCK_DGRAM, 0), stream = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(inherited, (struct sockaddr *)&any, sizeof any) == 0);
    CHECK_EQUAL(srv_create(path, 2, &s), 0);
    CHECK_EQUAL(srv_adopt(s, stream), -EPROTOTYPE);
    CHECK_EQUAL(srv_adopt(s, -1), -EBADF);
    CHECK_EQUAL(srv_adopt(s, inherited), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.3");
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    close(fd);
    srv_destroy(s);
    CHECK(close(inherited) == 0 && close(stream) == 0);
}

int main(void)
{
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/timescale", directory);
    RUN(the_record_is_found_when_it_appears);
    RUN(every_packet_is_counted_once_by_whichever_thread);
    RUN(it_stops_and_starts_again);
    RUN(an_address_belongs_to_one_server);
    RUN(an_inherited_socket_is_served_and_left_to_its_owner);
    unlink(path);
    rmdir(directory);
    return 0;
}
