/* The server's half of NTS (RFC 8915 5): which requests are genuine, and what their replies carry. */
#include "nts.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "nts_client.h"

enum { HEADER = 48, FIELD = 4 + NTS_COOKIE };
static struct nts_keys *keys;
static struct nts_nonces *nonces;
static const uint8_t nothing;

/* Look at the client's request, whose fields are sound. */
static enum nts_verdict check(const struct client *c, struct nts_request *found)
{
    size_t at = HEADER;
    while (at < c->length && (c->packet[at] != 4 || c->packet[at + 1] != 4))
        at += (size_t)c->packet[at + 2] << 8 | c->packet[at + 3];
    CHECK(at < c->length);
    enum nts_verdict verdict = nts_find(c->packet, HEADER, at, c->length, found);
    return verdict == NTS_VALID ? nts_verify(keys, c->packet, found) : verdict;
}

/* The cookies of the reply to a valid request. */
static int cookies_of_reply(const struct client *c, uint8_t *cookies)
{
    struct nts_request found;
    uint8_t reply[CLIENT_ROOM] = {4 << 3 | 4};
    CHECK_EQUAL(check(c, &found), NTS_VALID);
    size_t length = nts_seal(keys, nonces, &found, reply, HEADER);
    CHECK(length <= c->length);
    return client_read(c, reply, length, cookies);
}

static void a_reply_has_a_cookie_for_the_one_used_and_for_each_placeholder(void)
{
    uint8_t cookies[8 * FIELD];
    struct client c;
    for (int placeholders = 0; placeholders < 12; placeholders++) {
        client_request(&c, CLIENT_PRESENT, placeholders);
        CHECK_EQUAL(cookies_of_reply(&c, cookies), placeholders < 8 ? placeholders + 1 : 8);
    }
}

static void a_new_cookie_is_of_the_present_key_and_serves_again(void)
{
    uint8_t cookies[8 * FIELD], again[8 * FIELD];
    struct client c;
    client_request(&c, CLIENT_FIRST, 7);
    CHECK_EQUAL(cookies_of_reply(&c, cookies), 8);
    for (int i = 0; i < 8; i++) {
        const uint8_t *cookie = cookies + i * FIELD;
        CHECK(cookie[0] == 2 && cookie[1] == 4 && cookie[3] == FIELD);
        CHECK_EQUAL((uint32_t)cookie[4] << 24 | (uint32_t)cookie[5] << 16 | (uint32_t)cookie[6] << 8 | cookie[7], CLIENT_PRESENT);
        for (int j = 0; j < i; j++)
            CHECK(memcmp(cookie + 8, cookies + j * FIELD + 8, 16) != 0); /* no nonce twice */
        client_begin(&c);
        client_unique(&c, CLIENT_UNIQUE);
        client_field(&c, COOKIE_FIELD, cookie + 4, NTS_COOKIE);
        client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
        CHECK_EQUAL(cookies_of_reply(&c, again), 1);
    }
}

static void a_client_with_aead_30_gets_short_cookies(void)
{
    uint8_t cookies[8 * FIELD], again[8 * FIELD];
    struct nts_request found;
    struct client c;
    for (int placeholders = 0; placeholders < 12; placeholders++) {
        client_short_request(&c, CLIENT_FIRST, placeholders);
        CHECK_EQUAL(cookies_of_reply(&c, cookies), placeholders < 8 ? placeholders + 1 : 8);
    }
    CHECK_EQUAL(cookies[3], 4 + NTS_SHORT_COOKIE);
    client_begin(&c);
    c.key = NTS_SHORT_KEY;
    client_unique(&c, CLIENT_UNIQUE);
    client_field(&c, COOKIE_FIELD, cookies + 4, NTS_SHORT_COOKIE);
    client_seal(&c, &nothing, 0, GCM_NONCE, 0);
    CHECK_EQUAL(cookies_of_reply(&c, again), 1);
    for (size_t nonce = 1; nonce <= 20; nonce++) { /* its nonces have one length (RFC 8452 6) */
        client_begin(&c);
        c.key = NTS_SHORT_KEY;
        client_unique(&c, CLIENT_UNIQUE);
        client_cookie(&c, CLIENT_PRESENT);
        client_seal(&c, &nothing, 0, nonce, 12);
        CHECK_EQUAL(check(&c, &found), nonce == GCM_NONCE ? NTS_VALID : NTS_REFUSED);
    }
}

