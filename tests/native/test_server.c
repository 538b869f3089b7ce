/* server: real datagrams on loopback through the threads, under the sanitizers. */
#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "nts_client.h"

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

/* The same, asking from an address of its own. */
static int client_from(uint16_t port, const char *source)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    const struct timeval patience = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, source, &from.sin_addr);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)&from, sizeof from) == 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
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
    struct rec *t;
    struct clk_reading now;
    clk_read(0, &now);
    struct rec_params p = {.raw_ns = now.raw_ns, .tai_ns = now.real_ns + 37000000000, .bound_ns = 1, .reference_raw_ns = now.raw_ns,
                           .valid_until_raw_ns = now.raw_ns + 3600000000000, .tai_offset_s = 37,
                           .refid = 0x47505300, .precision = -24, .stratum = 1};
    CHECK_EQUAL(rec_open(path, 1, &t), 0);
    rec_publish(t, &p);
    rec_close(t);
}

static const struct acl_range everybody = {{0, 0}, ACL_ALLOW}, nobody = {{0, 0}, ACL_DENY};
static const uint8_t secret[16] = "0123456789abcdef";

static struct srv_rules open_rules(void)
{
    return (struct srv_rules){.ranges = &everybody, .range_count = 1, .cpu_limit = 1, .dscp = -1};
}

/* A server of so many threads that answers everybody. */
static struct srv *made(int threads)
{
    struct srv_rules rules = open_rules();
    struct srv *s;
    CHECK_EQUAL(srv_create(path, threads, 1 << 20, &s), 0);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    return s;
}

static uint64_t counted(const struct srv *s, int action, int reason)
{
    struct srv_counts counts;
    srv_count(s, &counts);
    return counts.packets[action][reason];
}

static struct mac_keys *one_key(uint32_t id)
{
    struct mac_keys *keys;
    CHECK_EQUAL(mac_create(1, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){id, MAC_AES128, secret, sizeof secret, NULL, 0}), 0);
    return keys;
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
    s = made(1);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
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
    struct rec *empty; /* and so it does while the clock process has made a new one and not published yet */
    CHECK_EQUAL(rec_open(path, 1, &empty), 0);
    rec_close(empty);
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
    s = made(3);
    CHECK_EQUAL(srv_listen(s, "0.0.0.0", 0, ""), 0);
    CHECK_EQUAL(srv_listen(s, "::1", 0, ""), 1);
    CHECK_EQUAL(srv_start(s), 0);
    CHECK_EQUAL(srv_start(s), -EALREADY);
    for (int i = 0; i < 32; i++) {
        int fd = client(port_of(s, 0), i % 2 ? "127.0.0.2" : "127.0.0.1");
        CHECK(send(fd, reply, 0, 0) == 0);
        static uint8_t large[50000];
        large[0] = 4 << 3 | 3;
        CHECK(send(fd, large, sizeof large, 0) == sizeof large);
        CHECK(send(fd, large, 48 + 20, 0) == 48 + 20); /* no MAC of ours */
        CHECK_EQUAL(ask(fd, 48, reply), 48);
        close(fd);
    }
    srv_stop(s);
    srv_count(s, &counts);
    CHECK_EQUAL(counts.packets[PKT_DROP][PKT_SHORT], 32);
    CHECK_EQUAL(counts.packets[PKT_DROP][PKT_LONG], 32);
    CHECK_EQUAL(counts.packets[PKT_DROP][PKT_UNKNOWN_KEY], 32);
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
    s = made(2);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
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
    first = made(2);
    second = made(2);
    CHECK_EQUAL(srv_listen(first, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_listen(second, "127.0.0.1", port_of(first, 0), ""), -EADDRINUSE);
    CHECK_EQUAL(srv_listen(second, "localhost", 0, ""), -EINVAL);
    CHECK_EQUAL(srv_listen(second, "192.0.2.1", 0, ""), -EADDRNOTAVAIL);
    char host[SRV_HOST_MAX];
    uint16_t port;
    CHECK_EQUAL(srv_bound(second, 0, host, &port), -ENOENT);
    CHECK_EQUAL(srv_listen(second, "127.255.255.255", 0, ""), -EOPNOTSUPP); /* the broadcast address of loopback */
    CHECK_EQUAL(srv_listen(second, "224.0.1.1", 0, ""), -EOPNOTSUPP);
    CHECK_EQUAL(srv_listen(second, "ff02::101", 0, ""), -EOPNOTSUPP);
    for (int i = 0; i < SRV_SOCKETS_MAX; i++)
        CHECK_EQUAL(srv_listen(second, "127.0.0.1", 0, ""), i);
    CHECK_EQUAL(srv_listen(second, "127.0.0.1", 0, ""), -ENOSPC);
    CHECK_EQUAL(srv_leave(second, 7), 0);
    CHECK_EQUAL(srv_leave(second, 7), -ENOENT);
    CHECK_EQUAL(srv_leave(second, SRV_SOCKETS_MAX), -ENOENT);
    CHECK_EQUAL(srv_listen(second, "127.0.0.1", 0, ""), 7);
    srv_destroy(first);
    srv_destroy(second);
    CHECK_EQUAL(srv_create(path, 0, 1 << 20, &first), -EINVAL);
    CHECK_EQUAL(srv_create(path, SRV_THREADS_MAX + 1, 1 << 20, &first), -EINVAL);
}

