"""A source on the way from bytes to samples: what it learns, saves, and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppsd.leap import LeapKeeper
from ppsd.source import GPSD_PULSE_NS, Source
from refclock.config import GpsdSource, ReceiverSource
from refclock.framing import nmea_checksum
from refclock.pairing import Present
from refclock.sample import NS, Antenna, Edge, EdgeKind, HealthReport, Instant, SecondLabel
from refclock.timescales import DAY_S

UTC0 = 1_798_761_600 - 3600  # an hour before 2027
MONO0 = 5_000 * NS
RIGHT = Present(MONO0, (UTC0 + 37) * NS, 0.0, 1000.0)
MOUSE = ReceiverSource(name="gps0", device="/dev/x", pps="")
BYTE_NS = 1_041_666


def at(s: float, ahead_s: float = 0.0) -> Instant:
    return Instant(round((UTC0 + s + ahead_s) * NS), MONO0 + round(s * NS))


def label(s: int, delay_s: float) -> SecondLabel:
    return SecondLabel((UTC0 + s) * NS, at(s + delay_s), "RMC")


def rmc(s: int) -> bytes:
    of_day = (UTC0 + s) % DAY_S
    body = f"GPRMC,{of_day // 3600:02d}{of_day // 60 % 60:02d}{of_day % 60:02d},A,5130.0,N,00000.0,E,0,0,311226,,,A"
    return f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode()


def test_mouse_is_calibrated_by_a_better_source() -> None:
    """A receiver without pulse learns its delay from the served time once somebody better makes it, never from a time made of its own
    labels."""
    source, leaps = Source(MOUSE, UTC0 - DAY_S, {}), LeapKeeper()
    source.own_labels = True
    for s in range(20):
        source.labelled(label(s, 0.143), leaps, RIGHT)
    assert source.pairing.delay_words("NMEA") == ""
    source.own_labels = False
    for s in range(20, 40):
        source.labelled(label(s, 0.143 + (s % 3) * 0.002), leaps, RIGHT)
    assert source.pairing.delay_words("NMEA") == "NMEA arrives 145 ms ± 6 after the second"


@pytest.mark.parametrize(("byte_ns", "kept"), [(BYTE_NS, True), (BYTE_NS // 4, False)])
def test_saved_delay_belongs_to_its_line(byte_ns: int, kept: bool) -> None:
    """What an earlier run learned is taken up at the same line speed and forgotten at another."""
    first, leaps = Source(MOUSE, UTC0 - DAY_S, {}), LeapKeeper()
    for s in range(20):
        first.received(rmc(s), at(s + 0.5), BYTE_NS, leaps, RIGHT)
    saved = first.state()
    assert saved["gps0.delay_byte_ns"] == BYTE_NS
    second = Source(MOUSE, UTC0 - DAY_S, saved)
    second.received(rmc(30), at(30.5), byte_ns, leaps, None)
    assert (second.pairing.stated_delay_ns is not None) is kept


def test_second_sixty_of_a_trusted_receiver_is_a_leap_second() -> None:
    """NMEA's 23:59:60 from a receiver that is believed enters the table at once; from one that is not, never."""
    for ahead_s, known in ((0.0, True), (7200.0, False)):
        source, leaps = Source(MOUSE, UTC0 - DAY_S, {}), LeapKeeper()
        for s in (3597, 3598, 3599):
            source.labelled(replace(label(s, 0.1), at=at(s + 0.1, ahead_s)), leaps, None)
        sixty = SecondLabel((UTC0 + 3599) * NS, at(3600.1, ahead_s), "RMC", second_60=True)
        source.labelled(sixty, leaps, None)
        assert (leaps.table.tai_offset_s(UTC0 + 3600) == 38) is known


def test_doubtful_receiver_is_refused_within_one_pulse() -> None:
    """From the report of a cut antenna on neither pulse nor label is used, and the reason is the source's."""
    source, leaps = Source(replace(MOUSE, pps="/dev/pps0", edge="assert"), UTC0 - DAY_S, {}), LeapKeeper()
    source.found("receiver")
    for s in range(10):
        source.pulsed(Edge(at(s), EdgeKind.ASSERT, s), RIGHT)
        source.labelled(label(s, 0.1), leaps, RIGHT)
    used = source.pulse.estimator.accepted
    assert used
    source.health.report(HealthReport(at(9.2), antenna=Antenna.OK))
    source.health.report(HealthReport(at(9.5), antenna=Antenna.OPEN))
    assert source.pulsed(Edge(at(10), EdgeKind.ASSERT, 10), RIGHT) is None
    assert source.labelled(label(10, 0.1), leaps, RIGHT) == []
    assert source.pulse.estimator.accepted == used
    assert "antenna is disconnected" in source.why(at(10.2).mono_ns)


def test_reported_pulses_keep_their_allowance() -> None:
    """Pulses that gpsd reports carry the allowance for their way, also after everything was learned anew."""
    source = Source(GpsdSource(name="gpsd0"), UTC0 - DAY_S, {})
    for again in range(2):
        for s in range(5):
            source.pulsed(Edge(at(s + 10 * again), EdgeKind.ASSERT, s, 954), RIGHT)
        assert source.pulse.estimator.bias_ns == pytest.approx(15_000 + GPSD_PULSE_NS + 954)
        source.forget()


def test_the_cable_is_taken_off_once() -> None:
    """By the receiver once it has confirmed its pulse, here until then and after it was lost: always the same instant for the same antenna."""
    config = ReceiverSource(name="gps0", device="/dev/x", pps="/dev/pps0", cable_delay_ns=5000)
    source, seen = Source(config, UTC0 - DAY_S, {}), []

    def pulse(s: int, late_ns: int) -> None:
        source.pulsed(Edge(at(s).shifted(late_ns), EdgeKind.ASSERT, s), RIGHT)
        sample = source.pulsed(Edge(at(s + 1).shifted(late_ns), EdgeKind.ASSERT, s + 1), RIGHT)
        assert sample is not None
        seen.append(sample.tai_ns - (sample.at.mono_ns - MONO0) - RIGHT.tai_at(MONO0))

    for s in range(0, 20, 2):  # which edge it is has to be found first
        source.pulsed(Edge(at(s).shifted(5000), EdgeKind.ASSERT, s), RIGHT)
    pulse(20, 5000)
    assert source.status_cable == "antenna cable 5000 ns: taken off here, for the receiver was not told"
    source.configured(True)
    pulse(30, 0)
    assert source.status_cable == "antenna cable 5000 ns: the receiver takes it off"
    source.configured(False)
    pulse(40, 5000)
    source.configured(True)
    source.lost("unplugged")
    assert "taken off here" in source.status_cable
    assert seen == [0, 0, 0]
