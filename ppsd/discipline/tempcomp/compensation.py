"""What the engine and the sources use of the temperature: estimates that follow it, and a map that follows it in holdover.

Flow: readings -> **Compensation** -> ``model``. Each channel's samples go through a ``CompensatedEstimator`` around its plain estimator.
While the temperature is in use, a second estimator sees the samples less what the temperature has done. It starts as a twin of the plain
one, and what the temperature does counts from that instant (``Bend``), so nothing jumps. Its wander is that of the forecasts with
temperature. Its estimates carry the plain ones along (``Estimate.plain``); the model learns from those only.

When samples become less likely with the temperature than without it, its use ends: a cumulative sum of log likelihood ratios (Page 1954),
each innovation clipped, tells within seconds of an error as large as the noise. Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.estimator import Estimator
from ppsd.discipline.events import Effect, Note, TemperatureLost, TemperatureRead
from ppsd.discipline.saved import SavedTemperature
from ppsd.discipline.tempcomp.model import Bend, Temperature
from ppsd.discipline.timescale import Timescale
from ppsd.discipline.track import COVER_RATE
from ppsd.discipline.wander import ASSUMED
from ppsd.snapshot import TemperatureStatus
from refclock.sample import NS

ENOUGH_SAMPLES = 8
"""Samples in an estimate before the model learns from it: the five first ones and three that confirmed them."""
UNWATCHED_WANDER = COVER_RATE * ASSUMED / math.sqrt(3)
"""ns per s^1.5: growth of the bound where nothing is known of the crystal without its temperature."""
CLIP = 3.0
"""Scales of noise at which an innovation is cut off: an outlier is none of the temperature's fault."""
DRIFT, ALARM = 0.02, 8.0
"""Nats taken off the sum with each sample, and the sum that ends the use: a false alarm in some e^8 times a hundred samples."""
APART = 3.0
"""Sigmas of the plain estimate by which the two may differ before the rest goes into the bound."""


class Compensation:
    """See the module's text. ``saved``: what the last run learned. ``wanted``: False with clock.temperature = "off"; then no reading is
    looked at and nothing is saved or told.

    Methods that may change the map of ``timescale`` return whether they did, and what is to be logged.
    """

    def __init__(self, saved: SavedTemperature | None, timescale: Timescale, wanted: bool) -> None:
        self._wanted = wanted
        self._temperature = Temperature(saved if wanted else None)
        self._timescale = timescale
        self._bend: Bend | None = None  # since the map was adopted, when the temperature is in it
        self._plain: Estimate | None = None  # of the map
        self._told = False

    def around(self, estimator: Estimator) -> CompensatedEstimator:
        """The estimator of a channel, with the temperature while that is in use."""
        return CompensatedEstimator(estimator, self._temperature)

    def resumed(self) -> None:
        """The map is the record of an earlier run: if that counted on the temperature, its bound does not hold without."""
        e = self._timescale.estimate
        if e is not None and self._temperature.was_in_use:
            self._timescale.unlearn(replace(e, bound_wander_ns=UNWATCHED_WANDER))

    def left(self) -> None:
        """The map is that of another machine from now on: nothing is learned from it."""
        self._plain = self._bend = None

    def adopted(self, estimate: Estimate, whose: object) -> list[Effect]:
        """``estimate`` is served now; ``whose``: the channel that it comes from."""
        plain = estimate.plain or estimate
        self._temperature.expire(plain.mono_ns)
        self._plain = plain
        self._bend = None if estimate.plain is None else Bend(self._temperature, estimate.mono_ns)
        if plain.samples >= ENOUGH_SAMPLES and self._temperature.due(plain.mono_ns):
            self._temperature.learn(plain, (whose, plain.restarts))
        return self._news()

    def read(self, event: TemperatureRead | TemperatureLost, holding: bool) -> tuple[bool, list[Effect]]:
        """A reading, or none. ``holding``: there is no source, so the map must follow the temperature by itself."""
        if not self._wanted:
            return False, []
        if isinstance(event, TemperatureLost):
            self._temperature.lost(event.why)
            return False, [*self._news(), Note("temperature cannot be read", "warning", {"why": event.why})]
        self._temperature.read(event.at.mono_ns, event.celsius, event.sensor)
        e = self._timescale.estimate
        if not holding or not self._temperature.in_use or e is None:
            return False, self._news()
        if self._bend is None:  # resumed
            self._bend, self._plain = Bend(self._temperature, event.at.mono_ns), e
        self._timescale.follow(self._bend.turn(event.at.mono_ns))
        return True, self._news()

    def hold(self, mono_ns: int) -> tuple[bool, list[Effect]]:
        """The map runs on at raw ``mono_ns``. It changes when the thermometer is no longer believed."""
        self._temperature.expire(mono_ns)
        news = self._news()
        if self._bend is None or self._temperature.in_use or self._plain is None or self._timescale.estimate is None:
            return False, news
        self._bend = None
        self._timescale.unlearn(self._plain)
        return True, news

    def state(self) -> SavedTemperature | None:
        """For the next start; None until something was learned."""
        return self._temperature.state()

    def status(self) -> TemperatureStatus | None:
        """For people; None without a thermometer."""
        return self._temperature.status() if self._temperature.sensor else None

    def _news(self) -> list[Effect]:
        """Whether it is used, when that has changed since it was last told."""
        if self._temperature.in_use == self._told:
            return []
        self._told = not self._told
        status = self._temperature.status()
        what, level = ("temperature in use", "info") if self._told else ("temperature no longer used", "warning")
        return [Note(what, level, {"why": status.why, "explains_ppm": status.explains_ppm})]


