"""What a run learned, as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.discipline.noise import QUANTILES
from ppsd.discipline.saved import VERSION, Learned, Saved, SavedSource, SavedTemperature, from_json
from refclock.timing.receiver_time import LearnedDelay

CHANNEL = Learned(tuple(float(k - QUANTILES // 2) / 3 for k in range(QUANTILES)), 0.7, 3600.0)
THERMOMETER = SavedTemperature("/sys/class/thermal/thermal_zone0/temp", 40.0, 20.0, -160.25, 3.5, 10.0, 2.0, 5.5)
SAVED = Saved(
    rate=-12.25e-6,
    utc_s=1_800_000_000,
    sources={"gps0": SavedSource(CHANNEL, None, LearnedDelay(143.5, 6.25, 1_041_666)), "shm0": SavedSource(pulse=CHANNEL)},
    temperature=THERMOMETER,
)


def stored(saved: Saved) -> dict[str, object]:
    """As it comes back from a file."""
    return cast("dict[str, object]", json.loads(json.dumps(saved.to_json())))


@pytest.mark.parametrize("saved", [SAVED, Saved(), Saved(rate=1e-6), Saved(sources={"gps0": SavedSource(label=CHANNEL)})])
def test_it_comes_back_as_it_was(saved: Saved) -> None:
    """All digits, through the text of a file; what is not known is not in it."""
    assert from_json(stored(saved)) == (saved, "")
    assert "null" not in json.dumps(saved.to_json())


def test_nothing_saved_is_nothing_wrong() -> None:
    """The first start has an empty state and no complaint."""
    assert from_json({}) == (Saved(), "")


@pytest.mark.parametrize("data", [{"rate": 1e-6, "gps0.delay_ms": 143.5}, {"version": VERSION + 1}, {"version": "1"}])
def test_another_version_is_ignored_and_told(data: Mapping[str, object]) -> None:
    """A flat file of an earlier release, or one of a later release: nothing of it is taken, and that is said."""
    assert from_json(data) == (Saved(), "it is of another version: ignored")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("rate", 1e-3, "rate"),
        ("rate", float("nan"), "rate"),
        ("utc_s", True, "utc_s"),
        ("utc_s", 10**30, "utc_s"),
        ("sources.gps0", 5, "sources.gps0"),
        ("sources.gps0.pulse.noise", [3.0, 1.0], "sources.gps0.pulse"),
        ("sources.gps0.pulse.noise", [float("inf")] * QUANTILES, "sources.gps0.pulse"),
        ("sources.gps0.pulse.wander", 0.0, "sources.gps0.pulse"),
        ("sources.gps0.pulse.watched_s", -1.0, "sources.gps0.pulse"),
        ("sources.gps0.delay.delay_ms", "143", "sources.gps0.delay"),
        ("temperature.slope", "steep", "temperature"),
        ("temperature.sensor", "x" * 300, "temperature"),
        ("temperature", [], "temperature"),
        ("utc_s", 1e17, "utc_s"),  # no date can be printed of it
        ("utc_s", -1, "utc_s"),
        ("sources.gps0.pulse.wander", 1e-200, "sources.gps0.pulse"),  # its square is 0
        ("sources.gps0.pulse.noise", [1e300] * QUANTILES, "sources.gps0.pulse"),
        ("sources.gps0.delay.delay_ms", 1e15, "sources.gps0.delay"),
        ("temperature.slope", 1e9, "temperature"),  # a frequency error of 100 %
        ("temperature.slope_sigma", 0.0, "temperature"),
        ("temperature.origin", 1e6, "temperature"),
    ],
)
def test_a_part_that_is_nonsense_is_named_and_the_rest_is_taken(path: str, value: object, named: str) -> None:
    """A number that cannot be, a text in place of a number, an object that lacks something: that part is as good as none."""
    data = stored(SAVED)
    *parents, key = path.split(".")
    inner = data
    for parent in parents:
        inner = cast("dict[str, object]", inner[parent])
    inner[key] = value
    saved, useless = from_json(data)
    assert named in useless
    assert useless.endswith("cannot be used: ignored")
    assert saved != SAVED
    assert saved.sources["shm0"] == SAVED.sources["shm0"]
    assert (saved.rate, saved.utc_s, saved.temperature).count(None) == (0 if path.startswith("sources") else 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["version", "rate", "utc_s", "sources", "temperature", "gps0", "pulse", "delay", "noise", "delay_ms", "sensor"])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3), max_size=3), max_size=5))
def test_reading_never_raises(data: dict[str, object]) -> None:
    """Whatever JSON the file holds."""
    saved, _ = from_json({**data, "version": VERSION})
    assert isinstance(saved, Saved)
