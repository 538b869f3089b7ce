/* packet: what to answer to one NTP request. The one pure decision of the server: no clock, no socket, no memory of its own.
 *
 * RFC 5905 (header, modes), RFC 7822 (extension fields), RFC 4330 (unsynchronised servers answer, and say so), RFC 8633 5.6 (no other
 * modes). A reply is never longer than its request and is never itself answered. Every packet ends in exactly one (action, reason).
 */
#ifndef PACKET_H
#define PACKET_H
#include <stddef.h>
#include <stdint.h>

#include "timescale.h"

enum {
    PKT_HEADER = 48,       /* bytes without extension fields and MAC */
    PKT_REPLY_MAX = 52,    /* room that pkt_respond needs at reply */
    PKT_REQUEST_MAX = 2048 /* longest request that the server looks at */
};

enum pkt_action {
    PKT_DROP,  /* silence */
    PKT_REPLY, /* time, or LI 3 */
    PKT_NAK,   /* time and a crypto-NAK: the request was keyed and we could not check it */
    PKT_ACTIONS
};

/* Names: pkt_reason_name. */
enum pkt_reason {
    PKT_BASIC,               /* reply: synchronised */
    PKT_UNSYNCHRONISED,      /* reply: LI 3, stratum 0, INIT */
    PKT_UNKNOWN_KEY,         /* nak */
    PKT_SHORT,               /* drop, from here on: less than a header */
    PKT_LONG,                /* more than PKT_REQUEST_MAX */
    PKT_VERSION,             /* not 1..4 */
    PKT_PORT_ZERO,           /* nowhere to answer to */
    PKT_MODE_RESERVED,       /* mode 0 but for version 1 from a port other than 123 (RFC 1059 has no modes) */
    PKT_MODE_SYMMETRIC,      /* modes 1 and 2 */
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
    struct tsc_params record;
    int64_t rx_raw_ns;    /* arrival on CLOCK_MONOTONIC_RAW */
    int64_t tx_raw_ns;    /* departure */
    uint16_t source_port; /* the client's, host order */
};

struct pkt_outcome {
    uint8_t action; /* enum pkt_action */
    uint8_t reason; /* enum pkt_reason */
};

/* Answer request: the length of what was put at reply (PKT_REPLY_MAX bytes, not overlapping request), or 0 for silence. A record
 * that never had a time (tai_ns = 0) puts 0, "unknown", into the receive and transmit timestamps (RFC 5905 6). */
size_t pkt_respond(const struct pkt_context *context, const uint8_t *request, size_t length, uint8_t *reply, struct pkt_outcome *outcome);
/* Lower-case words for counters; NULL when there is no such action or reason. */
const char *pkt_action_name(int action);
const char *pkt_reason_name(int reason);
#endif
