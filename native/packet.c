#include "packet.h"

#include <string.h>

/* RFC 5905 figure 8 (header) and 7.3; RFC 1305 appendix C and RFC 1119 for the MACs of older versions. */
enum { STRATUM = 1, POLL = 2, PRECISION = 3, ROOT_DELAY = 4, ROOT_DISPERSION = 8, REFID = 12, REFERENCE = 16, ORIGIN = 24,
       RECEIVE = 32, TRANSMIT = 40 };
enum { MODE_CLIENT = 3, MODE_SERVER = 4, NTP_PORT = 123 };
enum { MAC_DES = 12, MAC_MD5 = 20, MAC_SHA1 = 24, FIELD_MIN = 16 }; /* key id + digest; RFC 7822 7.5.1 */
enum { NAK = 4 };
static const uint32_t refid_init = 'I' << 24 | 'N' << 16 | 'I' << 8 | 'T';
static const int64_t second = 1000000000;
static const uint64_t ntp_unix_s = 2208988800; /* 1900 to 1970, RFC 5905 figure 4 */

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* NTP timestamp, modulo the era; rounded down. */
static void put_time(uint8_t *p, int64_t utc_ns)
{
    int64_t seconds = utc_ns / second, rest = utc_ns % second;
    if (rest < 0) {
        rest += second;
        seconds--;
    }
    put32(p, (uint32_t)((uint64_t)seconds + ntp_unix_s));
    put32(p + 4, (uint32_t)(((uint64_t)rest << 32) / (uint64_t)second));
}

/* NTP short format: 2^-16 s, rounded up, saturated: a bound may be too wide, never too narrow. */
static void put_span(uint8_t *p, int64_t ns)
{
    const int64_t limit = 65535 * second;
    uint64_t up = ns <= 0 ? 0 : ns > limit ? UINT32_MAX : ((uint64_t)ns * 65536 + (uint64_t)second - 1) / (uint64_t)second;
    put32(p, (uint32_t)up);
}

/* What follows the header. PKT_BASIC: nothing that asks for anything; PKT_UNKNOWN_KEY: a MAC; else the reason to drop. */
static enum pkt_reason check_trailer(unsigned version, const uint8_t *at, size_t left)
{
    if (version < 4) {
        if (left == 0)
            return PKT_BASIC;
        return left == MAC_DES || left == MAC_MD5 || left == MAC_SHA1 ? PKT_UNKNOWN_KEY : PKT_MAC_MALFORMED;
    }
    int fields = 0;
    while (left > MAC_SHA1) {
        size_t field = get16(at + 2);
        if (field < FIELD_MIN || field % 4 != 0 || field > left)
            return PKT_EXTENSION_MALFORMED;
        at += field;
        left -= field;
        fields++;
    }
    if (left == 0)
        return PKT_BASIC;
    if (left == MAC_MD5 || left == MAC_SHA1)
        return PKT_UNKNOWN_KEY;
    return fields || left >= FIELD_MIN ? PKT_EXTENSION_MALFORMED : PKT_MAC_MALFORMED;
}

/* PKT_BASIC and PKT_UNKNOWN_KEY: to be answered; else the reason to drop. */
static enum pkt_reason check(const uint8_t *request, size_t length, uint16_t source_port)
{
    static const enum pkt_reason unwanted[8] = {PKT_MODE_RESERVED, PKT_MODE_SYMMETRIC, PKT_MODE_SYMMETRIC, PKT_BASIC,
                                                PKT_MODE_SERVER, PKT_MODE_BROADCAST, PKT_MODE_CONTROL, PKT_MODE_PRIVATE};
    if (length < PKT_HEADER)
        return PKT_SHORT;
    if (length > PKT_REQUEST_MAX)
        return PKT_LONG;
    unsigned version = request[0] >> 3 & 7, mode = request[0] & 7;
    if (version < 1 || version > 4)
        return PKT_VERSION;
    if (source_port == 0)
        return PKT_PORT_ZERO;
    if (mode != MODE_CLIENT && !(mode == 0 && version == 1 && source_port != NTP_PORT))
        return unwanted[mode];
    return check_trailer(version, request + PKT_HEADER, length - PKT_HEADER);
}

