"""Sources on the way from what a receiver says to samples: what they learn, save, and refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from random import Random

import pytest

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import LineSeen, Note, Pulsed, Reported, SourceFound, Ticked
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.saved import Saved
from ppsd.discipline.source import PulseSource, ReceiverSource, SampleSource
from ppsd.faces.text import sources_in_words
from ppsd.snapshot import Mode, Snapshot
from refclock import config
from refclock.condition import Code
from refclock.config import GpsdSource, ShmSource
from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.stream import ReceiverStream
from refclock.sample import (
    NS,
    Antenna,
    Edge,
    EdgeKind,
    FixMode,
    ForeignSample,
    HealthReport,
    Instant,
    LineStatus,
    Sample,
    SecondLabel,
    SkyView,
    SourceId,
)
from refclock.timescales import DAY_S
from refclock.timing.pairing import Present
from refclock.timing.pulse_time import Context, PulseTime
from refclock.timing.receiver_time import GPSD_PULSE_NS

UTC0 = 1_798_761_600 - 3600  # an hour before 2027
MONO0 = 5_000 * NS
RIGHT = Present(MONO0, (UTC0 + 37) * NS, 0.0, 1000.0)
MOUSE = config.ReceiverSource(name="gps0", device="/dev/x", pps="")
PPS = config.PpsSource(name="p", pps="/dev/pps0")
BYTE_NS = 1_041_666


def at(s: float, ahead_s: float = 0.0) -> Instant:
    return Instant(round((UTC0 + s + ahead_s) * NS), MONO0 + round(s * NS))


def label(s: int, delay_s: float) -> SecondLabel:
    return SecondLabel((UTC0 + s) * NS, at(s + delay_s), "RMC")


def labelled(source: ReceiverSource, label: SecondLabel, leaps: LeapKeeper, present: Present | None, own: bool = False) -> list[Sample]:
    return source.reported((label,), 0, leaps, Context(present=present, own_labels=own)).samples


def pulsed(source: ReceiverSource, edge: Edge) -> Sample | None:
    return source.pulsed(edge, Context(present=RIGHT))


def sampled(source: SampleSource, at: Instant, utc_s: int) -> None:
    source.sampled(ForeignSample(at, utc_s * NS - at.real_ns), LeapKeeper(), None, None)


def rmc(s: int) -> bytes:
    of_day = (UTC0 + s) % DAY_S
    body = f"GPRMC,{of_day // 3600:02d}{of_day // 60 % 60:02d}{of_day % 60:02d},A,5130.0,N,00000.0,E,0,0,311226,,,A"
    return f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode()


def test_mouse_is_calibrated_by_a_better_source() -> None:
    """A receiver without pulse learns its delay from the served time once somebody better makes it, never from a time made of its own
    labels."""
    source, leaps = ReceiverSource(MOUSE, UTC0 - DAY_S, Saved()), LeapKeeper()
    for s in range(20):
        labelled(source, label(s, 0.143), leaps, RIGHT, own=True)
    assert source.time.pairing.delay_words("NMEA") == ""
    for s in range(20, 40):
        labelled(source, label(s, 0.143 + (s % 3) * 0.002), leaps, RIGHT)
    assert source.time.pairing.delay_words("NMEA") == "NMEA arrives 145 ms ± 6 after the second"


@pytest.mark.parametrize(("byte_ns", "kept"), [(BYTE_NS, True), (BYTE_NS // 4, False)])
def test_saved_delay_belongs_to_its_line(byte_ns: int, kept: bool) -> None:
    """What an earlier run learned is taken up at the same line speed and forgotten at another."""
    first, leaps, stream = ReceiverSource(MOUSE, UTC0 - DAY_S, Saved()), LeapKeeper(), ReceiverStream(UTC0 - DAY_S)
    for s in range(20):
        first.reported(stream.feed(rmc(s), at(s + 0.5), BYTE_NS), BYTE_NS, leaps, Context(present=RIGHT))
    state = first.state()
    assert state.delay is not None
    assert state.delay.byte_ns == BYTE_NS
    saved = Saved(sources={"gps0": state})
    second = ReceiverSource(MOUSE, UTC0 - DAY_S, saved)
    second.reported(stream.feed(rmc(30), at(30.5), byte_ns), byte_ns, leaps, Context())
    assert (second.time.pairing.stated_delay_ns is not None) is kept


def test_doubtful_receiver_is_refused_within_one_pulse() -> None:
    """From the report of a cut antenna on neither pulse nor label is used, and the reason is the source's."""
    source, leaps = ReceiverSource(replace(MOUSE, pps="/dev/pps0", edge="assert"), UTC0 - DAY_S, Saved()), LeapKeeper()
    source.found("receiver")
    for s in range(10):
        pulsed(source, Edge(at(s), EdgeKind.ASSERT, s))
        labelled(source, label(s, 0.1), leaps, RIGHT)
    used = source.pulse.estimator.accepted
    assert used
    source.time.health.report(HealthReport(at(9.2), antenna=Antenna.OK))
    source.time.health.report(HealthReport(at(9.5), antenna=Antenna.OPEN))
    assert pulsed(source, Edge(at(10), EdgeKind.ASSERT, 10)) is None
    assert labelled(source, label(10, 0.1), leaps, RIGHT) == []
    assert source.pulse.estimator.accepted == used
    assert "antenna is disconnected" in source.obstacle(at(10.2).mono_ns).words


