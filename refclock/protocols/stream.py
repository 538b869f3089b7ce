"""One receiver's bytes to at most one label a second, whatever protocols it speaks: framing, decoders and gate in one sans-IO machine.

It opens nothing, waits for nothing and has no clock. NMEA and UBX may be mixed; while a UBX label is fresh, NMEA labels only check it. What
answers a host's commands, and what says that the receiver has just started, is kept for ``receiver.configurator``.

Flow: tty bytes + Instant -> **stream** -> ReceiverValues (to ``timing.receiver_time``), LineStatus (to people).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final

from refclock.protocols.foreign import advice
from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.labels import LabelGate, Reject
from refclock.protocols.makers import Complaints, LeapCount, complaint
from refclock.protocols.nmea import NmeaDecoder
from refclock.protocols.reasons import Reason, Unlabelled
from refclock.protocols.ubx import MON_VER, NAV_PVT, NAV_SVIN, NAV_TIMEGPS, NAV_TIMEUTC, TIM_SVIN, UbxDecoder
from refclock.sample import NS, Instant, LabelDoubt, LeapNotice, LineStatus, ReceiverValue, SecondLabel, SkyView

BURST_PAUSE_NS: Final = 200_000_000
"""ns; a longer pause of the line ends a cycle's burst. USB and buffer time-outs are shorter, a cycle's idle part is longer."""
ANSWER_LEADS: Final = (b"\x05", b"\x06", bytes(MON_VER), bytes(NAV_SVIN), bytes(TIM_SVIN), b"PMTK")
"""First bytes of frames that answer a host: ACK, CFG, three messages that are asked for, and what MediaTek receivers say of themselves."""
ANSWERS_MAX: Final = 32
"""Answers that are kept until somebody takes them; the oldest go first."""
STATE_TIME: Final = frozenset((b"RMC", b"ZDA", bytes(NAV_PVT), bytes(NAV_TIMEUTC), bytes(NAV_TIMEGPS)))
"""Three letters of a sentence, or class and id of a message, that state date and time."""
PAUSE_NS: Final = 20_000_000
"""ns; a longer pause makes a line idle. Without pause reads lie less apart: a UART's FIFO and a USB adapter hold bytes for up to 16 ms."""
SATURATED_NS: Final = 10 * NS
"""ns without a pause that make a line saturated: ten cycles of a receiver, so no single long list of satellites does. As long as no stretch
of ``STRAINED_NS`` came, it is not saturated any more."""
STRAINED_NS: Final = 3 * NS
"""ns without a pause that a line with time to spare does not reach: it pauses in each cycle of a second."""
SENTENCES_MAX: Final = 64
"""Kinds of sentence whose last arrival is kept: receivers send about ten, garbage may look like any number."""
STARTED: Final = (b"PMTK010,001", b"PMTK010,002", b"PMTK011,")
"""First bytes of what MediaTek receivers say when they have started: startup, waiting for ephemerides, text "MTKGPS"."""
GREETING: Final = (b"u-blox", b"HW UBX")
"""Text of a TXT sentence that u-blox receivers send when they have started."""
BANNER: Final = ("MOD=", "HW ", "IC=")
"""First characters of the TXT sentences in which a receiver says what it is."""


