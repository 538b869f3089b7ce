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

/* Bytes before the last block, which is full unless the data is no multiple of a block. */
static size_t before_last(size_t length)
{
    return length == 0 ? 0 : (length - 1) / SIV_BLOCK * SIV_BLOCK;
}

/* ---- the cipher, where the processor has instructions for it ----------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(PORTABLE)
BLK_FAST static void chain_fast(const union blk_rounds *rounds, uint8_t *state, const uint8_t *data, size_t length)
{
    __m128i block = _mm_loadu_si128((const __m128i *)state);
    for (size_t at = 0; at < length; at += SIV_BLOCK)
        block = blk_encrypt_one(rounds, _mm_xor_si128(block, _mm_loadu_si128((const __m128i *)(data + at))));
    _mm_storeu_si128((__m128i *)state, block);
}

/* finish, below. A block is made in a register: to load one that was stored in parts takes as long as to encrypt it. */
BLK_FAST static void finish_fast(const struct siv_key *key, uint8_t *code, const uint8_t *data, size_t length)
{
    size_t before = before_last(length);
    __m128i last;
    chain_fast(&key->mac, code, data, before);
    data += before;
    length -= before;
    if (length == SIV_BLOCK) {
        last = _mm_loadu_si128((const __m128i *)data);
    } else {
        uint8_t padded[SIV_BLOCK] = {0};
        memcpy(padded, data, length);
        padded[length] = 0x80;
        last = _mm_loadu_si128((const __m128i *)padded);
    }
    last = _mm_xor_si128(last, _mm_loadu_si128((const __m128i *)key->mask[length == SIV_BLOCK ? FULL : PARTIAL]));
    _mm_storeu_si128((__m128i *)code, blk_encrypt_one(&key->mac, _mm_xor_si128(_mm_loadu_si128((const __m128i *)code), last)));
}

/* add_stream, below: from the block `first` on, whose last 32 bits count from `count`. */
BLK_FAST static void add_stream_fast(const union blk_rounds *rounds, const uint8_t *first, uint32_t count, const uint8_t *from,
                                     size_t length, uint8_t *to)
{
    const __m128i counter = _mm_loadu_si128((const __m128i *)first);
    for (; length > 0; count++) {
        __m128i stream = blk_encrypt_one(rounds, _mm_insert_epi32(counter, (int)htobe32(count), 3));
        if (length < SIV_BLOCK) {
            uint8_t rest[SIV_BLOCK];
            _mm_storeu_si128((__m128i *)rest, stream);
            memxor3(to, from, rest, length);
            return;
        }
        _mm_storeu_si128((__m128i *)to, _mm_xor_si128(stream, _mm_loadu_si128((const __m128i *)from)));
        from += SIV_BLOCK;
        to += SIV_BLOCK;
        length -= SIV_BLOCK;
    }
}
#else
static void chain_fast(const union blk_rounds *rounds, uint8_t *state, const uint8_t *data, size_t length)
{
    (void)rounds, (void)state, (void)data, (void)length;
}

static void finish_fast(const struct siv_key *key, uint8_t *code, const uint8_t *data, size_t length)
{
    (void)key, (void)code, (void)data, (void)length;
}

static void add_stream_fast(const union blk_rounds *rounds, const uint8_t *first, uint32_t count, const uint8_t *from, size_t length,
                            uint8_t *to)
{
    (void)rounds, (void)first, (void)count, (void)from, (void)length, (void)to;
}
#endif

/* ---- S2V and CTR ----------------------------------------------------------------------------------------------------------------- */

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
    blk_expand(&key->mac, secret);
    if (!empty)
        blk_expand(&key->text, secret + HALF);
    blk_encrypt(&key->mac, SIV_BLOCK, key->mask[FULL], zero);
    double_block(key->mask[FULL]);
    memcpy(key->mask[PARTIAL], key->mask[FULL], SIV_BLOCK);
    double_block(key->mask[PARTIAL]);
    blk_encrypt(&key->mac, SIV_BLOCK, key->begin, key->mask[FULL]);
}

/* Chain `length` bytes, a multiple of a block, into CMAC's state. */
static void chain(const union blk_rounds *rounds, uint8_t *state, const uint8_t *data, size_t length)
{
    uint8_t scratch[STRIDE];
    if (blk_is_fast()) {
        chain_fast(rounds, state, data, length);
        return;
    }
    while (length > 0) {
        size_t now = length < STRIDE ? length : STRIDE;
        cbc_aes128_encrypt(&rounds->nettle, state, now, scratch, data); /* state becomes the last block */
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
    blk_encrypt(&key->mac, SIV_BLOCK, code, block);
}

/* End a CMAC (RFC 4493 2.4) whose state is `code` with the rest of its data. */
static void finish(const struct siv_key *key, uint8_t *code, const uint8_t *data, size_t length)
{
    if (blk_is_fast()) {
        finish_fast(key, code, data, length);
        return;
    }
    size_t before = before_last(length);
    chain(&key->mac, code, data, before);
    end_code(key, code, data + before, length - before);
}

/* S2V (RFC 5297 2.4) of the strings and then the text. */
static void synthesise(const struct siv_key *key, const struct siv_data *data, size_t count, const uint8_t *text, size_t length, uint8_t *tag)
{
    uint8_t sum[SIV_BLOCK], tail[2 * SIV_BLOCK];
    memcpy(sum, key->begin, sizeof sum);
    for (size_t i = 0; i < count; i++) {
        uint8_t code[SIV_BLOCK] = {0};
        finish(key, code, data[i].at, data[i].length);
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
        finish(key, tag, tail, SIV_BLOCK);
        return;
    }
    size_t whole = (length - SIV_BLOCK) / SIV_BLOCK * SIV_BLOCK, rest = length - whole; /* rest: 16..31, and its end takes the sum */
    chain(&key->mac, tag, text, whole);
    memcpy(tail, text + whole, rest);
    xor_block(tail + rest - SIV_BLOCK, sum);
    finish(key, tag, tail, rest);
}

/* Encrypt or decrypt: CTR from the tag on (RFC 5297 2.5). */
static void add_stream(const struct siv_key *key, const uint8_t *tag, const uint8_t *from, size_t length, uint8_t *to)
{
    uint8_t counters[STRIDE], first[SIV_BLOCK];
    uint32_t count;
    memcpy(first, tag, SIV_BLOCK);
    first[8] &= 0x7f; /* two bits are cleared, so that 32 bits never carry into the rest */
    first[12] &= 0x7f;
    memcpy(&count, first + 12, sizeof count);
    count = be32toh(count);
    if (blk_is_fast()) {
        add_stream_fast(&key->text, first, count, from, length, to);
        return;
    }
    while (length > 0) {
        size_t now = length < STRIDE ? length : STRIDE, blocks = (now + SIV_BLOCK - 1) / SIV_BLOCK;
        for (size_t i = 0; i < blocks; i++, count++) {
            uint32_t big = htobe32(count);
            memcpy(counters + i * SIV_BLOCK, first, SIV_BLOCK - sizeof big);
            memcpy(counters + (i + 1) * SIV_BLOCK - sizeof big, &big, sizeof big);
        }
        aes128_encrypt(&key->text.nettle, blocks * SIV_BLOCK, counters, counters);
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
