#include "flood.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SUSPECT_BITS = 8, SUSPECTS = 1 << SUSPECT_BITS, LEAF = 4 };
static const int64_t turn_ns = 100 * 1000000LL;  /* between judgements of the sources, and of the processor */
static const uint32_t flood_per_turn = 25;       /* excess of 250 requests/s: what ten wake-ups a turn cost is not worth a filter */
static const double share_least = 1.0 / 1024;

struct entry {
    uint32_t hash;
    uint8_t blocked;
};

struct fld {
    struct fld_hash_key key;
    int64_t turned_ns, cpu_ns;
    uint64_t queue; /* at the last look */
    double share; /* of unknown sources that is let through */
    struct {
        uint32_t hash, count;
    } suspect[SUSPECTS]; /* frequent ones survive (Misra, Gries 1982, by hash) */
    uint32_t blocked[FLD_BLOCKED_MAX]; /* sorted */
    unsigned blocked_count;
    uint32_t known[FLD_KNOWN_MAX];
    unsigned known_count, known_room;
    struct entry entries[FLD_BLOCKED_MAX + FLD_KNOWN_MAX];
    /* of the program being written */
    struct sock_filter *code;
    size_t length;
};

/* ---- the hash, in C and in BPF ------------------------------------------------------------------------------------------------------ */

static uint32_t stir(uint32_t x, uint32_t key, uint32_t factor)
{
    x = (x ^ key) * (factor | 1);
    return x ^ x >> 15;
}

uint32_t fld_hash(const struct fld_hash_key *key, struct acl_address a)
{
    uint32_t top = (uint32_t)(a.high >> 32);
    if (acl_is_ipv4(a))
        return stir((uint32_t)a.low, key->word[0], key->word[1]);
    uint64_t half = (top & 0xffc00000) == 0xfe800000 || (top & 0xfe000000) == 0xfc000000 ? a.low : a.high;
    uint32_t first = stir((uint32_t)(half >> 32), key->word[0], key->word[1]);
    return stir((uint32_t)half ^ first, key->word[0], key->word[2]);
}

static size_t emit(struct sock_filter *out, size_t at, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    out[at] = (struct sock_filter){code, yes, no, k};
    return at + 1;
}

