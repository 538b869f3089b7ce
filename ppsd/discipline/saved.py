"""What a run learned and the next one starts with, as values and as JSON.

Flow: sources and temperature -> **Saved** -> effect ``Persist`` -> ``ppsd/clock/state.py`` (the file) -> the next engine.

A saved file is input from outside: it may be damaged, old or another program's. Reading never raises. Every number has a range, wider than
what any run learns: a number beyond it would end the next run, and the one after that. A part that cannot be used is left out and named;
the rest is taken. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from ppsd.discipline.noise import QUANTILES
from refclock.sample import MAX_FREQUENCY_PPM, NS
from refclock.timescales import GPS_EPOCH_S
from refclock.timing.receiver_time import LearnedDelay

VERSION: Final = 1
"""Of the JSON; raised when a part changes its meaning. Files of before have none: flat, with dots in their keys."""
LONGEST_TEXT: Final = 256
"""Characters of a name or a text."""
MAX_RATE: Final = MAX_FREQUENCY_PPM / 1e6
UTC_S: Final = GPS_EPOCH_S, 7_258_118_400
"""POSIX s; dates from the first GPS week to 2200-01-01, as in the configuration (``schema.DATE_YEARS``)."""
NOISE_NS: Final = 1e12
"""ns; a quarter of an hour: no sample is that late."""
WANDERS: Final = 1e-6, MAX_FREQUENCY_PPM * 1e3
"""ns/s per sqrt(s), from less than the quietest quartz to one that is off by all that the kernel corrects within a second."""
WATCHED_S: Final = 1e10
"""s; three hundred years."""
DELAY_MS: Final = 10_000.0
"""ms; a receiver's buffer at 9600 baud holds less (``evidence.LATEST_NS``)."""
CELSIUS: Final = -60.0, 150.0
"""As far as any thermometer is believed (``ppsd/clock/thermometer.py``)."""
LAG_S: Final = 86_400.0
"""s; a day."""
SLOPE: Final = 10_000.0
"""ns/s per 10 K; 1 ppm/K, some ten times what a crystal at the end of its range does."""
SLOPE_SIGMA: Final = 1e-6, SLOPE
"""ns/s per 10 K; none is known exactly."""
SCORE: Final = 1000.0
"""Forecasts; ``tempcomp.model.MOST`` is less."""

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Learned:
    """Of a channel: ``Noise.quantiles`` (ns, ascending), wander (ns/s per sqrt(s)) and how long it was watched (s)."""

    noise: tuple[float, ...]
    wander: float
    watched_s: float


@dataclass(frozen=True, slots=True)
class SavedSource:
    """Of a source: its channels, and the message delay of a receiver's line."""

    pulse: Learned | None = None
    label: Learned | None = None
    delay: LearnedDelay | None = None


@dataclass(frozen=True, slots=True)
class SavedTemperature:
    """Of a thermometer: f = (T - ``origin``) / 10 K after a low-pass of ``lag_s``; ``slope`` and ``curve`` in ns/s and their standard
    deviations; ``score`` in forecasts (``tempcomp.model``)."""

    sensor: str
    origin: float
    lag_s: float
    slope: float
    slope_sigma: float
    curve: float
    curve_sigma: float
    score: float


@dataclass(frozen=True, slots=True)
class Saved:
    """Everything. ``rate``: d(TAI)/d(raw) - 1; ``utc_s``: POSIX second that was certainly known."""

    rate: float | None = None
    utc_s: int | None = None
    sources: Mapping[str, SavedSource] = field(default_factory=dict)
    temperature: SavedTemperature | None = None

    def to_json(self) -> Json:
        """As the file holds it; what is not known is left out."""
        return {"version": VERSION, **cast("dict[str, object]", _known(asdict(self)))}


