/* gcm: AES-128-GCM-SIV (RFC 8452; AEAD algorithm 30 of RFC 5116's registry), NTS's cipher for short packets: its keys and nonces are shorter.
 *
 * POLYVAL uses the carry-less multiplication of x86-64 processors that have it; elsewhere, or when built with PORTABLE, multiplications of
 * integers. Both take a time that depends on lengths alone. A sealed text is the ciphertext and then its tag.
 */
#ifndef GCMSIV_H
#define GCMSIV_H
#include <stddef.h>
#include <stdint.h>

#include "block.h"

enum { GCM_KEY = 16, GCM_NONCE = 12, GCM_TAG = 16 };

/* An expanded key. */
struct gcm_key {
    union blk_rounds generating;
};

void gcm_expand(struct gcm_key *key, const uint8_t secret[GCM_KEY]);
/* Seal a text, beside `size` bytes of associated data; neither is NULL. out, length + GCM_TAG bytes, does not overlap them. */
void gcm_seal(const struct gcm_key *key, const uint8_t nonce[GCM_NONCE], const uint8_t *data, size_t size, const uint8_t *text,
              size_t length, uint8_t *out);
/* Open a sealed text of `length` >= GCM_TAG bytes; text, length - GCM_TAG bytes, does not overlap it. 1: it is genuine; 0: it is not, and text
 * is void. */
int gcm_open(const struct gcm_key *key, const uint8_t nonce[GCM_NONCE], const uint8_t *data, size_t size, const uint8_t *sealed,
             size_t length, uint8_t *text);
#endif