static size_t emit_stir(struct sock_filter *out, size_t at, uint32_t key, uint32_t factor)
{
    at = emit(out, at, BPF_ALU | BPF_XOR | BPF_K, key, 0, 0);
    at = emit(out, at, BPF_ALU | BPF_MUL | BPF_K, factor | 1, 0, 0);
    at = emit(out, at, BPF_MISC | BPF_TAX, 0, 0, 0);
    at = emit(out, at, BPF_ALU | BPF_RSH | BPF_K, 15, 0, 0);
    return emit(out, at, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
}

/* Two words of an IPv6 source, at offset `from` of the header, stirred together. */
static size_t emit_half(const struct fld_hash_key *key, struct sock_filter *out, size_t at, uint32_t from)
{
    at = emit(out, at, BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + from, 0, 0);
    at = emit_stir(out, at, key->word[0], key->word[1]);
    at = emit(out, at, BPF_ST, 0, 0, 0);
    at = emit(out, at, BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + from + 4, 0, 0);
    at = emit(out, at, BPF_LDX | BPF_W | BPF_MEM, 0, 0, 0);
    at = emit(out, at, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    return emit_stir(out, at, key->word[0], key->word[2]);
}

/* fld_hash of the packet's source, in A. Source addresses: RFC 791 3.1 (at 12), RFC 8200 3 (at 8). */
static size_t emit_hash(const struct fld_hash_key *key, struct sock_filter *out)
{
    enum { HALF = 15, STIRRED = 6 };
    size_t at = emit(out, 0, BPF_LD | BPF_B | BPF_ABS, (uint32_t)SKF_NET_OFF, 0, 0);
    at = emit(out, at, BPF_ALU | BPF_RSH | BPF_K, 4, 0, 0);
    at = emit(out, at, BPF_JMP | BPF_JEQ | BPF_K, 6, STIRRED + 1, 0);
    at = emit(out, at, BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + 12, 0, 0);
    at = emit_stir(out, at, key->word[0], key->word[1]);
    at = emit(out, at, BPF_JMP | BPF_JA, 6 + 2 * HALF, 0, 0);
    size_t six = at;
    at = emit(out, at, BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + 8, 0, 0);
    at = emit(out, at, BPF_ALU | BPF_AND | BPF_K, 0xffc00000, 0, 0);
    at = emit(out, at, BPF_JMP | BPF_JEQ | BPF_K, 0xfe800000, 2, 0);
    at = emit(out, at, BPF_ALU | BPF_AND | BPF_K, 0xfe000000, 0, 0);
    at = emit(out, at, BPF_JMP | BPF_JEQ | BPF_K, 0xfc000000, 0, HALF + 1);
    at = emit_half(key, out, at, 16);
    at = emit(out, at, BPF_JMP | BPF_JA, HALF, 0, 0);
    at = emit_half(key, out, at, 8);
    return at == six + 6 + 2 * HALF ? at : 0;
}

size_t fld_selector(const struct fld_hash_key *key, unsigned threads, struct sock_filter *out)
{
    size_t at = emit_hash(key, out);
    at = emit(out, at, BPF_ALU | BPF_MOD | BPF_K, threads, 0, 0);
    return emit(out, at, BPF_RET | BPF_A, 0, 0, 0);
}

/* ---- who is blocked, how much is thinned ------------------------------------------------------------------------------------------- */

int fld_create(const struct fld_hash_key *key, struct fld **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    (*out)->key = *key;
    (*out)->share = 1;
    (*out)->known_room = FLD_KNOWN_MAX;
    return 0;
}

void fld_destroy(struct fld *f)
{
    free(f);
}

static int compare_hashes(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int is_blocked(const struct fld *f, uint32_t hash)
{
    return f->blocked_count && bsearch(&hash, f->blocked, f->blocked_count, sizeof hash, compare_hashes) != NULL;
}

int fld_excess(struct fld *f, uint32_t hash, uint32_t leak)
{
    unsigned i = hash >> (32 - SUSPECT_BITS); /* not the low bits: they are alike for all sources of a thread */
    int blocked = is_blocked(f, hash);
    uint32_t weight = blocked && leak ? leak : 1;
    if (f->suspect[i].hash == hash)
        f->suspect[i].count += weight;
    else if (f->suspect[i].count > weight)
        f->suspect[i].count -= weight;
    else {
        f->suspect[i].hash = hash;
        f->suspect[i].count = weight;
    }
    return blocked;
}

/* Judge the sources of the turn that ends. 1: others are blocked than before. */
static int judge(struct fld *f)
{
    uint32_t now[FLD_BLOCKED_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < SUSPECTS; i++) {
        if (f->suspect[i].count >= flood_per_turn && count < FLD_BLOCKED_MAX)
            now[count++] = f->suspect[i].hash;
        f->suspect[i].count = 0;
    }
    qsort(now, count, sizeof now[0], compare_hashes);
    if (count == f->blocked_count && memcmp(now, f->blocked, count * sizeof now[0]) == 0)
        return 0;
    memcpy(f->blocked, now, count * sizeof now[0]);
    f->blocked_count = count;
    return 1;
}

int fld_turn(struct fld *f, int64_t raw_ns, uint64_t queue, uint64_t room, int64_t cpu_ns, double cpu_limit)
{
    double before = f->share;
    int changed;
    if (queue > room / 2 && queue >= f->queue) /* and not draining already */
        f->share = f->share / 2 > share_least ? f->share / 2 : share_least;
    f->queue = queue;
    if (raw_ns - f->turned_ns < turn_ns)
        return f->share != before;
    double used = (double)(cpu_ns - f->cpu_ns) / (double)(raw_ns - f->turned_ns);
    changed = judge(f);
    if (cpu_limit < 1 && used > cpu_limit && f->turned_ns) {
        f->share *= cpu_limit / used;
        f->share = f->share > share_least ? f->share : share_least;
    } else if (f->share < 1 && queue <= room / 8 && used < 0.9 * cpu_limit) {
        f->share = f->share * 1.25 < 1 ? f->share * 1.25 : 1;
    }
    f->turned_ns = raw_ns;
    f->cpu_ns = cpu_ns;
    return changed || f->share != before;
}

int fld_thinning(const struct fld *f)
{
    return f->share < 1;
}

void fld_forget(struct fld *f)
{
    f->known_count = 0;
}

void fld_know(struct fld *f, struct acl_address source)
{
    if (f->known_count < f->known_room)
        f->known[f->known_count++] = fld_hash(&f->key, source);
}

int fld_fewer(struct fld *f)
{
    if (f->known_count == 0)
        return 0;
    f->known_room = f->known_count /= 2;
    return 1;
}

unsigned fld_blocked(const struct fld *f)
{
    return f->blocked_count;
}

double fld_share(const struct fld *f)
{
    return f->share;
}

/* ---- the filter --------------------------------------------------------------------------------------------------------------------- */

/* Verdicts; their code stands at the end, so jumps to them are mended when its place is known. */
enum verdict { PASS, BLOCKED, UNKNOWN, VERDICTS };
static const uint32_t accept = 0xffffffff; /* as much of the packet as there is */

static void put(struct fld *f, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    f->length = emit(f->code, f->length, code, k, yes, no);
}

static void put_tree(struct fld *f, const struct entry *entries, size_t count)
{
    if (count <= LEAF) {
        for (size_t i = 0; i < count; i++) {
            put(f, BPF_JMP | BPF_JEQ | BPF_K, entries[i].hash, 0, 1);
            put(f, BPF_JMP | BPF_JA, entries[i].blocked ? BLOCKED : PASS, 1, 0); /* jt = 1: to be mended */
        }
        put(f, BPF_JMP | BPF_JA, UNKNOWN, 1, 0);
        return;
    }
    size_t middle = count / 2;
    put(f, BPF_JMP | BPF_JGE | BPF_K, entries[middle].hash, 1, 0);
    size_t jump = f->length;
    put(f, BPF_JMP | BPF_JA, 0, 0, 0);
    put_tree(f, entries + middle, count - middle);
    f->code[jump].k = (uint32_t)(f->length - jump - 1);
    put_tree(f, entries, middle);
}

/* Let a packet pass by chance. */
static void put_chance(struct fld *f, double share)
{
    uint32_t limit = share >= 1 ? UINT32_MAX : (uint32_t)(share * UINT32_MAX);
    put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM), 0, 0);
    put(f, BPF_JMP | BPF_JGT | BPF_K, limit, 0, 1);
    put(f, BPF_RET | BPF_K, 0, 0, 0);
    put(f, BPF_RET | BPF_K, accept, 0, 0);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return y->blocked - x->blocked; /* blocked first */
}

static size_t collect(struct fld *f)
{
    size_t count = 0, kept = 0;
    for (unsigned i = 0; i < f->blocked_count; i++)
        f->entries[count++] = (struct entry){f->blocked[i], 1};
    for (unsigned i = 0; f->share < 1 && i < f->known_count; i++)
        f->entries[count++] = (struct entry){f->known[i], 0};
    qsort(f->entries, count, sizeof f->entries[0], compare_entries);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || f->entries[kept - 1].hash != f->entries[i].hash)
            f->entries[kept++] = f->entries[i];
    return kept;
}

size_t fld_filter(struct fld *f, uint32_t leak, struct sock_filter *out)
{
    uint32_t place[VERDICTS];
    size_t count = collect(f);
    if (f->share >= 1 && count == 0)
        return 0;
    f->code = out;
    f->length = emit_hash(&f->key, out);
    put_tree(f, f->entries, count);
    size_t tree = f->length;
    place[PASS] = (uint32_t)f->length;
    put(f, BPF_RET | BPF_K, accept, 0, 0);
    place[BLOCKED] = (uint32_t)f->length;
    put_chance(f, leak ? 1.0 / leak : 0);
    place[UNKNOWN] = (uint32_t)f->length;
    put_chance(f, f->share);
    for (size_t i = 0; i < tree; i++)
        if (out[i].code == (BPF_JMP | BPF_JA) && out[i].jt) {
            out[i].k = place[out[i].k] - (uint32_t)i - 1;
            out[i].jt = 0;
        }
    return f->length;
}
