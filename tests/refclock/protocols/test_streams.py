"""A valid stream, however mistreated on its way, never becomes a wrong second that is trusted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS
from refclock_sim.receiver.output import Receiver as SimReceiver

from refclock.config import ReceiverSource
from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.stream import ReceiverStream
from refclock.sample import NS, Edge, EdgeKind, Instant, ReceiverValue, Sample, SecondLabel
from refclock.timescales import DAY_S, LeapTable
from refclock.timing.evidence import Evidence
from refclock.timing.pulse_time import Context
from refclock.timing.receiver_time import ReceiverTime

pytestmark = pytest.mark.worlds

UTC0 = 1_800_000_000
MONO0 = 77_000 * NS + 123_456_789
TABLE = LeapTable()
SECONDS = 24

parts = st.tuples(
    st.sampled_from(["keep"] * 12 + ["drop", "cut", "flip", "twice", "again", "swap", "inside", "late", "late", "late"]),
    st.floats(-0.4, 0.4),
    st.integers(0, 400),
)


def mistreated(chunks: list[tuple[int, bytes]], ways: list[tuple[str, float, int]], causal: bool) -> list[tuple[int, bytes]]:
    """The stream (ns, bytes) with each chunk treated in its way; ``causal``: none comes before the second in which it was sent."""
    out: list[tuple[int, bytes]] = []
    for i, (at, data) in enumerate(chunks):
        way, shift_s, place = ways[i % len(ways)]
        shift = round(shift_s * NS)
        same = bool(out) and out[-1][0] // NS == at // NS  # of one burst: nothing is written before it exists
        where = place % max(1, len(data))
        match way:
            case "drop":
                continue
            case "cut":
                out.append((at, data[:where]))
            case "flip":
                out.append((at, data[:where] + bytes((data[where] ^ 1 << place % 8,)) + data[where + 1 :]))
            case "twice":
                out += [(at, data), (at, data)]
            case "again":  # the same bytes once more, later
                out += [(at, data), (at + abs(shift), data)]
            case "swap" if same:
                out.insert(-1, (out[-1][0], data))
            case "inside" if same:
                before_at, before = out.pop()
                out.append((before_at, before[:where] + data + before[where:]))
            case "late":
                out.append((max(at // NS * NS if causal else 0, at + shift), data))
            case _:
                out.append((at, data))
    return sorted(out, key=lambda chunk: chunk[0])


@settings(max_examples=150)
@given(
    st.sampled_from(["ublox8", "ublox8-nmea", "timing", "nmea", "minimal", "casic", "mtk", "slow"]),
    st.integers(0, 2**31),
    st.lists(parts, min_size=1, max_size=60),
    st.floats(-0.4, 0.4),
    st.sampled_from([0.0, 0.05, -1.0, 1.0, 86_400.0]),
)
def test_no_wrong_second_from_a_mistreated_stream(
    kind: str, seed: int, ways: list[tuple[str, float, int]], delay_s: float, clock_s: float
) -> None:
    """Sentences lost, cut, damaged, doubled, repeated, swapped, written into each other and delayed by up to 0.4 s either way, all of
    them or one by one, on hosts with a right clock, one a second off, or none: every pulse that is numbered has its own second.

    A message comes before its second only where that can be told: 0.2 s early is 0.8 s late when a clock that is a second ahead says so,
    and TIM-TP, which names the next pulse, cannot have been sent before the one that it follows.
    """
    model = MODELS[kind] if kind == "mtk" else replace(MODELS[kind], delay_ns=60_000_000)
    sim = SimReceiver(model, Gnss(seed, UTC0 + 37, TABLE, fix_s=0), seed, 115_200)
    causal = kind in ("ublox8", "timing") or clock_s == 1.0
    shift = max(0, round(delay_s * NS)) if kind != "mtk" else 0
    stream: list[tuple[int, bytes]] = []
    for k in range(SECONDS):
        stream += [(k * NS + at + shift, chunk) for at, chunk in sim.cycle(UTC0 + k + 37)]
    happenings: list[tuple[int, int, bytes]] = [(k * NS, 0, b"") for k in range(SECONDS)]
    happenings += [(at, 1, data) for at, data in mistreated(stream, ways, causal)]
    stream = ReceiverStream(UTC0 - 10**7)
    source = ReceiverTime(ReceiverSource(name="gps0", device="/dev/x", pps="/dev/pps0", edge="assert"), UTC0 - 10**7)
    source.evidence = Evidence(unkept_clock=True, steady_s=4)
    named: list[Sample] = []
    for at, what, data in sorted(happenings, key=lambda h: h[:2]):
        now = Instant(UTC0 * NS + at + round(clock_s * NS), MONO0 + at)
        if what:
            named += pulses(source, stream.feed(data, now, sim.byte_ns), sim.byte_ns)
        else:
            source.pulse(Edge(now, EdgeKind.ASSERT, at // NS), Context())
    for sample in named:
        k = (sample.at.mono_ns - MONO0) // NS
        assert sample.tai_ns == (UTC0 + k + 37) * NS, source.pairing.why
    if all(way == "keep" for way, *_ in ways) and kind in ("ublox8", "timing", "minimal") and shift < 0.25 * NS and clock_s in (0.0, 0.05):
        assert named, source.pairing.why


def pulses(source: ReceiverTime, values: list[ReceiverValue], byte_ns: int) -> list[Sample]:
    """The pulses that these values number."""
    return [sample for value in values for sample in source.take(value, byte_ns, Context()).pulses]


def sentence(body: str) -> bytes:
    return f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode()


def stated(second: int, kind: str, fraction: str = ".00", day: int | None = None) -> bytes:
    """RMC, ZDA or GGA of a POSIX second, RMC with another second's date when ``day`` is given."""
    clock, date = datetime.fromtimestamp(second, UTC), datetime.fromtimestamp(second if day is None else day, UTC)
    time = f"{clock:%H%M%S}{fraction}"
    place = "4153.8599,N,08738.6364,W"
    match kind:
        case "RMC":
            return sentence(f"GPRMC,{time},A,{place},0.0,,{date:%d%m%y},,,A")
        case "ZDA":
            return sentence(f"GPZDA,{time},{date:%d,%m,%Y},00,00")
        case "GLL":
            return sentence(f"GPGLL,{place},{time},A,A")
    return sentence(f"GPGGA,{time},{place},1,08,1.0,10.0,M,0.0,M,,")


