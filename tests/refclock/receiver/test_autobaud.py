"""Receivers found by what they say, in simulated time: at every speed, in every format, early, late, and not at all."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refclock_sim.ports.wire import Wire
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS, Chunk, Receiver

from refclock.config import BAUDS
from refclock.protocols.foreign import SWITCH
from refclock.protocols.ubx import MON_VER, encode
from refclock.receiver.autobaud import ECHO_ADVICE, NOISE_ADVICE, SILENT_ADVICE, Identification, Probe
from refclock.receiver.commands import pmtk
from refclock.sample import NS, Instant
from refclock.timescales import LeapTable

pytestmark = pytest.mark.worlds

TAI_S = 1_900_000_000
NOT_BEFORE_S = 1_700_000_000


def simulated(kind: str, baud: int, bits: str = "8N1") -> Receiver:
    """A receiver with a fix."""
    made = Receiver(MODELS[kind], Gnss(7, TAI_S - 100, LeapTable(), fix_s=0), 7, baud)
    made.bits = bits
    return made


def found(wire: Wire, patience_s: float = 12.0, *, ask: bool = True) -> tuple[Identification, float]:
    """(verdict, seconds until it came)."""
    began = wire.now
    probe = Probe(began, NOT_BEFORE_S, ask=ask)
    wire.write(probe.due(wire.now).data, probe.baud)
    while wire.now - began < patience_s * NS:
        data = wire.read(probe.baud)
        probe.feed(data, Instant(0, wire.now), 0)
        wire.write(probe.due(wire.now).data, probe.baud)
        verdict = probe.verdict(wire.now)
        if verdict is not None:
            return verdict, (wire.now - began) / NS
    return probe.give_up(), patience_s


PHASES = [0.0, 0.07, 0.13, 0.2, 0.35, 0.5, 0.77, 0.95]
"""Of the second in which the line is opened: in the middle of a burst, in the pause."""


@pytest.mark.parametrize("phase", PHASES)
def test_the_usual_receivers_are_found_quickly(phase: float) -> None:
    """Plain NMEA at 9600 within 5 s and UBX at 115200 within 3 s, whenever the line is opened."""
    verdict, after_s = found(Wire(simulated("nmea", 9600), TAI_S, begin_ns=round((5 + phase) * NS)))
    assert (verdict.protocol, verdict.baud, verdict.bits) == ("NMEA", 9600, "")
    assert after_s < 5
    verdict, after_s = found(Wire(simulated("timing", 115200), TAI_S, begin_ns=round((5 + phase) * NS)))
    assert ("UBX" in verdict.protocol, verdict.baud) == (True, 115200)
    assert "u-blox" in verdict.identity
    assert after_s < 3


@pytest.mark.parametrize("baud", BAUDS)
@pytest.mark.parametrize("kind", ["nmea", "minimal", "ublox8", "timing", "mtk"])
def test_every_kind_is_found_at_every_speed(kind: str, baud: int) -> None:
    """The right protocol, speed and second within 12 s, with and without asking, whenever the line is opened."""
    if kind == "ublox8" and baud == 4800:
        kind = "timing"  # the other says more than 4800 baud carries
    for ask in (True, False):
        for phase in PHASES[::3]:
            verdict, after_s = found(Wire(simulated(kind, baud), TAI_S, begin_ns=round((5 + phase) * NS), listens=ask), 14, ask=ask)
            assert verdict.baud == baud
            assert verdict.usable
            assert ("UBX" in verdict.protocol) == (kind in ("ublox8", "timing"))
            assert verdict.utc_s is not None
            assert abs(verdict.utc_s - (TAI_S - 37 + 5 + phase + after_s)) < 3
            assert after_s < 12, (ask, phase)


@pytest.mark.parametrize("bits", ["7N2", "7E1", "7O1", "8N2"])
@pytest.mark.parametrize("baud", [4800, 9600, 38400])
@pytest.mark.parametrize("kind", ["nmea", "minimal"])
def test_seven_data_bits_are_noticed(kind: str, baud: int, bits: str) -> None:
    """A receiver of seven data bits is found as quickly as any, and what it is told; two stop bits make no difference."""
    for phase in PHASES:
        verdict, after_s = found(Wire(simulated(kind, baud, bits), TAI_S, begin_ns=round((5 + phase) * NS)), 12)
        assert (verdict.protocol, verdict.baud, verdict.bits) == ("NMEA", baud, bits if bits[0] == "7" else "")
        assert verdict.utc_s is not None
        assert after_s < 8


class Talker(Receiver):
    """Something that says the same every second."""

    def __init__(self, baud: int, *parts: bytes) -> None:
        super().__init__(MODELS["nmea"], Gnss(7, TAI_S, LeapTable(), fix_s=0), 7, baud)
        self._parts = parts

    def cycle(self, tai_s: int) -> list[Chunk]:
        return [Chunk(end - tai_s * NS, data) for end, data in self._send(tai_s * NS, self._parts)]

    def hear(self, data: bytes, tai_ns: int) -> list[tuple[int, bytes]]:
        return []


def sirf(payload: bytes) -> bytes:
    """A frame of SiRF binary (protocol reference: A0 A2, length, payload, sum of 15 bits, B0 B3)."""
    return b"\xa0\xa2" + len(payload).to_bytes(2) + payload + (sum(payload) & 0x7FFF).to_bytes(2) + b"\xb0\xb3"


@pytest.mark.parametrize("baud", [4800, 57600])
def test_a_receiver_that_speaks_another_protocol_is_named(baud: int) -> None:
    """SiRF binary: recognised at its speed, with what brings it to speak NMEA."""
    frames = [sirf(bytes([message, *range(40)])) for message in (2, 4, 7)]
    verdict, _ = found(Wire(Talker(baud, *frames), TAI_S, begin_ns=5 * NS + NS // 3))
    assert (verdict.protocol, verdict.baud, verdict.usable) == ("SiRF", baud, False)
    assert SWITCH["SiRF"] in verdict.advice


@pytest.mark.parametrize("kind", ["nmea", "timing", "minimal"])
@pytest.mark.parametrize("baud", [4800, 9600, 115200, 921600])
@pytest.mark.parametrize("ask", [True, False])
def test_a_receiver_that_is_silent_for_long_is_found_when_it_speaks(kind: str, baud: int, ask: bool) -> None:
    """After 20 s of silence it takes no longer than it would have at first."""
    verdict, after_s = found(Wire(simulated(kind, baud), TAI_S, begin_ns=5 * NS, talks_from_ns=25 * NS), 40, ask=ask)
    assert (verdict.baud, verdict.usable) == (baud, True)
    assert 20 < after_s < 32


def test_a_receiver_that_speaks_every_five_seconds_is_found() -> None:
    """The later rounds are longer: even the last speed tried is kept until it has spoken."""

    class Seldom(Receiver):
        def cycle(self, tai_s: int) -> list[Chunk]:
            chunks = super().cycle(tai_s)
            return chunks if tai_s % 5 == 0 else []

    receiver = Seldom(MODELS["nmea"], Gnss(7, TAI_S - 100, LeapTable(), fix_s=0), 7, 921600)
    verdict, _ = found(Wire(receiver, TAI_S, begin_ns=5 * NS), 90)
    assert (verdict.protocol, verdict.baud) == ("NMEA", 921600)


def test_silence_is_told_from_noise() -> None:
    """Nothing at all: power and wires. Bytes without sense at any speed: no receiver, or wrong levels. An early end tells what is known."""
    verdict, _ = found(Wire(None, TAI_S), 60)
    assert (verdict.protocol, verdict.baud, verdict.advice) == ("silent", 0, SILENT_ADVICE)
    noise = Random(4)
    verdict, _ = found(Wire(Talker(9600, noise.randbytes(400)), TAI_S), 60)
    assert (verdict.protocol, verdict.baud, verdict.advice) == ("noise", 0, NOISE_ADVICE)
    verdict, _ = found(Wire(simulated("nmea", 9600), TAI_S, begin_ns=5 * NS), 0.5)
    assert (verdict.protocol, verdict.baud) == ("NMEA", 9600)


@given(st.binary(max_size=600), st.sampled_from(["nmea", "timing"]), st.sampled_from(BAUDS))
@settings(max_examples=60)
def test_what_a_line_carries_before_does_not_hide_a_receiver(junk: bytes, kind: str, baud: int) -> None:
    """Whatever came first, the receiver is found at its speed within 15 s."""
    wire = Wire(simulated(kind, baud), TAI_S, begin_ns=6 * NS - NS // 5, talks_from_ns=7 * NS)
    wire.say(junk)
    verdict, after_s = found(wire, 20)
    assert (verdict.baud, verdict.usable) == (baud, True)
    assert after_s < 15


def test_asking_waits_for_sense() -> None:
    """Where nothing may be written to strangers, the question is sent once and only after the receiver was understood."""
    wire, probe, asked = Wire(simulated("timing", 38400), TAI_S, begin_ns=5 * NS), Probe(5 * NS, NOT_BEFORE_S, ask=False), []
    while probe.verdict(wire.now) is None:
        data = wire.read(probe.baud)
        probe.feed(data, Instant(0, wire.now), 0)
        if question := probe.due(wire.now).data:
            asked.append(probe.baud)
            wire.write(question, probe.baud)
    assert asked == [38400]


class EchoingWire(Wire):
    """A line that gives back, ``late_ns`` later, what is written to it: all of it, or only its first ``share``."""

    def __init__(self, receiver: Receiver | None, *, late_ns: int = 0, share: float = 1.0) -> None:
        self._late_ns, self._share, self._echo = late_ns, share, list[tuple[int, bytes]]()
        super().__init__(receiver, TAI_S, begin_ns=5 * NS)

    def read(self, baud: int) -> bytes:
        came = super().read(baud)
        due = b"".join(data for at, data in self._echo if at <= self.now)
        self._echo = [part for part in self._echo if part[0] > self.now]
        return due + came

    def write(self, data: bytes, baud: int) -> None:
        super().write(data, baud)
        self._echo.append((self.now + self._late_ns, data[: round(len(data) * self._share)]))


@given(st.integers(0, 30 * NS), st.floats(0.1, 1.0), st.booleans())
@settings(max_examples=40)
def test_an_echo_is_no_receiver(late_ns: int, share: float, ask: bool) -> None:
    """A loop-back plug, a modem or terminal with echo: what comes back, at once or late, whole or in part, shows no receiver."""
    verdict, _ = found(EchoingWire(None, late_ns=late_ns, share=share), 60, ask=ask)
    assert not verdict.usable
    if ask and share == 1.0:
        assert (verdict.protocol, verdict.baud, verdict.advice) == ("echo", 0, ECHO_ADVICE)


@pytest.mark.parametrize("kind", ["nmea", "ublox8", "timing", "mtk"])
@pytest.mark.parametrize("baud", [9600, 57600, 115200])
def test_a_receiver_behind_an_adapter_that_hears_itself_is_found(kind: str, baud: int) -> None:
    """On a half-duplex line with echo the receiver is found at its speed all the same, and on a fast one, what it is."""
    for late_ns in (0, NS // 3):
        verdict, after_s = found(EchoingWire(simulated(kind, baud), late_ns=late_ns), 20)
        assert (verdict.baud, verdict.usable) == (baud, True)
        assert after_s < 12
        assert baud == 9600 or (kind in ("ublox8", "timing")) == ("u-blox" in verdict.identity)


def test_questions_that_others_left_on_the_line_are_no_receiver() -> None:
    """Questions that come back from an earlier session, or that another program asks, show no receiver either."""
    polls = encode(*MON_VER) + encode(0x06, 0x00) + pmtk("PMTK605") + pmtk("PUBX,04") + pmtk("EIGNQ,RMC")
    for ask in (True, False):
        verdict, _ = found(Wire(Talker(9600, polls), TAI_S, begin_ns=5 * NS), 30, ask=ask)
        assert not verdict.usable