def test_reported_pulses_keep_their_allowance() -> None:
    """Pulses that gpsd reports carry the allowance for their way, also after everything was learned anew."""
    source = ReceiverSource(GpsdSource(name="gpsd0"), UTC0 - DAY_S, Saved())
    for again in range(2):
        for s in range(5):
            pulsed(source, Edge(at(s + 10 * again), EdgeKind.ASSERT, s, 954))
        assert source.time.pulse_bias_ns == pytest.approx(15_000 + GPSD_PULSE_NS + 954)
        source.forget()


@pytest.mark.parametrize(("grain_ns", "allowed_ns"), [(1, 0.5), (10, 5.0), (1_000, 500.0)])
def test_stamps_of_whole_microseconds_are_no_better_than_that(grain_ns: int, allowed_ns: float) -> None:
    """A program that stamps in whole microseconds gets half of one as bias, however still its stamps stand."""
    source = SampleSource(ShmSource(name="pulse", unit=0, bias_us=0.0), Saved())
    for s in range(20):
        stamp = at(s + 0.000_123_456_7 * s)
        stamp = stamp.shifted(-(stamp.real_ns % grain_ns))
        sampled(source, stamp, UTC0 + s)
    assert source.channel.estimator.bias_ns == allowed_ns
    assert source.channel.estimator.estimate(stamp.mono_ns).jitter_ns >= 0.29 * grain_ns


def test_noise_and_wander_are_saved_per_channel() -> None:
    """After some minutes of samples the state holds what was learned of them, and the next start takes it."""
    shm, random = ShmSource(name="pulse", unit=0, bias_us=0.0), Random(3)
    first = SampleSource(shm, Saved())
    for s in range(200):
        sampled(first, at(s + random.gauss(0.0, 5e-6)), UTC0 + s)
    state = first.state()
    assert state.pulse is not None
    assert (state.label, state.delay) == (None, None)
    bounds = []
    for saved in (Saved(), Saved(sources={"pulse": state})):
        second = SampleSource(shm, saved)
        for s in range(300, 310):
            sampled(second, at(s + random.gauss(0.0, 5e-6)), UTC0 + s)
        terms = second.channel.estimator.estimate(at(310).mono_ns).terms
        assert terms is not None
        bounds.append(terms.early_ns + terms.chance_ns)
    assert bounds[1] < bounds[0] / 2


PULSED = replace(MOUSE, pps="/dev/pps0")


