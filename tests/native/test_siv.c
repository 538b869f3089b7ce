/* AES-SIV-CMAC-256: RFC 5297's examples, and the same bytes as nettle's own for any length. */
#include "siv.h"

#include <nettle/siv-cmac.h>
#include <string.h>

#include "check.h"

enum { LONGEST = 700, DATA = 2 };

static uint64_t random_state = 88172645463325252;

static uint64_t random_number(void) /* xorshift64 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void fill(uint8_t *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        at[i] = (uint8_t)(random_number() >> 32);
}

static void the_deterministic_example_is_as_in_rfc_5297_a1(void)
{
    static const uint8_t secret[SIV_KEY] = {0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 0xf7, 0xf6, 0xf5, 0xf4, 0xf3, 0xf2, 0xf1, 0xf0,
                                            0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
    static const uint8_t header[24] = {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b,
                                       0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27};
    static const uint8_t text[14] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};
    static const uint8_t right[30] = {0x85, 0x63, 0x2d, 0x07, 0xc6, 0xe8, 0xf3, 0x7f, 0x95, 0x0a, 0xcd, 0x32, 0x0a, 0x2e, 0xcc,
                                      0x93, 0x40, 0xc0, 0x2b, 0x96, 0x90, 0xc4, 0xdc, 0x04, 0xda, 0xef, 0x7f, 0x6a, 0xfe, 0x5c};
    const struct siv_data data = {header, sizeof header};
    struct siv_key key;
    uint8_t sealed[sizeof right], opened[sizeof text];
    siv_expand(&key, secret, 0);
    siv_seal(&key, &data, 1, text, sizeof text, sealed);
    CHECK(memcmp(sealed, right, sizeof right) == 0);
    CHECK(siv_open(&key, &data, 1, sealed, sizeof sealed, opened));
    CHECK(memcmp(opened, text, sizeof text) == 0);
}

static void the_example_with_a_nonce_is_as_in_rfc_5297_a2(void)
{
    static const uint8_t secret[SIV_KEY] = {0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x7a, 0x79, 0x78, 0x77, 0x76, 0x75, 0x74, 0x73, 0x72, 0x71, 0x70,
                                            0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f};
    static const uint8_t first[40] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                                      0xee, 0xff, 0xde, 0xad, 0xda, 0xda, 0xde, 0xad, 0xda, 0xda, 0xff, 0xee, 0xdd, 0xcc,
                                      0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00};
    static const uint8_t second[10] = {0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0};
    static const uint8_t nonce[16] = {0x09, 0xf9, 0x11, 0x02, 0x9d, 0x74, 0xe3, 0x5b, 0xd8, 0x41, 0x56, 0xc5, 0x63, 0x56, 0x88, 0xc0};
    static const uint8_t text[] = "this is some plaintext to encrypt using SIV-AES";
    static const uint8_t right[63] = {0x7b, 0xdb, 0x6e, 0x3b, 0x43, 0x26, 0x67, 0xeb, 0x06, 0xf4, 0xd1, 0x4b, 0xff, 0x2f, 0xbd, 0x0f,
                                      0xcb, 0x90, 0x0f, 0x2f, 0xdd, 0xbe, 0x40, 0x43, 0x26, 0x60, 0x19, 0x65, 0xc8, 0x89, 0xbf, 0x17,
                                      0xdb, 0xa7, 0x7c, 0xeb, 0x09, 0x4f, 0xa6, 0x63, 0xb7, 0xa3, 0xf7, 0x48, 0xba, 0x8a, 0xf8, 0x29,
                                      0xea, 0x64, 0xad, 0x54, 0x4a, 0x27, 0x2e, 0x9c, 0x48, 0x5b, 0x62, 0xa3, 0xfd, 0x5c, 0x0d};
    const struct siv_data data[3] = {{first, sizeof first}, {second, sizeof second}, {nonce, sizeof nonce}};
    struct siv_key key;
    uint8_t sealed[sizeof right], opened[sizeof text];
    siv_expand(&key, secret, 0);
    siv_seal(&key, data, 3, text, sizeof text - 1, sealed);
    CHECK(memcmp(sealed, right, sizeof right) == 0);
    CHECK(siv_open(&key, data, 3, sealed, sizeof sealed, opened));
    CHECK(memcmp(opened, text, sizeof text - 1) == 0);
}

static void any_text_is_sealed_as_by_nettle(void)
{
    static uint8_t packet[LONGEST], nonce[64], text[LONGEST], sealed[SIV_TAG + LONGEST], theirs[SIV_TAG + LONGEST], opened[LONGEST];
    for (size_t round = 0; round < 3 * LONGEST; round++) {
        uint8_t secret[SIV_KEY];
        struct siv_cmac_aes128_ctx nettle;
        struct siv_key key;
        size_t length = round < LONGEST ? round : random_number() % LONGEST;
        const struct siv_data data[DATA] = {{packet, random_number() % LONGEST}, {nonce, 1 + random_number() % (sizeof nonce - 1)}};
        fill(secret, sizeof secret);
        fill(packet, sizeof packet);
        fill(nonce, sizeof nonce);
        fill(text, sizeof text);
        siv_cmac_aes128_set_key(&nettle, secret);
        siv_cmac_aes128_encrypt_message(&nettle, data[1].length, nonce, data[0].length, packet, SIV_TAG + length, theirs, text);
        siv_expand(&key, secret, length == 0);
        siv_seal(&key, data, DATA, text, length, sealed);
        CHECK(memcmp(sealed, theirs, SIV_TAG + length) == 0);
        CHECK(siv_open(&key, data, DATA, sealed, SIV_TAG + length, opened));
        CHECK(memcmp(opened, text, length) == 0);
    }
}

static void a_changed_bit_is_noticed_wherever_it_is(void)
{
    uint8_t secret[SIV_KEY], packet[50], nonce[16], text[40], sealed[SIV_TAG + 40], opened[40];
    const struct siv_data data[DATA] = {{packet, sizeof packet}, {nonce, sizeof nonce}};
    struct { uint8_t *at; size_t length; } parts[] = {{packet, sizeof packet}, {nonce, sizeof nonce}, {sealed, sizeof sealed}};
    struct siv_key key;
    fill(secret, sizeof secret);
    fill(packet, sizeof packet);
    fill(nonce, sizeof nonce);
    fill(text, sizeof text);
    siv_expand(&key, secret, 0);
    siv_seal(&key, data, DATA, text, sizeof text, sealed);
    for (size_t part = 0; part < 3; part++)
        for (size_t bit = 0; bit < 8 * parts[part].length; bit++) {
            parts[part].at[bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK(!siv_open(&key, data, DATA, sealed, sizeof sealed, opened));
            parts[part].at[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    CHECK(siv_open(&key, data, DATA, sealed, sizeof sealed, opened));
    CHECK(!siv_open(&key, data, DATA, sealed, sizeof sealed - 1, opened));
    CHECK(!siv_open(&key, data, 1, sealed, sizeof sealed, opened));
}

int main(void)
{
    RUN(the_deterministic_example_is_as_in_rfc_5297_a1);
    RUN(the_example_with_a_nonce_is_as_in_rfc_5297_a2);
    RUN(any_text_is_sealed_as_by_nettle);
    RUN(a_changed_bit_is_noticed_wherever_it_is);
    return 0;
}
