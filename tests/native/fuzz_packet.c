/* libFuzzer target: any request, any record. The first bytes choose record and instants, the rest is the packet. */
#include <stdlib.h>
#include <string.h>

#include "packet.h"

static void demand(int claim)
{
    if (!claim)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pkt_context context;
    struct pkt_outcome outcome = {255, 255};
    struct tsc_params sane = {.raw_ns = 1000000000000, .tai_ns = 1800000037000000000, .rate = 1e-6, .bound_ns = 1000, .bound_rate = 1e-8,
                              .bound_wander_ns = 1, .reference_raw_ns = 999000000000, .valid_until_raw_ns = 2000000000000,
                              .tai_offset_s = 37, .refid = 0x47505300, .precision = -24, .stratum = 1};
    if (size < 1 + sizeof context)
        return 0;
    int wild = data[0] & 1; /* a record of garbage, or a sane one with any instants */
    memcpy(&context, data + 1, sizeof context);
    if (!wild)
        context.record = sane;
    data += 1 + sizeof context;
    size -= 1 + sizeof context;
    uint8_t *request = malloc(size ? size : 1), *reply = malloc(PKT_REPLY_MAX); /* on the heap: ASan sees one byte too many */
    memcpy(request, data, size);
    size_t length = pkt_respond(&context, request, size, reply, &outcome);
    demand(length == 0 || length == PKT_HEADER || length == PKT_REPLY_MAX);
    demand(length <= size);
    demand(outcome.action < PKT_ACTIONS && outcome.reason < PKT_REASONS);
    demand((length == 0) == (outcome.action == PKT_DROP));
    if (length) {
        demand((reply[0] & 7) == 4 && ((reply[0] ^ request[0]) & 0x38) == 0);
        demand(memcmp(reply + 24, request + 40, 8) == 0);
        demand((reply[0] >> 6 == 3) == (reply[1] == 0));
        if (!wild) /* transmit not before receive, modulo the era */
            demand((int32_t)(((uint32_t)reply[40] << 24 | (uint32_t)reply[41] << 16 | (uint32_t)reply[42] << 8 | reply[43]) -
                             ((uint32_t)reply[32] << 24 | (uint32_t)reply[33] << 16 | (uint32_t)reply[34] << 8 | reply[35])) >= 0 ||
                   context.tx_raw_ns / 2 - context.rx_raw_ns / 2 > 1000000000000000000 / 2);
    }
    free(request);
    free(reply);
    return 0;
}
