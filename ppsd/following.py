"""The served map and the temperature: learning from the estimate in force, following the thermometer while there is none.

Between engine, ``ppsd.temperature`` and ``ppsd.timescale``. While samples come the temperature is in the estimate already
(``ppsd.compensated``); in holdover the map is bent with every reading, and when the thermometer is no longer to be believed, it stays as it
is with a bound that no longer counts on it. Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ppsd.estimator import COVER_RATE, Estimate
from ppsd.events import Effect, Note, TemperatureLost, TemperatureRead
from ppsd.selection import Candidate
from ppsd.temperature import Bend, Temperature
from ppsd.timescale import Timescale
from ppsd.wander import ASSUMED

ENOUGH_SAMPLES = 8
"""Of an estimate, before it teaches: its five first ones and three that confirmed them."""
UNWATCHED = COVER_RATE * ASSUMED / math.sqrt(3)
"""Growth of the bound, ns per s^1.5, where nothing is known of the crystal without its temperature."""


class Following:
    """See the module's text. Each method returns what is to be logged."""

    def __init__(self, temperature: Temperature, timescale: Timescale) -> None:
        self._temperature, self._timescale = temperature, timescale
        self._bend: Bend | None = None  # since the map was adopted, when the temperature is in it
        self._plain: Estimate | None = None
        self._told = False

    def resumed(self) -> None:
        """The map is the record of an earlier run: if that counted on the temperature, its bound does not hold without."""
        e = self._timescale.estimate
        if e is not None and self._temperature.was_in_use:
            self._timescale.unlearn(replace(e, bound_wander_ns=UNWATCHED))

    def adopted(self, best: Candidate) -> list[Effect]:
        """``best`` is served now."""
        plain = best.plain or best.estimate
        self._temperature.expire(plain.mono_ns)
        self._plain = plain
        self._bend = None if best.plain is None else Bend(self._temperature, best.estimate.mono_ns)
        if plain.samples >= ENOUGH_SAMPLES and self._temperature.due(plain.mono_ns):
            self._temperature.learn(plain, (best.source, best.refid, best.restarts))
        return self._tell()

    def read(self, event: TemperatureRead | TemperatureLost, holding: bool) -> tuple[bool, list[Effect]]:
        """A reading, or none; ``holding``: the map is all there is. Whether the map changed."""
        if isinstance(event, TemperatureLost):
            self._temperature.lost(event.why)
            return False, [*self._tell(), Note("temperature cannot be read", "warning", {"why": event.why})]
        self._temperature.read(event.at.mono_ns, event.celsius, event.sensor)
        e = self._timescale.estimate
        if not holding or not self._temperature.in_use or e is None:
            return False, self._tell()
        if self._bend is None:  # resumed
            self._bend, self._plain = Bend(self._temperature, event.at.mono_ns), e
        self._timescale.follow(self._bend.turn(event.at.mono_ns))
        return True, self._tell()

    def hold(self, mono_ns: int) -> tuple[bool, list[Effect]]:
        """The map runs on at raw ``mono_ns``. Whether it changed: the thermometer is not believed any more."""
        self._temperature.expire(mono_ns)
        notes = self._tell()
        if self._bend is None or self._temperature.in_use or self._plain is None or self._timescale.estimate is None:
            return False, notes
        self._bend = None
        self._timescale.unlearn(self._plain)
        return True, notes

    def _tell(self) -> list[Effect]:
        if self._temperature.in_use == self._told:
            return []
        self._told = not self._told
        status = self._temperature.status()
        what, level = ("temperature in use", "info") if self._told else ("temperature no longer used", "warning")
        return [Note(what, level, {"why": status.why, "explains_ppm": status.explains_ppm})]