def numbered(source: ReceiverTime, happenings: list[tuple[int, bytes]], seconds: int, ahead_s: float, byte_ns: int = 0) -> list[Sample]:
    """The pulse samples that bytes at (ns since MONO0) make beside a pulse a second, on a host whose clock is ``ahead_s`` ahead."""
    everything = [(k * NS, b"") for k in range(seconds)] + happenings
    stream, named = ReceiverStream(UTC0 - 10**7), list[Sample]()
    for at, data in sorted(everything, key=lambda h: h[0]):
        now = Instant(UTC0 * NS + at + round(ahead_s * NS), MONO0 + at)
        if data:
            named += pulses(source, stream.feed(data, now, byte_ns), byte_ns)
        else:
            source.pulse(Edge(now, EdgeKind.ASSERT, at // NS), Context())
    return named


def listener(not_before_s: int = UTC0 - 10**7) -> ReceiverTime:
    source = ReceiverTime(ReceiverSource(name="gps0", device="/dev/x", pps="/dev/pps0", edge="assert"), not_before_s)
    source.evidence = Evidence(unkept_clock=True, steady_s=4)
    return source


def right(named: list[Sample], source: ReceiverTime) -> None:
    for sample in named:
        k = (sample.at.mono_ns - MONO0) // NS
        assert sample.tai_ns == (UTC0 + k + 37) * NS, source.pairing.why


@settings(max_examples=60)
@given(
    st.sampled_from(["ublox8-nmea", "nmea", "casic", "minimal"]),
    st.integers(0, 2**31),
    st.integers(-5, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_two_receivers_on_one_line_never_give_a_wrong_second(kind: str, seed: int, off_s: int, cuts: list[int]) -> None:
    """Two receivers wired to one line, written into each other byte by byte, one of them whole seconds wrong, on a host with a right
    clock: what is still a sentence either names the right second or none. (Where one of them speaks UBX, its leap count vouches for the
    other's sentences as well.)"""
    sim = SimReceiver(replace(MODELS[kind], delay_ns=60_000_000), Gnss(seed, UTC0 + 37, TABLE, fix_s=0), seed, 115_200)
    happenings: list[tuple[int, bytes]] = []
    for k in range(SECONDS):
        lines = [
            b"".join(chunk for _, chunk in sim.cycle(UTC0 + k + 37)),
            b"".join(stated(UTC0 + k + off_s, kind) for kind in ("RMC", "GGA", "ZDA")),
        ]
        mixed, turn = b"", 0
        while any(lines):
            cut = cuts[turn % len(cuts)]
            mixed += lines[turn % 2][:cut]
            lines[turn % 2] = lines[turn % 2][cut:]
            turn += 1
        happenings.append((k * NS + 150_000_000, mixed))
    source = listener()
    source.evidence = Evidence(unkept_clock=True)
    right(numbered(source, happenings, SECONDS, 0.0), source)


@settings(max_examples=60)
@given(
    st.sampled_from([-2, -1, 1, 2]),
    st.permutations(["RMC", "GGA", "ZDA", "GLL"]),
    st.sampled_from(["RMC", "ZDA", "GLL"]),
    st.sampled_from([0.0, 1.0, -1.0, 86_400.0]),
    st.integers(50, 300),
)
def test_sentences_of_one_cycle_that_differ_name_no_second(off_s: int, order: list[str], odd: str, clock_s: float, delay_ms: int) -> None:
    """RMC and ZDA that differ by a second within a cycle name none (which one is right is not to be known); GLL's time is not used."""
    happenings = []
    for k in range(SECONDS):
        burst = b"".join(stated(UTC0 + k + (off_s if kind == odd else 0), kind) for kind in order)
        happenings.append((k * NS + delay_ms * 1_000_000, burst))
    source = listener()
    named = numbered(source, happenings, SECONDS, clock_s)
    if odd == "GLL":
        right(named, source)
    else:
        assert not named


@settings(max_examples=40)
@given(st.sampled_from([5, 10]), st.integers(0, 9), st.integers(20, 90), st.sampled_from([0.0, 86_400.0]), st.booleans())
def test_of_ten_solutions_a_second_the_whole_ones_count(rate: int, lost: int, delay_ms: int, clock_s: float, gga_first: bool) -> None:
    """A receiver at 5 or 10 Hz states fractions of seconds: pulses get whole ones, whichever of its sentences is lost."""
    happenings = []
    for n in range(SECONDS * rate):
        second, fraction = divmod(n, rate)
        if fraction == lost and n % 3:
            continue
        text = f".{fraction * 1000 // rate:03d}"
        kinds = ["GGA", "RMC"] if gga_first else ["RMC", "GGA"]
        burst = b"".join(stated(UTC0 + second, kind, text) for kind in kinds)
        happenings.append((n * NS // rate + delay_ms * 1_000_000, burst))
    source = listener()
    named = numbered(source, happenings, SECONDS, clock_s)
    right(named, source)
    if lost and clock_s == 0.0:
        assert named, source.pairing.why


MIDNIGHT = UTC0 - UTC0 % DAY_S + DAY_S


@settings(max_examples=60)
@given(
    st.permutations(["RMC", "GGA", "ZDA"]), st.integers(1, 6), st.booleans(), st.sampled_from([".00", ".000", ".02"]), st.binary(max_size=3)
)
def test_a_day_that_changes_within_a_burst_is_never_a_day_off(
    order: list[str], late: int, old_date: bool, fraction: str, noise: bytes
) -> None:
    """At midnight RMC has the old date for some seconds while GGA and ZDA have the new time: no label is a day off and trusted, and the
    seconds after it are the right ones again."""
    receiver, evidence = ReceiverStream(UTC0 - 10**7), Evidence()
    for k in range(-12, 20):
        true = MIDNIGHT + k
        burst = b""
        for kind in order:
            stale = old_date and kind == "RMC" and 0 <= k < late
            burst += stated(true, kind, fraction, true - DAY_S if stale else None)
        at = Instant(true * NS + 130_000_000, (5_000 + k) * NS + 130_000_000)
        for value in receiver.feed(burst + noise, at, 0):
            if isinstance(value, SecondLabel) and evidence.judge(value, value.utc_ns).trusted:
                assert abs(value.utc_ns - true * NS) < NS, (value.sentence, k)
                last = k
    assert last == 19


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=6), st.sampled_from(["7bit", "high"]), st.sampled_from([0.0, 1.0, -1.0]))
def test_wrong_parity_bits_are_junk_and_no_other_second(places: list[int], how: str, clock_s: float) -> None:
    """A line with the wrong parity sets bit 7 of some bytes, or of all of some sentences: they are junk, never another second."""
    happenings = []
    for k in range(SECONDS):
        burst = bytearray(b"".join(stated(UTC0 + k, kind) for kind in ("RMC", "GGA", "ZDA")))
        for place in places:
            where = (place + k * 7) % len(burst)
            for i in range(where, min(len(burst), where + (1 if how == "7bit" else 70))):
                burst[i] |= 0x80
        happenings.append((k * NS + 90_000_000, bytes(burst)))
    source = listener()
    right(numbered(source, happenings, SECONDS, clock_s), source)


@settings(max_examples=40)
@given(st.sampled_from([0, 1, 2]), st.sampled_from([0.0, 0.2, 86_400.0]), st.integers(60, 250))
def test_rolled_over_dates_are_moved_on(periods: int, clock_s: float, delay_ms: int) -> None:
    """One or two week rollovers back, the date is moved by whole periods, and it is the right second."""
    happenings = []
    for k in range(SECONDS):
        old = UTC0 + k - periods * 1024 * 7 * DAY_S
        happenings.append((k * NS + delay_ms * 1_000_000, stated(old, "GGA") + stated(old, "ZDA") + stated(old, "RMC")))
    source = listener()
    named = numbered(source, happenings, SECONDS, clock_s)
    right(named, source)
    assert named, source.pairing.why


@settings(max_examples=40)
@given(st.integers(-18, 18).filter(bool), st.sampled_from([0.0, 0.3]), st.integers(60, 300), st.integers(8, 20))
def test_gps_scale_is_not_used_before_the_leap_count_is_known(off_s: int, clock_s: float, delay_ms: int, corrected: int) -> None:
    """A cold receiver's "UTC" is whole seconds off until the count has come: on a host with a right clock none of its seconds is used
    before, and the right ones after."""
    source, happenings = listener(), []
    source.evidence = Evidence(unkept_clock=True)
    for k in range(SECONDS + 10):
        second = UTC0 + k + (off_s if k < corrected else 0)
        happenings.append((k * NS + delay_ms * 1_000_000, stated(second, "RMC") + stated(second, "GGA")))
    named = numbered(source, happenings, SECONDS + 10, clock_s)
    right(named, source)
    assert named, source.pairing.why
