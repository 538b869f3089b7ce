#include "packet.h"

#include <string.h>

#include "units.h"

/* RFC 5905 figure 8 (header) and 7.3; RFC 1305 appendix C and RFC 1119 for the MACs of older versions. */
enum { STRATUM = 1, POLL = 2, PRECISION = 3, ROOT_DELAY = 4, ROOT_DISPERSION = 8, REFID = 12, REFERENCE = 16, ORIGIN = 24,
       RECEIVE = 32, TRANSMIT = 40 };
enum { MODE_ACTIVE = 1, MODE_PASSIVE = 2, MODE_CLIENT = 3, MODE_SERVER = 4, MODE_BROADCAST = 5, NTP_PORT = 123 };
enum { MAC_DES = MAC_ID + 8, MAC_V4_SHORT = MAC_ID + 16, MAC_V4_MAX = MAC_ID + MAC_CODE_V4_MAX, MAC_MAX = MAC_ID + MAC_CODE_MAX };
enum { FIELD_MIN = 16 };     /* RFC 7822 7.5.1 */
enum { UNSYNCHRONISED = 3 }; /* RFC 5905 figure 9 */
#define CODE(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))
static const uint32_t refid_init = CODE('I', 'N', 'I', 'T'), code_rate = CODE('R', 'A', 'T', 'E'), code_deny = CODE('D', 'E', 'N', 'Y'),
                      code_nak = CODE('N', 'T', 'S', 'N');
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

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

/* NTP timestamp, modulo the era (RFC 5905 6), rounded down. */
static uint64_t ntp_timestamp(int64_t utc_ns)
{
    int64_t seconds = utc_ns / NS_PER_S, rest = utc_ns % NS_PER_S;
    if (rest < 0) {
        rest += NS_PER_S;
        seconds--;
    }
    return ((uint64_t)seconds + ntp_unix_s) << 32 | ((uint64_t)rest << 32) / (uint64_t)NS_PER_S;
}

/* NTP short format: 2^-16 s, rounded up, at most 65535 s: a bound may be too wide, never too narrow. */
static void put_short_format(uint8_t *p, int64_t ns)
{
    const int64_t limit = 65535 * NS_PER_S;
    uint64_t up = ns <= 0 ? 0 : ns > limit ? UINT32_MAX : ((uint64_t)ns * 65536 + (uint64_t)NS_PER_S - 1) / (uint64_t)NS_PER_S;
    put32(p, (uint32_t)up);
}

/* What authenticates a request. */
struct parts {
    size_t mac;      /* where the MAC begins: after header and extension fields */
    size_t mac_size; /* bytes; 0: there is none */
    size_t nts;      /* where the authenticator of NTS begins; 0: there is none, or there is no NTS here */
};

/* What the reply must be authenticated with. */
struct proof {
    const struct mac_key *key; /* PKT_MAC: the key that made the request's */
    struct nts_request nts;    /* PKT_NTS, or a NAK */
};

/* Find the MAC behind the extension fields, and the authenticator of NTS among them. PKT_BASIC, or the reason to drop. */
static enum pkt_reason find_parts(const struct pkt_context *context, const uint8_t *request, size_t length, struct parts *parts)
{
    size_t at = PKT_HEADER, left = length - PKT_HEADER;
    unsigned version = request[0] >> 3 & 7;
    if (version >= 4) {
        while (left > MAC_V4_MAX) {
            size_t field = get16(request + at + 2);
            if (field < FIELD_MIN || field % 4 != 0 || field > left)
                return PKT_EXTENSION_MALFORMED;
            if (get16(request + at) == NTS_FIELD_AUTHENTICATOR && parts->nts == 0 && context->nts && (request[0] & 7) == MODE_CLIENT)
                parts->nts = at;
            at += field;
            left -= field;
        }
        if (left != 0 && left != MAC_V4_SHORT && left != MAC_V4_MAX)
            return at > PKT_HEADER || left >= FIELD_MIN ? PKT_EXTENSION_MALFORMED : PKT_MAC_MALFORMED;
    } else if (left != 0 && left != MAC_DES && left != MAC_V4_SHORT && left != MAC_V4_MAX && left != MAC_MAX) {
        return PKT_MAC_MALFORMED;
    }
    parts->mac = at;
    parts->mac_size = left;
    return PKT_BASIC;
}

