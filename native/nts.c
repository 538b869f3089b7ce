#include "nts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gcmsiv.h"
#include "siv.h"

/* Extension fields: type (2 bytes), length (2), body (RFC 7822 7.5; types: RFC 8915 7.5). */
enum { FIELD_UNIQUE = 0x0104, FIELD_COOKIE = 0x0204, FIELD_PLACEHOLDER = 0x0304 };
enum { FIELD_HEAD = 4, FIELD_MIN = 16, UNIQUE_MIN = 32 /* RFC 8915 5.3 */, PADDED = 4 };
/* The authenticator's body: length of the nonce (2), of the sealed text (2), both padded, then padding (RFC 8915 5.6). */
enum { LENGTHS = 4, NONCE = 16, TAG = 16 };
/* A cookie (nts.h). */
enum { COOKIE_NONCE = 4, COOKIE_SEALED = COOKIE_NONCE + NONCE, COOKIE_TEXT = 2 * NTS_KEY, COOKIE_FIELD = FIELD_HEAD + NTS_COOKIE };
enum { SEALED_MAX = 2048 /* bytes: of a whole request */ };
_Static_assert(COOKIE_SEALED + SIV_TAG + COOKIE_TEXT == NTS_COOKIE, "a cookie's parts make a cookie");
_Static_assert(COOKIE_SEALED + SIV_TAG + 2 * NTS_SHORT_KEY == NTS_SHORT_COOKIE, "and those of a short one");

/* What the cipher of a client changes, bytes. nonce: of ours, for which a client must leave room. */
struct nts_cipher {
    size_t key, nonce, cookie;
};
static const struct nts_cipher siv_cmac = {NTS_KEY, NONCE, NTS_COOKIE}, gcm_siv = {NTS_SHORT_KEY, GCM_NONCE, NTS_SHORT_COOKIE};

struct nts_keys {
    uint32_t first;
    size_t count, present; /* present: place of the key that cookies are sealed with */
    struct siv_key key[];
};

struct nts_nonces {
    struct aes128_ctx key;
    uint64_t used;
};

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static size_t padded(size_t length)
{
    return (length + PADDED - 1) / PADDED * PADDED;
}

/* ---- keys and nonces ------------------------------------------------------------------------------------------------------------- */

/* Zero memory; the compiler may not leave it out. */
static void wipe_memory(void *at, size_t length)
{
    memset(at, 0, length);
    __asm__ volatile("" : : "r"(at) : "memory");
}

int nts_create(uint32_t first, size_t count, const uint8_t *keys, uint32_t present, struct nts_keys **out)
{
    *out = NULL;
    if (count == 0 || count > NTS_KEYS_MAX || first > UINT32_MAX - (count - 1) || present < first || present - first >= count)
        return -EINVAL;
    struct nts_keys *k = malloc(sizeof *k + count * sizeof k->key[0]);
    if (!k)
        return -ENOMEM;
    k->first = first;
    k->count = count;
    k->present = present - first;
    for (size_t i = 0; i < count; i++)
        siv_expand(&k->key[i], keys + i * NTS_KEY, 0);
    *out = k;
    return 0;
}

void nts_destroy(struct nts_keys *keys)
{
    if (!keys)
        return;
    wipe_memory(keys->key, keys->count * sizeof keys->key[0]);
    free(keys);
}

int nts_nonces_create(const uint8_t seed[NTS_SEED], struct nts_nonces **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    aes128_set_encrypt_key(&(*out)->key, seed);
    return 0;
}

void nts_nonces_destroy(struct nts_nonces *nonces)
{
    if (!nonces)
        return;
    wipe_memory(nonces, sizeof *nonces);
    free(nonces);
}

static void draw_nonce(struct nts_nonces *nonces, uint8_t *nonce)
{
    uint8_t counter[SIV_BLOCK] = {0};
    memcpy(counter, &nonces->used, sizeof nonces->used);
    nonces->used++;
    aes128_encrypt(&nonces->key, NONCE, nonce, counter);
}

/* ---- a request ------------------------------------------------------------------------------------------------------------------- */

