/* packet: each rule of the server's only decision. */
#include "packet.h"

#include <string.h>

#include "check.h"
#include "nts_client.h"

static const int64_t second = 1000000000;
static struct pkt_context context;
static struct pkt_outcome outcome;
static uint8_t request[PKT_REQUEST_MAX + 1], reply[PKT_REPLY_MAX];
static int met[PKT_ACTIONS][PKT_REASONS];
static struct mac_keys *keys;
static struct nts_keys *cookie_keys;
static struct nts_nonces *nonces;
static const struct acl_address client = {0, 0xffffc0000205}; /* 192.0.2.5 */
enum { ELSEWHERE = 9 }; /* the key that may be used from 198.51.100.0/24 only */

static void make_keys(void)
{
    static const struct acl_range net[] = {{{0, 0}, ACL_DENY}, {{0, 0xffffc6336400}, ACL_ALLOW}, {{0, 0xffffc6336500}, ACL_DENY}};
    uint8_t secret[32];
    CHECK_EQUAL(mac_create(MAC_TYPES + 1, &keys), 0);
    for (int type = 0; type < MAC_TYPES; type++) {
        memset(secret, 0x41 + type, sizeof secret);
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1 + (uint32_t)type, type, secret, type == MAC_AES128 ? 16 : 32, NULL, 0}), 0);
    }
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){ELSEWHERE, MAC_SHA1, secret, 32, net, 3}), 0);
}

static void fresh(void)
{
    memset(&context, 0, sizeof context);
    context.source = client;
    context.access = ACL_ALLOW;
    context.record = (struct rec_params){.raw_ns = 1000 * second, .tai_ns = 1800000037 * second, .bound_ns = 1000,
                                         .reference_raw_ns = 999 * second + second / 2, .valid_until_raw_ns = 2000 * second,
                                         .tai_offset_s = 37, .refid = 0x47505300, .precision = -24, .stratum = 1};
    context.rx_raw_ns = 1001 * second + second / 4;
    context.tx_raw_ns = context.rx_raw_ns + 1000;
    context.source_port = 40000;
    memset(request, 0, sizeof request);
    request[0] = 4 << 3 | 3;
    request[2] = 6;
    memcpy(request + 40, "\x80\x01\x02\x03\x04\x05\x06\xff", 8);
}

static size_t respond(size_t length)
{
    memset(reply, 0xaa, sizeof reply);
    memset(&outcome, 0xff, sizeof outcome);
    size_t n = pkt_respond(&context, request, length, reply, &outcome);
    CHECK(outcome.action < PKT_ACTIONS && outcome.reason < PKT_REASONS);
    CHECK((n == 0) == (outcome.action == PKT_DROP));
    CHECK(n <= length);
    met[outcome.action][outcome.reason] = 1;
    return n;
}

/* Append the MAC that key `id` makes of the first `length` bytes: the new length. */
static size_t sign(size_t length, uint32_t id)
{
    const struct mac_key *key = mac_find(keys, id);
    size_t code = mac_length(key, request[0] >> 3 & 7);
    const uint8_t bytes[MAC_ID] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    memcpy(request + length, bytes, sizeof bytes);
    mac_make(key, request, length, request + length + MAC_ID, code);
    return length + MAC_ID + code;
}

static uint32_t get32(int offset)
{
    const uint8_t *p = reply + offset;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(int offset)
{
    return (uint64_t)get32(offset) << 32 | get32(offset + 4);
}

static void put64(int offset, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        request[offset + i] = (uint8_t)(value >> (56 - 8 * i));
}

static void check_dropped(size_t length, enum pkt_reason reason)
{
    CHECK_EQUAL(respond(length), 0);
    CHECK_EQUAL(outcome.action, PKT_DROP);
    CHECK_EQUAL(outcome.reason, reason);
    CHECK(reply[0] == 0xaa);
    CHECK(outcome.receive == 0 && outcome.transmit == 0 && outcome.authenticated == 0);
}

static void a_client_is_told_the_time(void)
{
    fresh();
    CHECK_EQUAL(respond(48), 48);
    CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_BASIC);
    CHECK_EQUAL(reply[0], 0 << 6 | 4 << 3 | 4);
    CHECK(reply[1] == 1 && reply[2] == 6 && reply[3] == (uint8_t)-24);
    CHECK_EQUAL(get32(4), 0);
    CHECK_EQUAL(get32(8), 1); /* 1000 ns: up to 2^-16 s */
    CHECK(memcmp(reply + 12, "GPS", 4) == 0);
    CHECK(get32(16) == (uint32_t)(1799999999 + 2208988800) && get32(20) == 0x80000000);
    CHECK(memcmp(reply + 24, request + 40, 8) == 0);
    CHECK(get32(32) == (uint32_t)(1800000001 + 2208988800) && get32(36) == 0x40000000);
    CHECK(get32(40) == (uint32_t)(1800000001 + 2208988800) && get32(44) == 0x40000000 + 4294);
}

static void versions_one_to_four_are_echoed_and_others_ignored(void)
{
    fresh();
    for (int version = 0; version < 8; version++) {
        request[0] = (uint8_t)(version << 3 | 3);
        if (version < 1 || version > 4)
            check_dropped(48, PKT_VERSION);
        else {
            CHECK_EQUAL(respond(48), 48);
            CHECK_EQUAL(reply[0] >> 3 & 7, version);
        }
    }
}

static void the_clients_leap_bits_do_not_matter(void)
{
    fresh();
    request[0] |= 0xc0;
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(reply[0] >> 6, 0);
}

