"""What speaks on a serial line, at which speed? Told the bytes, it says when to listen at another speed, and at last what it is.

Flow: bytes + Instant (``ppsd.tools``) -> **detect** -> speed to try next, bytes to send, Verdict. Pure. Content decides, never a USB id:
two frames with correct checksums at one speed are a receiver. A speed at which bytes come that make no sense is left early; receivers that
speak every few seconds are waited for in later, longer rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refclock.receiver import Receiver
from refclock.sample import NS, Instant, SecondLabel
from refclock.ubx import MON_VER, encode

SEARCH_BAUDS: Final = (9600, 115200, 38400, 4800, 57600, 230400, 460800, 921600, 19200)
"""In the order of how often receivers come with them."""
DWELL_NS: Final = 1_200_000_000
"""A speed is tried this long at first: receivers speak once a second."""
DWELLS: Final = 4
"""... and after fruitless rounds twice and then four times as long: some speak every 4 s."""
SILENCE_NS: Final = 10 * NS
"""Without a valid frame for this long a speed once found is doubted (the receiver was reset or replaced)."""
NOISE_ADVICE: Final = "bytes come that are no known protocol at any speed: is it a receiver, are the levels right (TTL, RS-232)?"
ENOUGH_FRAMES: Final = 2
LISTEN_NS: Final = 1_300_000_000
"""After the first frames: a receiver of 1 Hz has then said everything that it says."""
JUNK_BYTES: Final = 96
"""So many bytes without a frame at one speed: it is another one. A burst of NMEA has several hundred, so one burst tells."""


class BaudSearch:
    """Which speed to listen at. Pure: told the count of valid frames so far, it answers with a speed to switch to, or None."""

    def __init__(self, mono_ns: int, bauds: Iterable[int] = SEARCH_BAUDS) -> None:
        self._bauds = tuple(bauds)
        self._index = 0
        self._dwells = 1
        self._since = mono_ns
        self._frames = 0
        self.found = False

    @property
    def baud(self) -> int:
        """The speed being listened at."""
        return self._bauds[self._index]

    @property
    def deadline_ns(self) -> int:
        """When (mono_ns) to ``heard`` again at the latest."""
        return self._since + (SILENCE_NS if self.found else DWELL_NS * self._dwells)

    def heard(self, valid_frames: int, mono_ns: int) -> int | None:
        """``valid_frames``: with correct checksum, counted since the line was opened, at any speed."""
        if valid_frames > self._frames:
            self._frames, self._since, self.found, self._dwells = valid_frames, mono_ns, True, 1
            return None
        if mono_ns < self.deadline_ns:
            return None
        return self.leave(mono_ns)

    def leave(self, mono_ns: int) -> int:
        """This speed is not it: the next one."""
        self.found = False
        self._since = mono_ns
        self._index = (self._index + 1) % len(self._bauds)
        if self._index == 0:
            self._dwells = min(DWELLS, self._dwells * 2)
        return self.baud


@dataclass(frozen=True, slots=True)
class Verdict:
    """``protocol``: NMEA, UBX, NMEA+UBX, the name of another one, "silent" or "noise". ``baud`` 0: not found. ``utc_s``: the last second
    that was named (POSIX), None without. ``advice``: what to do when no time can be taken from it."""

    protocol: str
    baud: int
    identity: str = ""
    utc_s: int | None = None
    satellites: int | None = None
    advice: str = ""

    @property
    def usable(self) -> bool:
        """Whether time can be taken from it."""
        return "NMEA" in self.protocol or "UBX" in self.protocol


class Probe:
    """One line. ``mono_ns``: now; ``not_before_s``: no true date is before it (POSIX)."""

    def __init__(self, mono_ns: int, not_before_s: int) -> None:
        self._receiver = Receiver(not_before_s)
        self._search = BaudSearch(mono_ns)
        self._frames_at_speed = self._junk_at_speed = 0
        self._first_ns: int | None = None
        self._bytes = 0
        self._utc_s: int | None = None

    @property
    def baud(self) -> int:
        """The speed to listen at."""
        return self._search.baud

    @property
    def question(self) -> bytes:
        """To be sent after each change of speed: u-blox receivers answer it with model and firmware, others ignore it."""
        return encode(*MON_VER)

    def _frames(self) -> int:
        counts = self._receiver.framer.counts
        return counts["NMEA"] + counts["UBX"] + sum(self._receiver.framer.foreign.values())

    def heard(self, data: bytes, at: Instant) -> int | None:
        """What a read brought (b"" when only time has passed); the speed to change to, None: stay."""
        self._bytes += len(data)
        for value in self._receiver.feed(data, at, 0) if data else []:
            if isinstance(value, SecondLabel):
                self._utc_s = value.utc_ns // NS
        frames = self._frames()
        if frames - self._frames_at_speed >= ENOUGH_FRAMES and self._first_ns is None:
            self._first_ns = at.mono_ns
        if self._first_ns is not None:
            return None
        junk = self._receiver.framer.counts["junk-bytes"]
        if frames == self._frames_at_speed and junk - self._junk_at_speed > JUNK_BYTES:
            return self._moved(self._search.leave(at.mono_ns))
        return self._moved(self._search.heard(0, at.mono_ns))

    def _moved(self, baud: int | None) -> int | None:
        if baud is not None:
            self._frames_at_speed = self._frames()
            self._junk_at_speed = self._receiver.framer.counts["junk-bytes"]
        return baud

    def verdict(self, mono_ns: int) -> Verdict | None:
        """What it is, as soon as that is clear."""
        if self._first_ns is None or mono_ns - self._first_ns < LISTEN_NS:
            return None
        receiver = self._receiver
        satellites = receiver.sky.used if receiver.sky is not None else None
        return Verdict(receiver.protocol, self.baud, receiver.identity, self._utc_s, satellites, receiver.advice)

    def give_up(self) -> Verdict:
        """What is known when time is up."""
        if self._bytes == 0:
            return Verdict("silent", 0, advice="nothing comes: is it powered, and are TX and RX the right way round?")
        return Verdict("noise", 0, advice=NOISE_ADVICE)