def drive(engine: Engine, name: str, seconds: range, delay_s: float, late_s: float) -> None:
    """A receiver whose messages come ``delay_s`` and whose only edge comes ``late_s`` after each second."""
    stream = ReceiverStream(UTC0 - DAY_S)
    for s in seconds:
        edge = Edge(at(s + late_s), EdgeKind.ASSERT, s)
        engine.handle(Pulsed(SourceId(name), edge, at(s + late_s)))
        engine.handle(Reported(SourceId(name), tuple(stream.feed(rmc(s), at(s + delay_s), BYTE_NS)), at(s + delay_s), BYTE_NS))
        engine.handle(Ticked(at(s + 0.9)))


def engine_of(*sources: config.ReceiverSource) -> Engine:
    clock = ClockConfig(not_before=date(2026, 1, 1))
    engine = Engine(Config(clock=clock, sources=sources), Saved(), at(-1), simulated=False, version="test", pid=0)
    for source in sources:
        engine.handle(SourceFound(SourceId(source.name), "receiver", at(-1)))
    return engine


def test_of_two_receivers_with_different_edges_neither_wins() -> None:
    """One receiver's trailing edge is 100 ms after the other's leading one: they are shown to disagree, by how much, whoever came first."""
    for lates in ((0.0, 0.1), (0.1, 0.0)):
        engine = engine_of(replace(PULSED, name="gps0"), replace(PULSED, name="gps1"))
        drive(engine, "gps0", range(20), 0.2, lates[0])
        assert engine.mode is Mode.TRACK
        for s in range(20, 60):
            drive(engine, "gps0", range(s, s + 1), 0.2, lates[0])
            drive(engine, "gps1", range(s, s + 1), 0.2, lates[1])
        assert engine.selected is None
        assert engine.mode is not Mode.TRACK
        snapshot = engine.snapshot(at(60))
        assert {s.tally for s in snapshot.sources} == {"x"}
        assert all("disagrees by" in s.why for s in snapshot.sources)


def test_the_snapshot_tells_of_the_pulses() -> None:
    """Rate, width, missing pulses and verdict stand in the source's status, and what refclock sources prints."""
    engine = engine_of(PULSED)
    for s in range(30):
        for kind, late in ((EdgeKind.ASSERT, 0.0), (EdgeKind.CLEAR, 0.2)):
            if s != 17:
                engine.handle(Pulsed(SourceId("gps0"), Edge(at(s + late), kind, s), at(s + late)))
    snapshot = engine.snapshot(at(30))
    pulse = snapshot.sources[0].pulse
    assert pulse is not None
    assert (pulse.rate_hz, pulse.edge, pulse.width_ms, pulse.missing, pulse.stray) == (1.0, "assert", 200.0, 1, 0)
    said = sources_in_words(Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))))
    assert "  gps0: one pulse a second, jitter 0.0 µs (9 of 10), 1 missing, 200.0 ms wide: not what timing wants" in "\n".join(said)


def test_the_fall_of_a_square_wave_marks_the_second_when_the_served_time_says_so() -> None:
    """Half a second high and half low, turned round: its rise lies on the half seconds of the served time, so its fall is taken."""
    source, leaps = ReceiverSource(PULSED, UTC0 - DAY_S, Saved()), LeapKeeper()
    used = []
    for s in range(30):
        labelled(source, label(s, 0.1), leaps, RIGHT)
        for kind, late in ((EdgeKind.CLEAR, 0.0), (EdgeKind.ASSERT, 0.5)):
            sample = pulsed(source, Edge(at(s + late), kind, s))
            if sample is not None:
                used.append((kind, sample.at.mono_ns - MONO0))
    assert len(used) > 10
    assert all(kind is EdgeKind.CLEAR and since % NS == 0 for kind, since in used)


