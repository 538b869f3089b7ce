/* A client of NTS: requests as a client sends them, and replies as it reads them. Cookies are sealed here from the server's key. */
#ifndef NTS_CLIENT_H
#define NTS_CLIENT_H
#include <string.h>

#include "check.h"
#include "gcmsiv.h"
#include "nts.h"
#include "siv.h"

enum { CLIENT_FIRST = 20000, CLIENT_KEYS = 4, CLIENT_PRESENT = 20002, CLIENT_UNIQUE = 32, CLIENT_NONCE = 16, CLIENT_ROOM = 2048,
       UNIQUE_FIELD = 0x0104, COOKIE_FIELD = 0x0204, PLACEHOLDER_FIELD = 0x0304, AUTHENTICATOR_FIELD = 0x0404 };

struct client {
    size_t key; /* bytes of its keys, which tell its cipher: NTS_KEY, NTS_SHORT_KEY */
    uint8_t c2s[NTS_KEY], s2c[NTS_KEY];
    uint8_t packet[CLIENT_ROOM];
    size_t length;
};

/* The key of the server with that id. */
static inline void client_cookie_key(uint32_t id, uint8_t key[NTS_KEY])
{
    memset(key, (int)(id & 0xff), NTS_KEY);
    key[0] = 1;
}

static inline void client_server_keys(struct nts_keys **out)
{
    uint8_t keys[CLIENT_KEYS][NTS_KEY];
    for (uint32_t i = 0; i < CLIENT_KEYS; i++)
        client_cookie_key(CLIENT_FIRST + i, keys[i]);
    CHECK_EQUAL(nts_create(CLIENT_FIRST, CLIENT_KEYS, keys[0], CLIENT_PRESENT, out), 0);
}

static inline size_t client_cookie_length(const struct client *c)
{
    return c->key == NTS_KEY ? NTS_COOKIE : NTS_SHORT_COOKIE;
}

/* Begin a request, whose header has mode 3 of version 4. */
static inline void client_begin(struct client *c)
{
    c->key = NTS_KEY;
    for (size_t i = 0; i < NTS_KEY; i++) {
        c->c2s[i] = (uint8_t)(i + 1);
        c->s2c[i] = (uint8_t)(i + 101);
    }
    memset(c->packet, 0, sizeof c->packet);
    c->packet[0] = 4 << 3 | 3;
    c->packet[40] = 0xab;
    c->length = 48;
}

static inline void client_put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Append a field; its body, which the caller may change. */
static inline uint8_t *client_field(struct client *c, unsigned type, const void *body, size_t length)
{
    uint8_t *at = c->packet + c->length;
    client_put16(at, type);
    client_put16(at + 2, 4 + length);
    if (body)
        memcpy(at + 4, body, length);
    c->length += 4 + length;
    return at + 4;
}

static inline void client_unique(struct client *c, size_t length)
{
    memset(client_field(c, UNIQUE_FIELD, NULL, length), 0x55, length);
}

static inline void client_cookie(struct client *c, uint32_t id)
{
    uint8_t cookie[NTS_COOKIE] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id, 7}, text[2 * NTS_KEY], key[NTS_KEY];
    const struct siv_data nonce = {cookie + 4, CLIENT_NONCE};
    struct siv_key expanded;
    client_cookie_key(id, key);
    memcpy(text, c->c2s, c->key);
    memcpy(text + c->key, c->s2c, c->key);
    siv_expand(&expanded, key, 0);
    siv_seal(&expanded, &nonce, 1, text, 2 * c->key, cookie + 4 + CLIENT_NONCE);
    client_field(c, COOKIE_FIELD, cookie, client_cookie_length(c));
}

static inline void client_placeholders(struct client *c, int count)
{
    while (count-- > 0)
        client_field(c, PLACEHOLDER_FIELD, NULL, client_cookie_length(c));
}

/* Append the authenticator with a sealed text and more padding; a nonce of at most 64 bytes. */
static inline void client_seal(struct client *c, const uint8_t *text, size_t length, size_t nonce_length, size_t padding)
{
    uint8_t body[CLIENT_ROOM] = {0}, nonce[64];
    size_t at = 4 + (nonce_length + 3) / 4 * 4;
    const struct siv_data data[2] = {{c->packet, c->length}, {nonce, nonce_length}};
    memset(nonce, 0x77, sizeof nonce);
    client_put16(body, nonce_length);
    client_put16(body + 2, SIV_TAG + length);
    memcpy(body + 4, nonce, nonce_length);
    if (c->key == NTS_KEY) {
        struct siv_key key;
        siv_expand(&key, c->c2s, 0);
        siv_seal(&key, data, 2, text, length, body + at);
    } else {
        struct gcm_key key;
        gcm_expand(&key, c->c2s);
        gcm_seal(&key, nonce, c->packet, c->length, text, length, body + at);
    }
    client_field(c, AUTHENTICATOR_FIELD, body, at + (SIV_TAG + length + 3) / 4 * 4 + padding);
}

/* A request as chrony and others send it, which asks for 1 + placeholders cookies. */
static inline void client_request(struct client *c, uint32_t id, int placeholders)
{
    const uint8_t none = 0;
    client_begin(c);
    client_unique(c, CLIENT_UNIQUE);
    client_cookie(c, id);
    client_placeholders(c, placeholders);
    client_seal(c, &none, 0, CLIENT_NONCE, 0);
}

/* The same with AEAD 30. */
static inline void client_short_request(struct client *c, uint32_t id, int placeholders)
{
    const uint8_t none = 0;
    client_begin(c);
    c->key = NTS_SHORT_KEY;
    client_unique(c, CLIENT_UNIQUE);
    client_cookie(c, id);
    client_placeholders(c, placeholders);
    client_seal(c, &none, 0, GCM_NONCE, 0);
}

/* Read the reply to the request: the number of its cookies, which are the bytes from *cookies on, each with its field's head; -1: it is not
 * what RFC 8915 5.7 says. */
static inline int client_read(const struct client *c, const uint8_t *reply, size_t length, uint8_t cookies[8 * (4 + NTS_COOKIE)])
{
    size_t unique = (size_t)c->packet[50] << 8 | c->packet[51], at = 48 + unique, nonce_length = c->key == NTS_KEY ? CLIENT_NONCE : GCM_NONCE;
    size_t cookie = 4 + client_cookie_length(c);
    if (length < at + 8 + nonce_length + SIV_TAG || memcmp(reply + 48, c->packet + 48, unique) != 0)
        return -1;
    const uint8_t *field = reply + at, *nonce = field + 8;
    size_t field_length = (size_t)field[2] << 8 | field[3], sealed = (size_t)field[6] << 8 | field[7];
    const struct siv_data data[2] = {{reply, at}, {nonce, nonce_length}};
    if (field[0] != 4 || field[1] != 4 || at + field_length != length || field[5] != nonce_length || field_length != 8 + nonce_length + sealed)
        return -1;
    if (sealed < SIV_TAG || sealed > SIV_TAG + 8 * cookie || (sealed - SIV_TAG) % cookie != 0)
        return -1;
    if (c->key == NTS_KEY) {
        struct siv_key key;
        siv_expand(&key, c->s2c, 0);
        if (!siv_open(&key, data, 2, nonce + nonce_length, sealed, cookies))
            return -1;
    } else {
        struct gcm_key key;
        gcm_expand(&key, c->s2c);
        if (!gcm_open(&key, nonce, reply, at, nonce + nonce_length, sealed, cookies))
            return -1;
    }
    return (int)((sealed - SIV_TAG) / cookie);
}
#endif