/* PKT_BASIC: the request is well formed and of a kind that is answered. Else the reason to drop. */
static enum pkt_reason check_request(const struct pkt_context *context, const uint8_t *request, size_t length, struct parts *parts)
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
    if (context->source_port == 0)
        return PKT_PORT_ZERO;
    if (context->not_unicast)
        return PKT_NOT_UNICAST;
    int version_1 = mode == 0 && version == 1 && context->source_port != NTP_PORT;
    if (mode != MODE_CLIENT && !version_1 && !(mode == MODE_ACTIVE && context->symmetric))
        return unwanted[mode];
    return find_parts(context, request, length, parts);
}

/* The key that made the request's MAC; NULL, and *why, when none of these keys did. */
static const struct mac_key *verify_mac(const struct pkt_context *context, const uint8_t *request, const struct parts *parts,
                                        enum pkt_reason *why)
{
    const struct mac_key *key = mac_find(context->keys, get32(request + parts->mac));
    *why = PKT_UNKNOWN_KEY;
    if (!key)
        return NULL;
    *why = PKT_WRONG_MAC;
    if (!mac_check(key, request[0] >> 3 & 7, request, parts->mac, request + parts->mac + MAC_ID, parts->mac_size - MAC_ID))
        return NULL;
    *why = PKT_KEY_ELSEWHERE;
    return mac_from(key, context->source) ? key : NULL;
}

/* Decide about a request that has an authenticator of NTS, and whose source is answered. */
__attribute__((noinline)) static void decide_nts(const struct pkt_context *context, const uint8_t *request, size_t length,
                                                 const struct parts *parts, struct pkt_outcome *outcome, struct nts_request *nts)
{
    enum nts_verdict verdict = parts->mac_size ? NTS_MALFORMED : nts_find(request, PKT_HEADER, parts->nts, length, nts);
    if (verdict == NTS_VALID)
        verdict = nts_verify(context->nts, request, nts);
    if (verdict == NTS_VALID) {
        outcome->authenticated = PKT_NTS;
    } else if (verdict == NTS_REFUSED) {
        outcome->action = PKT_KOD;
        outcome->reason = PKT_NTS_NAK;
    } else {
        outcome->action = PKT_DROP;
        outcome->reason = PKT_NTS_MALFORMED;
    }
}

/* Decide the action and reason for a well-formed request. */
static void decide_action(const struct pkt_context *context, const uint8_t *request, size_t length, const struct parts *parts,
                          struct pkt_outcome *outcome, struct proof *proof)
{
    enum pkt_reason why;
    int refused = 1;
    if (context->access == ACL_IGNORE)
        outcome->reason = PKT_IGNORED;
    else if (context->access == ACL_DENY)
        outcome->reason = PKT_DENIED;
    else if (context->over_rate)
        outcome->reason = PKT_RATE;
    else if (context->access == ACL_AUTHENTICATED && !parts->mac_size && !parts->nts)
        outcome->reason = PKT_UNAUTHENTICATED;
    else
        refused = 0;
    if (refused) {
        int active = (request[0] & 7) == MODE_ACTIVE; /* no kiss-o'-death is defined for it */
        outcome->action = context->may_kod && context->access != ACL_IGNORE && !active ? PKT_KOD : PKT_DROP;
        return;
    }
    outcome->action = PKT_REPLY;
    outcome->reason = PKT_BASIC;
    if (!(parts->mac_size | parts->nts))
        return;
    if (parts->nts) {
        decide_nts(context, request, length, parts, outcome, &proof->nts);
        return;
    }
    proof->key = verify_mac(context, request, parts, &why);
    outcome->authenticated = proof->key ? PKT_MAC : PKT_NOTHING;
    if (proof->key)
        return;
    outcome->action = PKT_DROP;
    outcome->reason = (uint8_t)why;
}

/* The served timescale at one instant, smeared where the server smears. */
static void read_scale(const struct rec_params *record, int64_t raw_ns, int smear, struct rec_reading *reading)
{
    rec_at(record, raw_ns, reading);
    if (smear)
        rec_smear(record, reading);
}

/* UTC of the served timescale at one instant. */
static int64_t read_utc(const struct rec_params *record, int64_t raw_ns, int smear)
{
    struct rec_reading reading;
    if (!smear)
        return rec_utc_at(record, raw_ns);
    read_scale(record, raw_ns, smear, &reading);
    return reading.utc_ns;
}

uint64_t pkt_timestamp(const struct rec_params *record, int64_t raw_ns, int smear)
{
    return record->tai_ns != 0 ? ntp_timestamp(read_utc(record, raw_ns, smear)) : 0;
}