def test_messages_before_the_pulse_are_told() -> None:
    """Labels that come 40 ms before the pulses they name, by a timescale made of those pulses: told as what a trailing edge looks like."""
    source, leaps = ReceiverSource(PULSED, UTC0 - DAY_S, Saved()), LeapKeeper()
    for s in range(20):
        labelled(source, label(s, -0.04), leaps, RIGHT)
        pulsed(source, Edge(at(s), EdgeKind.ASSERT, s))
    status = source.status(at(20), "*", "", ())
    assert status.pulse is not None
    assert "its messages come 40 ms before the pulse" in status.pulse.doubts[0]


def test_a_change_of_the_pulses_is_logged_once() -> None:
    """From one to five pulses a second: one note in the log."""
    engine = engine_of(PULSED)
    notes = []
    for s in range(40):
        for k in range(1 if s < 20 else 5):
            came = at(s + k / 5)
            notes += engine.handle(Pulsed(SourceId("gps0"), Edge(came, EdgeKind.ASSERT, s), came))
        notes += engine.handle(Ticked(at(s + 0.95)))
    told = [n for n in notes if isinstance(n, Note) and n.event == "pulses changed"]
    assert [n.fields["what"] for n in told] == ["the pulses went from 1 to 5 a second"]


def test_the_cable_is_taken_off_once() -> None:
    """By the receiver once it has confirmed its pulse, here until then and after it was lost: the same instant for the same antenna."""
    source, leaps = ReceiverSource(replace(PULSED, cable_delay_ns=5000), UTC0 - DAY_S, Saved()), LeapKeeper()
    off: list[tuple[bool, int]] = []
    for s in range(90):
        if s % 30 == 0:
            source.time.cable_told = s == 30
        labelled(source, label(s, 0.1), leaps, RIGHT)
        late_ns = 0 if source.time.cable_told else 5000
        sample = pulsed(source, Edge(at(s).shifted(late_ns), EdgeKind.ASSERT, s))
        if sample is not None:
            off.append((source.time.cable_told, sample.at.mono_ns - MONO0 - s * NS))
    assert set(off) == {(False, 0), (True, 0)}
    assert source.status(at(90), "*", "", ()).cable == "antenna cable 5000 ns: taken off here, for the receiver was not told"
    source.time.cable_told = True
    assert source.status(at(90), "*", "", ()).cable == "antenna cable 5000 ns: the receiver takes it off"
    source.lost("unplugged")
    assert not source.time.cable_told


def test_the_bound_is_shown_term_by_term() -> None:
    """What a source's bound is made of stands in its status: the terms add up to it, and the stated latency of the pulse is one of them."""
    engine = engine_of(PULSED)
    drive(engine, "gps0", range(40), 0.2, 0.0)
    status = engine.snapshot(at(41)).sources[0]
    assert status.bound_ns is not None
    assert sum(status.bound_terms_ns.values()) == pytest.approx(status.bound_ns, abs=2)
    assert status.bound_terms_ns["bias"] == 15_000.0
    assert status.bound_terms_ns["growth"] > 0


def line_seen(line: LineStatus, sky: SkyView | None = None, byte_ns: int = BYTE_NS) -> ReceiverSource:
    source = ReceiverSource(MOUSE, UTC0 - DAY_S, Saved())
    source.found("/dev/x")
    source.reported(() if sky is None else (sky,), byte_ns, LeapKeeper(), Context())
    source.line_seen(line)
    return source


def test_the_reason_shown_is_why_the_labels_were_refused() -> None:
    """A receiver whose dates are refused is told so, not that its first second is awaited. One without a fix is told by its satellites,
    with what else is the matter."""
    refused = LineStatus(unlabelled="it names dates before 1980: update its firmware")
    told = line_seen(refused).obstacle(MONO0)
    assert (told.code, told.words) == (Code.LABELS_REFUSED, refused.unlabelled)
    blind = SkyView(FixMode.NONE, 0, (), at(0))
    told = line_seen(refused, blind).obstacle(MONO0)
    assert (told.code, told.words) == (Code.NO_FIX, f"no fix yet, no satellites seen; {refused.unlabelled}")
    void = LineStatus(unlabelled="it says itself that its time is not valid", fixless=True)
    assert line_seen(void, blind).obstacle(MONO0).words == "no fix yet, no satellites seen"
    assert line_seen(void).obstacle(MONO0).words == void.unlabelled
    fixed = SkyView(FixMode.FIX_3D, 8, (), at(0))
    assert line_seen(refused, fixed).obstacle(MONO0).code is Code.LABELS_REFUSED


