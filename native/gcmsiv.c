#define _GNU_SOURCE /* htole64 */
#include "gcmsiv.h"

#include <endian.h>
#include <nettle/memxor.h>
#include <string.h>

enum { BLOCK = BLK_SIZE, HALF = BLOCK / 2, DERIVED = 4, STRIDE = 256 /* bytes that one call of AES takes */ };

/* ---- POLYVAL --------------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(PORTABLE)
#include <immintrin.h>
#define FAST __attribute__((target("pclmul,sse4.1")))

static int is_fast(void)
{
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

/* Move the lower half of `x` up by its product with x^63 + x^62 + x^57, which is x^-64 in the field (RFC 8452 3). */
FAST static inline __m128i fold_fast(__m128i x)
{
    return _mm_xor_si128(_mm_clmulepi64_si128(x, _mm_set_epi64x((long long)0xc200000000000000, 1), 0x10), _mm_shuffle_epi32(x, 0x4e));
}

FAST static void absorb_fast(uint8_t *state, const uint8_t *key, const uint8_t *data, size_t blocks)
{
    const __m128i h = _mm_loadu_si128((const __m128i *)key);
    __m128i sum = _mm_loadu_si128((const __m128i *)state);
    for (; blocks > 0; blocks--, data += BLOCK) {
        sum = _mm_xor_si128(sum, _mm_loadu_si128((const __m128i *)data));
        __m128i low = _mm_clmulepi64_si128(sum, h, 0x00), high = _mm_clmulepi64_si128(sum, h, 0x11);
        __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(sum, h, 0x10), _mm_clmulepi64_si128(sum, h, 0x01));
        low = _mm_xor_si128(low, _mm_slli_si128(middle, HALF));
        high = _mm_xor_si128(high, _mm_srli_si128(middle, HALF));
        sum = _mm_xor_si128(high, fold_fast(fold_fast(low)));
    }
    _mm_storeu_si128((__m128i *)state, sum);
}
#else
static int is_fast(void)
{
    return 0;
}

static void absorb_fast(uint8_t *state, const uint8_t *key, const uint8_t *data, size_t blocks)
{
    (void)state, (void)key, (void)data, (void)blocks;
}
#endif

/* A polynomial over GF(2): bit i of low is x^i, bit i of high is x^(64 + i). */
struct polynomial {
    uint64_t low, high;
};

static struct polynomial load(const uint8_t *from)
{
    struct polynomial p;
    memcpy(&p, from, sizeof p);
    return (struct polynomial){le64toh(p.low), le64toh(p.high)};
}

static void store(uint8_t *to, struct polynomial p)
{
    p = (struct polynomial){htole64(p.low), htole64(p.high)};
    memcpy(to, &p, sizeof p);
}

/* The lower 64 bits of a product without carries: by integers of which only every fourth bit is set, so that carries stay in between. */
static inline uint64_t multiply_low(uint64_t a, uint64_t b)
{
    const uint64_t every_fourth = 0x1111111111111111;
    uint64_t product = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        uint64_t sum = 0;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            sum ^= (a & every_fourth << j) * (b & every_fourth << ((i - j) & 3));
        product |= sum & every_fourth << i;
    }
    return product;
}

static inline uint64_t reversed(uint64_t x)
{
    x = (x & 0x5555555555555555) << 1 | (x >> 1 & 0x5555555555555555);
    x = (x & 0x3333333333333333) << 2 | (x >> 2 & 0x3333333333333333);
    x = (x & 0x0f0f0f0f0f0f0f0f) << 4 | (x >> 4 & 0x0f0f0f0f0f0f0f0f);
    return __builtin_bswap64(x);
}

static inline struct polynomial multiply(uint64_t a, uint64_t b)
{
    return (struct polynomial){multiply_low(a, b), reversed(multiply_low(reversed(a), reversed(b))) >> 1};
}

/* As fold_fast. */
static struct polynomial fold(struct polynomial p)
{
    return (struct polynomial){p.high ^ p.low << 63 ^ p.low << 62 ^ p.low << 57, p.low ^ p.low >> 1 ^ p.low >> 2 ^ p.low >> 7};
}

/* The product of two elements of the field, times x^-128 (RFC 8452 3). */
static inline struct polynomial dot(struct polynomial a, struct polynomial b)
{
    struct polynomial low = multiply(a.low, b.low), high = multiply(a.high, b.high), middle = multiply(a.low ^ a.high, b.low ^ b.high);
    middle.low ^= low.low ^ high.low;
    middle.high ^= low.high ^ high.high;
    low.high ^= middle.low;
    high.low ^= middle.high;
    low = fold(fold(low));
    return (struct polynomial){high.low ^ low.low, high.high ^ low.high};
}