static void modes_other_than_client_are_ignored(void)
{
    static const enum pkt_reason reasons[8] = {PKT_MODE_RESERVED, PKT_MODE_SYMMETRIC, PKT_MODE_SYMMETRIC, PKT_BASIC,
                                               PKT_MODE_SERVER, PKT_MODE_BROADCAST, PKT_MODE_CONTROL, PKT_MODE_PRIVATE};
    fresh();
    for (int version = 1; version <= 4; version++)
        for (int mode = 0; mode < 8; mode++) {
            request[0] = (uint8_t)(version << 3 | mode);
            if (mode == 3 || (mode == 0 && version == 1))
                continue;
            check_dropped(48, reasons[mode]); /* mode 1 too, where it is not allowed */
        }
}

static void version_one_without_a_mode_is_a_client_unless_it_is_a_server(void)
{
    fresh();
    request[0] = 1 << 3;
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(reply[0], 1 << 3 | 4);
    context.source_port = 123;
    check_dropped(48, PKT_MODE_RESERVED);
}

static void port_zero_cannot_be_answered(void)
{
    fresh();
    context.source_port = 0;
    check_dropped(48, PKT_PORT_ZERO);
}

static void a_request_to_everybody_is_answered_by_nobody(void)
{
    fresh();
    context.not_unicast = context.symmetric = context.may_kod = 1;
    check_dropped(48, PKT_NOT_UNICAST);
    request[0] = 4 << 3 | 1;
    check_dropped(48, PKT_NOT_UNICAST);
    context.over_rate = 1;
    check_dropped(48, PKT_NOT_UNICAST);
    context.access = ACL_DENY;
    check_dropped(48, PKT_NOT_UNICAST);
}

static void less_than_a_header_and_more_than_the_limit_are_ignored(void)
{
    fresh();
    for (size_t length = 0; length < 48; length++)
        check_dropped(length, PKT_SHORT);
    check_dropped(PKT_REQUEST_MAX + 1, PKT_LONG);
}

static void field(size_t at, unsigned type, size_t length)
{
    request[at] = (uint8_t)(type >> 8);
    request[at + 1] = (uint8_t)type;
    request[at + 2] = (uint8_t)(length >> 8);
    request[at + 3] = (uint8_t)length;
}

static void unknown_extension_fields_are_ignored(void)
{
    fresh();
    field(48, 0xf5ff, 28);
    CHECK_EQUAL(respond(48 + 28), 48);
    field(48, 0xf5ff, 16);
    field(64, 0x0104, 28);
    CHECK_EQUAL(respond(64 + 28), 48);
    field(48, 1, 2000);
    CHECK_EQUAL(respond(2048), 48);
    CHECK_EQUAL(outcome.reason, PKT_BASIC);
}

static void malformed_extension_fields_are_dropped(void)
{
    static const size_t lengths[] = {0, 4, 12, 15, 29, 30, 32, 65535};
    fresh();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        field(48, 7, lengths[i]);
        check_dropped(48 + 28, PKT_EXTENSION_MALFORMED);
    }
    field(48, 7, 16); /* the last one without MAC has at least 28 */
    check_dropped(48 + 16, PKT_EXTENSION_MALFORMED);
    field(48, 7, 28);
    check_dropped(48 + 28 + 4, PKT_EXTENSION_MALFORMED);
}

static void a_mac_of_no_key_of_ours_gets_silence(void)
{
    fresh();
    for (int any = 0; any < 2; any++) { /* without keys, and with keys of other ids */
        request[0] = 4 << 3 | 3;
        for (size_t mac = 20; mac <= 24; mac += 4) {
            memset(request + 48, 0, sizeof request - 48);
            check_dropped(48 + mac, PKT_UNKNOWN_KEY);
            field(48, 7, 32);
            check_dropped(48 + 32 + mac, PKT_UNKNOWN_KEY);
        }
        request[0] = 3 << 3 | 3;
        memset(request + 48, 0, sizeof request - 48);
        check_dropped(48 + 12, PKT_UNKNOWN_KEY); /* DES */
        check_dropped(48 + 20, PKT_UNKNOWN_KEY);
        check_dropped(48 + 36, PKT_UNKNOWN_KEY);
        context.keys = keys;
    }
}

static void a_wrong_mac_gets_silence(void)
{
    fresh();
    context.keys = keys;
    for (unsigned version = 1; version <= 4; version++)
        for (uint32_t id = 1; id <= MAC_TYPES; id++) {
            request[0] = (uint8_t)(version << 3 | 3);
            size_t length = sign(48, id);
            for (size_t at = 1; at < length; at++) {
                request[at] ^= 0x10;
                check_dropped(length, at >= 48 && at < 52 ? PKT_UNKNOWN_KEY : PKT_WRONG_MAC);
                request[at] ^= 0x10;
            }
            CHECK_EQUAL(respond(length), length);
        }
    request[0] = 4 << 3 | 3;
    CHECK_EQUAL(sign(48, 1), 68);
    check_dropped(72, PKT_WRONG_MAC); /* the right code, but four bytes more */
}

static void a_keyed_request_gets_a_reply_that_verifies(void)
{
    fresh();
    context.keys = keys;
    for (unsigned version = 1; version <= 4; version++)
        for (uint32_t id = 1; id <= MAC_TYPES; id++) {
            const struct mac_key *key = mac_find(keys, id);
            request[0] = (uint8_t)(version << 3 | 3);
            size_t length = sign(48, id), code = mac_length(key, version);
            CHECK_EQUAL(respond(length), length);
            CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_BASIC && outcome.authenticated);
            CHECK_EQUAL(get32(48), id);
            CHECK(mac_check(key, version, reply, 48, reply + 52, code));
            if (id == 1 + MAC_SHA256)
                CHECK_EQUAL(length, version < 4 ? 48 + 36 : 48 + 24); /* the longest there is, and cut as RFC 7822 will have it */
        }
    context.tx_raw_ns = context.record.valid_until_raw_ns + 1; /* that it does not know the time it says under the key, too */
    size_t length = sign(48, 4);
    CHECK_EQUAL(respond(length), length);
    CHECK(outcome.reason == PKT_UNSYNCHRONISED && outcome.authenticated && mac_check(mac_find(keys, 4), 4, reply, 48, reply + 52, 16));
}