def test_labels_that_stop_are_told_with_their_reason() -> None:
    """A trusted receiver that names no second any more: people read for how long, and why."""
    source, leaps = ReceiverSource(MOUSE, UTC0 - DAY_S, Saved()), LeapKeeper()
    source.found("/dev/x")
    for s in range(20):
        labelled(source, replace(label(s, 0.1), leap_known=True), leaps, None)
    source.line_seen(LineStatus(unlabelled="it sends only GGA"))
    told = source.obstacle(at(80).mono_ns)
    assert told.code is Code.SECONDS_STOPPED
    assert told.words == "no valid second from the receiver for 61 s: it sends only GGA"


def test_a_saturated_line_and_complaints_are_told_and_refuse_nothing() -> None:
    """A line that is never idle is told with figures and remedy, a receiver's complaint with its words; neither blocks by itself."""
    source = line_seen(LineStatus(saturated=True, complaints=("its input is shut: ...", 'it complains: "odd"')))
    conditions = {c.code: c for c in source.conditions(MONO0, None)}
    assert not any(c.blocks for c in conditions.values())
    assert "960 bytes a second" in conditions[Code.LINE_SATURATED].words
    assert "raise the speed (baud)" in conditions[Code.LINE_SATURATED].words
    assert conditions[Code.RECEIVER_COMPLAINS].words == 'its input is shut: ...; it complains: "odd"'


def test_news_of_the_line_is_logged_once() -> None:
    """A complaint, a saturated line and a new reason are each logged when they begin, not again and again."""
    engine = Engine(Config(clock=ClockConfig(), sources=(MOUSE,)), Saved(), at(0), simulated=False, version="test", pid=0)

    def logged(s: float, line: LineStatus) -> list[str]:
        notes = engine.handle(LineSeen(SourceId("gps0"), line, at(s)))
        return [effect.event for effect in notes if isinstance(effect, Note) and effect.fields.get("source") == "gps0"]

    assert logged(1, LineStatus(unlabelled="a")) == ["labels refused"]
    assert logged(2, LineStatus(unlabelled="a", junk_bytes=5)) == []
    assert logged(3, LineStatus(unlabelled="a", complaints=("b",))) == ["receiver complains"]
    assert logged(4, LineStatus(complaints=("b",), saturated=True)) == ["line saturated"]
    assert logged(5, LineStatus(complaints=("b",), saturated=True)) == []


def test_a_pulse_whose_driver_is_not_named_says_why_its_bound_is_wide() -> None:
    """The kernel does not say what stamps the pulse: the condition gives the share of the bound and the key that ends it. Once
    pps_over_usb is stated it is gone, and the bound with it."""
    bounds = []
    for stated in (None, False):
        source = PulseSource(config.PpsSource(name="p", pps="/dev/pps0", pps_over_usb=stated), PulseTime(PPS), Saved())
        source.pulse_found("/dev/pps0", stated, 15.0, "by the kernel")
        for s in range(1, 40):
            source.pulsed(Edge(at(s + 1e-6 * (s % 3)), EdgeKind.ASSERT, s, 100), Context(present=RIGHT))
            source.pulsed(Edge(at(s + 0.1), EdgeKind.CLEAR, s, 100), Context(present=RIGHT))
        told = [c for c in source.conditions(at(40).mono_ns, None) if c.code is Code.PULSE_LINE_UNNAMED]
        bounds.append(source.pulse.estimator.estimate(at(40).mono_ns).bound_ns)
        assert bool(told) is (stated is None)
        if told:
            assert "/dev/pps0" in told[0].words
            assert "pps_over_usb = false" in told[0].words
    assert bounds[0] > 10 * bounds[1]
