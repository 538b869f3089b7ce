/* The ciphers of NTS as its client uses them: what is sealed opens, what was touched does not, and keys of other lengths are none. */
#include "aead.h"

#include <errno.h>
#include <string.h>

#include "check.h"

enum { LONGEST = 64, DATA = 40 };

static const uint8_t secret[32] = {1, 2, 3}, header[DATA] = {7}, text[LONGEST] = {9, 8, 7};

static void each_cipher_opens_what_it_has_sealed_and_nothing_else(void)
{
    static const struct {
        unsigned cipher;
        size_t key, nonce;
    } rows[] = {{AED_SIV_CMAC_256, 32, 16}, {AED_128_GCM_SIV, 16, 12}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct aed_key *key;
        CHECK(aed_create(rows[i].cipher, secret, rows[i].key, &key) == 0);
        for (size_t length = 0; length <= LONGEST; length += 16) {
            uint8_t nonce[16] = {5}, sealed[LONGEST + AED_TAG], opened[LONGEST + AED_TAG];
            aed_seal(key, header, DATA, nonce, rows[i].nonce, text, length, sealed);
            CHECK(aed_open(key, header, DATA, nonce, rows[i].nonce, sealed, length + AED_TAG, opened));
            CHECK(memcmp(opened, text, length) == 0);
            CHECK(!aed_open(key, header, DATA - 1, nonce, rows[i].nonce, sealed, length + AED_TAG, opened));
            CHECK(!aed_open(key, header, DATA, nonce, rows[i].nonce - 1, sealed, length + AED_TAG, opened));
            CHECK(!aed_open(key, header, DATA, nonce, rows[i].nonce, sealed, AED_TAG - 1, opened));
            sealed[length] ^= 1;
            CHECK(!aed_open(key, header, DATA, nonce, rows[i].nonce, sealed, length + AED_TAG, opened));
        }
        aed_destroy(key);
    }
}

static void other_ciphers_and_keys_are_refused(void)
{
    struct aed_key *key = NULL;
    CHECK(aed_create(AED_SIV_CMAC_256, secret, 16, &key) == -EINVAL);
    CHECK(aed_create(AED_128_GCM_SIV, secret, 32, &key) == -EINVAL);
    CHECK(aed_create(17, secret, 32, &key) == -EINVAL);
    aed_destroy(NULL);
}

int main(void)
{
    RUN(each_cipher_opens_what_it_has_sealed_and_nothing_else);
    RUN(other_ciphers_and_keys_are_refused);
    return 0;
}
