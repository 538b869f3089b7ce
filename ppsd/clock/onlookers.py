"""What other programs may see of the receivers' lines while the clock process reads them: which there are, what comes, and the settings.

A serial line has one reader, as gpsd's clients know. ``refclock nmea``, ``receiver show`` and ``detect`` ask here instead of opening it.
Asking for the settings makes the daemon ask the receiver; nothing is changed.

Flow: control socket -> **onlookers** -> open lines (``sources.Line``) -> values of ``ppsd.snapshot`` as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from ppsd.clock.sources import Line
from ppsd.snapshot import LineReport, LineSettings, Reading
from refclock.sample import SourceId

VERBS: Final = ("lines", "heard SOURCE NUMBER", "settings SOURCE")
READS: Final = 64
"""Most reads in one reply. A read has at most some kilobytes, and a reply 1 MB (``ppsd.process.control``)."""


def answer(request: str, lines: Mapping[SourceId, Line], pulses: Mapping[SourceId, str]) -> dict[str, Any] | None:
    """The reply to a request, as JSON object; None when it is none of VERBS. ``pulses``: path of the open pulse of each source."""
    verb, _, rest = request.partition(" ")
    if verb == "lines" and not rest:
        return {"lines": [asdict(_report(name, line, pulses.get(name, ""))) for name, line in lines.items()]}
    if verb not in ("heard", "settings"):
        return None
    name, _, number = rest.partition(" ")
    line = lines.get(SourceId(name))
    if line is None:
        return {"error": f"no receiver's line of a source {name[:32]!r} is open"}
    if verb == "settings":
        return asdict(_settings(line))
    reads, after = line.heard(int(number) if number.isdecimal() else 0, READS)
    return asdict(Reading(after, tuple((at.real_ns, at.mono_ns, data.hex()) for at, data in reads)))


def _report(name: SourceId, line: Line, pulse: str) -> LineReport:
    return LineReport(
        source=str(name),
        device=line.device,
        baud=line.baud,
        byte_ns=line.byte_ns,
        bits=line.bits,
        protocol=line.protocol if line.speaks else "",
        identity=line.identity,
        named_s=line.named_s,
        pulse=pulse,
        heard=line.heard_count,
    )


def _settings(line: Line) -> LineSettings:
    if not line.writes:
        return LineSettings("configure = false: the daemon writes nothing to this receiver, so it cannot ask it", True, {})
    asked = line.settings()
    if asked is None:
        return LineSettings("", False, {})
    return LineSettings("", asked.finished, {name: told.hex() for name, told in asked.told.items()})
