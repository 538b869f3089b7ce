"""What decoding costs: CPU of a 10 Hz receiver with 40 satellites on a full 115200 baud line, as a share of one core of this machine.

`make bench`. The bytes are those of a simulated u-blox 8 (NMEA only, UBX and NMEA mixed), ten cycles a second, each sentence a read of its
own, through the very Source of the clock process: framing, decoders, gate, dates, trust, health, pairing. Limit: 3 % of a core.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS
from refclock_sim.receiver.output import Receiver as SimReceiver

from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.saved import Saved
from ppsd.discipline.source import ReceiverSource
from refclock import config
from refclock.protocols.stream import ReceiverStream
from refclock.sample import NS, Instant
from refclock.timescales import LeapTable
from refclock.timing.pulse_time import Context

LIMIT_PERCENT = 3.0
CYCLES, RATE = 2000, 10
UTC0 = 1_800_000_000


def percent(kind: str) -> tuple[float, int]:
    """(CPU in % of a core, bytes a second)."""
    receiver = SimReceiver(replace(MODELS[kind], baud=0), Gnss(1, UTC0 + 37, LeapTable(), fix_s=0, visible=40), 1, 0)
    cycles = [[chunk.data for chunk in receiver.cycle(UTC0 + k + 37)] for k in range(CYCLES)]
    stream, leaps = ReceiverStream(UTC0 - 10**7), LeapKeeper()
    source = ReceiverSource(config.ReceiverSource(name="gps0", device="/dev/x"), UTC0 - 10**7, Saved())
    context, began = Context(), time.process_time()
    for k, chunks in enumerate(cycles):
        for i, data in enumerate(chunks):
            at = k * NS // RATE + i * 1_000_000
            values = stream.feed(data, Instant(UTC0 * NS + at, 10**12 + at), 86_806)
            source.reported(values, 86_806, leaps, context)
    spent = time.process_time() - began
    return 100 * spent / (CYCLES / RATE), sum(len(d) for chunks in cycles for d in chunks) * RATE // CYCLES


def main() -> int:
    """Print and keep the figures; 1 when one is beyond the limit."""
    figures: dict[str, float] = {}
    for kind in ("ublox8-nmea", "ublox8", "watched"):
        share, rate = percent(kind)
        figures[f"{kind}_percent"], figures[f"{kind}_bytes_per_s"] = round(share, 2), rate
        print(f"{kind:12} {rate:6d} bytes/s  {share:5.2f} % of a core")
    Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="ascii")
    return int(any(value > LIMIT_PERCENT for name, value in figures.items() if name.endswith("_percent")))


if __name__ == "__main__":
    sys.exit(main())
