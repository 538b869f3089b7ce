/* aead: the ciphers of NTS for a client that makes few requests, by their numbers of RFC 5116's registry. A sealed text is its tag and then the
 * ciphertext, or the other way about, as each cipher has it. What is authenticated besides: `size` bytes of data, the packet in front of the authenticator, and a nonce of n bytes (RFC 8915
 * 5.6). */
#ifndef AEAD_H
#define AEAD_H
#include <stddef.h>
#include <stdint.h>

enum { AED_SIV_CMAC_256 = 15, AED_128_GCM_SIV = 30, AED_TAG = 16 };

struct aed_key; /* an expanded key */

/* Expand a key. 0; -EINVAL: no such cipher, or a key that is none of it; -ENOMEM. */
int aed_create(unsigned cipher, const uint8_t *secret, size_t secret_length, struct aed_key **out);
/* Wipe and free. NULL: nothing happens. */
void aed_destroy(struct aed_key *key);
/* Seal a text; out has AED_TAG + length bytes. Nothing is NULL. A nonce for AED_128_GCM_SIV has 12 bytes; of a longer one the first count. */
void aed_seal(const struct aed_key *key, const uint8_t *data, size_t size, const uint8_t *nonce, size_t n,
              const uint8_t *text, size_t length, uint8_t *out);
/* Open a sealed text of `length` bytes; text has room for length - AED_TAG. 1: it is genuine; 0: it is not, or it or
 * its nonce has no such length, and text is void. */
int aed_open(const struct aed_key *key, const uint8_t *data, size_t size, const uint8_t *nonce, size_t n,
             const uint8_t *sealed, size_t length, uint8_t *text);
#endif
