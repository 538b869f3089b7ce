/* AES-128-GCM-SIV: RFC 8452's examples, and the same bytes as OpenSSL's for any length. */
#include "gcmsiv.h"

#include <string.h>

#include "check.h"

enum { LONGEST = 300 };

static uint64_t random_state = 88172645463325252;

static uint8_t random_byte(void) /* xorshift64 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint8_t)(random_state >> 32);
}

static void fill(uint8_t *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        at[i] = random_byte();
}

static void the_examples_are_as_in_rfc_8452_c1(void)
{
    static const uint8_t secret[GCM_KEY] = {1}, nonce[GCM_NONCE] = {3};
    static const struct {
        uint8_t text[32], data[1], sealed[32 + GCM_TAG];
        size_t length, size;
    } examples[] = {
        {{0}, {0}, {0xdc, 0x20, 0xe2, 0xd8, 0x3f, 0x25, 0x70, 0x5b, 0xb4, 0x9e, 0x43, 0x9e, 0xca, 0x56, 0xde, 0x25}, 0, 0},
        {{1}, {0}, {0xb5, 0xd8, 0x39, 0x33, 0x0a, 0xc7, 0xb7, 0x86, 0x57, 0x87, 0x82, 0xff, 0xf6, 0x01, 0x3b, 0x81,
                    0x5b, 0x28, 0x7c, 0x22, 0x49, 0x3a, 0x36, 0x4c}, 8, 0},
        {{1}, {0}, {0x74, 0x3f, 0x7c, 0x80, 0x77, 0xab, 0x25, 0xf8, 0x62, 0x4e, 0x2e, 0x94, 0x85, 0x79, 0xcf, 0x77,
                    0x30, 0x3a, 0xaf, 0x90, 0xf6, 0xfe, 0x21, 0x19, 0x9c, 0x60, 0x68, 0x57, 0x74, 0x37, 0xa0, 0xc4}, 16, 0},
        {{1, [16] = 2}, {0}, {0x84, 0xe0, 0x7e, 0x62, 0xba, 0x83, 0xa6, 0x58, 0x54, 0x17, 0x24, 0x5d, 0x7e, 0xc4, 0x13, 0xa9,
                              0xfe, 0x42, 0x7d, 0x63, 0x15, 0xc0, 0x9b, 0x57, 0xce, 0x45, 0xf2, 0xe3, 0x93, 0x6a, 0x94, 0x45,
                              0x1a, 0x8e, 0x45, 0xdc, 0xd4, 0x57, 0x8c, 0x66, 0x7c, 0xd8, 0x68, 0x47, 0xbf, 0x61, 0x55, 0xff}, 32, 0},
        {{2}, {1}, {0x1e, 0x6d, 0xab, 0xa3, 0x56, 0x69, 0xf4, 0x27, 0x3b, 0x0a, 0x1a, 0x25, 0x60, 0x96, 0x9c, 0xdf,
                    0x79, 0x0d, 0x99, 0x75, 0x9a, 0xbd, 0x15, 0x08}, 8, 1},
    };
    struct gcm_key key;
    gcm_expand(&key, secret);
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        uint8_t sealed[32 + GCM_TAG], opened[32];
        size_t length = examples[i].length;
        gcm_seal(&key, nonce, examples[i].data, examples[i].size, examples[i].text, length, sealed);
        CHECK(memcmp(sealed, examples[i].sealed, length + GCM_TAG) == 0);
        CHECK(gcm_open(&key, nonce, examples[i].data, examples[i].size, sealed, length + GCM_TAG, opened));
        CHECK(memcmp(opened, examples[i].text, length) == 0);
    }
}

static void any_text_is_sealed_as_by_openssl(void)
{
    static uint8_t data[LONGEST], text[LONGEST], sealed[LONGEST + GCM_TAG], opened[LONGEST];
    uint64_t all = 0;
    for (size_t length = 1; length < LONGEST; length++) {
        uint8_t secret[GCM_KEY], nonce[GCM_NONCE];
        size_t size = length * 7 % 211;
        struct gcm_key key;
        fill(secret, sizeof secret);
        fill(nonce, sizeof nonce);
        fill(data, size);
        fill(text, length);
        gcm_expand(&key, secret);
        gcm_seal(&key, nonce, data, size, text, length, sealed);
        CHECK(gcm_open(&key, nonce, data, size, sealed, length + GCM_TAG, opened));
        CHECK(memcmp(opened, text, length) == 0);
        for (size_t i = 0; i < length + GCM_TAG; i++)
            all = all * 257 + sealed[i];
    }
    CHECK(all == 0x483fc76b9f0cfa6f); /* of the same bytes by OpenSSL 3.5's AES-128-GCM-SIV */
}

static void a_changed_bit_is_noticed_wherever_it_is(void)
{
    uint8_t secret[GCM_KEY], data[50], nonce[GCM_NONCE], text[40], sealed[40 + GCM_TAG], opened[40];
    struct { uint8_t *at; size_t length; } parts[] = {{data, sizeof data}, {nonce, sizeof nonce}, {sealed, sizeof sealed}};
    struct gcm_key key;
    fill(secret, sizeof secret);
    fill(data, sizeof data);
    fill(nonce, sizeof nonce);
    fill(text, sizeof text);
    gcm_expand(&key, secret);
    gcm_seal(&key, nonce, data, sizeof data, text, sizeof text, sealed);
    for (size_t part = 0; part < 3; part++)
        for (size_t bit = 0; bit < 8 * parts[part].length; bit++) {
            parts[part].at[bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK(!gcm_open(&key, nonce, data, sizeof data, sealed, sizeof sealed, opened));
            parts[part].at[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    CHECK(gcm_open(&key, nonce, data, sizeof data, sealed, sizeof sealed, opened));
    CHECK(!gcm_open(&key, nonce, data, sizeof data - 1, sealed, sizeof sealed, opened));
    CHECK(!gcm_open(&key, nonce, data, sizeof data, sealed, sizeof sealed - 1, opened));
}

int main(void)
{
    RUN(the_examples_are_as_in_rfc_8452_c1);
    RUN(any_text_is_sealed_as_by_openssl);
    RUN(a_changed_bit_is_noticed_wherever_it_is);
    return 0;
}
