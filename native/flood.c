#include "flood.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"

enum { SUSPECT_BITS = 8, SUSPECTS = 1 << SUSPECT_BITS, LEAF = 4 };
static const int64_t turn_ns = 100 * NS_PER_MS; /* between two choices of the sources to block, and two looks at the processor */
static const uint32_t flood_per_turn = 25;      /* requests over the rate, 250/s; answering fewer costs less than a filter */
static const double share_least = 1.0 / 1024;  /* of requests of unknown sources: a new client still gets in */

struct entry {
    uint32_t hash;
    uint8_t blocked;
};

struct fld {
    struct fld_hash_key key;
    int64_t turned_ns, cpu_ns;
    uint64_t queue; /* bytes at the last look */
    double share;   /* of requests of unknown sources that is let through */
    struct {
        uint32_t hash, count;
    } suspect[SUSPECTS]; /* by hash; the frequent ones survive (Misra, Gries 1982) */
    uint32_t blocked[FLD_BLOCKED_MAX]; /* sorted */
    unsigned blocked_count;
    uint32_t known[FLD_KNOWN_MAX];
    unsigned known_count, known_room;
    struct entry entries[FLD_BLOCKED_MAX + FLD_KNOWN_MAX];
    /* the program being written */
    struct sock_filter *code;
    size_t length;
};

/* ---- the hash, in C and in BPF ------------------------------------------------------------------------------------------------------ */

static uint32_t mix_word(uint32_t x, uint32_t key, uint32_t factor)
{
    x = (x ^ key) * (factor | 1);
    return x ^ x >> 15;
}

uint32_t fld_hash(const struct fld_hash_key *key, struct acl_client who)
{
    if (who.kind == ACL_IPV4)
        return mix_word((uint32_t)who.network, key->word[0], key->word[1]);
    uint32_t first = mix_word((uint32_t)(who.network >> 32), key->word[0], key->word[1]);
    return mix_word((uint32_t)who.network ^ first, key->word[0], key->word[2]);
}

static size_t emit_instruction(struct sock_filter *out, size_t at, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    out[at] = (struct sock_filter){code, yes, no, k};
    return at + 1;
}

