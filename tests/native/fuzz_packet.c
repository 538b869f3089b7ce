/* libFuzzer target: any request, any record, any state of the client, any verdict about it. The first bytes choose these, the rest is the
 * packet; now and then its MAC, or its NTS cookie and authenticator, are made right, which no fuzzer would find, so that what lies behind
 * them is reached. */
#include <stdlib.h>
#include <string.h>

#include "nts_client.h"
#include "packet.h"

enum choice {
    WILD_RECORD = 1,   /* of garbage; else a sane one with any instants */
    WITHOUT_KEYS = 2,
    SIGNED = 4,        /* the MAC is made right */
    ANSWERS_REPLY = 8, /* the request's origin is the receive timestamp that is remembered */
    INSERTION = 16,    /* a leap second is due in the sane record */
    DELETION = 32,
    PLAIN_VERDICT = 64, /* allowed, within its rate */
    WITH_NTS = 128      /* the server has NTS; with SIGNED the packet's fields get a cookie and an authenticator */
};
enum { KEYS = 2 * MAC_TYPES, HERE_ONLY = 2 * MAC_TYPES + 1, SIGNED_ROOM = 4096, PROTECTED_MAX = 1400 };
static const struct acl_address here = {0, 0xffffc0000205};

static void demand(int claim)
{
    if (!claim)
        abort();
}

/* Two keys of each type that may be used from anywhere, and one that may not. */
static const struct mac_keys *the_keys(void)
{
    static struct mac_keys *keys;
    static const struct acl_range from[] = {{{0, 0}, ACL_DENY}, {{0, 0xffffc0000205}, ACL_ALLOW}, {{0, 0xffffc0000206}, ACL_DENY}};
    uint8_t secret[32] = {0};
    if (keys)
        return keys;
    demand(mac_create(KEYS + 1, &keys) == 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        secret[0] = (uint8_t)i;
        int type = (int)i % MAC_TYPES;
        demand(mac_add(keys, &(struct mac_spec){i + 1, type, secret, type == MAC_AES128 ? 16 : 32, NULL, 0}) == 0);
    }
    demand(mac_add(keys, &(struct mac_spec){HERE_ONLY, MAC_MD5, secret, 9, from, 3}) == 0);
    return keys;
}

static const struct nts_keys *the_cookie_keys(void)
{
    static struct nts_keys *keys;
    if (!keys)
        client_server_keys(&keys);
    return keys;
}

static struct nts_nonces *the_nonces(void)
{
    static const uint8_t seed[NTS_SEED];
    static struct nts_nonces *nonces;
    demand(nonces || nts_nonces_create(seed, &nonces) == 0);
    return nonces;
}