static void a_whole_sha256_code_does_not_fit_version_four(void)
{
    fresh();
    context.keys = keys;
    request[0] = 3 << 3 | 3;
    size_t length = sign(48, 1 + MAC_SHA256);
    request[0] = 4 << 3 | 3;
    check_dropped(length, PKT_EXTENSION_MALFORMED); /* 36 bytes: read as a field whose length is 3 */
}

static void a_key_is_good_only_from_where_it_may_be_used(void)
{
    fresh();
    context.keys = keys;
    size_t length = sign(48, ELSEWHERE);
    check_dropped(length, PKT_KEY_ELSEWHERE);
    request[40] ^= 1;
    check_dropped(length, PKT_WRONG_MAC);
    request[40] ^= 1;
    context.source.low = 0xffffc63364ff;
    CHECK_EQUAL(respond(length), length);
    CHECK(outcome.authenticated);
}

static void extension_fields_are_authenticated_and_not_echoed(void)
{
    fresh();
    context.keys = keys;
    for (size_t all = 16; all <= 1400; all += 4)
        for (int two = 0; two <= (all >= 32); two++) {
            size_t first = two ? all - 16 : all;
            field(48, 0x0204, first);
            if (first < all)
                field(48 + first, 0x8404, all - first);
            if (all >= 28 && !two) { /* without a MAC the last field has at least 28 */
                CHECK_EQUAL(respond(48 + all), 48);
                CHECK_EQUAL(outcome.reason, PKT_BASIC);
            }
            size_t length = sign(48 + all, 1 + MAC_AES128);
            CHECK_EQUAL(respond(length), 68);
            CHECK(outcome.reason == PKT_BASIC && outcome.authenticated);
            request[48 + all - 1] ^= 1;
            check_dropped(length, PKT_WRONG_MAC);
            request[48 + all - 1] ^= 1;
        }
    size_t at = 48;
    for (; at < 48 + 1400; at += 28)
        field(at, 7, 28);
    CHECK_EQUAL(respond(at), 48);
    CHECK_EQUAL(respond(sign(at, 1 + MAC_SHA256)), 72);
    field(at - 28, 7, 32); /* beyond the end */
    check_dropped(at, PKT_EXTENSION_MALFORMED);
}

static void rules_decide_who_is_answered(void)
{
    fresh();
    context.keys = keys;
    for (int may = 0; may < 2; may++) {
        context.may_kod = (uint8_t)may;
        context.access = ACL_IGNORE;
        check_dropped(48, PKT_IGNORED);
        context.access = ACL_AUTHENTICATED;
        size_t length = sign(48, 2);
        CHECK_EQUAL(respond(length), length);
        CHECK(outcome.reason == PKT_BASIC && outcome.authenticated);
        request[50] ^= 1;
        check_dropped(length, PKT_UNKNOWN_KEY);
    }
    context.may_kod = 0;
    check_dropped(48, PKT_UNAUTHENTICATED);
    context.access = ACL_DENY;
    check_dropped(48, PKT_DENIED);
    check_dropped(sign(48, 2), PKT_DENIED); /* a key does not open what a rule closes */
    context.access = ACL_ALLOW;
    context.over_rate = 1;
    check_dropped(48, PKT_RATE);
    check_dropped(sign(48, 2), PKT_RATE);
    context.access = ACL_AUTHENTICATED;
    check_dropped(48, PKT_RATE);
}

static void check_kiss(size_t length, enum pkt_reason reason, const char *code)
{
    CHECK_EQUAL(respond(length), 48);
    CHECK(outcome.action == PKT_KOD && outcome.reason == reason && !outcome.authenticated);
    CHECK(outcome.receive == 0 && outcome.transmit == 0);
    CHECK_EQUAL(reply[0], 3 << 6 | (request[0] & 0x38) | 4);
    CHECK(reply[1] == 0 && memcmp(reply + 12, code, 4) == 0);
    CHECK(memcmp(reply + 24, request + 40, 8) == 0);
}

static void a_kiss_of_death_tells_why_and_is_no_longer_than_the_request(void)
{
    for (int version = 1; version <= 4; version++) {
        fresh();
        context.may_kod = 1;
        context.keys = keys;
        request[0] = (uint8_t)(version << 3 | 3);
        context.access = ACL_DENY;
        check_kiss(48, PKT_DENIED, "DENY");
        check_kiss(sign(48, 3), PKT_DENIED, "DENY");
        context.access = ACL_AUTHENTICATED;
        check_kiss(48, PKT_UNAUTHENTICATED, "DENY");
        context.access = ACL_ALLOW;
        context.over_rate = 1;
        check_kiss(48, PKT_RATE, "RATE");
        check_kiss(sign(48, 3), PKT_RATE, "RATE");
        memset(&context.record, 0, sizeof context.record);
        check_kiss(48, PKT_RATE, "RATE");
    }
    fresh();
    context.may_kod = context.over_rate = 1;
    field(48, 7, 1400);
    check_kiss(48 + 1400, PKT_RATE, "RATE");
    check_dropped(47, PKT_SHORT); /* what is malformed is not told so */
    request[0] = 4 << 3 | 4;
    check_dropped(48, PKT_MODE_SERVER);
}