/* Write the part of the header that depends on the departure alone; origin, receive and transmit are 0. */
static void put_header(const struct rec_reading *now, unsigned version, unsigned mode, uint8_t poll, uint8_t *packet)
{
    packet[0] = (uint8_t)((unsigned)now->leap << 6 | version << 3 | mode);
    packet[STRATUM] = now->stratum;
    packet[POLL] = poll;
    packet[PRECISION] = (uint8_t)now->precision;
    put_short_format(packet + ROOT_DELAY, now->root_delay_ns);
    put_short_format(packet + ROOT_DISPERSION, now->bound_ns);
    put32(packet + REFID, now->leap != UNSYNCHRONISED ? now->refid : refid_init);
    memset(packet + REFERENCE, 0, PKT_HEADER - REFERENCE);
    if (now->reference_utc_ns != 0)
        put64(packet + REFERENCE, ntp_timestamp(now->reference_utc_ns));
}

static size_t put_mac(const struct mac_key *key, uint32_t id, uint8_t *packet, size_t code_size)
{
    put32(packet + PKT_HEADER, id);
    mac_make(key, packet, PKT_HEADER, packet + PKT_HEADER + MAC_ID, code_size);
    return PKT_HEADER + MAC_ID + code_size;
}

/* The system clock's NTP timestamp at an instant. */
static uint64_t system_timestamp(const struct pkt_context *context, int64_t raw_ns)
{
    return ntp_timestamp((int64_t)((uint64_t)raw_ns + (uint64_t)context->system_ahead_ns));
}

/* Write receive and transmit by the system clock. A later request cannot refer to them. */
static void put_system_times(const struct pkt_context *context, uint8_t *reply)
{
    uint64_t receive = system_timestamp(context, context->rx_raw_ns);
    put64(reply + RECEIVE, receive);
    put64(reply + TRANSMIT, context->tx_raw_ns > context->rx_raw_ns ? system_timestamp(context, context->tx_raw_ns) : receive + 1);
}

/* Write receive, origin and transmit. In interleaved mode transmit is that of the previous reply (RFC 9769 2). */
static void put_times(const struct pkt_context *context, const uint8_t *request, const struct rec_reading *now, uint8_t *reply,
                      struct pkt_outcome *outcome)
{
    int64_t rx = context->rx_raw_ns < context->tx_raw_ns ? context->rx_raw_ns : context->tx_raw_ns;
    int64_t arrived_ns = read_utc(&context->record, rx, context->smear);
    uint64_t receive = ntp_timestamp(arrived_ns);
    /* Transmit is always later than receive. It could be earlier when a leap second is inserted between the two. It must not be equal, for
     * the difference tells interleaved requests. */
    uint64_t transmit = now->utc_ns > arrived_ns ? ntp_timestamp(now->utc_ns) : receive + 1;
    uint64_t origin = get64(request + ORIGIN), theirs = get64(request + RECEIVE);
    int versed = (request[0] & 0x3f) == (4 << 3 | MODE_CLIENT);
    put64(reply + RECEIVE, receive);
    if (versed && context->receive != 0 && origin == context->receive && theirs != get64(request + TRANSMIT)) {
        put64(reply + ORIGIN, theirs);
        put64(reply + TRANSMIT, context->transmit);
        if (outcome->reason == PKT_BASIC)
            outcome->reason = PKT_INTERLEAVED;
    } else {
        put64(reply + TRANSMIT, transmit);
    }
    outcome->receive = receive;
    outcome->transmit = transmit;
}

/* Authenticate the reply as the request was. Its length. */
static size_t put_proof(const struct pkt_context *context, const uint8_t *request, const struct parts *parts,
                        const struct pkt_outcome *outcome, const struct proof *proof, uint8_t *reply)
{
    if (outcome->authenticated == PKT_NTS)
        return nts_seal(context->nts, context->nonces, &proof->nts, reply, PKT_HEADER);
    return put_mac(proof->key, get32(request + parts->mac), reply, parts->mac_size - MAC_ID);
}