class CompensatedEstimator:
    """See the module's text. ``plain`` gets every sample, whatever becomes of the temperature."""

    def __init__(self, plain: Estimator, temperature: Temperature) -> None:
        self._plain, self._temperature = plain, temperature
        self._warm: tuple[Estimator, Bend] | None = None  # the second estimator, and what the temperature has done since it started
        self._against = 0.0  # nats by which the samples speak against the temperature

    def add(self, mono_ns: int, tai_ns: int) -> bool:
        """A sample; True when the plain estimator used it."""
        if self._warm is not None:
            estimator, bend = self._warm
            if self._plain.ready and estimator.ready:
                plain = self._plain.estimate(mono_ns)
                self._compare(tai_ns, plain, self._with_temperature(plain, estimator, bend))
            estimator.add(mono_ns, tai_ns - round(bend.at(mono_ns)[0]))
        return self._plain.add(mono_ns, tai_ns)

    def estimate(self, mono_ns: int) -> Estimate:
        """At raw ``mono_ns``, not before the last sample; with the temperature while that is in use. Needs a plain estimator that is ready.
        Here its use begins and ends."""
        plain = self._plain.estimate(mono_ns)
        if self._warm is not None and self._against > ALARM:
            self._temperature.distrust("the samples fit worse with it than without")
        if not self._temperature.in_use:
            self._warm = None
        elif self._warm is None:
            self._warm, self._against = (self._plain.twin(), Bend(self._temperature, mono_ns)), 0.0
        if self._warm is None or not self._warm[0].ready:  # after a holdover the samples may have to start it anew
            return plain
        return self._with_temperature(plain, *self._warm)

    def _compare(self, tai_ns: int, plain: Estimate, warm: Estimate) -> None:
        """Add what a sample at the estimates' instant says for or against the temperature."""
        limit = CLIP * plain.jitter_ns
        without, with_it = (max(-limit, min(limit, float(tai_ns - e.tai_ns))) for e in (plain, warm))
        self._against = max(0.0, self._against + (with_it**2 - without**2) / 2 / plain.jitter_ns**2 - DRIFT)

    def _with_temperature(self, plain: Estimate, estimator: Estimator, bend: Bend) -> Estimate:
        """The second estimator's estimate at the instant of ``plain``, plus what the temperature has done."""
        estimator.bias_ns = self._plain.bias_ns
        e = estimator.estimate(plain.mono_ns)
        ns, rate = bend.at(plain.mono_ns)
        tai_ns = e.tai_ns + round(ns)
        # Both see the same samples: what they differ by beyond chance is an error of one of them.
        apart = max(0.0, abs(tai_ns - plain.tai_ns) - APART * plain.phase_sigma_ns)
        wander = min(e.bound_wander_ns, COVER_RATE * self._temperature.wander() / math.sqrt(3))
        return replace(
            e,
            tai_ns=tai_ns,
            rate=e.rate + rate / NS,
            bound_ns=e.bound_ns + apart,
            bound_wander_ns=wander,
            terms=None if e.terms is None else replace(e.terms, apart_ns=apart, wander=wander),
            plain=plain,
        )
