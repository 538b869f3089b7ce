#define _GNU_SOURCE /* SO_BINDTODEVICE, in6_pktinfo */
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <linux/sock_diag.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int enable_option(int fd, int level, int option)
{
    const int on = 1;
    return setsockopt(fd, level, option, &on, sizeof on) < 0 ? -errno : 0;
}

int sok_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *found;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EINVAL;
    memset(address, 0, sizeof *address);
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int sok_name(const struct sockaddr_storage *address, socklen_t length, char *host, size_t host_size, uint16_t *port)
{
    char service[8];
    if (getnameinfo((const struct sockaddr *)address, length, host, (socklen_t)host_size, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -EINVAL;
    *port = (uint16_t)atoi(service);
    return 0;
}

static int is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

int sok_stamps_departures(int fd)
{
    const int flags = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_CMSG;
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags) == 0;
}

/* 1: a broadcast or multicast address. connect refuses a broadcast address with EACCES until SO_BROADCAST is set (ip(7)). */
static int is_not_unicast(const struct sockaddr_storage *address, socklen_t length)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_MULTICAST(&((const struct sockaddr_in6 *)address)->sin6_addr);
    if (IN_MULTICAST(ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr)))
        return 1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, length) < 0 && errno == EACCES;
    if (fd >= 0)
        close(fd);
    return refused;
}

static int takes_ipv4(int fd, int family)
{
    int only_ipv6 = 1;
    socklen_t size = sizeof only_ipv6;
    return family == AF_INET || (getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_ipv6, &size) == 0 && !only_ipv6);
}

void sok_tell_class(int fd, int on)
{
    (void)setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on); /* of no IPv6 socket: ENOPROTOOPT */
}

/* Ask for what the kernel is to tell with each request: a stamp, and on a wildcard address the address asked. */
static int prepare_socket(int fd, const struct sockaddr_storage *bound)
{
    const int size = SOK_RECEIVE_BUFFER;
    int r = enable_option(fd, SOL_SOCKET, SO_TIMESTAMPNS), any = is_wildcard(bound);
    if (r == 0 && any && takes_ipv4(fd, bound->ss_family))
        r = enable_option(fd, IPPROTO_IP, IP_PKTINFO);
    if (r == 0 && any && bound->ss_family == AF_INET6)
        r = enable_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0) /* needs CAP_NET_ADMIN */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);    /* up to net.core.rmem_max */
    return r;
}

int sok_open(struct sockaddr_storage *address, socklen_t *length, const char *interface, int first, int shared)
{
    int fd = socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
    if (fd < 0)
        return -errno;
    if (is_not_unicast(address, *length)) {
        close(fd);
        return -EOPNOTSUPP;
    }
    r = address->ss_family == AF_INET6 ? enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) : 0;
    if (r == 0 && *interface && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) < 0)
        r = -errno;
    if (r == 0 && shared && !first)
        r = enable_option(fd, SOL_SOCKET, SO_REUSEPORT);
    if (r == 0 && bind(fd, (struct sockaddr *)address, *length) < 0)
        r = -errno;
    if (r == 0 && shared && first)
        r = enable_option(fd, SOL_SOCKET, SO_REUSEPORT);
    if (r == 0 && getsockname(fd, (struct sockaddr *)address, length) < 0)
        r = -errno;
    if (r == 0)
        r = prepare_socket(fd, address);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

int sok_adopt(int fd, struct sockaddr_storage *address, socklen_t *length)
{
    socklen_t size = sizeof(int);
    int type, ours, r;
    *length = sizeof *address;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || getsockname(fd, (struct sockaddr *)address, length) < 0)
        return -errno;
    if (type != SOCK_DGRAM || (address->ss_family != AF_INET && address->ss_family != AF_INET6))
        return -EPROTOTYPE;
    if (is_not_unicast(address, *length))
        return -EOPNOTSUPP;
    ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (ours < 0)
        return -errno;
    r = prepare_socket(ours, address);
    if (r < 0) {
        close(ours);
        return r;
    }
    return ours;
}

static struct sock_fprog program_of(const struct sock_filter *program, size_t length)
{
    return (struct sock_fprog){(unsigned short)length, (struct sock_filter *)(uintptr_t)program}; /* the kernel only reads it */
}

int sok_select(int fd, const struct sock_filter *program, size_t length)
{
    struct sock_fprog p = program_of(program, length);
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &p, sizeof p) < 0 ? -errno : 0;
}

int sok_filter(int fd, const struct sock_filter *program, size_t length)
{
    const int unused = 0;
    struct sock_fprog p = program_of(program, length);
    int r = length ? setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p)
                   : setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
    return r < 0 ? -errno : 0;
}

int sok_load(int fd, struct sok_load *out)
{
    uint32_t told[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof told;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, told, &size) < 0)
        return -errno;
    *out = (struct sok_load){told[SK_MEMINFO_RMEM_ALLOC], told[SK_MEMINFO_RCVBUF], told[SK_MEMINFO_DROPS]};
    return 0;
}
