"""Which sources hand on the pulses of another one: a copy says nothing that its original does not, so it has no vote.

Two signs make a copy. Its stamps are those of another source, to the last digit: one event was stamped once, and both tell of it. Or it is
what gpsd itself gives to NTP daemons, by shared memory or chrony's socket, beside gpsd's own report (gpsd(8)): the same receiver again,
stamped later.

Flow: stamps of edges and samples -> **copies** -> ``source.SampleSource.copy_of`` -> selection, rank of the second. Pure.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from refclock import config
from refclock.sample import NS, SourceId

STAMPS: Final = 16
"""Stamps that are remembered of each source: some seconds."""
SAME: Final = 4
"""Of them, stamps that are equal to the nanosecond and make a copy. Pulses of two receivers begin within 0.1 us of each other, but their
stamps are equal once in hundreds of times."""
SAME_CUT: Final = 14
"""The same for stamps that are cut to microseconds, as chrony's SOCK samples have them: two receivers' may be equal every second time."""
US: Final = 1_000
"""Nanoseconds."""
GPSD_UNITS: Final = range(8)
"""Units of shared memory that gpsd writes: two for each of its first four receivers (gpsd, ntpshmwrite.c)."""
GPSD_SOCKETS: Final = re.compile(r"(/var)?/(run|tmp)/chrony\.[^/]+\.sock")
"""Sockets to which gpsd sends (gpsd(8), chrony's socket)."""


class Copies:
    """``sources``: the configuration's."""

    def __init__(self, sources: Sequence[config.Source]) -> None:
        self._stamps: dict[SourceId, deque[int]] = {SourceId(s.name): deque(maxlen=STAMPS) for s in sources}
        samples = (config.ShmSource, config.SockSource)
        ordered = sorted(sources, key=lambda s: isinstance(s, samples))  # an original with pulses of its own comes first
        self._before = {SourceId(s.name): [SourceId(o.name) for o in ordered[:n]] for n, s in enumerate(ordered)}
        gpsd = next((SourceId(s.name) for s in sources if isinstance(s, config.GpsdSource) and s.local and not s.noselect), None)
        self._of_gpsd = {SourceId(s.name): gpsd for s in sources if gpsd is not None and _written_by_gpsd(s)}

    def stamped(self, source: SourceId, real_ns: int) -> None:
        """``source`` told of an event that was stamped at ``real_ns`` (REALTIME). A stamp on a whole second was made up, not measured."""
        if real_ns % NS:
            self._stamps[source].append(real_ns)

    def original(self, source: SourceId) -> SourceId | None:
        """Whose events ``source`` hands on; None: nobody's as far as is seen."""
        own = self._stamps[source]
        for other in self._before[source]:
            theirs = self._stamps[other]
            exact = sum(stamp in theirs for stamp in own if stamp % US)
            cut = {stamp // US for stamp in theirs}
            if exact >= SAME or sum(stamp // US in cut for stamp in own if not stamp % US) >= SAME_CUT:
                return other
        return self._of_gpsd.get(source)


def _written_by_gpsd(source: config.Source) -> bool:
    if isinstance(source, config.ShmSource):
        return source.unit in GPSD_UNITS
    return isinstance(source, config.SockSource) and GPSD_SOCKETS.fullmatch(source.path) is not None
