/* siv: AES-SIV-CMAC-256 (RFC 5297; AEAD algorithm 15 of RFC 5116's registry), the cipher of NTS.
 *
 * S2V and CTR over block.h, with round keys that are kept: nettle's own SIV expands both keys for each text and calls the cipher once a block.
 * Where the processor has AES instructions a block costs no call, and independent blocks overlap. A sealed text is its 16-byte tag and then the
 * ciphertext.
 */
#ifndef SIV_H
#define SIV_H
#include <stddef.h>
#include <stdint.h>

#include "block.h"

enum { SIV_KEY = 32, SIV_TAG = 16, SIV_BLOCK = BLK_SIZE };

/* An expanded key. */
struct siv_key {
    union blk_rounds mac, text; /* of S2V and of CTR */
    uint8_t mask[2][SIV_BLOCK]; /* of CMAC's last block, when it is full and when it is not (RFC 4493 2.3) */
    uint8_t begin[SIV_BLOCK];   /* CMAC of a zero block, with which S2V begins */
};

/* A string of associated data; `at` is not NULL. */
struct siv_data {
    const uint8_t *at;
    size_t length;
};

/* Expand a key. empty: 1 when it will seal and open empty texts only, which takes half the time. */
void siv_expand(struct siv_key *key, const uint8_t secret[SIV_KEY], int empty);
/* Seal a text, which is not NULL; out, SIV_TAG + length bytes, does not overlap it. */
void siv_seal(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *text, size_t length, uint8_t *out);
/* Open a sealed text of `length` >= SIV_TAG bytes; text, length - SIV_TAG bytes, does not overlap it. 1: it is genuine; 0: it is not, and
 * text is void. It takes as long to tell a tag that is wrong in its first byte as in its last. */
int siv_open(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *sealed, size_t length, uint8_t *text);
#endif
