"""A valid stream, however mistreated on its way, never becomes a wrong second that is trusted."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from refclock_sim.gnss import Gnss
from refclock_sim.receiver import MODELS
from refclock_sim.receiver import Receiver as SimReceiver

from ppsd.leap import LeapKeeper
from ppsd.source import Source
from refclock.config import ReceiverSource
from refclock.sample import NS, Edge, EdgeKind, Instant, Sample
from refclock.timescales import LeapTable
from refclock.trust import SecondTrust

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
    source = Source(ReceiverSource(name="gps0", device="/dev/x", pps="/dev/pps0", edge="assert"), UTC0 - 10**7, {})
    source.trust = SecondTrust(system_clock=True, steady_s=4)
    leaps = LeapKeeper()
    named: list[Sample] = []
    for at, what, data in sorted(happenings, key=lambda h: h[:2]):
        now = Instant(UTC0 * NS + at + round(clock_s * NS), MONO0 + at)
        if what:
            named += source.received(data, now, sim.byte_ns, leaps, None)
        else:
            source.pulsed(Edge(now, EdgeKind.ASSERT, at // NS), None)
    for sample in named:
        k = (sample.at.mono_ns - MONO0) // NS
        assert sample.tai_ns == (UTC0 + k + 37) * NS, source.pairing.why
    if all(way == "keep" for way, *_ in ways) and kind in ("ublox8", "timing", "minimal") and shift < 0.25 * NS and clock_s in (0.0, 0.05):
        assert named, source.pairing.why
