/* mac: symmetric keys and the message authentication codes of NTP.
 *
 * MD5 and SHA-1 are legacy (RFC 5905 7.3: digest of key and packet). RFC 8573 asks for AES-128-CMAC. chrony and ntpsec offer SHA-256 and
 * AES-256-CMAC too. A set of keys is built once; after that any number of threads may read it. The ciphers are nettle's. Functions that
 * return int and say nothing else: 0 or -errno.
 */
#ifndef MAC_H
#define MAC_H
#include <stddef.h>
#include <stdint.h>

#include "access.h"

enum mac_type { MAC_MD5, MAC_SHA1, MAC_SHA256, MAC_AES128, MAC_AES256, MAC_TYPES };
enum {
    MAC_ID = 4,          /* bytes of the key id before the code */
    MAC_CODE_MAX = 32,   /* SHA-256, up to version 3 */
    MAC_CODE_V4_MAX = 20 /* version 4 cuts longer codes (RFC 7822 7.5.1: a MAC is at most 24 bytes) */
};

struct mac_keys; /* a set of keys */
struct mac_key;

/* An empty set with room for `room` keys. */
int mac_create(size_t room, struct mac_keys **out);
/* A key to be added; everything is copied. */
struct mac_spec {
    uint32_t id;                    /* not 0 */
    int type;                       /* enum mac_type */
    const uint8_t *secret;          /* 16 or 32 bytes for AES, else 1 to 4096 */
    size_t length;                  /* of the secret, bytes */
    const struct acl_range *ranges; /* the addresses that may use the key are those with ACL_ALLOW */
    size_t range_count;             /* 0: all addresses may use it */
};

/* Add a key. Its id is larger than those before. -EINVAL, -ENOSPC, -ENOMEM. */
int mac_add(struct mac_keys *keys, const struct mac_spec *spec);
/* Wipe and free. NULL: nothing happens. */
void mac_destroy(struct mac_keys *keys);
/* The key of that id; NULL: there is none. keys may be NULL. */
const struct mac_key *mac_find(const struct mac_keys *keys, uint32_t id);
/* 1: that address may use the key. */
int mac_from(const struct mac_key *key, struct acl_address source);
/* Bytes of this key's code in a packet of that NTP version. */
size_t mac_length(const struct mac_key *key, unsigned version);
/* The code over data, cut to `length` bytes (<= mac_length). */
void mac_make(const struct mac_key *key, const uint8_t *data, size_t data_length, uint8_t *code, size_t length);
/* 1: the code is right and as long as it must be. A wrong code of that length takes as long as a right one. */
int mac_check(const struct mac_key *key, unsigned version, const uint8_t *data, size_t data_length, const uint8_t *code, size_t length);
#endif