static void addresses_come_and_go_while_it_serves(void)
{
    struct srv *s = made(3);
    struct cli_client clients[4];
    char host[SRV_HOST_MAX];
    uint16_t port;
    uint8_t reply[2100];
    size_t place = 0;
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int first = client_from(port_of(s, 0), "127.0.6.1");
    CHECK_EQUAL(ask(first, 48, reply), 48);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 1);
    int second = client_from(port_of(s, 1), "127.0.6.1");
    for (int i = 0; i < 20; i++) {
        CHECK_EQUAL(ask(first, 48, reply), 48);
        CHECK_EQUAL(ask(second, 48, reply), 48);
    }
    CHECK_EQUAL(srv_leave(s, 0), 0);
    CHECK_EQUAL(srv_bound(s, 0, host, &port), -ENOENT);
    CHECK(ask(first, 48, reply) < 0); /* nobody listens there any more, */
    CHECK_EQUAL(ask(second, 48, reply), 48);
    CHECK_EQUAL(srv_clients(s, &place, clients, 4), 1); /* and the client is still known */
    CHECK_EQUAL(clients[0].packets, 42);
    close(first);
    close(second);
    srv_destroy(s);
}

static void a_reply_has_the_dscp_of_the_request_or_the_configured_one(void)
{
    static const char *const hosts[] = {"0.0.0.0", "127.0.0.1", "::", "::1"};
    struct srv_rules rules = open_rules();
    struct srv *s = made(1);
    uint8_t request[48] = {4 << 3 | 3};
    rules.dscp = 64;
    CHECK_EQUAL(srv_configure(s, &rules), -EINVAL);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(srv_listen(s, hosts[i], 0, ""), i);
    CHECK_EQUAL(srv_start(s), 0);
    for (int configured = -1; configured <= 46; configured += 47)
        for (int i = 0; i < 4; i++) {
            const int on = 1, asked = 46 << 2 | 1; /* ECN is the network's, so it is not sent back */
            int six = i > 1, told = -1;
            struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(port_of(s, i)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(port_of(s, i)), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
            char control[128];
            struct iovec vector = {request, sizeof request};
            struct msghdr m = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            int fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
            CHECK(connect(fd, six ? (struct sockaddr *)&to6 : (struct sockaddr *)&to4, six ? sizeof to6 : sizeof to4) == 0);
            if (six)
                CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on) == 0);
            else
                CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on) == 0);
            if (configured < 0)
                CHECK(setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_TCLASS : IP_TOS, &asked, sizeof asked) == 0);
            rules.dscp = (int8_t)configured;
            CHECK_EQUAL(srv_configure(s, &rules), 0);
            request[0] = 4 << 3 | 3;
            CHECK(send(fd, request, 48, 0) == 48 && recvmsg(fd, &m, 0) == 48);
            for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
                told = *CMSG_DATA(c);
            CHECK_EQUAL(told, 46 << 2);
            close(fd);
        }
    srv_destroy(s);
}

/* Requests as fast as they go, for one moment: how many replies there were. */
static int burst(int fd)
{
    uint8_t request[48] = {4 << 3 | 3}, reply[2100];
    int replies = 0;
    for (int i = 0; i < 500; i++) {
        (void)!send(fd, request, 48, MSG_DONTWAIT);
        while (recv(fd, reply, sizeof reply, MSG_DONTWAIT) > 0)
            replies++;
    }
    return replies;
}

static uint8_t class_of_reply(int fd, int asked)
{
    const int on = 1;
    char control[128];
    uint8_t packet[48] = {4 << 3 | 3}, told = 0;
    struct iovec vector = {packet, sizeof packet};
    struct msghdr m = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on) == 0 && setsockopt(fd, IPPROTO_IP, IP_TOS, &asked, sizeof asked) == 0);
    CHECK(send(fd, packet, 48, 0) == 48 && recvmsg(fd, &m, 0) == 48);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        told = *CMSG_DATA(c);
    return told;
}

