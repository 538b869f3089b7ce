"""What other programs may send as samples: any offset within the accepted years, in any order."""

from __future__ import annotations

import json
import math
from dataclasses import astuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppsd.config.tables import Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Publish, Sampled, Ticked
from ppsd.discipline.saved import Saved
from refclock.config import SockSource
from refclock.exchange.samples import EARLIEST_S, LATEST_S
from refclock.sample import NS, ForeignSample, Instant, Leap, SourceId

REAL0, RAW0 = 1_795_000_000 * NS, 1000 * NS
INT64 = 1 << 63

Step = tuple[int, int, int, bool]
"""(ns since the last sample, offset in ns, uncertainty in ns, whether the offset is known modulo one second)."""

gaps = st.sampled_from([NS, NS, NS, 1, 1000, NS // 100, 10 * NS, 3600 * NS])
sizes = st.one_of(st.integers(-1000, 1000), st.integers(0, 62).map(lambda n: 1 << n), st.integers(0, 62).map(lambda n: -(1 << n)))
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(gaps, st.one_of(sizes, st.integers(-INT64, INT64 - 1)), st.sampled_from([0, 1, 10**9, 1 << 40]), st.booleans()), max_size=60
)
RIGHT: Step = (NS, 0, 0, False)
STRAY: Step = (NS, 10**18, 0, False)
AFTER_AN_HOUR: list[Step] = [*[RIGHT] * 5, (3600 * NS, 10**18, 0, False), *[RIGHT] * 5]
ONE_STRAY: list[Step] = [RIGHT, (10 * NS, 0, 0, False), (NS, 1000, 0, False), RIGHT, (NS, -525, 0, False), (NS // 100, 0, 0, False)]
ONE_STRAY += [(3600 * NS, 0, 0, False), RIGHT, RIGHT, STRAY, RIGHT]
TO_AND_FRO: list[Step] = [(NS, (1 << 62, -(1 << 60), 0)[k % 3] if k < 30 else 0, 0, False) for k in range(120)]


def held(samples: list[Step]) -> None:
    """Feed the engine; whatever it publishes, tells and saves can be written and means something."""
    engine = Engine(Config(sources=(SockSource(name="s", path="/x"),)), Saved(), Instant(REAL0, RAW0), simulated=False, version="", pid=1)
    now = 0
    for gap_ns, offset_ns, uncertainty_ns, pulse in samples:
        now += gap_ns
        at = Instant(REAL0 + now, RAW0 + now)
        off = offset_ns % NS - NS // 2 if pulse else max(EARLIEST_S * NS - at.real_ns, min(LATEST_S * NS - 1 - at.real_ns, offset_ns))
        out = engine.handle(Sampled(SourceId("s"), ForeignSample(at, off, uncertainty_ns, Leap.NORMAL, pulse), at))
        out += engine.handle(Ticked(at, None))
        for effect in out:
            if isinstance(effect, Publish):
                record = effect.record
                assert all(math.isfinite(v) if isinstance(v, float) else -INT64 <= v < INT64 for v in astuple(record))
                assert min(record.bound_ns, record.bound_rate, record.bound_wander_ns) >= 0
        json.dumps([engine.snapshot(at).to_json(), engine.state().to_json()], allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(steps)
@example(TO_AND_FRO)
@example(AFTER_AN_HOUR)
@example(ONE_STRAY)
def test_no_sample_ends_the_clock_process(samples: list[Step]) -> None:
    """Samples that jump by centuries, stand still or come hours apart raise nothing, and no NaN is published, told or saved."""
    held(samples)


def test_a_source_that_comes_to_its_senses_is_used() -> None:
    """After a hundred samples that jump to and fro by centuries, a hundred right ones name the time to a microsecond."""
    engine = Engine(
        Config(sources=(SockSource(name="s", path="/x", bias_us=1),)), Saved(), Instant(REAL0, RAW0), simulated=False, version="", pid=1
    )
    for k in range(300):
        at = Instant(REAL0 + k * NS, RAW0 + k * NS)
        off = (4 << 60, -(1 << 60), 0)[k % 3] if k < 100 else 0
        off = max(EARLIEST_S * NS - at.real_ns, min(LATEST_S * NS - 1 - at.real_ns, off))
        engine.handle(Sampled(SourceId("s"), ForeignSample(at, off, 0, Leap.NORMAL, False), at))
    at = Instant(REAL0 + 300 * NS, RAW0 + 300 * NS)
    assert engine.timescale.estimate is not None
    utc_ns = engine.leaps.table.tai_to_utc_ns(engine.timescale.tai_at(at.mono_ns))
    assert abs(utc_ns - at.real_ns) < 1000