size_t pkt_respond(const struct pkt_context *context, const uint8_t *request, size_t length, uint8_t *reply, struct pkt_outcome *outcome)
{
    struct parts parts = {0, 0, 0};
    struct proof proof;
    *outcome = (struct pkt_outcome){.action = PKT_DROP, .reason = (uint8_t)check_request(context, request, length, &parts)};
    if (outcome->reason != PKT_BASIC)
        return 0;
    decide_action(context, request, length, &parts, outcome, &proof);
    if (outcome->action == PKT_DROP)
        return 0;
    struct rec_reading now;
    unsigned version = request[0] >> 3 & 7, active = (request[0] & 7) == MODE_ACTIVE;
    read_scale(&context->record, context->tx_raw_ns, context->smear, &now);
    if (outcome->action == PKT_REPLY && now.leap == UNSYNCHRONISED)
        outcome->reason = PKT_UNSYNCHRONISED;
    else if (outcome->action == PKT_REPLY && active)
        outcome->reason = PKT_SYMMETRIC_PASSIVE;
    put_header(&now, version, active ? MODE_PASSIVE : MODE_SERVER, request[POLL], reply);
    memcpy(reply + ORIGIN, request + TRANSMIT, 8);
    if (now.leap == UNSYNCHRONISED)
        put_system_times(context, reply);
    else
        put_times(context, request, &now, reply, outcome);
    if (outcome->action == PKT_REPLY)
        return outcome->authenticated ? put_proof(context, request, &parts, outcome, &proof, reply) : PKT_HEADER;
    outcome->receive = outcome->transmit = 0; /* a later request cannot refer to it */
    reply[0] |= UNSYNCHRONISED << 6;
    reply[STRATUM] = 0;
    put32(reply + REFID, outcome->reason == PKT_RATE ? code_rate : outcome->reason == PKT_NTS_NAK ? code_nak : code_deny);
    return outcome->reason == PKT_NTS_NAK ? nts_refuse(&proof.nts, reply, PKT_HEADER) : PKT_HEADER;
}

size_t pkt_broadcast(const struct pkt_context *context, uint32_t id, int poll, uint8_t *packet)
{
    const struct mac_key *key = mac_find(context->keys, id);
    struct rec_reading now;
    read_scale(&context->record, context->tx_raw_ns, context->smear, &now);
    if (!key || now.leap == UNSYNCHRONISED)
        return 0;
    put_header(&now, 4, MODE_BROADCAST, (uint8_t)poll, packet);
    put64(packet + TRANSMIT, ntp_timestamp(now.utc_ns));
    return put_mac(key, id, packet, mac_length(key, 4));
}

const char *pkt_action_name(int action)
{
    static const char *const names[PKT_ACTIONS] = {[PKT_DROP] = "drop", [PKT_REPLY] = "reply", [PKT_KOD] = "kod"};
    return action >= 0 && action < PKT_ACTIONS ? names[action] : NULL;
}

const char *pkt_reason_name(int reason)
{
    static const char *const names[PKT_REASONS] = {
        [PKT_BASIC] = "basic",
        [PKT_INTERLEAVED] = "interleaved",
        [PKT_SYMMETRIC_PASSIVE] = "symmetric_passive",
        [PKT_UNSYNCHRONISED] = "unsynchronised",
        [PKT_UNKNOWN_KEY] = "unknown_key",
        [PKT_WRONG_MAC] = "wrong_mac",
        [PKT_KEY_ELSEWHERE] = "key_elsewhere",
        [PKT_RATE] = "rate",
        [PKT_DENIED] = "denied",
        [PKT_UNAUTHENTICATED] = "unauthenticated",
        [PKT_NTS_NAK] = "nts_nak",
        [PKT_IGNORED] = "ignored",
        [PKT_SHORT] = "short",
        [PKT_LONG] = "long",
        [PKT_VERSION] = "version",
        [PKT_PORT_ZERO] = "port_zero",
        [PKT_NOT_UNICAST] = "not_unicast",
        [PKT_MODE_RESERVED] = "mode_reserved",
        [PKT_MODE_SYMMETRIC] = "mode_symmetric",
        [PKT_MODE_SERVER] = "mode_server",
        [PKT_MODE_BROADCAST] = "mode_broadcast",
        [PKT_MODE_CONTROL] = "mode_control",
        [PKT_MODE_PRIVATE] = "mode_private",
        [PKT_EXTENSION_MALFORMED] = "extension_malformed",
        [PKT_MAC_MALFORMED] = "mac_malformed",
        [PKT_NTS_MALFORMED] = "nts_malformed",
        [PKT_SEND_FAILED] = "send_failed",
    };
    return reason >= 0 && reason < PKT_REASONS ? names[reason] : NULL;
}