/* ---- interleaved mode (RFC 9769) ---- */

static const uint64_t heard = 0xea5cf201400000aa, left = 0xea5cf20140012345, theirs = 0xea5cf20077777777;

static void interleaved_request(void)
{
    fresh();
    context.receive = heard;
    context.transmit = left;
    put64(24, heard);
    put64(32, theirs);
}

static void an_interleaved_request_is_told_the_departure_of_the_reply_before(void)
{
    interleaved_request();
    CHECK_EQUAL(respond(48), 48);
    CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_INTERLEAVED);
    CHECK(get64(24) == theirs && get64(40) == left);
    CHECK(get64(32) == pkt_timestamp(&context.record, context.rx_raw_ns, 0));
    CHECK(outcome.receive == get64(32));
    CHECK(outcome.transmit == pkt_timestamp(&context.record, context.tx_raw_ns, 0)); /* of this one, for the next */
    context.keys = keys;
    size_t length = sign(48, 5);
    CHECK_EQUAL(respond(length), length);
    CHECK(outcome.reason == PKT_INTERLEAVED && outcome.authenticated && get64(40) == left);
    CHECK(mac_check(mac_find(keys, 5), 4, reply, 48, reply + 52, length - 52));
}

static void check_basic(void)
{
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(outcome.reason, PKT_BASIC);
    CHECK(memcmp(reply + 24, request + 40, 8) == 0);
    CHECK(get64(40) == outcome.transmit && get64(32) == outcome.receive && get64(40) > get64(32));
}

static void every_other_request_is_basic(void)
{
    interleaved_request();
    put64(24, heard + 1); /* of another reply */
    check_basic();
    put64(24, left);
    check_basic();
    put64(24, heard);
    put64(40, theirs); /* receive == transmit: a client of basic mode that repeats what it has */
    check_basic();
    interleaved_request();
    context.receive = 0; /* nothing is remembered: 0 is not a match */
    put64(24, 0);
    check_basic();
    for (int version = 1; version < 4; version++) {
        interleaved_request();
        request[0] = (uint8_t)(version << 3 | 3);
        check_basic();
    }
    interleaved_request();
    request[0] = 1 << 3;
    check_basic();
}

static void a_conversation_stays_interleaved_and_takes_up_again_after_a_loss(void)
{
    uint64_t before = 0;
    fresh();
    for (int i = 0; i < 20; i++) {
        context.rx_raw_ns += second;
        context.tx_raw_ns = context.rx_raw_ns + 1000 + i * 7;
        uint64_t receive = context.receive, transmit = context.transmit;
        int lost = i % 5 == 4; /* the client did not hear the reply before */
        put64(24, lost ? before : receive);
        put64(32, receive ? theirs + (uint64_t)i : 0);
        put64(40, i ? 0x1234567800000000 + (uint64_t)i : 0);
        CHECK_EQUAL(respond(48), 48);
        CHECK_EQUAL(outcome.reason, i == 0 || lost ? PKT_BASIC : PKT_INTERLEAVED);
        CHECK(get64(40) == (i == 0 || lost ? outcome.transmit : transmit));
        CHECK(outcome.receive != outcome.transmit);
        before = receive;
        context.receive = outcome.receive;
        context.transmit = outcome.transmit;
    }
}

static void receive_and_transmit_always_differ(void)
{
    fresh();
    for (int64_t gap = -3; gap <= 3; gap++) {
        context.rx_raw_ns = context.tx_raw_ns - gap;
        CHECK_EQUAL(respond(48), 48);
        CHECK(outcome.receive < outcome.transmit);
        CHECK(get64(32) == outcome.receive && get64(40) == outcome.transmit);
    }
}

static void without_a_time_the_system_clocks_is_told_and_nothing_remembered(void)
{
    static const struct rec_params never;
    for (int how = 0; how < 3; how++) { /* never synchronised, no longer, not for sure any more */
        interleaved_request();
        context.system_ahead_ns = 1700000000 * second - context.rx_raw_ns;
        if (how == 0)
            context.record = never;
        else if (how == 1)
            context.record.stratum = 0;
        else
            context.record.valid_until_raw_ns = context.tx_raw_ns - 1;
        CHECK_EQUAL(respond(48), 48);
        CHECK(outcome.reason == PKT_UNSYNCHRONISED && outcome.receive == 0 && outcome.transmit == 0);
        CHECK(reply[0] >> 6 == 3 && reply[1] == 0 && memcmp(reply + 24, request + 40, 8) == 0);
        CHECK(get32(32) == (uint32_t)(1700000000 + 2208988800) && get32(36) == 0);
        CHECK(get32(40) == (uint32_t)(1700000000 + 2208988800) && get32(44) == 4294); /* 1000 ns later */
        context.tx_raw_ns = context.rx_raw_ns - 1;
        context.record = never;
        CHECK_EQUAL(respond(48), 48);
        CHECK(get64(40) == get64(32) + 1);
    }
    context.record = never;
    CHECK_EQUAL(pkt_timestamp(&context.record, context.tx_raw_ns, 0), 0);
}

/* ---- symmetric, broadcast, smear ---- */