static void a_short_request_that_was_changed_anywhere_is_refused(void)
{
    const size_t cookie = HEADER + 4 + CLIENT_UNIQUE, authenticator = cookie + 4 + NTS_SHORT_COOKIE;
    struct nts_request found;
    struct client c;
    client_short_request(&c, CLIENT_PRESENT, 0);
    for (size_t at = 0; at < c.length; at++) {
        if ((at >= HEADER && at < HEADER + 4) || (at >= cookie && at < cookie + 4) || (at >= authenticator && at < authenticator + 8))
            continue; /* heads of fields */
        c.packet[at] ^= 0x10;
        CHECK_EQUAL(check(&c, &found), NTS_REFUSED);
        c.packet[at] ^= 0x10;
    }
    CHECK_EQUAL(check(&c, &found), NTS_VALID);
}

static void a_cookie_is_taken_as_long_as_its_key_is_kept(void)
{
    struct nts_request found;
    struct client c;
    for (uint32_t id = CLIENT_FIRST - 2; id < CLIENT_FIRST + CLIENT_KEYS + 2; id++) {
        client_request(&c, id, 0);
        CHECK_EQUAL(check(&c, &found), id >= CLIENT_FIRST && id < CLIENT_FIRST + CLIENT_KEYS ? NTS_VALID : NTS_REFUSED);
    }
}

static void a_request_that_was_changed_anywhere_is_refused(void)
{
    struct nts_request found;
    struct client c;
    client_request(&c, CLIENT_PRESENT, 1);
    for (size_t at = 0; at < c.length; at++) {
        size_t cookie = HEADER + 4 + CLIENT_UNIQUE, placeholder = cookie + FIELD, authenticator = placeholder + FIELD;
        int head = (at >= HEADER && at < HEADER + 4) || (at >= cookie && at < cookie + 4) || (at >= placeholder && at < placeholder + 4) ||
                   (at >= authenticator && at < authenticator + 8);
        if (head)
            continue; /* other fields: below */
        c.packet[at] ^= 0x10;
        CHECK_EQUAL(check(&c, &found), NTS_REFUSED);
        c.packet[at] ^= 0x10;
    }
    CHECK_EQUAL(check(&c, &found), NTS_VALID);
}

static void exactly_one_unique_identifier_of_32_bytes_or_more(void)
{
    uint8_t cookies[8 * FIELD];
    struct nts_request found;
    struct client c;
    for (size_t length = 12; length <= NTS_UNIQUE_MAX + 4; length += 4) {
        client_begin(&c);
        client_unique(&c, length);
        client_cookie(&c, CLIENT_PRESENT);
        client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
        CHECK_EQUAL(check(&c, &found), length >= 32 && length <= NTS_UNIQUE_MAX ? NTS_VALID : NTS_MALFORMED);
        if (length >= 32 && length <= NTS_UNIQUE_MAX)
            CHECK_EQUAL(cookies_of_reply(&c, cookies), 1);
    }
    for (int uniques = 0; uniques <= 2; uniques++) {
        client_begin(&c);
        for (int i = 0; i < uniques; i++)
            client_unique(&c, CLIENT_UNIQUE);
        client_cookie(&c, CLIENT_PRESENT);
        client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
        CHECK_EQUAL(check(&c, &found), uniques == 1 ? NTS_VALID : NTS_MALFORMED);
    }
}

static void exactly_one_cookie(void)
{
    struct nts_request found;
    struct client c;
    for (int cookies = 0; cookies <= 2; cookies++) {
        client_begin(&c);
        client_unique(&c, CLIENT_UNIQUE);
        for (int i = 0; i < cookies; i++)
            client_cookie(&c, CLIENT_PRESENT);
        client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
        CHECK_EQUAL(check(&c, &found), cookies == 1 ? NTS_VALID : NTS_MALFORMED);
    }
}

