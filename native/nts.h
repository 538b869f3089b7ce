/* nts: Network Time Security in NTP packets, the server's half (RFC 8915 5). Cookies, and extension fields that are sealed with AEAD 15 or 30.
 *
 * A cookie holds the two keys of a client, sealed with a key of the server's, so the server remembers no client. Its layout, which the
 * process that hands out the first cookies shares: key id (4 bytes), nonce (16), AES-SIV-CMAC-256(associated data: the nonce; text: C2S key,
 * S2C key). Keys of AEAD 30 are shorter, so a cookie's length tells the cipher. A request is checked in two steps: nts_find looks at its fields, nts_verify opens what is sealed. A set of keys is built once;
 * after that any number of threads may read it.
 */
#ifndef NTS_H
#define NTS_H
#include <stddef.h>
#include <stdint.h>

enum {
    NTS_KEY = 32,          /* bytes of a key: of a cookie; C2S, S2C with AEAD 15 */
    NTS_COOKIE = 100,      /* bytes of a cookie with AEAD 15 */
    NTS_SHORT_KEY = 16,    /* with AEAD 30 */
    NTS_SHORT_COOKIE = 68,
    NTS_COOKIES_MAX = 8,   /* in a reply: as many as a client keeps (RFC 8915 4.1.6) */
    NTS_UNIQUE_MAX = 256,  /* bytes of a unique identifier that is echoed; clients send 32 */
    NTS_KEYS_MAX = 64,     /* in a set */
    NTS_SEED = 16,         /* bytes that nonces are made from */
    NTS_FIELD_AUTHENTICATOR = 0x0404
};

struct nts_keys;   /* the keys that cookies are taken with, and the one that they are sealed with */
struct nts_nonces; /* where the nonces of one thread come from */

/* The keys of ids first .. first + count - 1, NTS_KEY bytes each, copied. Cookies are sealed with that of id `present`, which is one of them.
 * 0, -EINVAL or -ENOMEM. */
int nts_create(uint32_t first, size_t count, const uint8_t *keys, uint32_t present, struct nts_keys **out);
/* Wipe and free. NULL: nothing happens. */
void nts_destroy(struct nts_keys *keys);

/* Nonces: AES-128 of a counter, under a key that nobody knows. They never repeat, and tell nothing. 0 or -ENOMEM. */
int nts_nonces_create(const uint8_t seed[NTS_SEED], struct nts_nonces **out);
void nts_nonces_destroy(struct nts_nonces *nonces);

enum nts_verdict {
    NTS_VALID,
    NTS_REFUSED,  /* its cookie or its authenticator is wrong: it gets a NAK (RFC 8915 5.7) */
    NTS_MALFORMED /* its fields are none that a client sends: silence */
};

struct nts_cipher;

/* What a request says, and what its reply needs. */
struct nts_request {
    const struct nts_cipher *cipher; /* NULL: its cookie is none of ours */
    const uint8_t *unique; /* its unique identifier */
    size_t unique_length;
    const uint8_t *cookie;
    size_t cookie_length;
    const uint8_t *nonce;
    size_t nonce_length;
    const uint8_t *sealed;
    size_t sealed_length;
    size_t covered; /* bytes of the packet that are authenticated */
    size_t length;  /* of all of it, which the reply does not exceed */
    size_t wanted;  /* cookies: for its own one, and for each placeholder */
    uint8_t keys[2 * NTS_KEY]; /* of its cookie: C2S, S2C */
};

/* Look at the fields of a request of `length` bytes from `fields` on, each of which has a sound length (RFC 7822 7.5). The authenticator
 * begins at `authenticator`; fields behind it are not authenticated and not looked at. NTS_VALID or NTS_MALFORMED. *found refers to packet. */
enum nts_verdict nts_find(const uint8_t *packet, size_t fields, size_t authenticator, size_t length, struct nts_request *found);
/* Open its cookie and what it has sealed. */
enum nts_verdict nts_verify(const struct nts_keys *keys, const uint8_t *packet, struct nts_request *found);
/* Append the fields of the reply to its header of `header` bytes: unique identifier, authenticator, new cookies. The reply's length: at most
 * that of the request. */
size_t nts_seal(const struct nts_keys *keys, struct nts_nonces *nonces, const struct nts_request *found, uint8_t *reply, size_t header);
/* Append the field of a NAK: the unique identifier. The reply's length. */
size_t nts_refuse(const struct nts_request *found, uint8_t *reply, size_t header);
#endif