static void after_a_rush_dscp_is_looked_at_again(void)
{
    struct srv *s = made(1);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1"), rush = client_from(port_of(s, 0), "127.0.7.1");
    for (int i = 0; i < 20; i++)
        burst(rush);
    usleep(500000); /* nobody asks */
    CHECK_EQUAL(class_of_reply(fd, 46 << 2), 46 << 2);
    close(fd);
    close(rush);
    srv_destroy(s);
}

static void an_inherited_socket_is_served_and_left_to_its_owner(void)
{
    struct srv *s;
    uint8_t reply[2100];
    struct srv_counts counts;
    struct sockaddr_in any = {.sin_family = AF_INET};
    int inherited = socket(AF_INET, SOCK_DGRAM, 0), stream = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(inherited, (struct sockaddr *)&any, sizeof any) == 0);
    s = made(2);
    CHECK_EQUAL(srv_adopt(s, stream), -EPROTOTYPE);
    CHECK_EQUAL(srv_adopt(s, -1), -EBADF);
    CHECK_EQUAL(srv_adopt(s, inherited), 0);
    CHECK_EQUAL(srv_start(s), 0);
    srv_count(s, &counts);
    CHECK(counts.receive_buffer > 0); /* of the thread that has it; the other has none */
    int fd = client(port_of(s, 0), "127.0.0.3");
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    close(fd);
    srv_destroy(s);
    CHECK(close(inherited) == 0 && close(stream) == 0);
}

