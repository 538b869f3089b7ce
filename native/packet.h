/* packet: what to answer to one NTP request. The one pure decision of the server: no clock, no socket, no memory of its own.
 *
 * RFC 5905 (header, modes), RFC 7822 (extension fields), RFC 8573 (MAC), RFC 9769 (interleaved mode), RFC 4330 (unsynchronised servers
 * answer, and say so), RFC 8633 5.6 (no other modes). A reply is never longer than its request and is never itself answered. Every packet
 * ends in exactly one (action, reason).
 */
#ifndef PACKET_H
#define PACKET_H
#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "mac.h"
#include "record.h"

enum {
    PKT_HEADER = 48,       /* bytes without extension fields and MAC */
    PKT_REPLY_MAX = 84,    /* room that pkt_respond needs at reply: header, key id, longest code */
    PKT_REQUEST_MAX = 2048 /* longest request that the server looks at */
};

enum pkt_action {
    PKT_DROP,  /* silence */
    PKT_REPLY, /* time, or LI 3 */
    PKT_NAK,   /* time and a crypto-NAK: the request's MAC is not one of ours */
    PKT_KOD,   /* kiss-o'-death (RFC 5905 7.4): no time, a reason */
    PKT_ACTIONS
};

/* Names: pkt_reason_name. */
enum pkt_reason {
    PKT_BASIC,               /* reply: synchronised */
    PKT_INTERLEAVED,         /* reply: with the departure of the reply before */
    PKT_SYMMETRIC_PASSIVE,   /* reply in mode 2 */
    PKT_UNSYNCHRONISED,      /* reply: LI 3, stratum 0, INIT */
    PKT_UNKNOWN_KEY,         /* nak */
    PKT_WRONG_MAC,           /* nak */
    PKT_KEY_ELSEWHERE,       /* nak: the key may not be used from there */
    PKT_RATE,                /* kod RATE, or drop: asks too often */
    PKT_DENIED,              /* kod DENY, or drop */
    PKT_UNAUTHENTICATED,     /* kod DENY, or drop: only authenticated requests are answered there */
    PKT_IGNORED,             /* drop, from here on: by rule */
    PKT_SHORT,               /* less than a header */
    PKT_LONG,                /* more than PKT_REQUEST_MAX */
    PKT_VERSION,             /* not 1..4 */
    PKT_PORT_ZERO,           /* nowhere to answer to */
    PKT_MODE_RESERVED,       /* mode 0 but for version 1 from a port other than 123 (RFC 1059 has no modes) */
    PKT_MODE_SYMMETRIC,      /* mode 2; mode 1 unless that is allowed and the request authenticated */
    PKT_MODE_SERVER,         /* replies are not answered */
    PKT_MODE_BROADCAST,
    PKT_MODE_CONTROL,        /* mode 6 */
    PKT_MODE_PRIVATE,        /* mode 7 */
    PKT_EXTENSION_MALFORMED, /* RFC 7822 7.5 */
    PKT_MAC_MALFORMED,
    PKT_SEND_FAILED,         /* counted by the server: the kernel would not take the reply */
    PKT_REASONS
};

/* All that a reply depends on besides the request. */
struct pkt_context {
    struct rec_params record;
    int64_t rx_raw_ns;            /* arrival on CLOCK_MONOTONIC_RAW */
    int64_t tx_raw_ns;            /* departure */
    const struct mac_keys *keys;  /* NULL: none, every MAC is unknown */
    struct acl_address source;    /* the client's */
    uint16_t source_port;         /* host order */
    uint8_t access;               /* enum acl_action that the source met */
    uint8_t over_rate;            /* 1: not to be answered with time */
    uint8_t may_kod;              /* 1: a kiss-o'-death may be sent for it */
    uint8_t symmetric;            /* 1: mode 1, authenticated, is answered in mode 2 */
    uint8_t smear;                /* 1: leap seconds are smeared (rec_smear) */
    uint64_t receive, transmit;   /* NTP timestamps of the reply before to this client, for interleaved mode; 0: none */
};

struct pkt_outcome {
    uint8_t action; /* enum pkt_action */
    uint8_t reason; /* enum pkt_reason */
    uint8_t authenticated;
    uint64_t receive, transmit; /* NTP timestamps of this reply, to be remembered; 0: nothing to remember */
};

/* Answer request: the length of what was put at reply (PKT_REPLY_MAX bytes, not overlapping request), or 0 for silence. A record
 * that never had a time (tai_ns = 0) puts 0, "unknown", into the receive and transmit timestamps (RFC 5905 6). */
size_t pkt_respond(const struct pkt_context *context, const uint8_t *request, size_t length, uint8_t *reply, struct pkt_outcome *outcome);
/* A broadcast (mode 5, RFC 5905 appendix) of key `key`, leaving at tx_raw_ns: its length, or 0 when unsynchronised. poll: log2 s. */
size_t pkt_broadcast(const struct rec_params *record, int64_t tx_raw_ns, int smear, int poll, const struct mac_keys *keys, uint32_t key,
                     uint8_t *packet);
/* The NTP timestamp of an instant of the served timescale. */
uint64_t pkt_timestamp(const struct rec_params *record, int64_t raw_ns, int smear);
/* Lower-case words for counters; NULL when there is no such action or reason. */
const char *pkt_action_name(int action);
const char *pkt_reason_name(int reason);
#endif
