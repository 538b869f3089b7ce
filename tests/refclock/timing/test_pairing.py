"""Pairing never names a wrong second."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS
from refclock_sim.receiver.output import Receiver as SimReceiver

from refclock.condition import Code, Condition
from refclock.protocols.stream import ReceiverStream
from refclock.sample import NS, Edge, EdgeKind, Instant, Sample, SecondLabel
from refclock.timescales import LeapTable
from refclock.timing.pairing import DEFAULT_DELAY_UNCERTAINTY_NS, Numbered, Pairing, Present

UTC0 = 1_790_000_000
MONO0 = 77_000 * NS + 123_456_789
TABLE = LeapTable()


def numbered(out: Numbered | Condition) -> list[Sample]:
    return out.pulses if isinstance(out, Numbered) else []


def edge(k: int) -> Edge:
    return Edge(Instant((UTC0 + k) * NS, MONO0 + k * NS), EdgeKind.ASSERT, k)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([4800, 9600, 19200, 38400, 57600, 115200, 460800, 921600]),
    st.floats(-0.4, 0.4),
    st.sampled_from(sorted(MODELS)),
    st.integers(0, 2**31),
)
def test_no_wrong_second_at_any_baud(baud: int, delay_s: float, kind: str, seed: int) -> None:
    """Labels up to 0.4 s after or before their pulse, on a line of any speed: every numbered pulse has its own second, or none; those that
    come clearly after it are numbered."""
    sim = SimReceiver(MODELS[kind], Gnss(seed, UTC0 + 37, TABLE, fix_s=0), seed, baud)
    receiver, pairing = ReceiverStream(UTC0 - 10**7), Pairing(None, 300_000_000)
    happenings: list[tuple[int, int, bytes]] = []
    for k in range(20):
        happenings.append((k * NS, 0, b""))
        cycle = sim.cycle(UTC0 + k + 37)
        wanted = round(delay_s * 1e9) - (cycle[0][0] - len(cycle[0][1]) * sim.byte_ns)
        happenings += [(k * NS + wanted + at, 1, chunk) for at, chunk in cycle]
    assume(sum(len(chunk) for at, what, chunk in happenings) * sim.byte_ns < 19 * NS)  # the line can carry it
    happenings.sort()
    named = []
    for at, what, chunk in happenings:
        if what == 0:
            sample = pairing.edge(edge(at // NS), None)
            assert sample is None
            continue
        for value in receiver.feed(chunk, Instant(UTC0 * NS + at, MONO0 + at), sim.byte_ns):
            if isinstance(value, SecondLabel):
                named += numbered(pairing.label(TABLE.utc_to_tai_ns(value.utc_ns), value.at, None))
    for sample in named:
        k = (sample.at.mono_ns - MONO0) // NS
        assert sample.tai_ns == (UTC0 + k + 37) * NS
    if -0.02 < delay_s < 0.25:
        assert named, f"a clear case was not named: {pairing.condition.words}"


def asked(pairing: Pairing, k: int, delay_s: float, clock_s: float | None = None) -> list[Sample]:
    """Second ``k``: its pulse and then its label, ``delay_s`` after it; ``clock_s``: what the system clock is ahead by, None: no clock."""
    pairing.edge(edge(k), None)
    at = round(delay_s * NS)
    clock_ns = None if clock_s is None else (UTC0 + 37) * NS - MONO0 + round(clock_s * NS)
    return numbered(pairing.label((UTC0 + k + 37) * NS, Instant((UTC0 + k) * NS + at, MONO0 + k * NS + at), None, clock_ns))


@given(st.floats(0.06, 0.94), st.floats(-3, 3), st.integers(0, 2))
def test_second_opinion_never_names_a_wrong_second(delay_s: float, clock_s: float, opinion: int) -> None:
    """Any delay below a second, with a system clock that is off by anything, TIM-TP or a stated delay: the right second or none; a right
    clock, TIM-TP and a delay stated within 0.3 s always settle it."""
    pairing = Pairing(round(delay_s * NS + 0.3 * NS * clock_s / 3) if opinion == 2 else None, 300_000_000)
    named: list[Sample] = []
    for k in range(8):
        if opinion == 1:
            pairing.announced((UTC0 + k + 37) * NS, Instant(0, MONO0 + k * NS - 300_000_000))
        named += asked(pairing, k, delay_s, clock_s if opinion == 0 else None)
    for sample in named:
        assert sample.tai_ns == (UTC0 + (sample.at.mono_ns - MONO0) // NS + 37) * NS
    if opinion or abs(clock_s) < 0.09:
        assert named, pairing.condition.words


@given(st.floats(0.40, 0.94), st.integers(5, 30))
def test_half_a_second_is_refused_with_the_reason(delay_s: float, labels: int) -> None:
    """A message half a second after the pulse, or as well before the next, names nothing, and the reason says so."""
    pairing = Pairing(None, 300_000_000)
    for k in range(labels):
        pairing.edge(edge(k), None)
        at = round(delay_s * NS)
        assert isinstance(pairing.label((UTC0 + k + 37) * NS, Instant((UTC0 + k) * NS + at, MONO0 + k * NS + at), None), Condition)
    assert pairing.refused["ambiguous-delay"] == labels
    assert "cannot be told" in pairing.condition.words


@given(st.integers(-90_000_000, 90_000_000), st.floats(1.0, 90e6))
def test_below_a_tenth_of_a_second_pulses_are_rounded(error_ns: int, bound_ns: float) -> None:
    """With a bound below 0.1 s the pulse takes the timescale's nearest second, labels or not; one that lies 25 ms and the bound off it is
    refused with how far, for it may be a trailing edge."""
    pairing = Pairing(None, 300_000_000)
    present = Present(MONO0, (UTC0 + 37) * NS + error_ns, 0.0, bound_ns)
    sample = pairing.edge(edge(5), present)
    if abs(error_ns) > 25_000_000 + bound_ns:
        assert sample is None
        assert f"{abs(error_ns) / 1e6:.0f} ms {'after' if error_ns > 0 else 'before'} the served seconds" in pairing.condition.words
        sample = pairing.edge(edge(5), present, rivalled=True)
    assert sample is not None
    assert sample.tai_ns == (UTC0 + 42) * NS


@given(st.sampled_from([2, 3, 5, 8, 10]), st.floats(-0.05, 1.2), st.floats(-0.3, 0.3), st.floats(0, 0.3), st.booleans())
def test_one_of_many_pulses_is_never_the_wrong_one(rate: int, delay_s: float, wrong: float, jitter: float, clock: bool) -> None:
    """Several pulses a second, any message delay: with the delay stated to a third of the period the one that marks the second is found;
    without, nothing is named, whatever the system clock and TIM-TP say, and the reason says what to do."""
    period = NS // rate
    for stated in (True, False):
        pairing = Pairing(round(delay_s * NS + wrong * period) if stated else None, DEFAULT_DELAY_UNCERTAINTY_NS)
        pairing.rhythm(period, alone=True)
        happenings = [(k * NS // rate, -1) for k in range(12 * rate)]
        happenings += [(k * NS + round(delay_s * NS + (-1) ** k * jitter * 0.1 * period), k) for k in range(10)]
        named = []
        for at, k in sorted(happenings):
            instant = Instant(UTC0 * NS + at, MONO0 + at)
            if k < 0:
                assert pairing.edge(Edge(instant, EdgeKind.ASSERT, 0), None) is None
                pairing.announced((UTC0 + at // NS + 38) * NS, instant)
            else:
                named += numbered(pairing.label((UTC0 + k + 37) * NS, instant, None, (UTC0 + 37) * NS - MONO0 if clock else None))
        for sample in named:
            assert sample.tai_ns - (UTC0 + 37) * NS == sample.at.mono_ns - MONO0
        assert bool(named) is stated, pairing.condition.words
        if not stated:
            assert "set the receiver's pulse to 1 Hz" in pairing.condition.words


@given(st.integers(2, 5), st.integers(0, 4), st.floats(-0.004, 0.3))
def test_pulses_every_few_seconds_mark_theirs(every: int, phase: int, delay_s: float) -> None:
    """A pulse every two to five seconds, a label every second: each pulse gets its own second."""
    pairing = Pairing(None, DEFAULT_DELAY_UNCERTAINTY_NS)
    pairing.rhythm(every * NS, alone=True)
    happenings = [(k * NS, -1) for k in range(40) if k % every == phase % every]
    happenings += [(k * NS + round(delay_s * NS), k) for k in range(40)]
    named = []
    for at, k in sorted(happenings):
        instant = Instant(UTC0 * NS + at, MONO0 + at)
        if k < 0:
            pairing.edge(Edge(instant, EdgeKind.ASSERT, 0), None)
        else:
            named += numbered(pairing.label((UTC0 + k + 37) * NS, instant, None))
    assert len(named) >= 5
    for sample in named:
        assert sample.tai_ns - (UTC0 + 37) * NS == sample.at.mono_ns - MONO0


def test_message_before_a_lone_edge_is_refused() -> None:
    """One edge is captured, and messages come 40 ms before it: probably the trailing edge; a stated delay overrules."""
    for alone, stated, named in ((True, None, False), (False, None, True), (True, -40_000_000, True)):
        pairing = Pairing(stated, DEFAULT_DELAY_UNCERTAINTY_NS)
        pairing.rhythm(NS, alone)
        got = [sample for k in range(10) for sample in asked(pairing, k, -0.04)]
        assert bool(got) is named
        assert ("trailing edge" in pairing.condition.words) is not named


def test_a_pulse_before_the_served_seconds_gives_those_up() -> None:
    """Late pulses never move a timescale; early ones, which no trailing edge can be, end it after ten (five minutes when it was proven)."""
    present = Present(MONO0, (UTC0 + 37) * NS, 0.0, 1000.0)
    for off_ns, given_up in ((100_000_000, None), (-100_000_000, 10)):
        pairing = Pairing(None, DEFAULT_DELAY_UNCERTAINTY_NS)
        when = None
        for k in range(1, 30):
            pairing.label((UTC0 + k + 37) * NS, Instant(0, MONO0 + k * NS + 150_000_000), present)
            at = MONO0 + k * NS + off_ns
            assert pairing.edge(Edge(Instant(at, at), EdgeKind.ASSERT, k), present) is None
            if pairing.contradicts and when is None:
                when = k
        assert when == given_up


def test_pulses_without_labels_are_believed_for_ten_seconds() -> None:
    """Without a valid label pulses are refused after ten seconds, also when the timescale was taken over from an earlier run."""
    pairing = Pairing(None, 300_000_000)
    present = Present(MONO0, (UTC0 + 37) * NS, 0.0, 1000.0)
    believed = [k for k in range(30) if pairing.edge(edge(k), present) is not None]
    assert believed == list(range(11))
    assert pairing.refused[Code.PULSES_WITHOUT_FIX] == 19


@given(st.floats(-1.0, 3.0), st.integers(0, 300), st.floats(-0.04, 0.04))
def test_a_kept_clock_names_the_pulse_whatever_the_delay(late_s: float, kept_ms: int, clock_s: float) -> None:
    """Messages 1 s early to 3 s late, beside a clock that another program keeps: each pulse gets its own second."""
    pairing = Pairing(None, DEFAULT_DELAY_UNCERTAINTY_NS)
    clock_ns = (UTC0 + 37) * NS - MONO0 + round(clock_s * NS)
    happenings = [(k * NS, -1) for k in range(16)]
    happenings += [(round((k + late_s) * NS), k) for k in range(1, 12)]
    named = []
    for at, k in sorted(happenings):
        if k < 0:
            pairing.edge(edge(at // NS), None)
        else:
            instant = Instant(UTC0 * NS + at, MONO0 + at)
            named += numbered(pairing.label((UTC0 + k + 37) * NS, instant, None, clock_ns, kept_ns=kept_ms * 1_000_000))
    assert named
    for sample in named:
        assert sample.tai_ns == (UTC0 + (sample.at.mono_ns - MONO0) // NS + 37) * NS


@given(st.integers(0, 300), st.floats(-0.99, 0.99), st.sampled_from([100, 150, 200]), st.floats(-0.01, 0.09), st.booleans())
def test_a_message_before_a_lone_edge_is_refused_beside_a_kept_clock_too(
    kept_ms: int, share: float, width_ms: int, delay_s: float, leading: bool
) -> None:
    """Only one edge is captured, and messages come before it: the trailing edge never gets a second, whatever a kept clock is off by within
    its error. The leading edge is used when the clock shows that it is no trailing one."""
    late_s = 0.0 if leading else width_ms / 1e3
    pairing = Pairing(None, DEFAULT_DELAY_UNCERTAINTY_NS)
    pairing.rhythm(NS, alone=True)
    clock_ns = (UTC0 + 37) * NS - MONO0 + round(share * kept_ms * 1e6)
    named = []
    for k in range(10):
        at = Instant(UTC0 * NS, MONO0).shifted(round((k + delay_s) * NS))
        if delay_s >= late_s:
            pairing.edge(edge(k), None)
        named += numbered(pairing.label((UTC0 + k + 37) * NS, at, None, clock_ns, kept_ns=kept_ms * 1_000_000))
        if delay_s < late_s:
            pulse = edge(k)
            pairing.edge(Edge(pulse.at.shifted(round(late_s * NS)), EdgeKind.ASSERT, k), None)
    if not leading:
        assert not named
    elif (1 + abs(share)) * kept_ms < 99 or delay_s > 0:
        assert named, pairing.condition.words
