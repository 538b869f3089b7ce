"""A program beside the clock process, under the same fake_clock: it knows the true time, feeds it by shared memory and says what is so.

``python clock_witness.py RECORD UTC_NS [UNIT]``: the true time is UTC_NS when it starts and RATE faster than CLOCK_MONOTONIC_RAW. A line of
JSON every 0.2 s: raw_s since then, REALTIME minus true UTC, served minus true TAI and the served bound (null when nothing is served), and
what the kernel says.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from leap_list import TO_2017, leap_list

from refclock.exchange.shm import ShmFeedWriter
from refclock.kernel.clocks import read_adjtimex, read_clocks
from refclock.kernel.timescale import TimescaleReader
from refclock.sample import NS, Instant, Leap
from refclock.timescales import DAY_S, NTP_UNIX_S, LeapTable, parse_leap_seconds_list

UNIT = 2
RATE = 12e-6
NEW_YEAR = 1_798_761_600
"""2027-01-01 in POSIX seconds: the tests' leap second is before it."""
LEAP_SECONDS = leap_list([*TO_2017, (NEW_YEAR + NTP_UNIX_S, 38)], NEW_YEAR + NTP_UNIX_S + 180 * DAY_S)
LEAPS = parse_leap_seconds_list(LEAP_SECONDS)
NEAR_LEAP_NS = 3 * NS
"""Nothing is fed then: a sample of UTC does not say which of the two seconds of one name it means."""


def main(record: Path, utc_ns: int, unit: int = UNIT) -> None:
    first, feed, fed = read_clocks(), ShmFeedWriter(unit), 0
    reader: TimescaleReader | None = None
    assert isinstance(LEAPS, LeapTable)
    while True:
        now, kernel = read_clocks(), read_adjtimex()
        since = now.raw_ns - first.raw_ns
        tai_ns = LEAPS.utc_to_tai_ns(utc_ns) + since + round(since * RATE)
        true_ns = LEAPS.tai_to_utc_ns(tai_ns)
        if reader is None and record.exists():
            reader = TimescaleReader(record)
        served = reader.at(now.raw_ns) if reader else None
        says = served is not None and served.stratum > 0
        line = {
            "raw_s": since / NS,
            "error_ns": now.real_ns - true_ns,
            "served_error_ns": served.tai_ns - tai_ns if served and says else None,
            "bound_ns": served.bound_ns if served and says else None,
            "true_s": true_ns / NS,
            **{name: getattr(kernel, name) for name in ("frequency_ppm", "max_error_ns", "est_error_ns", "tai_offset_s", "state")},
            "leap": kernel.leap.name,
        }
        print(json.dumps(line), flush=True)
        second = since // NS
        if second > fed and abs(true_ns - NEW_YEAR * NS) > NEAR_LEAP_NS:
            fed = second
            feed.send(Instant(now.real_ns, now.raw_ns, 0), true_ns - now.real_ns, 1000, Leap.NORMAL)
        time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