class ReceiverStream:
    """``not_before_s``: POSIX second before which no date is believed (``timescales.window``). ``sky``: the last view, None before it.
    ``labels``: how many passed the gate; ``rejected``: statements that gave none, by reason (``labels.Reject``).
    ``watch``: a UBX message's class and id or a sentence's three letters; ``watched_ns``: when (mono_ns) it last came, 0 never;
    ``restarted_ns``: when the receiver last said that it has started; ``sentences``: three letters -> when they last came.
    """

    def __init__(self, not_before_s: int) -> None:
        self.framer = Framer()
        self.nmea = NmeaDecoder(not_before_s)
        self.ubx = UbxDecoder(not_before_s)
        self.gate = LabelGate()
        self.sky: SkyView | None = None
        self.labels = 0
        self.watch = b""
        self.watched_ns = 0
        self.restarted_ns = 0
        self.sentences: dict[bytes, int] = {}
        self.rejected: Counter[str] = Counter()
        self._answers: deque[Frame] = deque(maxlen=ANSWERS_MAX)
        self._heard_mono = 0
        self._unlabelled = Unlabelled()
        self._leap_count = LeapCount()
        self._complaints = Complaints()
        self._load = Load()

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """What a read brought. ``at``: when it ended; ``byte_ns``: line time of one byte, 0 when unknown (USB)."""
        began = at.mono_ns - len(data) * byte_ns
        if began - self._heard_mono > BURST_PAUSE_NS:
            self.gate.burst(began)
        self._heard_mono = at.mono_ns
        self._load.read(began, at.mono_ns, byte_ns)
        values: list[ReceiverValue] = []
        for frame in self.framer.feed(data, at, byte_ns):
            self._note(frame)
            values += self._decoded(frame)
        return values

    def _note(self, frame: Frame) -> None:
        """Keep what the frame says besides values: to the host that asked, of a restart, of the receiver's troubles."""
        now = frame.at.mono_ns
        if frame.data.startswith(ANSWER_LEADS):
            self._answers.append(frame)
        if self.watch and self.watch == _kind(frame):
            self.watched_ns = now
        if frame.kind is FrameKind.NMEA and (frame.data[2:5] in self.sentences or len(self.sentences) < SENTENCES_MAX):
            self.sentences[frame.data[2:5]] = now
        if _started(frame):
            self.restarted_ns = now
        if (text := complaint(frame)) is not None:
            self._complaints.hear(text, now)

    def _decoded(self, frame: Frame) -> list[ReceiverValue]:
        """The frame's values, of labels only those that pass the gate."""
        values: list[ReceiverValue] = []
        decoded, reject = self.nmea.decode(frame) if frame.kind is FrameKind.NMEA else self.ubx.decode(frame)
        dropped: Reason | None = reject
        for value in decoded:
            if isinstance(value, SecondLabel):
                known = value.leap_known and not self._leap_count.rivalled(frame.at.mono_ns)
                offered = self.gate.offer(replace(value, leap_known=known), frame.at.mono_ns)
                if isinstance(offered, Reject):
                    dropped = reject = offered
                    continue
                if offered.doubt is LabelDoubt.FIX_UNSTATED:  # other doubts ``timing.evidence`` tells by itself
                    dropped = offered.doubt
                self.labels += 1
                values.append(offered)
                continue
            if isinstance(value, SkyView):
                self.sky = value
            values.append(self._leap_count.judged(value) if isinstance(value, LeapNotice) else value)
        if reject is not None and reject is not Reject.REDUNDANT:
            self.rejected[reject] += 1
        labelled = any(isinstance(value, SecondLabel) for value in values)
        if _kind(frame) in STATE_TIME:
            if labelled or dropped is not None:
                self._unlabelled.stated(dropped, frame.at.mono_ns)
        elif frame.checksum is not False:
            self._unlabelled.spoke(_name(frame), frame.at.mono_ns)
        return values

    def wrote(self, data: bytes) -> None:
        """The host writes these whole frames to the line: when they come back, they say nothing of a receiver."""
        self.framer.wrote(data)

    def take_answers(self) -> list[Frame]:
        """What answered the host since the last call."""
        answers = list(self._answers)
        self._answers.clear()
        return answers

    @property
    def protocol(self) -> str:
        """NMEA, UBX, NMEA+UBX, with others that are only recognised behind them; unknown while no frame has been recognised."""
        ours = [kind.value for kind in FrameKind if self.framer.sure[kind]]
        others = sorted(self.framer.foreign)
        if (ours or len(others) > 1) and "gpsd" in others:  # a recording made through gpsd begins with a few of its lines
            others.remove("gpsd")
        return "+".join([*ours, *others]) or "unknown"

    def status(self) -> LineStatus:
        """What the line has shown so far."""
        rejected = dict(self.rejected + self.framer.broken)
        return LineStatus(
            self.advice,
            rejected,
            self.framer.counts["junk-bytes"],
            self._unlabelled.why(self._heard_mono),
            self._complaints.standing(self._heard_mono),
            self._load.saturated,
            self._unlabelled.fixless,
            self.framer.habits.told or "",
        )

    @property
    def advice(self) -> str:
        """What to do about a receiver that speaks only protocols from which no time is taken; "" for any other."""
        foreign = self.framer.foreign
        if not foreign or self.framer.sure:
            return ""
        return advice(max(foreign, key=lambda name: foreign[name]))

    @property
    def identity(self) -> str:
        """What the receiver calls itself (MON-VER, else its TXT banner); "" when it did not say."""
        if self.ubx.identity:
            return self.ubx.identity
        banner = [text for text in self.nmea.texts if text.startswith(BANNER)]
        return " ".join(banner[:2])


def _kind(frame: Frame) -> bytes:
    """The three letters of a sentence, or class and id of a message."""
    if frame.kind is FrameKind.UBX:
        return frame.data[:2]
    return b"" if frame.data[:1] == b"P" else frame.data[2:5]


def _name(frame: Frame) -> str:
    """What the frame is called, for people."""
    if frame.kind is FrameKind.UBX:
        return "UBX"
    return _kind(frame).decode("ascii", "replace") or frame.data.partition(b",")[0].decode("ascii", "replace")


class Load:
    """How busy a line with a speed is. ``saturated``: for ten seconds or more it had no pause, so its messages may lag without end."""

    def __init__(self) -> None:
        self.saturated = False
        self._byte_ns = 0
        self._since_ns = 0  # since when there was no pause
        self._until_ns = 0
        self._strained_ns = 0  # when a long stretch without pause was last seen

    def read(self, began_ns: int, ended_ns: int, byte_ns: int) -> None:
        """The bytes of a read were on the line from ``began_ns`` to ``ended_ns``."""
        if byte_ns != self._byte_ns or not byte_ns:
            self._byte_ns, self.saturated, self._since_ns = byte_ns, False, began_ns
        elif began_ns - self._until_ns > PAUSE_NS:
            self._since_ns = began_ns
        self._until_ns = ended_ns
        unbroken_ns = ended_ns - self._since_ns
        if unbroken_ns >= STRAINED_NS:
            self._strained_ns = ended_ns
        if unbroken_ns >= SATURATED_NS and byte_ns:
            self.saturated = True
        elif ended_ns - self._strained_ns >= SATURATED_NS:
            self.saturated = False


def _started(frame: Frame) -> bool:
    """Whether this is what a receiver says when it was powered."""
    if frame.kind is not FrameKind.NMEA:
        return False
    return frame.data.startswith(STARTED) or (frame.data[2:6] == b"TXT," and any(word in frame.data for word in GREETING))
