#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "clients.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bucket.h"
#include "units.h"

/* A client is copied in words that the machine loads and stores at once: 64 bits, but not on ARMv6 (Raspberry Pi 1 and Zero). */
#if __GCC_ATOMIC_LLONG_LOCK_FREE == 2
typedef uint64_t word;
#else
typedef uint32_t word;
#endif

enum { WAYS = 16, UPPER = WAYS / 2, PLACE_BITS = 4 };
enum { WORDS = sizeof(struct cli_client) / sizeof(word), SEQUENCE = offsetof(struct cli_client, sequence) / sizeof(word) };
static const uint32_t place_mask = WAYS - 1;

/* A set. `order` says who is where, the most recent first: 28 bits of hash, 4 bits of place; 0: nobody. Only the table's thread uses it. */
struct set {
    uint32_t order[WAYS];
    word client[WAYS][WORDS];
};

struct cli {
    struct set *sets;
    size_t count;
    uint64_t key[2];
    uint64_t random;
};

_Static_assert(sizeof(struct cli_client) == 64, "a cache line");
_Static_assert(sizeof(struct set) == CLI_BYTES * WAYS, "68 bytes a client");

int cli_create(size_t bytes, const uint8_t key[CLI_KEY_BYTES], struct cli **out)
{
    struct cli *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return -ENOMEM;
    t->count = bytes / sizeof(struct set);
    if (t->count == 0)
        t->count = 1;
    t->sets = mmap(NULL, t->count * sizeof(struct set), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* zero, on touch */
    if (t->sets == MAP_FAILED) {
        free(t);
        return -ENOMEM;
    }
    memcpy(t->key, key, sizeof t->key);
    t->random = (t->key[0] ^ t->key[1]) | 1;
    *out = t;
    return 0;
}

void cli_destroy(struct cli *t)
{
    if (!t)
        return;
    munmap(t->sets, t->count * sizeof(struct set));
    free(t);
}

size_t cli_room(const struct cli *t)
{
    return t->count * WAYS;
}

/* ---- the table ----------------------------------------------------------------------------------------------------------------- */

static uint64_t rotate_left(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

static void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012) of two words, the second of them below 2^56. */
static uint64_t siphash(const uint64_t key[2], uint64_t word, uint64_t last)
{
    struct sip s = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    s.v3 ^= word;
    sip_round(&s);
    s.v0 ^= word;
    last |= (uint64_t)16 << 56;
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static struct set *set_for_hash(const struct cli *t, uint64_t hash)
{
    return &t->sets[(size_t)(((hash >> 32) * (uint64_t)t->count) >> 32)];
}

uint64_t cli_hash(const struct cli *t, struct acl_client who)
{
    uint64_t hash = siphash(t->key, who.network, who.kind);
    __builtin_prefetch(set_for_hash(t, hash), 1);
    return hash;
}

/* The table's thread is the only writer, so it may read without atomics. */
static void write_client(word *words, const struct cli_client *client)
{
    struct cli_client out = *client;
    word from[WORDS], odd;
    out.sequence = (uint32_t)(words[SEQUENCE] & UINT32_MAX) | 1;
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sequence is read from the low half of its word"
#endif
    memcpy(from, &out, sizeof from);
    odd = from[SEQUENCE];
    __atomic_store_n(&words[SEQUENCE], odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (int i = 0; i < WORDS; i++)
        if (i != SEQUENCE)
            __atomic_store_n(&words[i], from[i], __ATOMIC_RELAXED);
    __atomic_store_n(&words[SEQUENCE], (odd & ~(word)UINT32_MAX) | (uint32_t)(out.sequence + 1), __ATOMIC_RELEASE);
}

/* Move entry i of the order up to position `to`, and those between down by one. */
static void move_entry_up(uint32_t *order, int i, int to)
{
    uint32_t entry = order[i];
    memmove(&order[to + 1], &order[to], (size_t)(i - to) * sizeof *order);
    order[to] = entry;
}

size_t cli_meet(struct cli *t, struct acl_client who, uint64_t hash, int64_t raw_ns, struct cli_client *client)
{
    struct set *set = set_for_hash(t, hash);
    size_t base = (size_t)(set - t->sets) * WAYS;
    uint32_t tag = (uint32_t)hash & ~place_mask;
    int i;
    if (tag == 0)
        tag = 1u << PLACE_BITS;
    for (i = 0; i < WAYS && set->order[i]; i++) {
        if ((set->order[i] & ~place_mask) != tag)
            continue;
        uint32_t place = set->order[i] & place_mask;
        memcpy(client, set->client[place], sizeof *client);
        if (client->network != who.network || client->kind != who.kind)
            continue;
        if (i)
            move_entry_up(set->order, i, 0); /* it came back: to the front */
        int64_t since_ms = (raw_ns - client->last_ns) / NS_PER_MS;
        uint32_t since = since_ms < 0 ? 0 : since_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)since_ms;
        if (client->packets == 1)
            client->interval_ms = since;
        else
            client->interval_ms = (uint32_t)(((uint64_t)client->interval_ms * 7 + since + 4) / 8);
        client->packets += client->packets != UINT32_MAX;
        client->last_ns = raw_ns > 0 ? raw_ns : 1;
        return base + place;
    }
    uint32_t place = i < WAYS ? (uint32_t)i : set->order[WAYS - 1] & place_mask;
    if (i == WAYS) {
        i = WAYS - 1;
        set->order[i] = tag | place;
        move_entry_up(set->order, i, UPPER);
    } else {
        set->order[i] = tag | place;
    }
    *client = (struct cli_client){.network = who.network, .last_ns = raw_ns > 0 ? raw_ns : 1, .packets = 1,
                                  .first_s = (uint32_t)(raw_ns / NS_PER_S), .kind = who.kind};
    return base + place;
}

void cli_keep(struct cli *t, size_t place, const struct cli_client *client)
{
    write_client(t->sets[place / WAYS].client[place % WAYS], client);
}

/* ---- the limit ------------------------------------------------------------------------------------------------------------------ */

static uint32_t draw_random(struct cli *t)
{
    t->random ^= t->random << 13; /* xorshift64 (Marsaglia 2003): which request leaks through may be predictable */
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (uint32_t)(t->random >> 32);
}

int cli_pay(struct cli *t, const struct cli_limits *limits, int64_t raw_ns, struct cli_client *client)
{
    if (limits->interval_ns == 0)
        return 1;
    if (bkt_has(&client->full_ns, limits->interval_ns, limits->burst_ns, raw_ns)) {
        bkt_take(&client->full_ns, limits->interval_ns, raw_ns);
        return 1;
    }
    if (limits->leak && draw_random(t) % limits->leak == 0)
        return 1;
    client->drops += client->drops != UINT32_MAX;
    return 0;
}

/* ---- for others ----------------------------------------------------------------------------------------------------------------- */

int cli_copy(const struct cli *t, size_t place, struct cli_client *out)
{
    const word *words = t->sets[place / WAYS].client[place % WAYS];
    word copy[WORDS];
    for (int tries = 0; tries < 1000; tries++) {
        copy[SEQUENCE] = __atomic_load_n(&words[SEQUENCE], __ATOMIC_ACQUIRE);
        for (int i = 0; i < WORDS; i++)
            if (i != SEQUENCE)
                copy[i] = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(copy[SEQUENCE] & 1) && __atomic_load_n(&words[SEQUENCE], __ATOMIC_RELAXED) == copy[SEQUENCE]) {
            memcpy(out, copy, sizeof *out);
            return out->last_ns != 0;
        }
    }
    return 0;
}
