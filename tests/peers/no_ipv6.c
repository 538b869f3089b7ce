/* A preload for a kernel without IPv6 (ipv6.disable=1): socket(2) knows no such family. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int socket(int family, int kind, int protocol)
{
    static int (*real)(int, int, int);
    if (family == AF_INET6) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "socket");
    return real(family, kind, protocol);
}