def from_json(data: Json) -> tuple[Saved, str]:
    """What ``Saved.to_json`` gave, and what of it could not be used, "" for nothing."""
    if not data:
        return Saved(), ""
    if data.get("version") != VERSION:
        return Saved(), "it is of another version: ignored"
    top = _Part(data)
    sources = {}
    for name, part in top.parts("sources"):
        channels = {key: _learned(part.part(key)) for key in ("pulse", "label")}
        sources[name] = SavedSource(channels["pulse"], channels["label"], _delay(part.part("delay")))
    utc_s = top.number("utc_s", *UTC_S)
    rate, temperature = top.number("rate", -MAX_RATE, MAX_RATE), _temperature(top.part("temperature"))
    saved = Saved(rate, None if utc_s is None else round(utc_s), sources, temperature)
    return saved, f"{', '.join(top.wrong)} cannot be used: ignored" if top.wrong else ""


class _Part:
    """An object of the JSON. ``wrong``: names of what is there and cannot be used, shared by all parts of a file."""

    def __init__(self, data: Json, name: str = "", wrong: list[str] | None = None) -> None:
        self.wrong: list[str] = [] if wrong is None else wrong
        self.data, self.name = data, name

    def _path(self, key: str) -> str:
        return f"{self.name}.{key[:LONGEST_TEXT]}".lstrip(".")

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number within ``low`` and ``high``."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.wrong.append(self._path(key))
            return None
        return float(value)

    def numbers(self, key: str, count: int, most: float) -> tuple[float, ...] | None:
        """``count`` numbers of no more than ``most`` either way, in ascending order."""
        values = self.data.get(key)
        if not isinstance(values, list | tuple) or len(values) != count:
            return None
        row = _Part({str(i): value for i, value in enumerate(values)}, self._path(key))
        found = [number for i in range(count) if (number := row.number(str(i), -most, most)) is not None]
        return tuple(found) if len(found) == count and found == sorted(found) else None

    def part(self, key: str) -> _Part | None:
        """The object ``key``."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.wrong.append(self._path(key))
            return None
        return _Part(value, self._path(key), self.wrong)

    def parts(self, key: str) -> list[tuple[str, _Part]]:
        """The objects in the object ``key`` by name."""
        outer = self.part(key)
        return [] if outer is None else [(name, part) for name in outer.data if (part := outer.part(name)) is not None]

    def useless(self) -> None:
        """It cannot be used as a whole."""
        self.wrong.append(self.name)


def _learned(part: _Part | None) -> Learned | None:
    if part is None:
        return None
    noise = part.numbers("noise", QUANTILES, NOISE_NS)
    wander, watched_s = part.number("wander", *WANDERS), part.number("watched_s", 0.0, WATCHED_S)
    if noise is None or wander is None or watched_s is None:
        part.useless()
        return None
    return Learned(noise, wander, watched_s)


def _delay(part: _Part | None) -> LearnedDelay | None:
    if part is None:
        return None
    delay_ms, spread_ms = part.number("delay_ms", -DELAY_MS, DELAY_MS), part.number("spread_ms", 0.0, DELAY_MS)
    byte_ns = part.number("byte_ns", 0.0, NS)
    if delay_ms is None:
        part.useless()
        return None
    return LearnedDelay(delay_ms, spread_ms, None if byte_ns is None else round(byte_ns))


def _temperature(part: _Part | None) -> SavedTemperature | None:
    if part is None:
        return None
    sensor = part.data.get("sensor")
    ranges = {
        "origin": CELSIUS,
        "lag_s": (0.0, LAG_S),
        "slope": (-SLOPE, SLOPE),
        "slope_sigma": SLOPE_SIGMA,
        "curve": (-SLOPE, SLOPE),
        "curve_sigma": SLOPE_SIGMA,
        "score": (-SCORE, SCORE),
    }
    numbers = [number for key, (low, high) in ranges.items() if (number := part.number(key, low, high)) is not None]
    if not isinstance(sensor, str) or len(sensor) > LONGEST_TEXT or len(numbers) < len(ranges):
        part.useless()
        return None
    return SavedTemperature(sensor, *numbers)


def _known(value: object) -> object:
    """Without what is None or an empty object."""
    if not isinstance(value, dict):
        return value
    parts = {key: _known(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part is not None and part != {}}
