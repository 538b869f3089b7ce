"""Speed and protocol of a serial line, found by listening at one speed after the other, sans-IO.

Content decides, never a USB id: two frames with correct checksums at one speed are a receiver. A speed at which a whole burst makes no
sense is left when the burst ends. One at which nothing comes is kept for a while; later rounds wait longer, for receivers that speak every
few seconds only. Seven data bits need no search (``framing.SevenBits``).

Flow: bytes + Instant -> **autobaud** -> speed to try next and bytes to send (LineRequest), at last an Identification. ``BaudSearch`` is
part of the daemon's session; ``Probe`` is a session of its own, for lines of which nothing is known (``devices.scan``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refclock.protocols.framing import Tally
from refclock.protocols.stream import BURST_PAUSE_NS, ReceiverStream
from refclock.protocols.ubx import MON_VER, encode
from refclock.sample import NS, Instant, ReceiverValue, SecondLabel

SEARCH_BAUDS: Final = (9600, 115200, 38400, 4800, 57600, 230400, 460800, 921600, 19200)
"""Baud, most usual first."""
DWELL_NS: Final = 1_200_000_000
"""ns that a speed is tried for in the first round: receivers speak once a second."""
DWELLS: Final = 4
"""Times DWELL_NS that a speed is tried for at most. Each fruitless round doubles the time: some receivers speak every 4 s."""
SILENCE_NS: Final = 10 * NS
"""ns without a valid frame after which a speed once found is left: the receiver was reset or replaced."""
NOISE_ADVICE: Final = "bytes come that are no known protocol at any speed: is it a receiver, are the levels right (TTL, RS-232)?"
SILENT_ADVICE: Final = "nothing comes: is it powered, and are TX and RX the right way round?"
ECHO_ADVICE: Final = "only what is sent to it comes back: a loop-back plug, a modem, a terminal with echo? There is no receiver on it"
ENOUGH_FRAMES: Final = 2
"""Frames at one speed that show a receiver: a single one may be chance."""
LISTEN_NS: Final = 1_300_000_000
"""ns to go on listening after ENOUGH_FRAMES: a receiver of 1 Hz has then sent each of its messages."""
JUNK_BYTES: Final = 96
"""Bytes of a burst without a frame, heard from its beginning, that show another speed: NMEA has a frame every 82 bytes."""
JUNK_MIDDLE: Final = 400
"""The same for a burst that was under way when listening began: its first message is cut, and NAV-SAT of 32 satellites has 400 bytes."""
BURST_BYTES: Final = 2
"""Bytes of a whole burst without a frame that show another speed. One byte may be a glitch of plugging in."""


@dataclass(frozen=True, slots=True)
class LineRequest:
    """What a line wants: first another speed (``baud``; None: stay), then ``data`` written to it (b"": nothing)."""

    baud: int | None = None
    data: bytes = b""


class BaudSearch:
    """Which speed to listen at. ``first``: the speed tried before the others (where the receiver was last), 0: none. ``found``: frames have
    come at the present speed."""

    def __init__(self, mono_ns: int, bauds: Iterable[int] = SEARCH_BAUDS, first: int = 0) -> None:
        self._bauds = tuple(dict.fromkeys((first, *bauds) if first else bauds))
        self._index = 0
        self._dwells = 1
        self._heard = Tally(0, 0, 0)
        self.found = False
        self._listen(mono_ns)

    def _listen(self, mono_ns: int) -> None:
        """A speed is listened at from now on."""
        self._since = self._spoke_ns = mono_ns
        self._from_start = False  # whether the line was silent before the burst that comes
        self._base = self._heard
        self._burst_at = self._heard.received

    @property
    def baud(self) -> int:
        """The speed being listened at."""
        return self._bauds[self._index]

    @property
    def deadline_ns(self) -> int:
        """When (mono_ns) to ``heard`` again at the latest."""
        return self._since + (SILENCE_NS if self.found else DWELL_NS * self._dwells)

    def heard(self, so_far: Tally, mono_ns: int) -> int | None:
        """The speed to switch to; None: stay. ``so_far``: since the line was opened, at any speed. Call it after each read, and several
        times a second while nothing comes."""
        before, self._heard = self._heard, so_far
        if so_far.recognised > before.recognised:
            self._since, self.found, self._dwells = mono_ns, True, 1
        if self.found:
            return None if mono_ns < self.deadline_ns else self.leave(mono_ns)
        if so_far.bits != before.bits:  # the speed is right; only the eighth bit made junk of what came until now
            self._listen(mono_ns)
        paused = mono_ns - self._spoke_ns >= BURST_PAUSE_NS
        if so_far.received > before.received:
            if paused:
                self._from_start, self._burst_at = True, before.received
            self._spoke_ns = mono_ns
        elif paused and self._from_start and so_far.received - self._burst_at >= BURST_BYTES:
            return self.leave(mono_ns)
        if so_far.junk - self._base.junk > (JUNK_BYTES if self._from_start else JUNK_MIDDLE):
            return self.leave(mono_ns)
        return None if mono_ns < self.deadline_ns else self.leave(mono_ns)

    def leave(self, mono_ns: int) -> int:
        """The next speed, because this one is wrong. After a speed that was right the search begins again with the most usual ones: a
        receiver that was reset is at one of those."""
        if self.found and self._index:
            self._index = 0
        else:
            self._index = (self._index + 1) % len(self._bauds)
            if self._index == 0:
                self._dwells = min(DWELLS, self._dwells * 2)
        self.found = False
        self._listen(mono_ns)
        return self.baud


@dataclass(frozen=True, slots=True)
class Identification:
    """What a line was found to be.

    ``protocol``: NMEA, UBX, NMEA+UBX, the name of another one, "silent", "noise" or "echo". ``baud`` 0: not found. ``utc_s``: the last
    second that was named (POSIX), None without. ``advice``: what to do when no time can be taken from it. ``bits``: "7N2", "7E1", "7O1",
    "" for eight data bits."""

    protocol: str
    baud: int
    identity: str = ""
    utc_s: int | None = None
    satellites: int | None = None
    advice: str = ""
    bits: str = ""

    @property
    def usable(self) -> bool:
        """Whether time can be taken from it."""
        return "NMEA" in self.protocol or "UBX" in self.protocol


class Probe:
    """A session that finds out what is on a line. ``mono_ns``: now; ``not_before_s``: no true date is before it (POSIX); ``first``: as
    BaudSearch. ``ask``: whether to send the question at every speed, or only after something intelligible was heard.
    """

    def __init__(self, mono_ns: int, not_before_s: int, *, first: int = 0, ask: bool = True) -> None:
        self._stream = ReceiverStream(not_before_s)
        self._search = BaudSearch(mono_ns, first=first)
        self._ask = ask
        self._to_ask = ask
        self._base = 0  # frames recognised before this speed
        self._first_ns: int | None = None
        self._spoke_ns = mono_ns
        self._utc_s: int | None = None

    @property
    def baud(self) -> int:
        """The speed to listen at."""
        return self._search.baud

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """Decode what a read brought."""
        if data:
            self._spoke_ns = at.mono_ns
        values = self._stream.feed(data, at, byte_ns)
        for value in values:
            if isinstance(value, SecondLabel):
                self._utc_s = value.utc_ns // NS
        return values

    def due(self, now_ns: int) -> LineRequest:
        """Another speed while this one makes no sense, and the question (MON-VER) that u-blox receivers answer with model and firmware.
        Others ignore it."""
        baud = self._next_baud(now_ns)
        data = encode(*MON_VER) if self._to_ask else b""
        self._to_ask = False
        self._stream.wrote(data)
        return LineRequest(baud, data)

    def _next_baud(self, now_ns: int) -> int | None:
        """The speed to change to; None: stay."""
        tally = self._stream.framer.tally
        if self._first_ns is None and tally.recognised - self._base >= ENOUGH_FRAMES:
            self._first_ns = now_ns
            self._to_ask = self._to_ask or not self._ask
        if self._first_ns is not None:
            return None
        baud = self._search.heard(tally, now_ns)
        if baud is not None:
            self._base = tally.recognised
            self._to_ask = self._ask
        return baud

    def verdict(self, mono_ns: int) -> Identification | None:
        """What it is, as soon as that is clear."""
        if self._first_ns is None:
            return None
        all_said = self._utc_s is not None and bool(self._stream.identity) and mono_ns - self._spoke_ns >= BURST_PAUSE_NS
        return self._told() if all_said or mono_ns - self._first_ns >= LISTEN_NS else None

    def _told(self) -> Identification:
        stream = self._stream
        satellites = stream.sky.used if stream.sky is not None else None
        bits = stream.framer.tally.bits
        return Identification(stream.protocol, self.baud, stream.identity, self._utc_s, satellites, stream.advice, bits)

    def give_up(self) -> Identification:
        """What is known when time is up."""
        tally = self._stream.framer.tally
        if tally.recognised > self._base:
            return self._told()
        if tally.received == 0 and self._stream.framer.counts["echo"]:
            return Identification("echo", 0, advice=ECHO_ADVICE)
        if tally.received == 0:
            return Identification("silent", 0, advice=SILENT_ADVICE)
        return Identification("noise", 0, advice=NOISE_ADVICE)