/* Take the authenticator's parts. 0: it is malformed. */
static int find_authenticator(const uint8_t *field, struct nts_request *found)
{
    size_t body = get16(field + 2) - FIELD_HEAD, nonce = get16(field + FIELD_HEAD), sealed = get16(field + FIELD_HEAD + 2);
    size_t used = LENGTHS + padded(nonce) + padded(sealed), room = found->cipher ? found->cipher->nonce : NONCE;
    if (nonce == 0 || sealed < TAG || used > body)
        return 0;
    if (padded(nonce) < room && body - used < room - padded(nonce)) /* no room for the reply's nonce: RFC 8915 5.6 has us discard it */
        return 0;
    found->nonce = field + FIELD_HEAD + LENGTHS;
    found->nonce_length = nonce;
    found->sealed = found->nonce + padded(nonce);
    found->sealed_length = sealed;
    return 1;
}

enum nts_verdict nts_find(const uint8_t *packet, size_t fields, size_t authenticator, size_t length, struct nts_request *found)
{
    size_t uniques = 0, cookies = 0, placeholders = 0, short_ones = 0;
    *found = (struct nts_request){.covered = authenticator, .length = length, .wanted = 1};
    for (size_t at = fields; at < authenticator; at += get16(packet + at + 2)) {
        const uint8_t *body = packet + at + FIELD_HEAD;
        size_t body_length = get16(packet + at + 2) - FIELD_HEAD;
        switch (get16(packet + at)) {
        case FIELD_UNIQUE:
            found->unique = body;
            found->unique_length = body_length;
            uniques++;
            break;
        case FIELD_COOKIE:
            found->cookie = body;
            found->cookie_length = body_length;
            cookies++;
            break;
        case FIELD_PLACEHOLDER:
            placeholders += body_length == NTS_COOKIE;
            short_ones += body_length == NTS_SHORT_COOKIE;
            break;
        default:
            break;
        }
    }
    if (uniques != 1 || cookies != 1 || found->unique_length < UNIQUE_MIN || found->unique_length > NTS_UNIQUE_MAX)
        return NTS_MALFORMED;
    found->cipher = found->cookie_length == NTS_COOKIE ? &siv_cmac : found->cookie_length == NTS_SHORT_COOKIE ? &gcm_siv : NULL;
    found->wanted += found->cipher == &gcm_siv ? short_ones : placeholders;
    return find_authenticator(packet + authenticator, found) ? NTS_VALID : NTS_MALFORMED;
}

/* Count the placeholders of cookies of so many bytes among fields that were sealed. What is no field ends them. */
static size_t count_placeholders(const uint8_t *fields, size_t length, size_t cookie)
{
    size_t count = 0;
    for (size_t at = 0, size; length - at >= FIELD_MIN; at += size) {
        size = get16(fields + at + 2);
        if (size < FIELD_MIN || size % PADDED != 0 || size > length - at)
            break;
        count += get16(fields + at) == FIELD_PLACEHOLDER && size == FIELD_HEAD + cookie;
    }
    return count;
}

/* Take the keys that its cookie holds: C2S, S2C. 0: it is none of ours. */
static int open_cookie(const struct nts_keys *keys, struct nts_request *found)
{
    const uint8_t *cookie = found->cookie;
    if (!found->cipher || get32(cookie) - keys->first >= keys->count)
        return 0;
    const struct siv_data nonce = {cookie + COOKIE_NONCE, NONCE};
    const struct siv_key *key = &keys->key[get32(cookie) - keys->first];
    return siv_open(key, &nonce, 1, cookie + COOKIE_SEALED, found->cookie_length - COOKIE_SEALED, found->keys);
}

/* Open what it has sealed. 0: it is not genuine. */
static int open_sealed(const struct nts_request *found, const uint8_t *packet, uint8_t *text)
{
    if (found->cipher == &gcm_siv) {
        struct gcm_key c2s;
        gcm_expand(&c2s, found->keys);
        return found->nonce_length == GCM_NONCE && gcm_open(&c2s, found->nonce, packet, found->covered, found->sealed, found->sealed_length, text);
    }
    const struct siv_data data[2] = {{packet, found->covered}, {found->nonce, found->nonce_length}};
    struct siv_key c2s;
    siv_expand(&c2s, found->keys, found->sealed_length == SIV_TAG);
    return siv_open(&c2s, data, 2, found->sealed, found->sealed_length, text);
}