/* Make an NTS request of a packet: a cookie behind its fields, what is in `sealed` sealed behind that. The new length. */
static size_t protect(uint8_t *packet, size_t length, const uint8_t *sealed, size_t sealed_length, size_t key)
{
    static struct client c;
    client_begin(&c);
    c.key = key;
    memcpy(c.packet, packet, length);
    c.length = length;
    client_unique(&c, CLIENT_UNIQUE);
    client_cookie(&c, CLIENT_PRESENT);
    client_seal(&c, sealed, sealed_length, key == NTS_KEY ? CLIENT_NONCE : GCM_NONCE, 0);
    memcpy(packet, c.packet, c.length);
    return c.length;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static void put(uint8_t *p, uint64_t v, int bytes)
{
    while (bytes--) {
        p[bytes] = (uint8_t)v;
        v >>= 8;
    }
}

static void choose_record(struct pkt_context *context, unsigned choice)
{
    static const struct rec_params sane = {.raw_ns = 1000000000000, .tai_ns = 1800000037000000000, .rate = 1e-6, .bound_ns = 1000,
                                           .bound_rate = 1e-8, .bound_wander_ns = 1, .reference_raw_ns = 999000000000,
                                           .valid_until_raw_ns = 2000000000000, .tai_offset_s = 37, .refid = 0x47505300, .precision = -24,
                                           .stratum = 1};
    if (choice & WILD_RECORD)
        return;
    context->record = sane;
    context->record.leap_tai_ns = sane.tai_ns + 60000000000;
    context->record.leap_step_s = choice & INSERTION ? 1 : choice & DELETION ? -1 : 0;
}

/* Who may be answered at all, and how. */
static void check_verdict(const struct pkt_context *context, const uint8_t *request, const struct pkt_outcome *outcome)
{
    int mode = request[0] & 7;
    int nak = outcome->reason == PKT_NTS_NAK && context->access <= ACL_AUTHENTICATED && !context->over_rate && mode == 3;
    demand(outcome->action != PKT_KOD || nak || (context->may_kod && context->access != ACL_IGNORE && mode != 1));
    if (outcome->action == PKT_REPLY)
        demand(context->access <= ACL_AUTHENTICATED && !context->over_rate);
    if (outcome->action == PKT_REPLY)
        demand(context->access == ACL_ALLOW || outcome->authenticated);
    if (mode == 1)
        demand(outcome->action == PKT_DROP || (context->symmetric && outcome->action == PKT_REPLY));
    if (context->not_unicast)
        demand(outcome->action == PKT_DROP);
    if (outcome->action != PKT_REPLY)
        demand(outcome->receive == 0 && outcome->transmit == 0 && !outcome->authenticated);
}

static void check_trailer(const struct pkt_context *context, const uint8_t *request, const uint8_t *reply, size_t length,
                          const struct pkt_outcome *outcome)
{
    if (outcome->authenticated == PKT_MAC) {
        const struct mac_key *key = mac_find(context->keys, (uint32_t)(get64(reply + PKT_HEADER) >> 32));
        demand(key && mac_from(key, context->source));
        demand(mac_check(key, request[0] >> 3 & 7, reply, PKT_HEADER, reply + PKT_HEADER + MAC_ID, length - PKT_HEADER - MAC_ID));
    } else if (outcome->authenticated == PKT_NTS) {
        size_t unique = (size_t)reply[PKT_HEADER + 2] << 8 | reply[PKT_HEADER + 3];
        demand(context->nts && (request[0] & 0x3f) == (4 << 3 | 3) && length >= PKT_HEADER + unique + 36 + 4 + NTS_SHORT_COOKIE);
    } else if (outcome->reason == PKT_NTS_NAK) {
        demand(context->nts && outcome->action == PKT_KOD && length >= PKT_HEADER + 36 && memcmp(reply + 12, "NTSN", 4) == 0);
    } else {
        demand(length == PKT_HEADER);
    }
}

static void check_times(const struct pkt_context *context, const uint8_t *request, const uint8_t *reply, const struct pkt_outcome *outcome)
{
    int interleaved = context->receive != 0 && get64(request + 24) == context->receive && get64(request + 32) != get64(request + 40) &&
                      (request[0] & 0x3f) == (4 << 3 | 3) && outcome->reason != PKT_UNSYNCHRONISED;
    if (outcome->action == PKT_KOD) /* with an unsynchronised record it is basic */
        interleaved = interleaved && get64(reply + 24) == get64(request + 32);
    if (interleaved)
        demand(get64(reply + 24) == get64(request + 32) && get64(reply + 40) == context->transmit);
    else
        demand(get64(reply + 24) == get64(request + 40));
    demand(outcome->reason != PKT_INTERLEAVED || interleaved);
    if (outcome->receive != 0 || outcome->transmit != 0)
        demand(outcome->receive == get64(reply + 32) && (interleaved || outcome->transmit == get64(reply + 40)));
    int64_t real_ns;
    int beyond = __builtin_add_overflow(context->rx_raw_ns, context->system_ahead_ns, &real_ns) ||
                 __builtin_add_overflow(context->tx_raw_ns, context->system_ahead_ns, &real_ns);
    /* After it, modulo the era, unless decades lie between, as a senseless clock, rate or leap step makes them. */
    demand(interleaved || beyond || (int64_t)(get64(reply + 40) - get64(reply + 32)) > 0 ||
           context->tx_raw_ns / 2 - context->rx_raw_ns / 2 > 1000000000000000000 / 2 || context->record.rate > 0.1 ||
           context->record.rate < -0.1 || context->record.rate != context->record.rate || context->record.leap_step_s < -1 ||
           context->record.leap_step_s > 1);
}

static void check_broadcast(const struct pkt_context *context, unsigned id)
{
    uint8_t *packet = malloc(PKT_REPLY_MAX);
    size_t length = pkt_broadcast(context, id, 6, packet);
    const struct mac_key *key = mac_find(context->keys, id);
    demand(length == 0 || (key && length == PKT_HEADER + MAC_ID + mac_length(key, 4)));
    if (length)
        demand((packet[0] & 0x3f) == (4 << 3 | 5) && packet[0] >> 6 != 3 && packet[1] != 0);
    free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pkt_context context;
    struct pkt_outcome outcome = {.action = 255, .reason = 255};
    if (size < 2 + sizeof context)
        return 0;
    unsigned choice = data[0], id = 1 + data[1] % HERE_ONLY;
    memcpy(&context, data + 2, sizeof context);
    data += 2 + sizeof context;
    size -= 2 + sizeof context;
    choose_record(&context, choice);
    context.keys = choice & WITHOUT_KEYS ? NULL : the_keys();
    context.nts = choice & WITH_NTS ? the_cookie_keys() : NULL;
    context.nonces = the_nonces();
    if (id % 2)
        context.source = here;
    context.access %= ACL_ACTIONS;
    if (choice & PLAIN_VERDICT)
        context.access = context.over_rate = context.not_unicast = 0;

    const struct mac_key *key = mac_find(the_keys(), id);
    int protected = (choice & SIGNED) && (choice & WITH_NTS) && size >= PKT_HEADER && size <= PROTECTED_MAX;
    size_t secret = id % 3 == 0 ? NTS_SHORT_KEY : NTS_KEY, shortest = secret == NTS_KEY ? NTS_COOKIE + 40 : NTS_SHORT_COOKIE + 36;
    int right = (choice & SIGNED) && !(choice & WITH_NTS) && size >= PKT_HEADER;
    uint8_t *draft = malloc(size + SIGNED_ROOM), *reply = malloc(PKT_REPLY_MAX);
    memcpy(draft, data, size);
    if ((choice & ANSWERS_REPLY) && size >= PKT_HEADER)
        put(draft + 24, context.receive, 8);
    size_t all = size;
    if (right) {
        size_t code = mac_length(key, draft[0] >> 3 & 7);
        put(draft + size, id, MAC_ID);
        mac_make(key, draft, size, draft + size + MAC_ID, code);
        all += MAC_ID + code;
    }
    if (protected) { /* some of the packet's end is sealed instead */
        size_t sealed = data[size - 1] % 4 == 0 ? (size - PKT_HEADER) / 2 / 4 * 4 : 0;
        all = protect(draft, size - sealed, data + size - sealed, sealed, secret);
    }
    uint8_t *request = malloc(all ? all : 1); /* on the heap: ASan sees one byte too many */
    memcpy(request, draft, all);
    free(draft);

    size_t length = pkt_respond(&context, request, all, reply, &outcome);
    demand(length <= all && length <= PKT_REPLY_MAX);
    demand(outcome.action < PKT_ACTIONS && outcome.reason < PKT_REASONS);
    demand((length == 0) == (outcome.action == PKT_DROP));
    if (all >= PKT_HEADER)
        check_verdict(&context, request, &outcome);
    if (length) {
        struct pkt_outcome again;
        uint8_t echo[PKT_REPLY_MAX];
        demand((reply[0] & 7) == ((request[0] & 7) == 1 ? 2 : 4) && ((reply[0] ^ request[0]) & 0x38) == 0);
        demand((reply[0] >> 6 == 3) == (reply[1] == 0));
        if (context.smear && (context.record.leap_step_s == 1 || context.record.leap_step_s == -1))
            demand(reply[0] >> 6 == 0 || reply[0] >> 6 == 3);
        check_trailer(&context, request, reply, length, &outcome);
        check_times(&context, request, reply, &outcome);
        demand(pkt_respond(&context, reply, length, echo, &again) == 0);
    }
    /* A right MAC on a plain client request is accepted. */
    if (right && size == PKT_HEADER && context.keys && mac_from(key, context.source) && context.access <= ACL_AUTHENTICATED &&
        !context.over_rate && context.source_port && !context.not_unicast && (request[0] & 7) == 3 && (request[0] >> 3 & 7) >= 1 && (request[0] >> 3 & 7) <= 4)
        demand(outcome.authenticated && outcome.action == PKT_REPLY && length == all);
    /* So is a right cookie. */
    if (protected && all == PKT_HEADER + 4 + CLIENT_UNIQUE + 4 + shortest && context.access <= ACL_AUTHENTICATED &&
        !context.over_rate && context.source_port && !context.not_unicast && (request[0] & 0x3f) == (4 << 3 | 3))
        demand(outcome.authenticated == PKT_NTS && outcome.action == PKT_REPLY && length == all);
    check_broadcast(&context, id);
    free(request);
    free(reply);
    return 0;
}