static void an_inherited_socket_of_both_families_knows_whom_a_request_was_sent_to(void)
{
    const int both = 0, on = 1;
    struct srv *s = made(1);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    struct sockaddr_in to = {.sin_family = AF_INET};
    uint8_t request[48] = {4 << 3 | 3};
    int inherited = socket(AF_INET6, SOCK_DGRAM, 0), everybody_asked = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(setsockopt(inherited, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both) == 0);
    CHECK(bind(inherited, (struct sockaddr *)&any, sizeof any) == 0);
    CHECK_EQUAL(srv_adopt(s, inherited), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.3"); /* a reply from another address would not come through */
    CHECK_EQUAL(class_of_reply(fd, 46 << 2), 46 << 2);
    CHECK(setsockopt(everybody_asked, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
    to.sin_port = htons(port_of(s, 0));
    inet_pton(AF_INET, "127.255.255.255", &to.sin_addr);
    CHECK(sendto(everybody_asked, request, 48, 0, (struct sockaddr *)&to, sizeof to) == 48);
    for (int tries = 0; tries < 5000 && counted(s, PKT_DROP, PKT_NOT_UNICAST) == 0; tries++)
        usleep(1000);
    CHECK_EQUAL(counted(s, PKT_DROP, PKT_NOT_UNICAST), 1);
    CHECK(recv(everybody_asked, request, 48, MSG_DONTWAIT) < 0);
    close(fd);
    close(everybody_asked);
    close(inherited);
    srv_destroy(s);
}

static void a_new_server_denies_everybody(void)
{
    struct srv *s;
    struct srv_rules rules = {.ranges = &nobody, .range_count = 1, .cpu_limit = 1, .kod_rate = 1000, .tell_denied = 1};
    uint8_t reply[2100];
    CHECK_EQUAL(srv_create(path, 1, 1 << 20, &s), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    reply[0] = 4 << 3 | 3;
    CHECK(send(fd, reply, 48, 0) == 48);
    while (counted(s, PKT_DROP, PKT_DENIED) != 1) /* silence, */
        usleep(1000);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(ask(fd, 48, reply), 48); /* then it is told */
    CHECK(reply[0] >> 6 == 3 && reply[1] == 0 && memcmp(reply + 12, "DENY", 4) == 0);
    while (counted(s, PKT_KOD, PKT_DENIED) == 0)
        usleep(1000);
    CHECK_EQUAL(counted(s, PKT_KOD, PKT_DENIED), 1);
    rules.cpu_limit = 0;
    CHECK_EQUAL(srv_configure(s, &rules), -EINVAL);
    close(fd);
    srv_destroy(s);
}

static void kisses_are_few(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    uint8_t request[48] = {4 << 3 | 3}, reply[2100];
    rules.rate = 0.001;
    rules.burst = 5;
    rules.kod_rate = 0.01;
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(ask(fd, 48, reply), 48);
    CHECK(memcmp(reply + 12, "GPS", 4) == 0);
    for (int i = 0; i < 20; i++)
        CHECK(send(fd, request, 48, 0) == 48);
    CHECK_EQUAL(recv(fd, reply, sizeof reply, 0), 48);
    CHECK(memcmp(reply + 12, "RATE", 4) == 0);
    while (counted(s, PKT_DROP, PKT_RATE) != 19)
        usleep(1000);
    CHECK_EQUAL(counted(s, PKT_KOD, PKT_RATE), 1);
    struct cli_client clients[4];
    size_t place = 0;
    CHECK_EQUAL(srv_clients(s, &place, clients, 4), 1);
    CHECK(clients[0].packets == 25 && clients[0].drops == 20 && clients[0].version == 4 && clients[0].network == 0xffff7f000001);
    CHECK(clients[0].last_ns <= srv_now());
    CHECK_EQUAL(srv_clients(s, &place, clients, 4), 0);
    close(fd);
    srv_destroy(s);
}

static void an_interleaved_client_is_told_when_the_last_reply_left(void)
{
    struct srv *s = made(1);
    uint8_t request[48] = {4 << 3 | 3}, first[2100], second[2100];
    struct srv_counts counts;
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    memset(request + 40, 7, 8);
    CHECK(send(fd, request, 48, 0) == 48 && recv(fd, first, sizeof first, 0) == 48);
    for (int i = 0; i < 3; i++) {
        memcpy(request + 24, first + 32, 8); /* origin: its receive; receive: ours, anything but the transmit */
        memset(request + 32, 9 + i, 8);
        memset(request + 40, 17 + i, 8);
        CHECK(send(fd, request, 48, 0) == 48 && recv(fd, second, sizeof second, 0) == 48);
        CHECK(memcmp(second + 24, request + 32, 8) == 0); /* the mark of an interleaved reply */
        CHECK(memcmp(second + 40, first + 32, 8) > 0);    /* it left after it had come, */
        CHECK(memcmp(second + 40, second + 32, 8) < 0);   /* and before this one came */
        if (i == 0)
            CHECK(memcmp(second + 40, first + 40, 8) == 0); /* of a basic reply the foretold departure is all there is */
        memcpy(first, second, 48);
    }
    srv_stop(s);
    srv_count(s, &counts);
    CHECK_EQUAL(counts.packets[PKT_REPLY][PKT_INTERLEAVED], 3);
    CHECK(counts.departures >= 1); /* loopback stamps departures */
    close(fd);
    srv_destroy(s);
}

static void an_nts_client_is_served_and_refused_without_a_budget(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    uint8_t reply[2100], cookies[8 * (4 + NTS_COOKIE)];
    struct srv_counts counts;
    struct client c;
    client_server_keys(&rules.nts);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    for (int placeholders = 0; placeholders < 8; placeholders++) {
        client_request(&c, CLIENT_PRESENT, placeholders);
        CHECK(send(fd, c.packet, c.length, 0) == (ssize_t)c.length);
        ssize_t got = recv(fd, reply, sizeof reply, 0);
        CHECK_EQUAL(got, c.length);
        CHECK_EQUAL(client_read(&c, reply, (size_t)got, cookies), placeholders + 1);
    }
    client_request(&c, 7, 0);
    for (int i = 0; i < 20; i++) { /* a NAK is no kiss-o'-death that is kept rare: kod_rate is 0 */
        CHECK(send(fd, c.packet, c.length, 0) == (ssize_t)c.length);
        CHECK_EQUAL(recv(fd, reply, sizeof reply, 0), 48 + 36);
        CHECK(memcmp(reply + 12, "NTSN", 4) == 0);
    }
    srv_stop(s);
    srv_count(s, &counts);
    CHECK(counts.nts == 8 && counts.authenticated == 8);
    CHECK(counts.packets[PKT_REPLY][PKT_BASIC] == 8 && counts.packets[PKT_KOD][PKT_NTS_NAK] == 20);
    close(fd);
    srv_destroy(s);
}

/* Seal a request in interleaved mode: origin is the last reply's receive timestamp. */
static void interleave(struct client *c, const uint8_t *reply, int turn)
{
    const uint8_t none = 0;
    client_begin(c);
    memcpy(c->packet + 24, reply + 32, 8);
    memset(c->packet + 32, 9 + turn, 8);
    memset(c->packet + 40, 17 + turn, 8);
    client_unique(c, CLIENT_UNIQUE);
    client_cookie(c, CLIENT_PRESENT);
    client_seal(c, &none, 0, CLIENT_NONCE, 0);
}

static void an_interleaved_nts_client_is_told_when_the_last_reply_left(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    uint8_t first[2100], second[2100], cookies[8 * (4 + NTS_COOKIE)];
    struct srv_counts counts;
    struct client c;
    client_server_keys(&rules.nts);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.1");
    client_request(&c, CLIENT_PRESENT, 0);
    CHECK(send(fd, c.packet, c.length, 0) == (ssize_t)c.length && recv(fd, first, sizeof first, 0) == (ssize_t)c.length);
    for (int i = 0; i < 3; i++) {
        interleave(&c, first, i);
        CHECK(send(fd, c.packet, c.length, 0) == (ssize_t)c.length && recv(fd, second, sizeof second, 0) == (ssize_t)c.length);
        CHECK_EQUAL(client_read(&c, second, c.length, cookies), 1);
        CHECK(memcmp(second + 24, c.packet + 32, 8) == 0);
        CHECK(memcmp(second + 40, first + 32, 8) > 0 && memcmp(second + 40, second + 32, 8) < 0);
        memcpy(first, second, c.length);
    }
    srv_stop(s);
    srv_count(s, &counts);
    CHECK(counts.packets[PKT_REPLY][PKT_INTERLEAVED] == 3 && counts.nts == 4 && counts.departures >= 1);
    close(fd);
    srv_destroy(s);
}

static void a_broadcast_is_authenticated_or_not_sent(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    uint8_t packet[2100];
    int listener = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&own, sizeof own) == 0 && getsockname(listener, (struct sockaddr *)&own, &length) == 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_broadcast(s, "127.0.0.1", ntohs(own.sin_port), 9, 6), -ENOKEY);
    rules.keys = one_key(9);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_broadcast(s, "::1", ntohs(own.sin_port), 9, 6), -EAFNOSUPPORT);
    CHECK_EQUAL(srv_broadcast(s, "127.0.0.1", ntohs(own.sin_port), 9, 6), 0);
    CHECK_EQUAL(recv(listener, packet, sizeof packet, 0), 68);
    CHECK(packet[0] == (4 << 3 | 5) && packet[1] == 1 && packet[2] == 6);
    CHECK(mac_check(mac_find(rules.keys, 9), 4, packet, 48, packet + 52, 16));
    close(listener);
    srv_destroy(s);
}

static void one_source_meets_one_thread(void)
{
    struct srv *s = made(4);
    struct cli_client clients[64];
    uint8_t reply[2100];
    size_t place = 0;
    char host[32];
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    for (int source = 1; source <= 20; source++)
        for (int i = 0; i < 3; i++) { /* each time from another port */
            struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port_of(s, 0))};
            int fd = socket(AF_INET, SOCK_DGRAM, 0);
            snprintf(host, sizeof host, "127.0.1.%d", source);
            inet_pton(AF_INET, host, &from.sin_addr);
            to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            CHECK(bind(fd, (struct sockaddr *)&from, sizeof from) == 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
            CHECK_EQUAL(ask(fd, 48, reply), 48);
            close(fd);
        }
    CHECK_EQUAL(srv_clients(s, &place, clients, 64), 20); /* had two threads met one, it would stand there twice */
    for (int i = 0; i < 20; i++)
        CHECK_EQUAL(clients[i].packets, 3);
    srv_destroy(s);
}

