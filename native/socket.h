/* socket: UDP sockets that are ready to serve. The kernel stamps each request, tells which address it was sent to, and has room for bursts.
 * The address of a socket is that of one machine, or the wildcard.
 *
 * Functions: a descriptor or 0; or -errno. While packets are answered, only sok_load, sok_filter, sok_tell_class and sok_stamps_departures
 * are called, and those seldom.
 */
#ifndef SOCKET_H
#define SOCKET_H
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    SOK_RECEIVE_BUFFER = 8 << 20 /* bytes. The kernel doubles it: some 20 000 requests, of 768 bytes each with the kernel's bookkeeping */
};

/* A receive buffer (SO_MEMINFO of socket(7)). */
struct sok_load {
    uint64_t queue, room; /* bytes that wait, and the buffer's size */
    uint64_t drops;       /* requests that a filter dropped or that found no room; modulo 2^32 */
};

/* The address of a numeric host and a port. -EINVAL. */
int sok_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length);
/* The numeric host (host_size bytes) and the port of an address. -EINVAL. */
int sok_name(const struct sockaddr_storage *address, socklen_t length, char *host, size_t host_size, uint16_t *port);
/* Open a socket bound to *address; a port 0 there is replaced by the one that the kernel chose. shared: the socket is one of a group
 * (SO_REUSEPORT). The first of a group is bound without SO_REUSEPORT, so a second server is refused; the others join it. interface: the
 * only one to be served (SO_BINDTODEVICE); "": all. -EOPNOTSUPP: the address is a broadcast or multicast one. */
int sok_open(struct sockaddr_storage *address, socklen_t *length, const char *interface, int first, int shared);
/* Duplicate a bound UDP socket and make the copy ready. -EPROTOTYPE: fd is something else. -EOPNOTSUPP: as sok_open. */
int sok_adopt(int fd, struct sockaddr_storage *address, socklen_t *length);
/* Set the program that chooses a socket of fd's group for each packet (SO_ATTACH_REUSEPORT_CBPF). */
int sok_select(int fd, const struct sock_filter *program, size_t length);
/* Set the program that drops packets before they are queued; length 0: remove it (SO_ATTACH_FILTER). */
int sok_filter(int fd, const struct sock_filter *program, size_t length);
/* Read the state of the receive buffer. */
int sok_load(int fd, struct sok_load *out);
/* Let the kernel tell the traffic class of each request, or not. */
void sok_tell_class(int fd, int on);
/* Let a message ask for a stamp of its departure (SO_TIMESTAMPING). 1; 0: this socket cannot. */
int sok_stamps_departures(int fd);
#endif
