"""One receiver's bytes to at most one label a second, whatever protocols it speaks: framing, decoders and gate in one sans-IO machine.

Flow: tty bytes + Instant -> **receiver** -> SecondLabel (to trust and pairing), LeapNotice, Sawtooth, SkyView. It opens nothing, waits for
nothing and has no clock. NMEA and UBX may be mixed; while a UBX label is fresh NMEA only checks it.
"""

from __future__ import annotations

from collections import Counter, deque

from refclock.protocols.foreign import advice
from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.labels import LabelGate, Reject
from refclock.protocols.nmea import NmeaDecoder
from refclock.protocols.ubx import UbxDecoder
from refclock.sample import Instant, LineStatus, ReceiverValue, SecondLabel, SkyView

SILENCE_NS = 200_000_000
"""A pause of the line this long ends a cycle's burst: longer than USB and buffer time-outs, shorter than a cycle's idle part."""

ANSWER_LEADS = (b"\x05", b"\x06", b"\x0a\x04", b"\x01\x3b", b"\x0d\x04", b"PMTK")
"""How frames begin that answer a host: ACK, CFG, MON-VER, NAV-SVIN, TIM-SVIN, and what MediaTek receivers say of themselves."""
SENTENCES = 64
"""So many kinds are told apart at most."""
STARTED = (b"PMTK010,001", b"PMTK010,002", b"PMTK011,")
"""What MediaTek receivers say when they have started: system message startup or waiting for ephemerides, text "MTKGPS"."""
GREETING = (b"u-blox", b"HW UBX")
"""In the text of a TXT sentence of a u-blox receiver that has started."""
ANSWERS = 32
"""So many wait to be taken at most; nobody takes them while nothing was asked."""


class ReceiverStream:
    """``not_before_s``: POSIX second before which no date is believed (see labels.window). ``sky``: the last one reported, None before.

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
        self._rejected: Counter[str] = Counter()
        self._answers: deque[Frame] = deque(maxlen=ANSWERS)
        self._heard_mono = 0

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """What a read brought. ``at``: when it ended; ``byte_ns``: line time of one byte, 0 when unknown (USB)."""
        began = at.mono_ns - len(data) * byte_ns
        if began - self._heard_mono > SILENCE_NS:
            self.gate.burst(began)
        self._heard_mono = at.mono_ns
        values: list[ReceiverValue] = []
        for frame in self.framer.feed(data, at, byte_ns):
            if frame.data.startswith(ANSWER_LEADS):
                self._answers.append(frame)
            if self.watch and self.watch == (frame.data[:2] if frame.kind is FrameKind.UBX else frame.data[2:5]):
                self.watched_ns = frame.at.mono_ns
            if frame.kind is FrameKind.NMEA and (frame.data[2:5] in self.sentences or len(self.sentences) < SENTENCES):
                self.sentences[frame.data[2:5]] = frame.at.mono_ns
            if _started(frame):
                self.restarted_ns = frame.at.mono_ns
            decoded, reject = self.nmea.decode(frame) if frame.kind is FrameKind.NMEA else self.ubx.decode(frame)
            for value in decoded:
                if isinstance(value, SecondLabel):
                    reject = self.gate.offer(value)
                    if reject is not None:
                        continue
                    self.labels += 1
                elif isinstance(value, SkyView):
                    self.sky = value
                values.append(value)
            if reject is not None and reject is not Reject.REDUNDANT:
                self._rejected[reject] += 1
        return values

    def take_answers(self) -> list[Frame]:
        """What answered the host since the last call."""
        answers = list(self._answers)
        self._answers.clear()
        return answers

    @property
    def rejected(self) -> Counter[str]:
        """Statements that gave no label, by reason (labels.Reject)."""
        return self._rejected

    @property
    def protocol(self) -> str:
        """NMEA, UBX, NMEA+UBX, with others that are only recognised behind them; unknown while no frame has been recognised."""
        ours = [kind.value for kind in FrameKind if self.framer.sure[kind]]
        others = sorted(self.framer.foreign)
        if (ours or len(others) > 1) and "gpsd" in others:  # a few lines of gpsd's at the head of what was recorded through it
            others.remove("gpsd")
        return "+".join([*ours, *others]) or "unknown"

    def status(self) -> LineStatus:
        """What the line has shown so far."""
        rejected = dict(self.rejected + self.framer.broken)
        return LineStatus(self.protocol, self.identity, self.advice, rejected, self.framer.counts["junk-bytes"])

    @property
    def advice(self) -> str:
        """What to do about a receiver that speaks nothing from which time is taken; "" when it does, or says nothing that is known."""
        foreign = self.framer.foreign
        if not foreign or self.framer.sure:
            return ""
        return advice(max(foreign, key=lambda name: foreign[name]))

    @property
    def identity(self) -> str:
        """What the receiver calls itself (MON-VER, else its TXT banner), "" when it did not say."""
        if self.ubx.identity:
            return self.ubx.identity
        banner = [text for text in self.nmea.texts if text.startswith(("MOD=", "HW ", "IC="))]
        return " ".join(banner[:2])


def _started(frame: Frame) -> bool:
    """Whether this is what a receiver says when it was powered."""
    if frame.kind is not FrameKind.NMEA:
        return False
    return frame.data.startswith(STARTED) or (frame.data[2:6] == b"TXT," and any(word in frame.data for word in GREETING))
