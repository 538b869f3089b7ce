#define _GNU_SOURCE /* be64toh */
#include "siv.h"

#include <endian.h>
#include <nettle/cbc.h>
#include <nettle/memxor.h>
#include <string.h>

enum {
    STRIDE = 256, /* bytes that one call of the cipher takes: an NTS request fits into it */
    FULL = 0,
    PARTIAL = 1, /* struct siv_key: mask */
    HALF = SIV_KEY / 2
};

static void xor_block(uint8_t *to, const uint8_t *from)
{
    uint64_t a[2], b[2];
    memcpy(a, to, sizeof a);
    memcpy(b, from, sizeof b);
    a[0] ^= b[0];
    a[1] ^= b[1];
    memcpy(to, a, sizeof a);
}

/* Multiply by x in GF(2^128) (RFC 5297 2.3), in time that does not depend on the block. */
static void double_block(uint8_t *block)
{
    uint64_t high, low;
    memcpy(&high, block, 8);
    memcpy(&low, block + 8, 8);
    high = be64toh(high);
    low = be64toh(low);
    uint64_t reduction = (uint64_t)(-(int64_t)(high >> 63)) & 0x87;
    high = htobe64(high << 1 | low >> 63);
    low = htobe64(low << 1 ^ reduction);
    memcpy(block, &high, 8);
    memcpy(block + 8, &low, 8);
}

void siv_expand(struct siv_key *key, const uint8_t secret[SIV_KEY], int empty)
{
    static const uint8_t zero[SIV_BLOCK];
    aes128_set_encrypt_key(&key->mac, secret);
    if (!empty)
        aes128_set_encrypt_key(&key->text, secret + HALF);
    aes128_encrypt(&key->mac, SIV_BLOCK, key->mask[FULL], zero);
    double_block(key->mask[FULL]);
    memcpy(key->mask[PARTIAL], key->mask[FULL], SIV_BLOCK);
    double_block(key->mask[PARTIAL]);
    aes128_encrypt(&key->mac, SIV_BLOCK, key->begin, key->mask[FULL]);
}

/* Chain `length` bytes, a multiple of a block, into CMAC's state. */
static void chain(const struct siv_key *key, uint8_t *state, const uint8_t *data, size_t length)
{
    uint8_t scratch[STRIDE];
    while (length > 0) {
        size_t now = length < STRIDE ? length : STRIDE;
        cbc_aes128_encrypt(&key->mac, state, now, scratch, data); /* state becomes the last block */
        data += now;
        length -= now;
    }
}

/* End a CMAC (RFC 4493 2.4) whose state is `code` with the last 0..SIV_BLOCK bytes. */
static void end_code(const struct siv_key *key, uint8_t *code, const uint8_t *last, size_t length)
{
    uint8_t block[SIV_BLOCK] = {0};
    memcpy(block, last, length);
    if (length < SIV_BLOCK)
        block[length] = 0x80;
    xor_block(block, key->mask[length < SIV_BLOCK ? PARTIAL : FULL]);
    xor_block(block, code);
    aes128_encrypt(&key->mac, SIV_BLOCK, code, block);
}

/* Bytes before the last block, which is full unless the data is no multiple of a block. */
static size_t before_last(size_t length)
{
    return length == 0 ? 0 : (length - 1) / SIV_BLOCK * SIV_BLOCK;
}

/* S2V (RFC 5297 2.4) of the strings and then the text. */
static void synthesise(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *text, size_t length, uint8_t *tag)
{
    uint8_t sum[SIV_BLOCK], tail[2 * SIV_BLOCK];
    memcpy(sum, key->begin, sizeof sum);
    for (size_t i = 0; i < count; i++) {
        uint8_t code[SIV_BLOCK] = {0};
        size_t before = before_last(data[i].length);
        chain(key, code, data[i].at, before);
        end_code(key, code, data[i].at + before, data[i].length - before);
        double_block(sum);
        xor_block(sum, code);
    }
    memset(tag, 0, SIV_TAG);
    if (length < SIV_BLOCK) { /* the sum is folded into the padded text */
        memset(tail, 0, SIV_BLOCK);
        if (length > 0)
            memcpy(tail, text, length);
        tail[length] = 0x80;
        double_block(sum);
        xor_block(tail, sum);
        end_code(key, tag, tail, SIV_BLOCK);
        return;
    }
    size_t whole = (length - SIV_BLOCK) / SIV_BLOCK * SIV_BLOCK, rest = length - whole; /* rest: 16..31, and its end takes the sum */
    chain(key, tag, text, whole);
    memcpy(tail, text + whole, rest);
    xor_block(tail + rest - SIV_BLOCK, sum);
    size_t before = before_last(rest);
    chain(key, tag, tail, before);
    end_code(key, tag, tail + before, rest - before);
}

/* Encrypt or decrypt: CTR from the tag on (RFC 5297 2.5). */
static void add_stream(const struct siv_key *key, const uint8_t *tag, const uint8_t *from, size_t length, uint8_t *to)
{
    uint8_t counters[STRIDE];
    uint32_t count;
    memcpy(counters, tag, SIV_BLOCK);
    counters[8] &= 0x7f; /* two bits are cleared, so that 32 bits never carry into the rest */
    counters[12] &= 0x7f;
    memcpy(&count, counters + 12, sizeof count);
    count = be32toh(count);
    uint8_t first[SIV_BLOCK];
    memcpy(first, counters, sizeof first);
    while (length > 0) {
        size_t now = length < STRIDE ? length : STRIDE, blocks = (now + SIV_BLOCK - 1) / SIV_BLOCK;
        for (size_t i = 0; i < blocks; i++, count++) {
            uint32_t big = htobe32(count);
            memcpy(counters + i * SIV_BLOCK, first, SIV_BLOCK - sizeof big);
            memcpy(counters + (i + 1) * SIV_BLOCK - sizeof big, &big, sizeof big);
        }
        aes128_encrypt(&key->text, blocks * SIV_BLOCK, counters, counters);
        memxor3(to, from, counters, now);
        from += now;
        to += now;
        length -= now;
    }
}

void siv_seal(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *text, size_t length, uint8_t *out)
{
    synthesise(key, data, count, text, length, out);
    add_stream(key, out, text, length, out + SIV_TAG);
}

int siv_open(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *sealed, size_t length, uint8_t *text)
{
    uint8_t tag[SIV_TAG];
    uint64_t rest[2];
    add_stream(key, sealed, sealed + SIV_TAG, length - SIV_TAG, text);
    synthesise(key, data, count, text, length - SIV_TAG, tag);
    xor_block(tag, sealed); /* all of it, wherever they differ */
    memcpy(rest, tag, sizeof rest);
    return (rest[0] | rest[1]) == 0;
}
