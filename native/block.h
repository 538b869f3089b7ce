/* blk: encryption with AES-128 (FIPS 197), the block cipher of siv.h and gcmsiv.h: by the instructions that x86-64 processors have for it, and
 * elsewhere, or when built with PORTABLE, by nettle. All of it is inline, so that callers keep blocks in registers. */
#ifndef BLOCK_H
#define BLOCK_H
#include <nettle/aes.h>
#include <stddef.h>
#include <stdint.h>

enum { BLK_SIZE = 16 };

/* Round keys: nettle's, or as the processor's own instructions take them. */
union blk_rounds {
    struct aes128_ctx nettle;
    uint8_t block[11][BLK_SIZE];
};

#if defined(__x86_64__) && !defined(PORTABLE)
#include <immintrin.h>
#define BLK_FAST __attribute__((target("aes,sse4.1")))

/* 1: the processor has the instructions. */
static inline int blk_is_fast(void)
{
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1");
}

/* The round key after `key`, of which `assist` is aeskeygenassist (FIPS 197 5.2). */
BLK_FAST static inline __m128i blk_next_round(__m128i key, __m128i assist)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assist, 0xff));
}

BLK_FAST static inline void blk_expand_fast(union blk_rounds *rounds, const uint8_t *secret)
{
    __m128i *k = (__m128i *)rounds->block, key = _mm_loadu_si128((const __m128i *)secret);
    _mm_storeu_si128(k, key);
#define ROUND(n, constant) _mm_storeu_si128(k + (n), key = blk_next_round(key, _mm_aeskeygenassist_si128(key, constant)))
    ROUND(1, 0x01);
    ROUND(2, 0x02);
    ROUND(3, 0x04);
    ROUND(4, 0x08);
    ROUND(5, 0x10);
    ROUND(6, 0x20);
    ROUND(7, 0x40);
    ROUND(8, 0x80);
    ROUND(9, 0x1b);
    ROUND(10, 0x36);
#undef ROUND
}

BLK_FAST static inline __m128i blk_encrypt_one(const union blk_rounds *rounds, __m128i block)
{
    const __m128i *k = (const __m128i *)rounds->block;
    block = _mm_xor_si128(block, _mm_loadu_si128(k));
#pragma GCC unroll 9
    for (int round = 1; round < 10; round++)
        block = _mm_aesenc_si128(block, _mm_loadu_si128(k + round));
    return _mm_aesenclast_si128(block, _mm_loadu_si128(k + 10));
}

BLK_FAST static inline void blk_encrypt_fast(const union blk_rounds *rounds, size_t length, uint8_t *to, const uint8_t *from)
{
    for (size_t at = 0; at < length; at += BLK_SIZE)
        _mm_storeu_si128((__m128i *)(to + at), blk_encrypt_one(rounds, _mm_loadu_si128((const __m128i *)(from + at))));
}
#else
static inline int blk_is_fast(void)
{
    return 0;
}

static inline void blk_expand_fast(union blk_rounds *rounds, const uint8_t *secret)
{
    (void)rounds, (void)secret;
}

static inline void blk_encrypt_fast(const union blk_rounds *rounds, size_t length, uint8_t *to, const uint8_t *from)
{
    (void)rounds, (void)length, (void)to, (void)from;
}
#endif

static inline void blk_expand(union blk_rounds *rounds, const uint8_t *secret)
{
    if (blk_is_fast())
        blk_expand_fast(rounds, secret);
    else
        aes128_set_encrypt_key(&rounds->nettle, secret);
}

/* Encrypt `length` bytes, a multiple of a block. */
static inline void blk_encrypt(const union blk_rounds *rounds, size_t length, uint8_t *to, const uint8_t *from)
{
    if (blk_is_fast())
        blk_encrypt_fast(rounds, length, to, from);
    else
        aes128_encrypt(&rounds->nettle, length, to, from);
}
#endif