/* mix_word of A, in A. */
static size_t emit_mix(struct sock_filter *out, size_t at, uint32_t key, uint32_t factor)
{
    at = emit_instruction(out, at, BPF_ALU | BPF_XOR | BPF_K, key, 0, 0);
    at = emit_instruction(out, at, BPF_ALU | BPF_MUL | BPF_K, factor | 1, 0, 0);
    at = emit_instruction(out, at, BPF_MISC | BPF_TAX, 0, 0, 0);
    at = emit_instruction(out, at, BPF_ALU | BPF_RSH | BPF_K, 15, 0, 0);
    return emit_instruction(out, at, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
}

static size_t emit_load(struct sock_filter *out, size_t at, uint16_t size, uint32_t header_offset)
{
    return emit_instruction(out, at, BPF_LD | size | BPF_ABS, (uint32_t)SKF_NET_OFF + header_offset, 0, 0);
}

/* Hash the half of an IPv6 source at header_offset, in A. */
static size_t emit_half(const struct fld_hash_key *key, struct sock_filter *out, size_t at, uint32_t header_offset)
{
    at = emit_load(out, at, BPF_W, header_offset);
    at = emit_mix(out, at, key->word[0], key->word[1]);
    at = emit_instruction(out, at, BPF_ST, 0, 0, 0);
    at = emit_load(out, at, BPF_W, header_offset + 4);
    at = emit_instruction(out, at, BPF_LDX | BPF_W | BPF_MEM, 0, 0, 0);
    at = emit_instruction(out, at, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    return emit_mix(out, at, key->word[0], key->word[2]);
}

/* Let the unconditional jump at `jump` lead to `target`. */
static void land_jump(struct sock_filter *out, size_t jump, size_t target)
{
    out[jump].k = (uint32_t)(target - jump - 1);
}

/* fld_hash(acl_client_of(source)) of a packet, in A. Version: the first 4 bits; source: at 12 (RFC 791 3.1) or at 8 (RFC 8200 3). */
static size_t emit_hash(const struct fld_hash_key *key, struct sock_filter *out)
{
    enum { SOURCE4 = 12, SOURCE6 = 8, JUMPS = 4 };
    size_t prefixes, local[JUMPS], at = emit_load(out, 0, BPF_B, 0);
    const struct acl_prefix *prefix = acl_local_prefixes(&prefixes);
    at = emit_instruction(out, at, BPF_ALU | BPF_RSH | BPF_K, 4, 0, 0);
    at = emit_instruction(out, at, BPF_JMP | BPF_JEQ | BPF_K, 6, 1, 0);
    size_t ipv4 = at;
    at = emit_instruction(out, at, BPF_JMP | BPF_JA, 0, 0, 0);
    at = emit_load(out, at, BPF_W, SOURCE6);
    for (size_t i = 0; i < prefixes; i++) { /* the masks are nested, so A need not be loaded anew */
        at = emit_instruction(out, at, BPF_ALU | BPF_AND | BPF_K, prefix[i].mask, 0, 0);
        at = emit_instruction(out, at, BPF_JMP | BPF_JEQ | BPF_K, prefix[i].value, 0, 0);
        local[i] = at - 1;
    }
    at = emit_half(key, out, at, SOURCE6);
    size_t network_end = at;
    at = emit_instruction(out, at, BPF_JMP | BPF_JA, 0, 0, 0);
    for (size_t i = 0; i < prefixes; i++)
        out[local[i]].jt = (uint8_t)(at - local[i] - 1);
    at = emit_half(key, out, at, SOURCE6 + 8);
    size_t local_end = at;
    at = emit_instruction(out, at, BPF_JMP | BPF_JA, 0, 0, 0);
    land_jump(out, ipv4, at);
    at = emit_load(out, at, BPF_W, SOURCE4);
    at = emit_mix(out, at, key->word[0], key->word[1]);
    land_jump(out, network_end, at);
    land_jump(out, local_end, at);
    return at;
}

size_t fld_selector(const struct fld_hash_key *key, unsigned threads, struct sock_filter *out)
{
    size_t at = emit_hash(key, out);
    at = emit_instruction(out, at, BPF_ALU | BPF_MOD | BPF_K, threads, 0, 0);
    return emit_instruction(out, at, BPF_RET | BPF_A, 0, 0, 0);
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

/* Choose the sources to block by the turn that ends. 1: they are not the same as before. */
static int choose_blocked(struct fld *f)
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

int fld_turn(struct fld *f, int64_t raw_ns, const struct fld_load *load, double cpu_limit)
{
    double before = f->share;
    int changed;
    if (load->queue > load->room / 2 && load->queue >= f->queue) /* and not draining already */
        f->share = f->share / 2 > share_least ? f->share / 2 : share_least;
    f->queue = load->queue;
    if (raw_ns - f->turned_ns < turn_ns)
        return f->share != before;
    double used = (double)(load->cpu_ns - f->cpu_ns) / (double)(raw_ns - f->turned_ns);
    changed = choose_blocked(f);
    if (cpu_limit < 1 && used > cpu_limit && f->turned_ns) {
        f->share *= cpu_limit / used;
        f->share = f->share > share_least ? f->share : share_least;
    } else if (f->share < 1 && load->queue <= load->room / 8 && used < 0.9 * cpu_limit) {
        f->share = f->share * 1.25 < 1 ? f->share * 1.25 : 1;
    }
    f->turned_ns = raw_ns;
    f->cpu_ns = load->cpu_ns;
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

void fld_know(struct fld *f, struct acl_client who)
{
    if (f->known_count < f->known_room)
        f->known[f->known_count++] = fld_hash(&f->key, who);
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

/* Verdicts. Their code is at the end, so jumps to them land when its place is known. Until then k is the verdict and jt is 1. */
enum verdict { PASS, BLOCKED, UNKNOWN, VERDICTS };
static const uint32_t accept = 0xffffffff; /* bytes of the packet that pass: all */

static void append_instruction(struct fld *f, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    f->length = emit_instruction(f->code, f->length, code, k, yes, no);
}

static void append_tree(struct fld *f, const struct entry *entries, size_t count)
{
    if (count <= LEAF) {
        for (size_t i = 0; i < count; i++) {
            append_instruction(f, BPF_JMP | BPF_JEQ | BPF_K, entries[i].hash, 0, 1);
            append_instruction(f, BPF_JMP | BPF_JA, entries[i].blocked ? BLOCKED : PASS, 1, 0);
        }
        append_instruction(f, BPF_JMP | BPF_JA, UNKNOWN, 1, 0);
        return;
    }
    size_t middle = count / 2;
    append_instruction(f, BPF_JMP | BPF_JGE | BPF_K, entries[middle].hash, 1, 0);
    size_t jump = f->length;
    append_instruction(f, BPF_JMP | BPF_JA, 0, 0, 0);
    append_tree(f, entries + middle, count - middle);
    land_jump(f->code, jump, f->length);
    append_tree(f, entries, middle);
}

/* Let a packet pass with the probability `share`. */
static void append_chance(struct fld *f, double share)
{
    uint32_t limit = share >= 1 ? UINT32_MAX : (uint32_t)(share * UINT32_MAX);
    append_instruction(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM), 0, 0);
    append_instruction(f, BPF_JMP | BPF_JGT | BPF_K, limit, 0, 1);
    append_instruction(f, BPF_RET | BPF_K, 0, 0, 0);
    append_instruction(f, BPF_RET | BPF_K, accept, 0, 0);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return y->blocked - x->blocked; /* blocked first */
}

static size_t collect_entries(struct fld *f)
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
    size_t place[VERDICTS];
    size_t count = collect_entries(f);
    if (f->share >= 1 && count == 0)
        return 0;
    f->code = out;
    f->length = emit_hash(&f->key, out);
    append_tree(f, f->entries, count);
    size_t tree = f->length;
    place[PASS] = f->length;
    append_instruction(f, BPF_RET | BPF_K, accept, 0, 0);
    place[BLOCKED] = f->length;
    append_chance(f, leak ? 1.0 / leak : 0);
    place[UNKNOWN] = f->length;
    append_chance(f, f->share);
    for (size_t i = 0; i < tree; i++)
        if (out[i].code == (BPF_JMP | BPF_JA) && out[i].jt) {
            land_jump(out, i, place[out[i].k]);
            out[i].jt = 0;
        }
    return f->length;
}
