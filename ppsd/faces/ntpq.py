"""The billboard of ``ntpq -p``, from the associations that ntpq itself is told (``ppsd.faces.mode6``). Pure.

Every source is a reference clock: type l, stratum 0, a poll of 1 s. Delay, offset and jitter are in milliseconds; offset = reference -
local, as in this code. Source of columns and tally codes: ntpq(1), and the output of ntpsec 1.2.2.
"""

from __future__ import annotations

from typing import Final

from ppsd.faces.chronyc import Report
from ppsd.faces.mode6 import associations
from ppsd.snapshot import Snapshot

TALLY: Final = " x.-+#*o"
"""The tally code of each selection status 0 to 7 (RFC 9327, peer status word)."""
NAME, REFID = 15, 15
"""Characters of the columns of the billboard."""


def when(s: float | None) -> str:
    """An age as the billboard has it: seconds up to 2048, then m, h, d; - when unknown, and for less than a second."""
    whole = int(s) if s is not None else 0
    if whole <= 0:
        return "-"
    if whole <= 2048:
        return str(whole)
    minutes = (whole + 29) / 60
    if minutes <= 300:
        return f"{int(minutes)}m"
    hours = (minutes + 29) / 60
    return f"{int(hours)}h" if hours <= 96 else f"{int((hours + 11) / 24)}d"


def milliseconds(ms: float) -> str:
    """Milliseconds in eight columns, with as many decimals as have room, four at most."""
    limits = ((1e3, 4), (1e4, 3), (1e5, 2), (1e6, 1)) if ms >= 0 else ((1e2, 4), (1e3, 3), (1e4, 2), (1e5, 1))
    return f"{ms:8.{next((decimals for limit, decimals in limits if abs(ms) < limit), 0)}f}"


def peers(clock: Snapshot) -> Report:
    """``ntpq -p``."""
    lines, rows, told = [], [], list[dict[str, object]]()
    for p in associations(clock):
        numbers = f"{milliseconds(p.delay_ms)} {milliseconds(p.offset_ms)} {milliseconds(p.jitter_ms)}"
        refid = p.refid if p.stratum > 1 else f".{p.refid}."
        poll_s = 1 if p.server is None else 2 ** max(0, p.server.poll)
        lines.append(
            f"{TALLY[p.selection]}{p.name:<{NAME}} {refid:<{REFID}} {p.stratum:2d} {p.kind_letter} {when(p.when_s):>4} {poll_s:>4}"
            f"  {p.reach:3o} {numbers}"
        )
        age = -1 if p.when_s is None else int(p.when_s)
        when_and_reach = (age, poll_s, f"{p.reach:o}")
        values = (TALLY[p.selection], p.name, p.refid, p.stratum, p.kind_letter, *when_and_reach, p.delay_ms, p.offset_ms, p.jitter_ms)
        rows.append(",".join(str(value) for value in values))
        told.append(
            {
                "tally": TALLY[p.selection],
                "remote": p.name,
                "refid": p.refid,
                "stratum": p.stratum,
                "when_s": p.when_s,
                "reach": p.reach,
                "offset_ms": p.offset_ms,
                "jitter_ms": p.jitter_ms,
            }
        )
    heading = "     remote           refid      st t when poll reach   delay   offset   jitter"
    return Report("\n".join((heading, "=" * len(heading), *lines)), tuple(rows), told)