static void symmetric_is_answered_in_mode_2_as_a_client_is_in_mode_4(void)
{
    for (int version = 1; version <= 4; version++) {
        fresh();
        context.keys = keys;
        context.source_port = 123;
        request[0] = (uint8_t)(version << 3 | 1);
        size_t length = sign(48, 2);
        check_dropped(length, PKT_MODE_SYMMETRIC); /* not allowed */
        context.symmetric = 1;
        CHECK_EQUAL(respond(length), length);
        CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_SYMMETRIC_PASSIVE && outcome.authenticated);
        CHECK_EQUAL(reply[0], version << 3 | 2);
        CHECK(mac_check(mac_find(keys, 2), (unsigned)version, reply, 48, reply + 52, 20));
        context.access = ACL_AUTHENTICATED;
        CHECK_EQUAL(respond(length), length);
        check_dropped(48, PKT_UNAUTHENTICATED);
        context.access = ACL_ALLOW;
        CHECK_EQUAL(respond(48), 48);
        CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_SYMMETRIC_PASSIVE && !outcome.authenticated);
        CHECK(reply[0] == (version << 3 | 2) && reply[1] == 1 && memcmp(reply + 24, request + 40, 8) == 0);
        CHECK(get64(32) == pkt_timestamp(&context.record, context.rx_raw_ns, 0));
        request[60] ^= 1;
        check_dropped(length, PKT_WRONG_MAC);
        check_dropped(sign(48, ELSEWHERE), PKT_KEY_ELSEWHERE);
        request[50] ^= 1;
        check_dropped(length, PKT_UNKNOWN_KEY);
        context.record.stratum = 0;
        length = sign(48, 2);
        CHECK_EQUAL(respond(length), length);
        CHECK_EQUAL(reply[0], 3 << 6 | version << 3 | 2);
        request[0] = (uint8_t)(version << 3 | 2);
        check_dropped(sign(48, 2), PKT_MODE_SYMMETRIC);
    }
}

static void symmetric_is_never_interleaved(void)
{
    interleaved_request();
    context.keys = keys;
    context.symmetric = 1;
    request[0] = 4 << 3 | 1;
    size_t length = sign(48, 2);
    CHECK_EQUAL(respond(length), length);
    CHECK(outcome.reason == PKT_SYMMETRIC_PASSIVE && memcmp(reply + 24, request + 40, 8) == 0 && get64(40) == outcome.transmit);
}

static void a_symmetric_request_that_is_refused_gets_silence(void)
{
    fresh();
    context.keys = keys;
    context.symmetric = context.may_kod = 1;
    request[0] = 4 << 3 | 1;
    size_t length = sign(48, 2);
    context.access = ACL_DENY;
    check_dropped(length, PKT_DENIED);
    context.access = ACL_ALLOW;
    context.over_rate = 1;
    check_dropped(length, PKT_RATE);
}

static void a_broadcast_is_authenticated_and_only_sent_when_synchronised(void)
{
    fresh();
    context.keys = keys;
    for (uint32_t id = 1; id <= MAC_TYPES; id++) {
        const struct mac_key *key = mac_find(keys, id);
        memset(reply, 0xaa, sizeof reply);
        size_t n = pkt_broadcast(&context, id, 6, reply);
        CHECK_EQUAL(n, 48 + 4 + mac_length(key, 4));
        CHECK(reply[0] == (4 << 3 | 5) && reply[1] == 1 && reply[2] == 6 && reply[3] == (uint8_t)-24);
        CHECK(memcmp(reply + 12, "GPS", 4) == 0 && get64(24) == 0 && get64(32) == 0);
        CHECK(get64(40) == pkt_timestamp(&context.record, context.tx_raw_ns, 0));
        CHECK(get32(48) == id && mac_check(key, 4, reply, 48, reply + 52, n - 52));
        CHECK(n == sizeof reply || reply[n] == 0xaa);
    }
    CHECK_EQUAL(pkt_respond(&context, reply, 68, request, &outcome), 0);
    CHECK_EQUAL(outcome.reason, PKT_MODE_BROADCAST);
    CHECK_EQUAL(pkt_broadcast(&context, 77, 6, reply), 0);
    context.keys = NULL;
    CHECK_EQUAL(pkt_broadcast(&context, 1, 6, reply), 0);
    context.keys = keys;
    context.tx_raw_ns = context.record.valid_until_raw_ns + 1;
    CHECK_EQUAL(pkt_broadcast(&context, 1, 6, reply), 0);
    fresh();
    context.keys = keys;
    memset(&context.record, 0, sizeof context.record);
    CHECK_EQUAL(pkt_broadcast(&context, 1, 6, reply), 0);
}

static void smeared_time_is_told_in_every_stamp_and_no_leap_is_announced(void)
{
    fresh();
    context.record.leap_step_s = 1;
    context.record.leap_tai_ns = context.record.tai_ns; /* half of the second is gone */
    context.rx_raw_ns = context.record.raw_ns;
    context.tx_raw_ns = context.rx_raw_ns + second;
    context.record.reference_raw_ns = context.rx_raw_ns - second;
    context.smear = 1;
    CHECK_EQUAL(respond(48), 48);
    uint64_t midnight = (uint64_t)(1800000000 + 2208988800);
    CHECK_EQUAL(reply[0] >> 6, 0);
    CHECK_EQUAL(get32(32), (uint32_t)midnight - 1);
    CHECK_EQUAL(get32(36), 2147508498); /* 43200 SI seconds after noon: 43200 * 86400 / 86401 s of UTC, 0.499994213 s to midnight */
    CHECK(get64(40) > get64(32) && get64(40) - get64(32) < 1ULL << 32);
    context.keys = keys;
    CHECK_EQUAL(pkt_broadcast(&context, 1, 6, reply), 68);
    CHECK(reply[0] >> 6 == 0 && get64(40) == outcome.transmit);
    context.tx_raw_ns -= 2 * second; /* before: announced, but for smearing */
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(reply[0] >> 6, 0);
    context.smear = 0;
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(reply[0] >> 6, 1);
}

