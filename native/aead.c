#include "aead.h"

#include "gcmsiv.h"
#include "siv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct aed_key {
    unsigned cipher;
    union {
        struct siv_key siv;
        struct gcm_key gcm;
    };
};

int aed_create(unsigned cipher, const uint8_t *secret, size_t secret_length, struct aed_key **out)
{
    if (!(cipher == AED_SIV_CMAC_256 && secret_length == SIV_KEY) && !(cipher == AED_128_GCM_SIV && secret_length == GCM_KEY))
        return -EINVAL;
    struct aed_key *key = malloc(sizeof *key);
    if (!key)
        return -ENOMEM;
    key->cipher = cipher;
    if (cipher == AED_SIV_CMAC_256)
        siv_expand(&key->siv, secret, 0);
    else
        gcm_expand(&key->gcm, secret);
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
    if (key->cipher == AED_SIV_CMAC_256)
        siv_seal(&key->siv, associated, 2, text, length, out);
    else
        gcm_seal(&key->gcm, nonce, data, size, text, length, out);
}

int aed_open(const struct aed_key *key, const uint8_t *data, size_t size, const uint8_t *nonce, size_t n,
             const uint8_t *sealed, size_t length, uint8_t *text)
{
    const struct siv_data associated[] = {{data, size}, {nonce, n}};
    if (length < AED_TAG)
        return 0;
    if (key->cipher == AED_SIV_CMAC_256)
        return siv_open(&key->siv, associated, 2, sealed, length, text);
    return n == GCM_NONCE && gcm_open(&key->gcm, nonce, data, size, sealed, length, text);
}
