#include "aead.h"

#include "siv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct aed_key {
    struct siv_key siv;
};

int aed_create(unsigned cipher, const uint8_t *secret, size_t secret_length, struct aed_key **out)
{
    if (cipher != AED_SIV_CMAC_256 || secret_length != SIV_KEY)
        return -EINVAL;
    struct aed_key *key = malloc(sizeof *key);
    if (!key)
        return -ENOMEM;
    siv_expand(&key->siv, secret, 0);
    *out = key;
    return 0;
}

void aed_destroy(struct aed_key *key)
{
    if (key)
        explicit_bzero(key, sizeof *key);
    free(key);
}

void aed_seal(const struct aed_key *key, const uint8_t *data, size_t size, const uint8_t *nonce, size_t n,
              const uint8_t *text, size_t length, uint8_t *out)
{
    const struct siv_data associated[] = {{data, size}, {nonce, n}};
    siv_seal(&key->siv, associated, 2, text, length, out);
}

int aed_open(const struct aed_key *key, const uint8_t *data, size_t size, const uint8_t *nonce, size_t n,
             const uint8_t *sealed, size_t length, uint8_t *text)
{
    const struct siv_data associated[] = {{data, size}, {nonce, n}};
    return length >= SIV_TAG && siv_open(&key->siv, associated, 2, sealed, length, text);
}