static void other_trailers_are_dropped(void)
{
    fresh();
    for (size_t rest = 1; rest < 16; rest++)
        check_dropped(48 + rest, PKT_MAC_MALFORMED);
    request[0] = 3 << 3 | 3;
    for (size_t rest = 1; rest < 100; rest++)
        if (rest != 12 && rest != 20 && rest != 24 && rest != 36)
            check_dropped(48 + rest, PKT_MAC_MALFORMED);
}

static void unsynchronised_is_said_in_every_field(void)
{
    fresh();
    context.tx_raw_ns = context.record.valid_until_raw_ns + 1;
    CHECK_EQUAL(respond(48), 48);
    CHECK(outcome.action == PKT_REPLY && outcome.reason == PKT_UNSYNCHRONISED);
    CHECK(reply[0] == (3 << 6 | 4 << 3 | 4) && reply[1] == 0 && memcmp(reply + 12, "INIT", 4) == 0);
    CHECK(memcmp(reply + 24, request + 40, 8) == 0);
    CHECK(get32(16) != 0 && get32(40) != 0);
    memset(&context.record, 0, sizeof context.record);
    CHECK_EQUAL(respond(48), 48);
    CHECK(reply[0] >> 6 == 3 && reply[1] == 0 && memcmp(reply + 12, "INIT", 4) == 0);
    CHECK_EQUAL(get32(16), 0);
}

static void dispersion_and_delay_are_rounded_up_and_saturate(void)
{
    fresh();
    context.record.bound_ns = 15258.9; /* 2^-16 s is 15258.789 ns */
    context.record.root_delay_ns = 15258;
    CHECK_EQUAL(respond(48), 48);
    CHECK(get32(8) == 2 && get32(4) == 1);
    context.record.bound_ns = 1e9;
    context.record.root_delay_ns = second;
    respond(48);
    CHECK(get32(8) == 65536 && get32(4) == 65536);
    context.record.bound_ns = 1e15;
    context.record.root_delay_ns = INT64_MAX;
    respond(48);
    CHECK(get32(8) == UINT32_MAX && get32(4) == UINT32_MAX);
    context.record.root_delay_ns = -1;
    respond(48);
    CHECK_EQUAL(get32(4), 0);
}

static void the_second_era_begins_with_zero(void)
{
    fresh();
    context.record.tai_ns = (4294967296 - 2208988800 + 37) * second; /* 2036-02-07 06:28:16 UTC */
    context.tx_raw_ns = context.record.raw_ns;
    context.rx_raw_ns = context.tx_raw_ns - 1000;
    CHECK_EQUAL(respond(48), 48);
    CHECK(get32(40) == 0 && get32(44) == 0);
    context.tx_raw_ns = context.record.raw_ns - 1;
    respond(48);
    CHECK(get32(40) == UINT32_MAX && get32(44) == 0xfffffffb);
}

static void transmit_is_always_after_receive(void)
{
    fresh();
    context.rx_raw_ns = context.tx_raw_ns + 5000; /* a stamp late by its uncertainty */
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(get64(40), get64(32) + 1);
    context.record.leap_step_s = 1; /* inserted between the two */
    context.record.leap_tai_ns = context.record.tai_ns + second;
    context.rx_raw_ns = context.record.raw_ns + second - 500;
    context.tx_raw_ns = context.rx_raw_ns + 1000;
    CHECK_EQUAL(respond(48), 48);
    CHECK_EQUAL(get64(40), get64(32) + 1);
}

static void a_pending_leap_second_is_announced(void)
{
    fresh();
    context.record.leap_tai_ns = context.record.tai_ns + 3600 * second;
    context.record.leap_step_s = 1;
    respond(48);
    CHECK_EQUAL(reply[0] >> 6, 1);
    context.record.leap_step_s = -1;
    respond(48);
    CHECK_EQUAL(reply[0] >> 6, 2);
}

/* ---- NTS --------------------------------------------------------------------------------------------------------------------------- */

/* A server with NTS, and a request with that cookie. Its length. */
static size_t nts_request(struct client *c, uint32_t id, int placeholders)
{
    fresh();
    context.nts = cookie_keys;
    context.nonces = nonces;
    client_request(c, id, placeholders);
    memcpy(request, c->packet, c->length);
    return c->length;
}

static void check_nts(const struct client *c, size_t length, int cookies)
{
    uint8_t opened[8 * (4 + NTS_COOKIE)];
    size_t n = respond(length);
    CHECK(outcome.action == PKT_REPLY && outcome.authenticated == PKT_NTS);
    CHECK_EQUAL(client_read(c, reply, n, opened), cookies);
}

static void an_nts_request_gets_a_sealed_reply_with_new_cookies(void)
{
    struct client c;
    for (int placeholders = 0; placeholders < 10; placeholders++) {
        size_t length = nts_request(&c, CLIENT_FIRST + (uint32_t)placeholders % CLIENT_KEYS, placeholders);
        check_nts(&c, length, placeholders < 8 ? placeholders + 1 : 8);
        CHECK_EQUAL(outcome.reason, PKT_BASIC);
        CHECK(reply[1] == 1 && memcmp(reply + 12, "GPS", 4) == 0 && memcmp(reply + 24, request + 40, 8) == 0);
    }
}

static void the_longest_reply_has_room(void)
{
    const uint8_t none = 0;
    struct client c;
    fresh();
    context.nts = cookie_keys;
    context.nonces = nonces;
    client_begin(&c);
    client_unique(&c, NTS_UNIQUE_MAX);
    client_cookie(&c, CLIENT_PRESENT);
    client_placeholders(&c, 7);
    client_seal(&c, &none, 0, CLIENT_NONCE, 0);
    memcpy(request, c.packet, c.length);
    check_nts(&c, c.length, 8);
    CHECK_EQUAL(c.length, PKT_REPLY_MAX);
}