enum nts_verdict nts_verify(const struct nts_keys *keys, const uint8_t *packet, struct nts_request *found)
{
    uint8_t text[SEALED_MAX];
    if (!open_cookie(keys, found) || !open_sealed(found, packet, text))
        return NTS_REFUSED;
    found->wanted += count_placeholders(text, found->sealed_length - TAG, found->cipher->cookie);
    return NTS_VALID;
}

/* ---- a reply --------------------------------------------------------------------------------------------------------------------- */

static size_t put_unique(const struct nts_request *found, uint8_t *reply, size_t at)
{
    put16(reply + at, FIELD_UNIQUE);
    put16(reply + at + 2, FIELD_HEAD + found->unique_length);
    memcpy(reply + at + FIELD_HEAD, found->unique, found->unique_length);
    return at + FIELD_HEAD + found->unique_length;
}

static void put_cookie(const struct nts_keys *keys, struct nts_nonces *nonces, const struct nts_request *found, uint8_t *field)
{
    uint8_t *cookie = field + FIELD_HEAD;
    uint32_t id = keys->first + (uint32_t)keys->present;
    put16(field, FIELD_COOKIE);
    put16(field + 2, FIELD_HEAD + found->cipher->cookie);
    put16(cookie, id >> 16);
    put16(cookie + 2, id & 0xffff);
    draw_nonce(nonces, cookie + COOKIE_NONCE);
    const struct siv_data nonce = {cookie + COOKIE_NONCE, NONCE};
    siv_seal(&keys->key[keys->present], &nonce, 1, found->keys, 2 * found->cipher->key, cookie + COOKIE_SEALED);
}

/* How many cookies the reply has: it must not be longer than the request, of which `without` bytes are left for them. */
static size_t cookies_of(const struct nts_request *found, size_t without)
{
    size_t room = (found->length - without) / (FIELD_HEAD + found->cipher->cookie);
    size_t wanted = found->wanted < NTS_COOKIES_MAX ? found->wanted : NTS_COOKIES_MAX;
    return wanted < room ? wanted : room;
}

/* Seal a text beside the first `covered` bytes of the reply, and a nonce. */
static void seal(const struct nts_request *found, const uint8_t *reply, size_t covered, const uint8_t *nonce, const uint8_t *text,
                 size_t length, uint8_t *out)
{
    const uint8_t *secret = found->keys + found->cipher->key;
    if (found->cipher == &gcm_siv) {
        struct gcm_key s2c;
        gcm_expand(&s2c, secret);
        gcm_seal(&s2c, nonce, reply, covered, text, length, out);
        return;
    }
    const struct siv_data data[2] = {{reply, covered}, {nonce, NONCE}};
    struct siv_key s2c;
    siv_expand(&s2c, secret, 0);
    siv_seal(&s2c, data, 2, text, length, out);
}

size_t nts_seal(const struct nts_keys *keys, struct nts_nonces *nonces, const struct nts_request *found, uint8_t *reply, size_t header)
{
    uint8_t cookies[NTS_COOKIES_MAX * COOKIE_FIELD], nonce[NONCE];
    size_t field = FIELD_HEAD + found->cipher->cookie, at = put_unique(found, reply, header), body = at + FIELD_HEAD + LENGTHS;
    size_t sealed = body + found->cipher->nonce, length = cookies_of(found, sealed + TAG) * field, end = sealed + TAG + length;
    for (size_t i = 0; i < length; i += field)
        put_cookie(keys, nonces, found, cookies + i);
    put16(reply + at, NTS_FIELD_AUTHENTICATOR);
    put16(reply + at + 2, end - at);
    put16(reply + at + FIELD_HEAD, found->cipher->nonce);
    put16(reply + at + FIELD_HEAD + 2, TAG + length);
    draw_nonce(nonces, nonce);
    memcpy(reply + body, nonce, found->cipher->nonce);
    seal(found, reply, at, nonce, cookies, length, reply + sealed);
    return end;
}

size_t nts_refuse(const struct nts_request *found, uint8_t *reply, size_t header)
{
    return put_unique(found, reply, header);
}