static void absorb_blocks(uint8_t *state, const uint8_t *key, const uint8_t *data, size_t blocks)
{
    if (is_fast()) {
        absorb_fast(state, key, data, blocks);
        return;
    }
    const struct polynomial h = load(key);
    struct polynomial sum = load(state);
    for (; blocks > 0; blocks--, data += BLOCK) {
        struct polynomial next = load(data);
        sum = dot((struct polynomial){sum.low ^ next.low, sum.high ^ next.high}, h);
    }
    store(state, sum);
}

/* Take in data, and zeros to the end of its last block. */
static void absorb(uint8_t *state, const uint8_t *key, const uint8_t *data, size_t length)
{
    size_t whole = length / BLOCK;
    absorb_blocks(state, key, data, whole);
    if (length % BLOCK) {
        uint8_t last[BLOCK] = {0};
        memcpy(last, data + whole * BLOCK, length % BLOCK);
        absorb_blocks(state, key, last, 1);
    }
}

/* ---- GCM-SIV --------------------------------------------------------------------------------------------------------------------- */

/* The keys of one nonce (RFC 8452 4). */
struct message_keys {
    uint8_t authentication[BLOCK];
    union blk_rounds encryption;
};

void gcm_expand(struct gcm_key *key, const uint8_t secret[GCM_KEY])
{
    blk_expand(&key->generating, secret);
}

static void derive(const struct gcm_key *key, const uint8_t *nonce, struct message_keys *keys)
{
    uint8_t blocks[DERIVED][BLOCK] = {{0}}, encryption[BLOCK];
    for (uint8_t i = 0; i < DERIVED; i++) {
        blocks[i][0] = i;
        memcpy(blocks[i] + BLOCK - GCM_NONCE, nonce, GCM_NONCE);
    }
    blk_encrypt(&key->generating, sizeof blocks, blocks[0], blocks[0]);
    memcpy(keys->authentication, blocks[0], HALF);
    memcpy(keys->authentication + HALF, blocks[1], HALF);
    memcpy(encryption, blocks[2], HALF);
    memcpy(encryption + HALF, blocks[3], HALF);
    blk_expand(&keys->encryption, encryption);
}

static void make_tag(const struct message_keys *keys, const uint8_t *nonce, const uint8_t *data, size_t size, const uint8_t *text,
                     size_t length, uint8_t *tag)
{
    uint8_t lengths[BLOCK];
    store(lengths, (struct polynomial){(uint64_t)size * 8, (uint64_t)length * 8});
    memset(tag, 0, GCM_TAG);
    absorb(tag, keys->authentication, data, size);
    absorb(tag, keys->authentication, text, length);
    absorb(tag, keys->authentication, lengths, sizeof lengths);
    memxor(tag, nonce, GCM_NONCE);
    tag[BLOCK - 1] &= 0x7f;
    blk_encrypt(&keys->encryption, GCM_TAG, tag, tag);
}

/* Encrypt or decrypt: CTR from the tag on, whose first 32 bits count. */
static void add_stream(const struct message_keys *keys, const uint8_t *tag, const uint8_t *from, size_t length, uint8_t *to)
{
    uint8_t counters[STRIDE], first[BLOCK];
    uint32_t count;
    memcpy(first, tag, BLOCK);
    first[BLOCK - 1] |= 0x80;
    memcpy(&count, first, sizeof count);
    count = le32toh(count);
    while (length > 0) {
        size_t now = length < STRIDE ? length : STRIDE, blocks = (now + BLOCK - 1) / BLOCK;
        for (size_t i = 0; i < blocks; i++, count++) {
            uint32_t little = htole32(count);
            memcpy(counters + i * BLOCK, &little, sizeof little);
            memcpy(counters + i * BLOCK + sizeof little, first + sizeof little, BLOCK - sizeof little);
        }
        blk_encrypt(&keys->encryption, blocks * BLOCK, counters, counters);
        memxor3(to, from, counters, now);
        from += now;
        to += now;
        length -= now;
    }
}

void gcm_seal(const struct gcm_key *key, const uint8_t nonce[GCM_NONCE], const uint8_t *data, size_t size, const uint8_t *text,
              size_t length, uint8_t *out)
{
    struct message_keys keys;
    derive(key, nonce, &keys);
    make_tag(&keys, nonce, data, size, text, length, out + length);
    add_stream(&keys, out + length, text, length, out);
}

int gcm_open(const struct gcm_key *key, const uint8_t nonce[GCM_NONCE], const uint8_t *data, size_t size, const uint8_t *sealed,
             size_t length, uint8_t *text)
{
    const uint8_t *theirs = sealed + length - GCM_TAG;
    uint8_t tag[GCM_TAG], difference = 0;
    struct message_keys keys;
    derive(key, nonce, &keys);
    add_stream(&keys, theirs, sealed, length - GCM_TAG, text);
    make_tag(&keys, nonce, data, size, text, length - GCM_TAG, tag);
    for (size_t i = 0; i < GCM_TAG; i++) /* all of it, wherever they differ */
        difference |= tag[i] ^ theirs[i];
    return difference == 0;
}
