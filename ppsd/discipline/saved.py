"""What a run learned and the next one starts with, as values and as JSON.

Flow: sources and temperature -> **Saved** -> effect ``Persist`` -> ``ppsd/clock/state.py`` (the file) -> the next engine.

A saved file is input from outside: it may be damaged, old or another program's. Reading never raises. A part that cannot be used is left
out and named; the rest is taken. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from ppsd.discipline.noise import QUANTILES
from refclock.sample import MAX_FREQUENCY_PPM
from refclock.timing.receiver_time import LearnedDelay

VERSION: Final = 1
"""Of the JSON; raised when a part changes its meaning. Files of before have none: flat, with dots in their keys."""
LONGEST_TEXT: Final = 256
"""Characters of a name or a text."""
MAX_RATE: Final = MAX_FREQUENCY_PPM / 1e6

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
    utc_s = top.number("utc_s")
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

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A finite number within ``low`` and ``high``."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 63 or not low <= value <= high:
            self.wrong.append(self._path(key))
            return None
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...] | None:
        """``count`` finite numbers in ascending order."""
        values = self.data.get(key)
        if not isinstance(values, list | tuple) or len(values) != count:
            return None
        row = _Part({str(i): value for i, value in enumerate(values)}, self._path(key))
        found = [number for i in range(count) if (number := row.number(str(i))) is not None]
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
    noise = part.numbers("noise", QUANTILES)
    wander, watched_s = part.number("wander", 0.0, MAX_FREQUENCY_PPM * 1e3), part.number("watched_s", 0.0)
    if noise is None or not wander or watched_s is None:
        part.useless()
        return None
    return Learned(noise, wander, watched_s)


def _delay(part: _Part | None) -> LearnedDelay | None:
    if part is None:
        return None
    delay_ms, spread_ms, byte_ns = part.number("delay_ms"), part.number("spread_ms", 0.0), part.number("byte_ns", 0.0)
    if delay_ms is None:
        part.useless()
        return None
    return LearnedDelay(delay_ms, spread_ms, None if byte_ns is None else round(byte_ns))


def _temperature(part: _Part | None) -> SavedTemperature | None:
    if part is None:
        return None
    sensor = part.data.get("sensor")
    keys = ("origin", "lag_s", "slope", "slope_sigma", "curve", "curve_sigma", "score")
    numbers = [number for key in keys if (number := part.number(key)) is not None]
    if not isinstance(sensor, str) or len(sensor) > LONGEST_TEXT or len(numbers) < len(keys):
        part.useless()
        return None
    return SavedTemperature(sensor, *numbers)


def _known(value: object) -> object:
    """Without what is None or an empty object."""
    if not isinstance(value, dict):
        return value
    parts = {key: _known(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part is not None and part != {}}