static void a_cookie_of_another_length_is_refused(void)
{
    static const uint8_t foreign[200] = {0, 0, CLIENT_PRESENT >> 8, CLIENT_PRESENT & 0xff};
    struct nts_request found;
    struct client c;
    for (size_t length = 12; length <= sizeof foreign; length += 4) {
        client_begin(&c);
        client_unique(&c, CLIENT_UNIQUE);
        client_field(&c, COOKIE_FIELD, foreign, length);
        client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
        CHECK_EQUAL(check(&c, &found), NTS_REFUSED);
    }
}

static void a_placeholder_counts_when_it_is_as_long_as_the_cookie(void)
{
    uint8_t cookies[8 * FIELD];
    struct client c;
    client_begin(&c);
    client_unique(&c, CLIENT_UNIQUE);
    client_cookie(&c, CLIENT_PRESENT);
    client_field(&c, PLACEHOLDER_FIELD, NULL, NTS_COOKIE - 4);
    client_field(&c, PLACEHOLDER_FIELD, NULL, NTS_COOKIE + 4);
    memset(client_field(&c, PLACEHOLDER_FIELD, NULL, NTS_COOKIE), 0xff, NTS_COOKIE); /* its content does not matter */
    client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
    CHECK_EQUAL(cookies_of_reply(&c, cookies), 2);
}

static void placeholders_may_be_sealed(void)
{
    uint8_t cookies[8 * FIELD], text[3 * FIELD] = {0};
    struct client c;
    for (int i = 0; i < 3; i++) {
        client_put16(text + i * FIELD, PLACEHOLDER_FIELD);
        client_put16(text + i * FIELD + 2, FIELD);
    }
    for (int damaged = 0; damaged <= 1; damaged++) {
        if (damaged)
            text[2 * FIELD + 3]++; /* a length that is no field's: it and what follows are passed over */
        client_begin(&c);
        client_unique(&c, CLIENT_UNIQUE);
        client_cookie(&c, CLIENT_PRESENT);
        client_seal(&c, text, sizeof text, CLIENT_NONCE, 0);
        CHECK_EQUAL(cookies_of_reply(&c, cookies), damaged ? 3 : 4);
    }
}

static void what_is_behind_the_authenticator_is_passed_over(void)
{
    uint8_t cookies[8 * FIELD];
    struct client c;
    client_request(&c, CLIENT_PRESENT, 1);
    client_placeholders(&c, 3);
    client_unique(&c, CLIENT_UNIQUE);
    client_cookie(&c, CLIENT_FIRST);
    CHECK_EQUAL(cookies_of_reply(&c, cookies), 2);
}

static void fields_of_other_kinds_are_passed_over(void)
{
    struct nts_request found;
    struct client c;
    client_begin(&c);
    client_field(&c, 0xf5ff, NULL, 36);
    client_cookie(&c, CLIENT_PRESENT);
    client_field(&c, 0x0002, NULL, 16);
    client_unique(&c, CLIENT_UNIQUE);
    client_seal(&c, &nothing, 0, CLIENT_NONCE, 0);
    CHECK_EQUAL(check(&c, &found), NTS_VALID);
    CHECK_EQUAL(found.wanted, 1);
}

static void a_short_nonce_needs_padding_for_ours(void)
{
    uint8_t cookies[8 * FIELD];
    struct nts_request found;
    struct client c;
    for (size_t nonce = 1; nonce <= 40; nonce++)
        for (size_t padding = 0; padding <= 16; padding += 4) {
            client_begin(&c);
            client_unique(&c, CLIENT_UNIQUE);
            client_cookie(&c, CLIENT_PRESENT);
            client_seal(&c, &nothing, 0, nonce, padding);
            int enough = (nonce + 3) / 4 * 4 + padding >= 16;
            CHECK_EQUAL(check(&c, &found), enough ? NTS_VALID : NTS_MALFORMED);
            if (enough)
                CHECK_EQUAL(cookies_of_reply(&c, cookies), 1);
        }
}