static void what_is_listed_is_who_asked_and_how(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    struct cli_client c;
    uint8_t packet[68] = {3 << 3 | 3}, reply[2100];
    size_t place = 0;
    rules.keys = one_key(9);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client_from(port_of(s, 0), "127.0.3.1");
    packet[51] = 9;
    mac_make(mac_find(rules.keys, 9), packet, 48, packet + 52, 16);
    CHECK(send(fd, packet, 68, 0) == 68 && recv(fd, reply, sizeof reply, 0) == 68);
    CHECK(mac_check(mac_find(rules.keys, 9), 3, reply, 48, reply + 52, 16));
    while (counted(s, PKT_REPLY, PKT_BASIC) != 1)
        usleep(1000);
    CHECK_EQUAL(srv_clients(s, &place, &c, 1), 1);
    CHECK(c.network == 0xffff7f000301 && c.packets == 1 && c.flags == CLI_AUTHENTICATED && c.version == 3 && c.receive != 0);
    CHECK(send(fd, packet, 0, 0) == 0); /* nothing: it has no version */
    while (counted(s, PKT_DROP, PKT_SHORT) != 1)
        usleep(1000);
    place = 0;
    CHECK_EQUAL(srv_clients(s, &place, &c, 1), 1);
    CHECK(c.packets == 2 && c.flags == CLI_AUTHENTICATED && c.version == 3);
    CHECK_EQUAL(ask(fd, 48, reply), 48);
    while (counted(s, PKT_REPLY, PKT_BASIC) != 2)
        usleep(1000);
    place = 0;
    CHECK_EQUAL(srv_clients(s, &place, &c, 1), 1);
    CHECK(c.packets == 3 && c.flags == 0 && c.version == 4);
    struct srv_counts counts;
    srv_count(s, &counts);
    CHECK_EQUAL(counts.authenticated, 1);
    close(fd);
    srv_destroy(s);
}