static void a_cookie_or_an_authenticator_that_is_wrong_gets_a_nak(void)
{
    struct client c;
    for (int kind = 0; kind < 3; kind++) {
        size_t length = nts_request(&c, kind == 0 ? 1 : CLIENT_PRESENT, 2);
        if (kind == 1)
            request[length - 1] ^= 1;
        if (kind == 2)
            request[45] ^= 1;
        if (kind == 1)
            context.access = ACL_AUTHENTICATED;
        CHECK_EQUAL(respond(length), 48 + 36); /* also without a budget for kisses-o'-death */
        CHECK(outcome.action == PKT_KOD && outcome.reason == PKT_NTS_NAK && !outcome.authenticated);
        CHECK(outcome.receive == 0 && outcome.transmit == 0);
        CHECK_EQUAL(reply[0], 3 << 6 | 4 << 3 | 4);
        CHECK(reply[1] == 0 && memcmp(reply + 12, "NTSN", 4) == 0 && memcmp(reply + 24, request + 40, 8) == 0);
        CHECK(memcmp(reply + 48, request + 48, 36) == 0);
    }
}

static void malformed_nts_gets_silence(void)
{
    struct client c;
    size_t length = nts_request(&c, CLIENT_PRESENT, 0);
    request[49] = 5; /* no unique identifier */
    check_dropped(length, PKT_NTS_MALFORMED);
    nts_request(&c, CLIENT_PRESENT, 0);
    context.keys = keys;
    check_dropped(sign(length, 2), PKT_NTS_MALFORMED); /* a MAC as well */
}

static void rules_and_rates_hold_with_nts_and_it_authenticates(void)
{
    struct client c;
    size_t length = nts_request(&c, CLIENT_PRESENT, 0);
    context.access = ACL_AUTHENTICATED;
    check_nts(&c, length, 1);
    context.access = ACL_DENY;
    check_dropped(length, PKT_DENIED);
    context.may_kod = 1;
    CHECK_EQUAL(respond(length), 48);
    CHECK(outcome.reason == PKT_DENIED && memcmp(reply + 12, "DENY", 4) == 0);
    context.access = ACL_IGNORE;
    check_dropped(length, PKT_IGNORED);
    context.access = ACL_ALLOW;
    context.over_rate = 1;
    CHECK_EQUAL(respond(length), 48);
    CHECK(outcome.reason == PKT_RATE && memcmp(reply + 12, "RATE", 4) == 0);
}

static void without_nts_its_fields_are_unknown_ones(void)
{
    struct client c;
    size_t length = nts_request(&c, CLIENT_PRESENT, 0);
    context.nts = NULL;
    CHECK_EQUAL(respond(length), 48);
    CHECK(outcome.reason == PKT_BASIC && !outcome.authenticated);
    context.access = ACL_AUTHENTICATED;
    check_dropped(length, PKT_UNAUTHENTICATED);
    nts_request(&c, CLIENT_PRESENT, 0); /* nor has it a meaning in mode 1 (RFC 8915 5.6) */
    context.symmetric = 1;
    request[0] = 4 << 3 | 1;
    CHECK_EQUAL(respond(length), 48);
    CHECK(outcome.reason == PKT_SYMMETRIC_PASSIVE && !outcome.authenticated);
}

static void nts_is_interleaved_and_unsynchronised_as_other_requests_are(void)
{
    const uint8_t none = 0;
    struct client c;
    size_t length = nts_request(&c, CLIENT_PRESENT, 0);
    memset(&context.record, 0, sizeof context.record);
    check_nts(&c, length, 1);
    CHECK(outcome.reason == PKT_UNSYNCHRONISED && reply[0] >> 6 == 3);
    fresh();
    context.nts = cookie_keys;
    context.nonces = nonces;
    context.receive = heard;
    context.transmit = left;
    client_begin(&c);
    for (int i = 0; i < 8; i++) {
        c.packet[24 + i] = (uint8_t)(heard >> (56 - 8 * i));
        c.packet[32 + i] = (uint8_t)(theirs >> (56 - 8 * i));
    }
    client_unique(&c, CLIENT_UNIQUE);
    client_cookie(&c, CLIENT_PRESENT);
    client_seal(&c, &none, 0, CLIENT_NONCE, 0);
    memcpy(request, c.packet, c.length);
    check_nts(&c, c.length, 1);
    CHECK(outcome.reason == PKT_INTERLEAVED && get64(24) == theirs && get64(40) == left);
}

static void every_action_and_reason_has_a_name(void)
{
    for (int i = 0; i < PKT_ACTIONS; i++)
        CHECK(pkt_action_name(i));
    for (int i = 0; i < PKT_REASONS; i++)
        CHECK(pkt_reason_name(i));
    CHECK(!pkt_action_name(-1) && !pkt_action_name(PKT_ACTIONS) && !pkt_reason_name(-1) && !pkt_reason_name(PKT_REASONS));
}

