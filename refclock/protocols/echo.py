"""What the host wrote to a line and hears again on it: no word of a receiver.

A loop-back plug, a modem or terminal with echo, and a half-duplex adapter that hears itself give back what is written to them, at once or
later, whole or in part. So a frame that the host wrote shows no receiver. Nor does a question, whoever wrote it and whenever: no receiver
asks one.

A receiver that is asked for a setting answers with the very frame that set it. Such a frame is dropped only where the line is known to
echo, because a question has come back, and only as often as it was written.

Flow: bytes written (``receiver.session``), frames (``framing``) -> **echo** -> which frames go no further.
"""

from __future__ import annotations

import re
from collections import Counter

_QUESTION = re.compile(rb"P[A-Z]{3,}\d*|PUBX,\d\d|[A-Z]{4}Q,[A-Z]{3}")
"""Sentences that only a host sends: a maker's address without a field (PMTK605), PUBX,04 without its fields (u-blox protocol
specification, PUBX polls), a query (NMEA 0183 section 5.3.2.2)."""


class Echo:
    """The frames written to one line. ``heard``: whether the line gave back a question."""

    def __init__(self) -> None:
        self.heard = False
        self._written: Counter[bytes] = Counter()
        """Each frame written, without framing and checksum, and how often it has not come back."""

    def wrote(self, frame: bytes) -> None:
        """The host has written this frame (``framing.Frame.data``)."""
        self._written[frame] += 1

    def shows_nothing(self, frame: bytes, whole: bool = True) -> bool:
        """Whether this frame may come from a host. Not ``whole``: the frame may be the beginning of a longer one."""
        written = frame in self._written or (not whole and any(one.startswith(frame) for one in self._written))
        return written or _asks(frame)

    def came_back(self, frame: bytes) -> bool:
        """Whether this frame is one that the host wrote, as far as that can be told; if so, it is counted as come back."""
        if frame not in self._written:
            return False
        if _asks(frame):
            self.heard = True
            return True
        if not self.heard or self._written[frame] < 1:
            return False
        self._written[frame] -= 1
        return True


def _asks(frame: bytes) -> bool:
    """Whether only a host sends such a frame: a UBX message without payload (u-blox protocol specification, polling), or a sentence that
    asks."""
    return len(frame) == 2 or _QUESTION.fullmatch(frame) is not None