static int64_t milliseconds(void)
{
    return clk_raw_ns() / 1000000;
}

static void kisses_are_few_of_all_threads_together(void)
{
    struct srv *s;
    struct srv_rules rules = {.ranges = &nobody, .range_count = 1, .cpu_limit = 1, .kod_rate = 8, .tell_denied = 1};
    uint8_t request[48] = {4 << 3 | 3};
    char host[32];
    uint64_t kisses = 0;
    CHECK_EQUAL(srv_create(path, 4, 1 << 20, &s), 0);
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int64_t began = milliseconds();
    for (int source = 1; source <= 40; source++) {
        snprintf(host, sizeof host, "127.0.4.%d", source);
        int fd = client_from(port_of(s, 0), host);
        for (int i = 0; i < 50; i++)
            CHECK(send(fd, request, 48, 0) == 48);
        while (counted(s, PKT_DROP, PKT_DENIED) + counted(s, PKT_KOD, PKT_DENIED) != 50 * (uint64_t)source)
            usleep(1000);
        close(fd);
    }
    kisses = counted(s, PKT_KOD, PKT_DENIED);
    CHECK(kisses >= 4 && kisses <= 8 + 8 * (uint64_t)(milliseconds() - began) / 1000 + 4); /* what is saved up, what is earned, a start each */
    srv_destroy(s);
}

static void a_flood_is_stopped_in_the_kernel_and_its_source_let_in_again(void)
{
    struct srv *s = made(2);
    struct srv_rules rules = open_rules();
    struct srv_counts counts;
    uint8_t reply[2100];
    int replies = 0, bursts = 0;
    rules.rate = 1;
    rules.burst = 20;
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int flooder = client_from(port_of(s, 0), "127.0.5.1"), other = client_from(port_of(s, 0), "127.0.5.2");
    int64_t began = milliseconds(), quiet;
    int blocked = 0;
    do { /* it is blocked, then let in for lack of any news, then blocked again */
        replies += burst(flooder);
        srv_count(s, &counts);
        blocked += counts.blocked == 1;
        if (bursts++ % 10 == 0 && bursts < 30) { /* the others are served meanwhile, unless there is no room for them at that moment */
            ssize_t n = ask(other, 48, reply);
            for (int tries = 0; n != 48 && tries < 4; tries++)
                n = ask(other, 48, reply);
            CHECK_EQUAL(n, 48);
        }
        CHECK(milliseconds() - began < 60000);
    } while (counts.kernel_drops < 20000 || blocked < 10);
    quiet = milliseconds();
    while (counts.blocked != 0) {
        CHECK(milliseconds() - quiet < 60000);
        usleep(10000);
        srv_count(s, &counts);
    }
    usleep(1100000); /* one request is earned */
    while (recv(flooder, reply, sizeof reply, MSG_DONTWAIT) > 0)
        replies++;
    CHECK_EQUAL(ask(flooder, 48, reply), 48);
    CHECK(memcmp(reply + 12, "GPS", 4) == 0);
    srv_stop(s);
    srv_count(s, &counts);
    /* Neither those that waited when it was blocked nor any other was answered beyond the limit. */
    CHECK(counts.packets[PKT_REPLY][PKT_BASIC] <= 2 * (20 + 1 + (uint64_t)(milliseconds() - began) / 1000));
    CHECK(replies <= 20 + 1 + (milliseconds() - began) / 1000);
    CHECK(counts.filters >= 2 && counts.kernel_drops >= 20000);
    close(flooder);
    close(other);
    srv_destroy(s);
}