size_t pkt_respond(const struct pkt_context *context, const uint8_t *request, size_t length, uint8_t *reply, struct pkt_outcome *outcome)
{
    enum pkt_reason reason = check(request, length, context->source_port);
    outcome->action = reason == PKT_BASIC ? PKT_REPLY : reason == PKT_UNKNOWN_KEY ? PKT_NAK : PKT_DROP;
    if (outcome->action == PKT_DROP) {
        outcome->reason = (uint8_t)reason;
        return 0;
    }
    const struct tsc_params *record = &context->record;
    struct tsc_reading receive, transmit;
    tsc_at(record, context->tx_raw_ns, &transmit);
    tsc_at(record, context->rx_raw_ns < context->tx_raw_ns ? context->rx_raw_ns : context->tx_raw_ns, &receive);
    if (transmit.utc_ns < receive.utc_ns) /* a leap second was inserted between the two */
        transmit.utc_ns = receive.utc_ns;
    int synchronised = transmit.leap != 3;

    reply[0] = (uint8_t)(transmit.leap << 6 | (request[0] & 0x38) | MODE_SERVER);
    reply[STRATUM] = transmit.stratum;
    reply[POLL] = request[POLL];
    reply[PRECISION] = (uint8_t)transmit.precision;
    put_span(reply + ROOT_DELAY, transmit.root_delay_ns);
    put_span(reply + ROOT_DISPERSION, transmit.bound_ns);
    put32(reply + REFID, synchronised ? transmit.refid : refid_init);
    memset(reply + REFERENCE, 0, PKT_HEADER - REFERENCE);
    if (transmit.reference_utc_ns != 0)
        put_time(reply + REFERENCE, transmit.reference_utc_ns);
    memcpy(reply + ORIGIN, request + TRANSMIT, 8);
    if (record->tai_ns != 0) {
        put_time(reply + RECEIVE, receive.utc_ns);
        put_time(reply + TRANSMIT, transmit.utc_ns);
    }
    if (outcome->action == PKT_NAK) {
        outcome->reason = PKT_UNKNOWN_KEY;
        memset(reply + PKT_HEADER, 0, NAK);
        return PKT_HEADER + NAK;
    }
    outcome->reason = synchronised ? PKT_BASIC : PKT_UNSYNCHRONISED;
    return PKT_HEADER;
}

const char *pkt_action_name(int action)
{
    static const char *const names[PKT_ACTIONS] = {[PKT_DROP] = "drop", [PKT_REPLY] = "reply", [PKT_NAK] = "nak"};
    return action >= 0 && action < PKT_ACTIONS ? names[action] : NULL;
}

const char *pkt_reason_name(int reason)
{
    static const char *const names[PKT_REASONS] = {
        [PKT_BASIC] = "basic",
        [PKT_UNSYNCHRONISED] = "unsynchronised",
        [PKT_UNKNOWN_KEY] = "unknown_key",
        [PKT_SHORT] = "short",
        [PKT_LONG] = "long",
        [PKT_VERSION] = "version",
        [PKT_PORT_ZERO] = "port_zero",
        [PKT_MODE_RESERVED] = "mode_reserved",
        [PKT_MODE_SYMMETRIC] = "mode_symmetric",
        [PKT_MODE_SERVER] = "mode_server",
        [PKT_MODE_BROADCAST] = "mode_broadcast",
        [PKT_MODE_CONTROL] = "mode_control",
        [PKT_MODE_PRIVATE] = "mode_private",
        [PKT_EXTENSION_MALFORMED] = "extension_malformed",
        [PKT_MAC_MALFORMED] = "mac_malformed",
        [PKT_SEND_FAILED] = "send_failed",
    };
    return reason >= 0 && reason < PKT_REASONS ? names[reason] : NULL;
}