static uint64_t xorshift(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Half of them with plausible trailers, some of these with a right MAC. */
static size_t forge(uint8_t *packet, size_t length, int i)
{
    if (length >= 52 && i % 2) {
        packet[50] = 0;
        packet[51] = (uint8_t)(i % 32 * 4);
    }
    if (length < 48 + 36 || i % 8)
        return length;
    memcpy(request, packet, length); /* sign() looks there; the packet lies behind */
    packet[0] = request[0] = (uint8_t)((request[0] & 0xc0) | (3 + i / 16 % 2) << 3 | 1 | (i / 32 % 2) << 1);
    size_t all = sign(48, (uint32_t)(1 + i / 64 % MAC_TYPES));
    memcpy(packet + length - all, request, all);
    return all;
}

static void no_reply_is_longer_than_its_request_or_itself_answered(void)
{
    uint64_t state = 88172645463325252;
    int answered[PKT_ACTIONS] = {0}, authenticated = 0;
    fresh();
    context.keys = keys;
    for (int i = 0; i < 1000000; i++) {
        size_t length = xorshift(&state) % 160;
        uint8_t *end = request + sizeof request, *exact = end - length; /* ASan sees one byte too many */
        for (size_t j = 0; j < length; j += 8) {
            uint64_t bits = xorshift(&state);
            memcpy(exact + j, &bits, length - j < 8 ? length - j : 8);
        }
        length = forge(exact, length, i);
        exact = end - length;
        uint64_t dice = xorshift(&state);
        context.access = dice % 2 ? ACL_ALLOW : (uint8_t)(dice / 2 % ACL_ACTIONS);
        context.over_rate = dice / 8 % 8 == 0;
        context.may_kod = dice / 64 % 2;
        context.symmetric = dice / 128 % 2;
        outcome.action = outcome.reason = 255;
        size_t n = pkt_respond(&context, exact, length, reply, &outcome);
        CHECK(n <= length && n <= PKT_REPLY_MAX);
        CHECK((n == 0) == (outcome.action == PKT_DROP));
        CHECK(outcome.action < PKT_ACTIONS && outcome.reason < PKT_REASONS);
        if (n == 0)
            continue;
        answered[outcome.action]++;
        authenticated += outcome.authenticated;
        CHECK(memcmp(reply + 24, exact + 40, 8) == 0);
        CHECK((reply[0] & 7) == ((exact[0] & 7) == 1 ? 2 : 4));
        CHECK(!outcome.authenticated || n == length);
        CHECK(outcome.action == PKT_REPLY || n == 48);
        uint8_t echo[PKT_REPLY_MAX];
        CHECK_EQUAL(pkt_respond(&context, reply, n, echo, &outcome), 0);
    }
    CHECK(answered[PKT_REPLY] > 1000 && answered[PKT_KOD] > 1000 && authenticated > 1000);
}

static void every_reason_was_met(void)
{
    for (int reason = 0; reason < PKT_REASONS; reason++) {
        int times = 0;
        for (int action = 0; action < PKT_ACTIONS; action++)
            times += met[action][reason];
        if (reason == PKT_SEND_FAILED) /* the server's */
            CHECK_EQUAL(times, 0);
        else if (times == 0)
            fprintf(stderr, "never: %s\n", pkt_reason_name(reason)), exit(1);
    }
}

int main(void)
{
    static const uint8_t seed[NTS_SEED];
    make_keys();
    client_server_keys(&cookie_keys);
    CHECK_EQUAL(nts_nonces_create(seed, &nonces), 0);
    RUN(a_client_is_told_the_time);
    RUN(versions_one_to_four_are_echoed_and_others_ignored);
    RUN(the_clients_leap_bits_do_not_matter);
    RUN(modes_other_than_client_are_ignored);
    RUN(version_one_without_a_mode_is_a_client_unless_it_is_a_server);
    RUN(port_zero_cannot_be_answered);
    RUN(a_request_to_everybody_is_answered_by_nobody);
    RUN(less_than_a_header_and_more_than_the_limit_are_ignored);
    RUN(unknown_extension_fields_are_ignored);
    RUN(malformed_extension_fields_are_dropped);
    RUN(a_mac_of_no_key_of_ours_gets_silence);
    RUN(a_wrong_mac_gets_silence);
    RUN(a_keyed_request_gets_a_reply_that_verifies);
    RUN(a_whole_sha256_code_does_not_fit_version_four);
    RUN(a_key_is_good_only_from_where_it_may_be_used);
    RUN(extension_fields_are_authenticated_and_not_echoed);
    RUN(rules_decide_who_is_answered);
    RUN(a_kiss_of_death_tells_why_and_is_no_longer_than_the_request);
    RUN(an_interleaved_request_is_told_the_departure_of_the_reply_before);
    RUN(every_other_request_is_basic);
    RUN(a_conversation_stays_interleaved_and_takes_up_again_after_a_loss);
    RUN(receive_and_transmit_always_differ);
    RUN(without_a_time_the_system_clocks_is_told_and_nothing_remembered);
    RUN(symmetric_is_answered_in_mode_2_as_a_client_is_in_mode_4);
    RUN(symmetric_is_never_interleaved);
    RUN(a_symmetric_request_that_is_refused_gets_silence);
    RUN(a_broadcast_is_authenticated_and_only_sent_when_synchronised);
    RUN(smeared_time_is_told_in_every_stamp_and_no_leap_is_announced);
    RUN(other_trailers_are_dropped);
    RUN(unsynchronised_is_said_in_every_field);
    RUN(dispersion_and_delay_are_rounded_up_and_saturate);
    RUN(the_second_era_begins_with_zero);
    RUN(transmit_is_always_after_receive);
    RUN(a_pending_leap_second_is_announced);
    RUN(an_nts_request_gets_a_sealed_reply_with_new_cookies);
    RUN(the_longest_reply_has_room);
    RUN(a_cookie_or_an_authenticator_that_is_wrong_gets_a_nak);
    RUN(malformed_nts_gets_silence);
    RUN(rules_and_rates_hold_with_nts_and_it_authenticates);
    RUN(without_nts_its_fields_are_unknown_ones);
    RUN(nts_is_interleaved_and_unsynchronised_as_other_requests_are);
    RUN(every_action_and_reason_has_a_name);
    RUN(no_reply_is_longer_than_its_request_or_itself_answered);
    RUN(every_reason_was_met);
    mac_destroy(keys);
    nts_destroy(cookie_keys);
    nts_nonces_destroy(nonces);
    return 0;
}