static void of_a_flood_the_leak_is_answered(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    struct srv_counts counts;
    uint64_t sent = 0;
    rules.rate = 1;
    rules.burst = 4;
    rules.leak = 16;
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    CHECK_EQUAL(srv_listen(s, "127.0.0.1", 0, ""), 0);
    CHECK_EQUAL(srv_start(s), 0);
    int flooder = client_from(port_of(s, 0), "127.0.5.1");
    int64_t began = milliseconds();
    do {
        (void)burst(flooder);
        sent += 500;
        srv_count(s, &counts);
        CHECK(milliseconds() - began < 60000);
    } while (counts.kernel_drops < 20000);
    srv_stop(s);
    srv_count(s, &counts);
    uint64_t answered = counts.packets[PKT_REPLY][PKT_BASIC], limit = 5 + (uint64_t)(milliseconds() - began) / 1000;
    /* One in 16, whether the kernel throws the dice or we do; a request that waits while the filter is put on meets them at most once more. */
    CHECK(answered < sent / 8 + limit);
    CHECK(answered > counts.kernel_drops / 32);
    close(flooder);
    srv_destroy(s);
}

static void an_impossible_rate_is_refused_or_bounded(void)
{
    struct srv *s = made(1);
    struct srv_rules rules = open_rules();
    const double absurd[] = {-1, 2e9, __builtin_nan(""), __builtin_inf()};
    struct acl_range backwards[] = {{{0, 0}, ACL_ALLOW}, {{0, 5}, ACL_DENY}, {{0, 4}, ACL_ALLOW}};
    for (int i = 0; i < 4; i++) {
        rules = open_rules();
        rules.rate = absurd[i];
        rules.burst = 4;
        rules.keys = one_key(9); /* the server's even so */
        CHECK_EQUAL(srv_configure(s, &rules), -EINVAL);
        rules = open_rules();
        rules.kod_rate = absurd[i];
        CHECK_EQUAL(srv_configure(s, &rules), -EINVAL);
    }
    rules = open_rules();
    rules.rate = 1;
    CHECK_EQUAL(srv_configure(s, &rules), -EINVAL); /* no burst: nothing could pass */
    rules = open_rules();
    rules.ranges = backwards;
    rules.range_count = 3;
    CHECK_EQUAL(srv_configure(s, &rules), -EINVAL);
    rules = open_rules();
    rules.rate = 1e-300;
    rules.burst = UINT32_MAX;
    rules.kod_rate = 1e-300;
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    rules.rate = 1e9;
    CHECK_EQUAL(srv_configure(s, &rules), 0);
    srv_destroy(s);
}

/* ---- under load, with everything being replaced: what ThreadSanitizer is to see ---- */

static struct srv *loaded;
/* A control packet from this machine goes to the program around the server, and what that answers comes from the address that was asked.
 * Short ones are dropped, and so is a reply to an address that is not served any more. */
static void control_packets_of_this_machine_are_handed_over(void)
{
    static const uint8_t control[12] = {4 << 3 | 6, 2}, answer[12] = {4 << 3 | 6, 0x82};
    uint8_t handed[SRV_RETURN + 100], again[SRV_RETURN + 100], reply[2100];
    int pair[2];
    struct srv *s = made(2);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK_EQUAL(srv_listen(s, "0.0.0.0", 0, ""), 0);
    srv_hand_over(s, pair[1]);
    CHECK_EQUAL(srv_start(s), 0);
    int fd = client(port_of(s, 0), "127.0.0.5");
    CHECK(send(fd, control, 11, 0) == 11 && send(fd, control, 12, 0) == 12);
    CHECK_EQUAL(recv(pair[0], handed, sizeof handed, 0), SRV_RETURN + 12);
    CHECK(memcmp(handed + SRV_RETURN, control, sizeof control) == 0);
    CHECK_EQUAL(srv_control_reply(s, handed, answer, sizeof answer), 0);
    CHECK_EQUAL(recv(fd, reply, sizeof reply, 0), 12);
    CHECK(memcmp(reply, answer, sizeof answer) == 0);
    CHECK(send(fd, control, 12, 0) == 12);
    CHECK_EQUAL(recv(pair[0], again, sizeof again, 0), SRV_RETURN + 12);
    CHECK(memcmp(handed, again, SRV_RETURN) == 0);
    srv_stop(s);
    CHECK_EQUAL(counted(s, PKT_REPLY, PKT_MODE_CONTROL), 2);
    CHECK_EQUAL(counted(s, PKT_DROP, PKT_SHORT), 1);
    CHECK_EQUAL(srv_leave(s, 0), 0);
    CHECK_EQUAL(srv_control_reply(s, handed, answer, sizeof answer), -ENOENT);
    srv_destroy(s);
    close(fd);
    close(pair[0]);
    close(pair[1]);
}

static int over;

