/* socket: UDP sockets made ready to serve: shared by threads, stamped, told which address was asked, with room for a burst.
 *
 * Functions: a descriptor or 0, or -errno. Nothing here is called while packets are answered but sok_load and sok_filter, seldom.
 */
#ifndef SOCKET_H
#define SOCKET_H
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    SOK_RECEIVE_BUFFER = 8 << 20 /* bytes; the kernel doubles it: some 20 000 requests (768 each with its bookkeeping) */
};

/* What the kernel says of a receive buffer (SO_MEMINFO). */
struct sok_load {
    uint64_t queue, room; /* bytes */
    uint64_t drops;       /* requests dropped by filter or for want of room; counts on from 2^32 to 0 */
};

/* A numeric host and port as an address. -EINVAL. */
int sok_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length);
/* The text of an address: host_size bytes at host. 0 or -EINVAL. */
int sok_name(const struct sockaddr_storage *address, socklen_t length, char *host, size_t host_size, uint16_t *port);
/* A socket bound to address; port 0 is replaced by the one found. With `shared` the first of a group is bound alone, so that a second
 * server is refused, and the others join it (SO_REUSEPORT). interface: "" or the only one to be served (SO_BINDTODEVICE). */
int sok_open(struct sockaddr_storage *address, socklen_t *length, const char *interface, int first, int shared);
/* A copy of somebody's bound UDP socket, made ready. -EPROTOTYPE: it is something else. */
int sok_adopt(int fd, struct sockaddr_storage *address, socklen_t *length);
/* Which socket of a group a source meets. */
int sok_select(int fd, const struct sock_filter *program, size_t length);
/* What is dropped before it is queued; length 0: nothing. */
int sok_filter(int fd, const struct sock_filter *program, size_t length);
int sok_load(int fd, struct sok_load *out);
/* 1: departures can be stamped on this socket, when asked for with the message (SO_TIMESTAMPING). */
int sok_stamps_departures(int fd);
#endif
