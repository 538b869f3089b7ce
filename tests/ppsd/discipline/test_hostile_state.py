"""A state file or a record whose numbers parse and lie: the next run starts, tells and serves all the same."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, replace
from datetime import date
from pathlib import Path
from typing import cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppsd.clock.state import left_record
from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, Publish, Pulsed, Reported, Sampled, TemperatureRead, Ticked
from ppsd.discipline.noise import QUANTILES
from ppsd.discipline.saved import Learned, Saved, SavedSource, SavedTemperature, from_json
from refclock.config import ReceiverSource, SockSource
from refclock.kernel.timescale import TimescaleWriter
from refclock.record import Record
from refclock.sample import NS, Edge, EdgeKind, ForeignSample, Instant, Leap, SecondLabel, SourceId
from refclock.timing.receiver_time import LearnedDelay

UTC0, RAW0 = 1_800_000_000, 5_000 * NS
GPS, SOCK, SENSOR = SourceId("gps0"), SourceId("sock0"), "/sys/class/thermal/thermal_zone0/temp"
CONFIG = Config(
    clock=ClockConfig(not_before=date(2026, 1, 1)),
    sources=(ReceiverSource(name=str(GPS), device="/dev/a", pps="/dev/pps0", edge="assert"), SockSource(name=str(SOCK), path="/x")),
)
CHANNEL = Learned(tuple(float(k - QUANTILES // 2) / 3 for k in range(QUANTILES)), 0.7, 3600.0)
STATE = Saved(
    rate=-12.25e-6,
    utc_s=UTC0 - 3600,
    sources={str(GPS): SavedSource(CHANNEL, CHANNEL, LearnedDelay(143.5, 6.25, 86_806)), str(SOCK): SavedSource(pulse=CHANNEL)},
    temperature=SavedTemperature(SENSOR, 40.0, 20.0, -160.25, 3.5, 10.0, 2.0, 5.5),
).to_json()


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where the numbers are."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list | tuple):
        return [leaf for i, inner in enumerate(value) for leaf in leaves(inner, (*path, i))]
    return [path] if isinstance(value, int | float) else []


LEAVES = leaves(STATE)
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 5e-324, 1e-200, 1e-6, 0.5, 1e3, 1e9, 1e12, 1e18, -1e18, 1e300, 2**62, 2**64, math.inf, math.nan]),
    st.floats(),
    st.integers(),
)


def at(s: float) -> Instant:
    return Instant(round((UTC0 + s) * NS), RAW0 + round(s * NS))


def second(engine: Engine, s: int) -> list[Effect]:
    """A second in the life of the next run."""
    heard = at(s + 0.14)
    out = engine.handle(Pulsed(GPS, Edge(at(s), EdgeKind.ASSERT, s, 0), at(s + 1e-4)))
    out += engine.handle(Reported(GPS, (SecondLabel((UTC0 + s) * NS, heard, "NAV-PVT", leap_known=True),), heard, 86_806))
    out += engine.handle(Sampled(SOCK, ForeignSample(at(s + 0.2), 0, 0, Leap.NORMAL, False), at(s + 0.2)))
    out += engine.handle(TemperatureRead(SENSOR, 40 + s % 7, at(s + 0.3)))
    return out + engine.handle(Ticked(at(s + 0.4), None))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LEAVES), numbers), min_size=1, max_size=3))
def test_no_number_in_the_state_ends_the_next_run(changes: list[tuple[tuple[str | int, ...], int | float]]) -> None:
    """Any number in place of any: the run starts, the time is right within its bound, and nothing published, told or saved is NaN."""
    data = json.loads(json.dumps(STATE))
    for path, value in changes:
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    state, _ = from_json(cast("dict[str, object]", data))
    engine = Engine(CONFIG, state, at(0), simulated=False, version="", pid=1)
    out = [effect for s in range(1, 40) for effect in second(engine, s)]
    for effect in out:
        if isinstance(effect, Publish):
            assert all(math.isfinite(v) for v in astuple(effect.record) if isinstance(v, float))
    json.dumps([engine.snapshot(at(40)).to_json(), engine.state().to_json()], allow_nan=False)
    if engine.timescale.estimate is not None:
        error_ns = engine.timescale.tai_at(at(40).mono_ns) - (UTC0 + 40 + 37) * NS
        assert abs(error_ns) <= engine.timescale.bound_ns(at(40).mono_ns)


INT64 = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, -1, RAW0 - NS, RAW0 + 100 * NS, (UTC0 + 37) * NS, (1 << 63) - 1])
)
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, 1e-9, 1e-5, 0.09, 1e3, 1e6, 1e18, 1e300]))
records = st.builds(
    Record,
    raw_ns=INT64,
    tai_ns=INT64,
    rate=FLOATS,
    bound_ns=FLOATS,
    bound_rate=FLOATS,
    bound_wander_ns=FLOATS,
    root_delay_ns=INT64,
    reference_raw_ns=INT64,
    valid_until_raw_ns=INT64,
    leap_tai_ns=INT64,
    leap_step_s=st.integers(-2, 2),
    tai_offset_s=st.one_of(st.sampled_from([0, 36, 37, 38, 3600]), st.integers(-(1 << 31), (1 << 31) - 1)),
    refid=st.integers(0, (1 << 32) - 1),
    precision=st.integers(-128, 127),
    stratum=st.integers(0, 255),
    simulated=st.booleans(),
)
PLAUSIBLE = Record(RAW0 - NS, (UTC0 + 36) * NS, 1e-5, 1e3, 1e-8, 1.0, 0, RAW0 - NS, RAW0 + 3600 * NS, 0, 0, 37, 0x50505300, -23, 1, False)
fields = st.dictionaries(st.sampled_from(PLAUSIBLE.__slots__), st.just(0), max_size=4)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields, records)
def test_no_record_ends_the_next_run(tmp_path: Path, changed: dict[str, int], lie: Record) -> None:
    """A record file with any number in place of any: the run begins with it or anew, and publishes, tells and saves no NaN."""
    path = tmp_path / "timescale"
    writer = TimescaleWriter(path)
    writer.publish(replace(PLAUSIBLE, **{name: getattr(lie, name) for name in changed}))
    writer.close()
    engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="", pid=1, resume=left_record(path))
    out = [effect for s in range(1, 20) for effect in second(engine, s)]
    for effect in out:
        if isinstance(effect, Publish):
            assert all(math.isfinite(v) for v in astuple(effect.record) if isinstance(v, float))
            writer = TimescaleWriter(path)
            writer.publish(effect.record)
            writer.close()
    json.dumps([engine.snapshot(at(20)).to_json(), engine.state().to_json()], allow_nan=False)
