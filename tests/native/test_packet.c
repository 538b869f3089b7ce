/* packet: each rule of the server's only decision. */
#include "packet.h"

#include <string.h>

#include "check.h"

static const int64_t second = 1000000000;
static struct pkt_context context;
static struct pkt_outcome outcome;
static uint8_t request[PKT_REQUEST_MAX + 1], reply[PKT_REPLY_MAX];

static void fresh(void)
{
    memset(&context, 0, sizeof context);
    context.record = (struct tsc_params){.raw_ns = 1000 * second, .tai_ns = 1800000037 * second, .bound_ns = 1000,
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
    return pkt_respond(&context, request, length, reply, &outcome);
}

static uint32_t get32(int offset)
{
    const uint8_t *p = reply + offset;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void check_dropped(size_t length, enum pkt_reason reason)
{
    CHECK_EQUAL(respond(length), 0);
    CHECK_EQUAL(outcome.action, PKT_DROP);
    CHECK_EQUAL(outcome.reason, reason);
    CHECK(reply[0] == 0xaa);
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
            check_dropped(48, reasons[mode]);
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

static void a_mac_gets_a_crypto_nak(void)
{
    static const uint8_t nak[4];
    fresh();
    for (size_t mac = 20; mac <= 24; mac += 4) {
        CHECK_EQUAL(respond(48 + mac), 52);
        CHECK(outcome.action == PKT_NAK && outcome.reason == PKT_UNKNOWN_KEY);
        CHECK(memcmp(reply + 48, nak, 4) == 0);
        field(48, 7, 32);
        CHECK_EQUAL(respond(48 + 32 + mac), 52);
    }
    request[0] = 3 << 3 | 3;
    CHECK_EQUAL(respond(48 + 12), 52); /* DES */
    CHECK_EQUAL(respond(48 + 20), 52);
}

static void other_trailers_are_dropped(void)
{
    fresh();
    for (size_t rest = 1; rest < 16; rest++)
        check_dropped(48 + rest, PKT_MAC_MALFORMED);
    request[0] = 3 << 3 | 3;
    for (size_t rest = 1; rest < 100; rest++)
        if (rest != 12 && rest != 20 && rest != 24)
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
    CHECK(get32(16) == 0 && get32(32) == 0 && get32(40) == 0 && get32(44) == 0);
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
    context.rx_raw_ns = context.tx_raw_ns = context.record.raw_ns;
    CHECK_EQUAL(respond(48), 48);
    CHECK(get32(40) == 0 && get32(44) == 0);
    context.rx_raw_ns = context.tx_raw_ns = context.record.raw_ns - 1;
    respond(48);
    CHECK(get32(40) == UINT32_MAX && get32(44) == 0xfffffffb);
}

static void transmit_is_never_before_receive(void)
{
    fresh();
    context.rx_raw_ns = context.tx_raw_ns + 5000; /* a stamp late by its uncertainty */
    CHECK_EQUAL(respond(48), 48);
    CHECK(memcmp(reply + 32, reply + 40, 8) == 0);
    context.record.leap_step_s = 1; /* inserted between the two */
    context.record.leap_tai_ns = context.record.tai_ns + second;
    context.rx_raw_ns = context.record.raw_ns + second - 500;
    context.tx_raw_ns = context.rx_raw_ns + 1000;
    CHECK_EQUAL(respond(48), 48);
    CHECK(memcmp(reply + 32, reply + 40, 8) == 0);
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

static void no_reply_is_longer_than_its_request_or_itself_answered(void)
{
    uint64_t state = 88172645463325252;
    int answered = 0;
    fresh();
    for (int i = 0; i < 1000000; i++) {
        size_t length = xorshift(&state) % 160;
        uint8_t *exact = request + sizeof request - length;
        for (size_t j = 0; j < length; j += 8) {
            uint64_t bits = xorshift(&state);
            memcpy(exact + j, &bits, length - j < 8 ? length - j : 8);
        }
        if (length >= 52 && i % 2) { /* let half of them have plausible trailers */
            exact[50] = 0;
            exact[51] = (uint8_t)(i % 32 * 4);
        }
        outcome.action = outcome.reason = 255;
        size_t n = pkt_respond(&context, exact, length, reply, &outcome);
        CHECK(n <= length && n <= PKT_REPLY_MAX);
        CHECK((n == 0) == (outcome.action == PKT_DROP));
        CHECK(outcome.action < PKT_ACTIONS && outcome.reason < PKT_REASONS);
        if (n == 0)
            continue;
        answered++;
        CHECK(memcmp(reply + 24, exact + 40, 8) == 0);
        CHECK_EQUAL(reply[0] & 7, 4);
        uint8_t echo[PKT_REPLY_MAX];
        CHECK_EQUAL(pkt_respond(&context, reply, n, echo, &outcome), 0);
    }
    CHECK(answered > 1000);
}

int main(void)
{
    RUN(a_client_is_told_the_time);
    RUN(versions_one_to_four_are_echoed_and_others_ignored);
    RUN(the_clients_leap_bits_do_not_matter);
    RUN(modes_other_than_client_are_ignored);
    RUN(version_one_without_a_mode_is_a_client_unless_it_is_a_server);
    RUN(port_zero_cannot_be_answered);
    RUN(less_than_a_header_and_more_than_the_limit_are_ignored);
    RUN(unknown_extension_fields_are_ignored);
    RUN(malformed_extension_fields_are_dropped);
    RUN(a_mac_gets_a_crypto_nak);
    RUN(other_trailers_are_dropped);
    RUN(unsynchronised_is_said_in_every_field);
    RUN(dispersion_and_delay_are_rounded_up_and_saturate);
    RUN(the_second_era_begins_with_zero);
    RUN(transmit_is_never_before_receive);
    RUN(a_pending_leap_second_is_announced);
    RUN(every_action_and_reason_has_a_name);
    RUN(no_reply_is_longer_than_its_request_or_itself_answered);
    return 0;
}