static void lengths_that_lie_are_malformed(void)
{
    static const struct { size_t nonce, sealed; } lies[] = {{0, 16}, {16, 15}, {16, 0}, {20, 16}, {16, 17}, {16, 65535}, {65535, 16}, {65535, 65535}};
    struct nts_request found;
    struct client c;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        client_request(&c, CLIENT_PRESENT, 0);
        client_put16(c.packet + c.length - 36, lies[i].nonce);
        client_put16(c.packet + c.length - 34, lies[i].sealed);
        CHECK_EQUAL(check(&c, &found), NTS_MALFORMED);
    }
}

static void a_nak_carries_the_unique_identifier_alone(void)
{
    uint8_t reply[CLIENT_ROOM];
    struct nts_request found;
    struct client c;
    client_request(&c, 1, 3);
    CHECK_EQUAL(check(&c, &found), NTS_REFUSED);
    CHECK_EQUAL(nts_refuse(&found, reply, HEADER), HEADER + 4 + CLIENT_UNIQUE);
    CHECK(memcmp(reply + HEADER, c.packet + HEADER, 4 + CLIENT_UNIQUE) == 0);
}

static void a_set_has_keys_of_consecutive_ids_and_one_to_seal_with(void)
{
    static const uint8_t secrets[(NTS_KEYS_MAX + 1) * NTS_KEY];
    struct nts_keys *set;
    CHECK_EQUAL(nts_create(5, 0, secrets, 5, &set), -EINVAL);
    CHECK(!set);
    CHECK_EQUAL(nts_create(5, 3, secrets, 4, &set), -EINVAL);
    CHECK_EQUAL(nts_create(5, 3, secrets, 8, &set), -EINVAL);
    CHECK_EQUAL(nts_create(UINT32_MAX, 2, secrets, UINT32_MAX, &set), -EINVAL);
    CHECK_EQUAL(nts_create(5, NTS_KEYS_MAX + 1, secrets, 5, &set), -EINVAL);
    CHECK_EQUAL(nts_create(UINT32_MAX, 1, secrets, UINT32_MAX, &set), 0);
    nts_destroy(set);
    CHECK_EQUAL(nts_create(5, NTS_KEYS_MAX, secrets, 5, &set), 0);
    nts_destroy(set);
    nts_destroy(NULL);
    nts_nonces_destroy(NULL);
}

int main(void)
{
    static const uint8_t seed[NTS_SEED] = {9};
    client_server_keys(&keys);
    CHECK_EQUAL(nts_nonces_create(seed, &nonces), 0);
    RUN(a_reply_has_a_cookie_for_the_one_used_and_for_each_placeholder);
    RUN(a_new_cookie_is_of_the_present_key_and_serves_again);
    RUN(a_client_with_aead_30_gets_short_cookies);
    RUN(a_short_request_that_was_changed_anywhere_is_refused);
    RUN(a_cookie_is_taken_as_long_as_its_key_is_kept);
    RUN(a_request_that_was_changed_anywhere_is_refused);
    RUN(exactly_one_unique_identifier_of_32_bytes_or_more);
    RUN(exactly_one_cookie);
    RUN(a_cookie_of_another_length_is_refused);
    RUN(a_placeholder_counts_when_it_is_as_long_as_the_cookie);
    RUN(placeholders_may_be_sealed);
    RUN(what_is_behind_the_authenticator_is_passed_over);
    RUN(fields_of_other_kinds_are_passed_over);
    RUN(a_short_nonce_needs_padding_for_ours);
    RUN(lengths_that_lie_are_malformed);
    RUN(a_nak_carries_the_unique_identifier_alone);
    RUN(a_set_has_keys_of_consecutive_ids_and_one_to_seal_with);
    nts_destroy(keys);
    nts_nonces_destroy(nonces);
    return 0;
}