static void *load(void *argument)
{
    int kind = (int)(intptr_t)argument;
    uint8_t request[2100] = {4 << 3 | 3}, reply[2100];
    uintptr_t lost = 0;
    char host[32];
    snprintf(host, sizeof host, "127.0.2.%d", kind + 1);
    struct mac_keys *keys = one_key(9);
    int fd = client_from(port_of(loaded, 0), host);
    for (unsigned i = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++) {
        size_t length = 48;
        if (kind == 4) { /* with a cookie */
            struct client c;
            client_request(&c, CLIENT_PRESENT, 0);
            memcpy(request, c.packet, length = c.length);
        } else if (kind == 1) { /* keyed */
            request[51] = 9;
            mac_make(mac_find(keys, 9), request, 48, request + 52, 16);
            length = 68;
        } else if (kind == 2) { /* garbage, unanswered */
            for (int b = 0; b < 60; b++)
                request[b] = (uint8_t)(i * 2654435761u >> (b % 24));
            CHECK(send(fd, request, i % 61, 0) >= 0);
            usleep(50);
            continue;
        }
        CHECK(send(fd, request, length, 0) == (ssize_t)length);
        lost += recv(fd, reply, sizeof reply, 0) < (ssize_t)length;
        if (kind == 3) { /* interleaved, so that departures are stamped and looked up beside the rest */
            memcpy(request + 24, reply + 32, 8);
            memcpy(request + 32, &i, sizeof i);
            request[40] = (uint8_t)~request[32];
        }
    }
    close(fd);
    mac_destroy(keys);
    return (void *)lost;
}

static void *watch(void *unused)
{
    struct srv_counts counts;
    struct cli_client clients[16];
    (void)unused;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        size_t place = 0;
        srv_count(loaded, &counts);
        while (srv_clients(loaded, &place, clients, 16))
            ;
        usleep(500);
    }
    return NULL;
}

static void rules_are_replaced_without_losing_a_request(void)
{
    pthread_t threads[5], watcher;
    void *lost;
    struct srv_rules keyed = open_rules();
    keyed.keys = one_key(9);
    client_server_keys(&keyed.nts);
    loaded = made(2);
    CHECK_EQUAL(srv_configure(loaded, &keyed), 0);
    CHECK_EQUAL(srv_listen(loaded, "0.0.0.0", 0, ""), 0);
    CHECK_EQUAL(srv_start(loaded), 0);
    CHECK_EQUAL(pthread_create(&watcher, NULL, watch, NULL), 0);
    for (intptr_t i = 0; i < 5; i++)
        CHECK_EQUAL(pthread_create(&threads[i], NULL, load, (void *)i), 0);
    for (int i = 0; i < 300; i++) {
        struct srv_rules rules = open_rules();
        rules.keys = one_key(9);
        client_server_keys(&rules.nts);
        rules.smear = i % 3 == 0;
        CHECK_EQUAL(srv_configure(loaded, &rules), 0);
        if (i % 50 == 0)
            publish();
        usleep(3000);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(pthread_join(threads[i], &lost), 0);
        CHECK(lost == NULL);
    }
    CHECK_EQUAL(pthread_join(watcher, NULL), 0);
    srv_destroy(loaded);
}

int main(void)
{
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/timescale", directory);
    RUN(the_record_is_found_when_it_appears);
    RUN(control_packets_of_this_machine_are_handed_over);
    RUN(every_packet_is_counted_once_by_whichever_thread);
    RUN(it_stops_and_starts_again);
    RUN(an_address_belongs_to_one_server);
    RUN(addresses_come_and_go_while_it_serves);
    RUN(a_reply_has_the_dscp_of_the_request_or_the_configured_one);
    RUN(after_a_rush_dscp_is_looked_at_again);
    RUN(an_inherited_socket_is_served_and_left_to_its_owner);
    RUN(an_inherited_socket_of_both_families_knows_whom_a_request_was_sent_to);
    RUN(a_new_server_denies_everybody);
    RUN(kisses_are_few);
    RUN(an_interleaved_client_is_told_when_the_last_reply_left);
    RUN(an_nts_client_is_served_and_refused_without_a_budget);
    RUN(an_interleaved_nts_client_is_told_when_the_last_reply_left);
    RUN(a_broadcast_is_authenticated_or_not_sent);
    RUN(one_source_meets_one_thread);
    RUN(what_is_listed_is_who_asked_and_how);
    RUN(kisses_are_few_of_all_threads_together);
    RUN(a_flood_is_stopped_in_the_kernel_and_its_source_let_in_again);
    RUN(of_a_flood_the_leak_is_answered);
    RUN(an_impossible_rate_is_refused_or_bounded);
    RUN(rules_are_replaced_without_losing_a_request);
    unlink(path);
    rmdir(directory);
    return 0;
}
