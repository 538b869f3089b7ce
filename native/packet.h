/* packet: what to answer to one NTP request. The one pure decision of the server: no clock, no socket, no memory of its own.
 *
 * RFC 5905 (header, modes), RFC 7822 (extension fields), RFC 8573 (MAC), RFC 8915 (NTS), RFC 9769 (interleaved mode), RFC 4330 (an
 * unsynchronised server answers and says so), RFC 8633 5.6 (no other modes). A symmetric active request (mode 1) is answered in mode 2 and leaves no association
 * behind, as in chronyd and ntpd: Windows and routers that are told of a peer ask so. A request whose MAC no key of ours made gets silence,
 * as from chronyd: domain members and some devices append 20 or 24 bytes that are no MAC. A reply is never longer than its request, and no
 * server answers a reply. Every packet ends in exactly one (action, reason).
 */
#ifndef PACKET_H
#define PACKET_H
#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "mac.h"
#include "nts.h"
#include "record.h"

enum {
    PKT_HEADER = 48,       /* bytes without extension fields and MAC */
    PKT_REPLY_MAX = 1180,  /* room for a reply: header, longest unique identifier, authenticator with eight cookies */
    PKT_REQUEST_MAX = 2048 /* a longer request is not looked at */
};

enum pkt_action {
    PKT_DROP,  /* silence */
    PKT_REPLY, /* time, or LI 3 */
    PKT_KOD,   /* kiss-o'-death (RFC 5905 7.4): no time, a reason */
    PKT_ACTIONS
};

/* Names: pkt_reason_name. */
enum pkt_reason {
    PKT_BASIC,               /* reply: synchronised */
    PKT_INTERLEAVED,         /* reply: with the departure of the previous reply */
    PKT_SYMMETRIC_PASSIVE,   /* reply in mode 2 */
    PKT_UNSYNCHRONISED,      /* reply: LI 3, stratum 0, INIT */
    PKT_RATE,                /* kod RATE, or drop: asks too often */
    PKT_DENIED,              /* kod DENY, or drop */
    PKT_UNAUTHENTICATED,     /* kod DENY, or drop: this address must authenticate */
    PKT_NTS_NAK,             /* kod NTSN: the cookie is of no key of ours, or the request was changed on its way */
    PKT_IGNORED,             /* drop by rule; all reasons from here on are drops */
    PKT_UNKNOWN_KEY,
    PKT_WRONG_MAC,
    PKT_KEY_ELSEWHERE,       /* this address may not use the key */
    PKT_SHORT,               /* less than a header */
    PKT_LONG,                /* more than PKT_REQUEST_MAX */
    PKT_VERSION,             /* not 1..4 */
    PKT_PORT_ZERO,           /* a reply could not be sent */
    PKT_NOT_UNICAST,         /* sent to a broadcast or multicast address: every server there would answer, each thread of ours too */
    PKT_MODE_RESERVED,       /* mode 0, except version 1 from a port other than 123 (RFC 1059 has no modes) */
    PKT_MODE_SYMMETRIC,      /* mode 2; mode 1 unless it is allowed */
    PKT_MODE_SERVER,         /* replies are not answered */
    PKT_MODE_BROADCAST,
    PKT_MODE_CONTROL,        /* mode 6; counted as a reply when it is handed over (srv_hand_over) */
    PKT_MODE_PRIVATE,        /* mode 7 */
    PKT_EXTENSION_MALFORMED, /* RFC 7822 7.5 */
    PKT_MAC_MALFORMED,
    PKT_NTS_MALFORMED,       /* RFC 8915 5.3 to 5.7 */
    PKT_SEND_FAILED,         /* counted by the server: the kernel did not take the reply */
    PKT_REASONS
};

/* What a request was authenticated by. */
enum pkt_proof { PKT_NOTHING, PKT_MAC, PKT_NTS };

/* Everything that a reply depends on besides the request. */
struct pkt_context {
    struct rec_params record;
    int64_t rx_raw_ns;            /* arrival on CLOCK_MONOTONIC_RAW */
    int64_t tx_raw_ns;            /* departure */
    int64_t system_ahead_ns;      /* CLOCK_REALTIME - CLOCK_MONOTONIC_RAW, for unsynchronised replies */
    const struct mac_keys *keys;  /* NULL: none, so every MAC is unknown */
    const struct nts_keys *nts;   /* NULL: no NTS, so its fields are passed over as unknown ones */
    struct nts_nonces *nonces;    /* for NTS; a reply draws some */
    struct acl_address source;    /* the client's */
    uint16_t source_port;         /* host order */
    uint8_t access;               /* enum acl_action of the source */
    uint8_t over_rate;            /* 1: it gets no time */
    uint8_t may_kod;              /* 1: a kiss-o'-death may be sent */
    uint8_t symmetric;            /* 1: mode 1 is answered in mode 2 */
    uint8_t not_unicast;          /* 1: the request was sent to a broadcast or multicast address */
    uint8_t smear;                /* 1: leap seconds are smeared (rec_smear) */
    uint64_t receive, transmit;   /* NTP timestamps of the previous reply to this client, for interleaved mode; 0: none */
};

struct pkt_outcome {
    uint8_t action; /* enum pkt_action */
    uint8_t reason; /* enum pkt_reason */
    uint8_t authenticated; /* enum pkt_proof of the request, if it was answered */
    uint64_t receive, transmit; /* NTP timestamps of this reply, to be remembered; 0: nothing */
};

/* Answer a request: write the reply (room: PKT_REPLY_MAX bytes, not overlapping request) and return its length; 0: silence. An unsynchronised
 * reply has the system clock's receive and transmit timestamps: simple clients do not look at LI, and take a zero for the year 2036. */
size_t pkt_respond(const struct pkt_context *context, const uint8_t *request, size_t length, uint8_t *reply, struct pkt_outcome *outcome);
/* Write a broadcast (mode 5, RFC 5905 3) with the MAC of key `id` (room: PKT_REPLY_MAX). It leaves at context->tx_raw_ns; of the context
 * only record, tx_raw_ns, keys and smear are used. poll: log2 s. Its length; 0: unsynchronised, or no such key. */
size_t pkt_broadcast(const struct pkt_context *context, uint32_t id, int poll, uint8_t *packet);
/* The NTP timestamp of an instant of the served timescale. */
uint64_t pkt_timestamp(const struct rec_params *record, int64_t raw_ns, int smear);
/* Lower-case words for the counters; NULL: there is no such action or reason. */
const char *pkt_action_name(int action);
const char *pkt_reason_name(int reason);
#endif
