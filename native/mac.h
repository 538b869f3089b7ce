/* mac: symmetric keys and the message authentication codes of NTP.
 *
 * MD5 and SHA-1 (RFC 5905 7.3: digest of key and packet) are legacy; AES-128-CMAC is what RFC 8573 asks for; SHA-256 and AES-256-CMAC are
 * what chrony and ntpsec offer besides. A set of keys is built once and then only read, by any number of threads. The ciphers are
 * nettle's. Functions: 0 or -errno.
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
    MAC_CODE_V4_MAX = 20 /* version 4: longer codes are cut (RFC 7822 7.5.1: a MAC is at most 24 bytes) */
};

struct mac_keys;
struct mac_key;

/* An empty set with room for `room` keys. */
int mac_create(size_t room, struct mac_keys **out);
/* Add a key; ids ascending and not 0. The secret is 16 or 32 bytes for AES, else at least 1 byte. `from`: where the key may be used from
 * (copied; count 0: from anywhere). -EINVAL, -ENOSPC, -ENOMEM. */
int mac_add(struct mac_keys *keys, uint32_t id, int type, const uint8_t *secret, size_t length, const struct acl_range *from, size_t count);
/* Wipe and free. NULL is no set. */
void mac_destroy(struct mac_keys *keys);
/* NULL: no such key. */
const struct mac_key *mac_find(const struct mac_keys *keys, uint32_t id);
/* 1: the key may be used from there. */
int mac_from(const struct mac_key *key, struct acl_address source);
/* Bytes of this key's code in a packet of that NTP version. */
size_t mac_length(const struct mac_key *key, unsigned version);
/* The code over data, cut to `length` bytes (<= mac_length). */
void mac_make(const struct mac_key *key, const uint8_t *data, size_t data_length, uint8_t *code, size_t length);
/* 1: code is right and of the length it must have. Takes as long for a wrong code as for a right one. */
int mac_check(const struct mac_key *key, unsigned version, const uint8_t *data, size_t data_length, const uint8_t *code, size_t length);
#endif
