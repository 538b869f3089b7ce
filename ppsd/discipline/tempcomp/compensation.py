"""An estimate made of samples less what the temperature has done, beside the one that knows nothing of it.

Both see every sample. The compensated one starts as a copy of the plain one when the temperature has proved itself (``ppsd.temperature``)
and adds what the temperature has done since (``Bend``, 0 at that instant), so nothing jumps; its wander is that of the forecasts with
temperature. When the samples become less likely with it than without, it ends: a cumulative sum of log likelihood ratios (Page 1954),
each innovation clipped, tells within seconds of an error as large as the noise. Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.estimator import Estimator
from ppsd.discipline.events import Effect, Note, TemperatureLost, TemperatureRead
from ppsd.discipline.selection import Candidate
from ppsd.discipline.tempcomp.model import Bend, Temperature
from ppsd.discipline.timescale import Timescale
from ppsd.discipline.track import COVER_RATE
from ppsd.discipline.wander import ASSUMED
from refclock.sample import NS

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


CLIP = 3.0
"""Scales: an outlier is none of the temperature's fault."""
DRIFT, ALARM = 0.02, 8.0
"""Nats a sample that are taken off, and the sum that ends it: a false one in some e^8 times a hundred samples."""
APART = 3.0
"""Sigmas of the plain estimate by which the two may differ before the rest goes into the bound."""


class Compensated:
    """See the module's text. ``plain``: to start from, at raw ``mono_ns``."""

    def __init__(self, plain: Estimator, temperature: Temperature, mono_ns: int) -> None:
        self._plain, self._temperature = plain, temperature
        self._estimator = plain.twin()
        self._bend = Bend(temperature, mono_ns)
        self._sum = 0.0

    @property
    def ready(self) -> bool:
        """There is an estimate: the samples may have to start it anew after a holdover."""
        return self._estimator.ready

    @property
    def worse(self) -> bool:
        """The samples speak against it."""
        return self._sum > ALARM

    def add(self, mono_ns: int, tai_ns: int) -> None:
        """A sample, before the plain estimator gets it."""
        if self._plain.ready and self.ready:
            plain = self._plain.estimate(mono_ns)
            limit = CLIP * plain.jitter_ns
            misses = [max(-limit, min(limit, float(tai_ns - e.tai_ns))) for e in (plain, self.estimate(plain))]
            self._sum = max(0.0, self._sum + (misses[1] ** 2 - misses[0] ** 2) / 2 / plain.jitter_ns**2 - DRIFT)
        self._estimator.add(mono_ns, tai_ns - round(self._bend.at(mono_ns)[0]))

    def estimate(self, plain: Estimate) -> Estimate:
        """As ``plain``, the plain estimator's, with the temperature."""
        mono_ns = plain.mono_ns
        self._estimator.bias_ns = self._plain.bias_ns
        e = self._estimator.estimate(mono_ns)
        ns, rate = self._bend.at(mono_ns)
        tai_ns = e.tai_ns + round(ns)
        apart = max(0.0, abs(tai_ns - plain.tai_ns) - APART * plain.phase_sigma_ns)
        return replace(
            e,
            tai_ns=tai_ns,
            rate=e.rate + rate / NS,
            bound_ns=e.bound_ns + apart,
            bound_wander_ns=min(e.bound_wander_ns, COVER_RATE * self._temperature.wander() / math.sqrt(3)),
        )
