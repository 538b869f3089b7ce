"""What the temperature does to the crystal, learned while there are samples, used when it demonstrably helps.

Theory. A crystal's frequency follows its temperature. A thermometer near it (the processor's own, a probe) shows that temperature with a
lag, noise and steps of half a degree. With f = (T - T0) / 10 K, T low-passed to imitate the crystal's lag,

    x = TAI - raw (ns),   dx/dt = y + a f + b f^2,   y' = white noise of strength w^2

Learning. Once in ``STEP_S`` the plain estimate of the selected source, which knows nothing of the temperature, is a measurement of x. Small
Kalman filters of (x, y, a, b) take it, one for each low-pass of ``LAGS_S`` and each wander of the bank. Filters without a and b are the
rivals. Likelihood chooses among each kind.

Proof. At every step both kinds make forecasts of the phase 4, 17 and 68 minutes ahead. When the time of the first two is over, their misses
are compared: the score goes up by at most one for each independent forecast that was better with the temperature, and down likewise. From
``ON`` the temperature is used, below ``OFF`` no more. The misses also say how far the crystal strays beside the temperature (``wander``).

Use. The path is the phase that changes of temperature have made: a continuous sum of rate times time, in knots, one a reading. Its rate
only ever changes by what the temperature does, so coefficients may change and use may end at any time without a step in time or frequency.
``Bend`` is the part of it since an instant. Holdover adds it to the straight line; the second estimator takes it off its samples
(``compensation``).

A sensor that stands still for much longer than ever, jumps or goes silent, or that makes the samples less likely than they are without it,
is left alone until it has proved itself anew. Pure. Raw ns in; seconds, ns and ns/s inside.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.kalman import WANDERS
from ppsd.discipline.saved import SavedTemperature
from ppsd.discipline.tempcomp.kalman import CURVE, SLOPE, Filter, LowPass
from ppsd.discipline.timescale import Turn
from ppsd.discipline.wander import SPANS, STEP_S, Wander
from ppsd.snapshot import TemperatureStatus
from refclock.sample import NS

LAGS_S = (10.0, 20.0, 40.0, 80.0, 160.0)
"""Time constants of the low-pass between sensor and crystal: a crystal in its can follows the air within a minute or two."""
KELVIN = 10.0
"""K: unit of f."""
TORN = 8.0
"""Sigmas of the most wandering rival beyond which the phase did not go on from the last estimate, whatever its key says."""
FIRST_RATE_VARIANCE = 1e6
"""(ns/s)^2: of the frequency when a filter starts: 1 ppm."""
ON, OFF, MOST = 4.0, 1.5, 8.0
"""Score, in forecasts, from which the temperature is used, below which it is used no more, and at most. A thermometer that explains 0.6 ppm
an hour has the first after 40 minutes; of one in another place the highest in ten hours was 3.2 (twelve seeds of
tests/ppsd/discipline/test_temperature.py)."""
WORTH = 0.15
"""Share of the square by which the two forecasts differ that is taken off each gain: forecasts that differ must be better, not only
other."""
SCORE_KEPT = 0.999
"""Share of the score that is left after a step: 18 hours."""
GAP_NS = 10 * NS
"""Readings come once a second; after a longer gap nobody knows what the temperature did."""
JUMP_K, JUMP_SEEN = 3.0, 2.0
"""K between two readings that are a jump of the sensor, and times the largest step seen before: a processor under load warms by some
degrees in a second."""
FROZEN_S, FROZEN_SEEN = 300.0, 4.0
"""A reading that stands still for longer, and for more times the longest seen before, says nothing any more."""
SHARE = 0.15
"""Share of what the temperature does in a holdover that the bound allows for: heat goes other ways than while it was learned (chosen)."""
COVER = 3.5
"""Sigmas of the coefficients that the bound of a holdover allows for: a holdover is one draw, as ``track.COVER_RATE`` has it."""
RESTORED = 2.0
"""Times the saved standard deviations: another season, another box. The score starts half-way between ``OFF`` and ``ON``."""
KNOTS = 8
"""Latest knots of the path kept: a sample may be stamped some seconds before it is known."""
PHASE_NS = 50.0
"""ns: no estimate is better known (one reading of the clocks)."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Made at ``t`` (s): ``x``, ``y`` without the temperature; ``state`` of the ``filter`` with it, by low-pass number ``lag``.
    ``integrals``: of f and f^2 since the beginning, for each low-pass."""

    t: float
    x: float
    y: float
    lag: int
    state: tuple[float, ...]
    filter: Filter
    integrals: tuple[tuple[float, float], ...]


class Temperature:
    """See the module's text. ``saved``: what the last run learned."""

    def __init__(self, saved: SavedTemperature | None) -> None:
        self.sensor = ""
        self.celsius: float | None = None
        self.score = 0.0
        self.in_use = False
        self._saved = saved
        self._why = ""
        self._last, self._last_ns = 0.0, 0
        self._origin = 0.0
        self._still_s = self._longest_s = self._largest = 0.0
        self._lows = [LowPass(lag) for lag in LAGS_S]
        self._path: deque[tuple[int, float, float]] = deque(maxlen=KNOTS)
        self._forget()

    def _forget(self) -> None:
        self.residual = Wander()
        self._rivals = [Filter(w, 0.0, 0.0) for w in WANDERS]
        self._filters = [[Filter(w, SLOPE, CURVE) for w in WANDERS] for _ in LAGS_S]
        self._best = (0, 0)
        self._base: tuple[int, int] | None = None
        self._key: object = None
        self._t = 0.0
        self._integrals: tuple[tuple[float, float], ...] = ()
        self._past: deque[Forecast] = deque(maxlen=SPANS[-1] + 1)
        self._felt: deque[float] = deque(maxlen=SPANS[-1])  # low-passed f of the last hour

    # ---- readings ----------------------------------------------------------------------------------------------------------------

    def read(self, mono_ns: int, celsius: float, sensor: str) -> None:
        """The thermometer ``sensor`` says ``celsius`` at raw ``mono_ns``."""
        new = sensor != self.sensor
        if new:
            self._begin(celsius, sensor)
        f = (celsius - self._origin) / KELVIN
        step, gap = abs(celsius - self._last), mono_ns - self._last_ns
        if not new and (gap > GAP_NS or step > max(JUMP_K, JUMP_SEEN * self._largest)):
            self.distrust(f"no reading for {gap / NS:.0f} s" if gap > GAP_NS else f"the reading jumped by {step:.0f} K")
            self._largest = max(self._largest, step)
            new = True
        if new:
            for low in self._lows:
                low.f = f
            value, rate = self.at(mono_ns) if self._path else (0.0, 0.0)
        else:
            self._watch(step, gap / NS)
            best = self._lows[self._best[0]]
            value, rate = self.at(mono_ns)
            before = best.f
            for low in self._lows:
                low.read(f, gap / NS)
            _, _, a, b = self._chosen.state
            rate += a * (best.f - before) + b * (best.f**2 - before**2)
        self._path.append((mono_ns, value, rate))
        self.celsius = self._last = celsius
        self._last_ns = mono_ns

    def _begin(self, celsius: float, sensor: str) -> None:
        """The first reading of a thermometer: with what an earlier run learned of it, or with nothing."""
        self._forget()
        self.sensor, self._last, self._origin = sensor, celsius, round(celsius / KELVIN) * KELVIN
        self._still_s = self._longest_s = self._largest = 0.0
        self.score, self.in_use, self._why = 0.0, False, ""
        saved = self._saved
        if saved is None or saved.sensor != sensor:
            return
        self._origin = saved.origin
        for row in self._filters:
            for one in row:
                one.state[2], one.state[3] = saved.slope, saved.curve
                one.p[2][2], one.p[3][3] = (RESTORED * saved.slope_sigma) ** 2, (RESTORED * saved.curve_sigma) ** 2
        self._best = (min(range(len(LAGS_S)), key=lambda i: abs(LAGS_S[i] - saved.lag_s)), 0)
        for one in self._filters[self._best[0]]:
            one.likelihood = 1.0
        self.in_use = saved.score >= ON
        self.score = min(saved.score, (ON + OFF) / 2)

    def _watch(self, step: float, dt: float) -> None:
        """What is usual of this sensor, and whether it stands still."""
        self._largest = max(self._largest, step)
        if step:
            self._longest_s, self._still_s = max(self._longest_s, self._still_s), 0.0
            return
        limit = max(FROZEN_S, FROZEN_SEEN * self._longest_s)
        self._still_s += dt
        if self._still_s > limit >= self._still_s - dt:
            self.distrust(f"the reading has stood still for {self._still_s / 60:.0f} minutes")

    def lost(self, why: str) -> None:
        """The thermometer cannot be read."""
        self.celsius = None
        self.distrust(why)

    def expire(self, mono_ns: int) -> None:
        """To be called now and then: whether readings still come."""
        if self.celsius is not None and mono_ns - self._last_ns > GAP_NS:
            self.lost(f"no reading for {(mono_ns - self._last_ns) / NS:.0f} s")

    @property
    def was_in_use(self) -> bool:
        """By the run before this one, when it saved its state."""
        return self._saved is not None and self._saved.score >= OFF

    def distrust(self, why: str) -> None:
        """It must prove itself anew."""
        self.score, self.in_use, self._why = min(self.score, 0.0), False, why
        self._key = None  # the phase that the next estimate tells is not that of a forecast

    # ---- learning ----------------------------------------------------------------------------------------------------------------

    def due(self, mono_ns: int) -> bool:
        """Whether an estimate is wanted."""
        return bool(self._path) and (self._base is None or mono_ns - self._base[0] >= (self._t + STEP_S) * NS)

    def learn(self, estimate: Estimate, key: object) -> None:
        """An estimate that knows nothing of the temperature; another ``key``: its phase does not go on from the last one's."""
        if self._base is None:
            self._base = (estimate.mono_ns, estimate.tai_ns)
        t = (estimate.mono_ns - self._base[0]) / NS
        z = float((estimate.tai_ns - self._base[1]) - (estimate.mono_ns - self._base[0]))
        r = estimate.phase_sigma_ns**2 + PHASE_NS**2
        dt, self._t = t - self._t, t
        # What each low-pass has integrated, carried on from the last reading to the estimate's instant.
        since = (estimate.mono_ns - self._last_ns) / NS
        integrals = tuple((low.u + low.f * since, low.v + low.f**2 * since) for low in self._lows)
        goes_on = key == self._key and self._predict(dt, z, r, integrals)
        self._integrals = integrals
        if not goes_on:
            # A phase that others set anew is not trusted at once: the next estimate starts the filters once more.
            self._key = None if key == self._key else key
            self._start(z, estimate.rate * NS, r)
            return
        for one in self._every():
            one.update(z, r)
        # Now that the time of earlier forecasts is over, compare; then make the next ones by the likeliest of both kinds.
        self._judge(t, z, r)
        self._best = max((one.likelihood, i, j) for i, row in enumerate(self._filters) for j, one in enumerate(row))[1:]
        rival = max(self._rivals, key=lambda one: one.likelihood)
        self._felt.append(self._lows[self._best[0]].f)
        chosen = self._chosen
        self._past.append(Forecast(t, rival.state[0], rival.state[1], self._best[0], tuple(chosen.state), chosen.forecaster(), integrals))

    def _every(self) -> list[Filter]:
        return [one for row in (self._rivals, *self._filters) for one in row]

    def _predict(self, dt: float, z: float, r: float, integrals: tuple[tuple[float, float], ...]) -> bool:
        """``dt`` s pass in all filters. False when ``z``, of variance ``r``, shows that the phase did not go on: others set it anew."""
        for one in self._rivals:
            one.predict(dt, 0.0, 0.0)
        for row, now, before in zip(self._filters, integrals, self._integrals, strict=True):
            for one in row:
                one.predict(dt, now[0] - before[0], now[1] - before[1])
        widest = self._rivals[-1]
        return abs(z - widest.state[0]) <= TORN * math.sqrt(widest.p[0][0] + r)

    def _start(self, z: float, rate: float, r: float) -> None:
        """Phase and frequency anew in all filters; the coefficients stay, forecasts made before are void."""
        self._past.clear()
        self._felt.clear()
        f = self._lows[0].f
        for one in self._every():
            one.start(z, rate - one.state[2] * f - one.state[3] * f * f, r, FIRST_RATE_VARIANCE)  # y is the frequency at f = 0

    @property
    def _chosen(self) -> Filter:
        return self._filters[self._best[0]][self._best[1]]

    def _judge(self, t: float, z: float, r: float) -> None:
        """What became of the forecasts of ``t``, where the phase is ``z`` with variance ``r``."""
        if self._past:
            self.residual.watched_s += t - self._past[-1].t
        self.score *= SCORE_KEPT
        for i, span in enumerate(SPANS):
            if len(self._past) < span:
                continue
            then = self._past[-span]
            tau = t - then.t
            u, v = (self._integrals[then.lag][k] - then.integrals[then.lag][k] for k in (0, 1))
            x, y, a, b = then.state
            # Squares of both misses, and of how much the two forecasts differ.
            without = (z - then.x - then.y * tau) ** 2
            with_it = (z - x - y * tau - a * u - b * v) ** 2
            apart = (x - then.x + (y - then.y) * tau + a * u + b * v) ** 2
            self.residual.missed(i, with_it, then.filter.variance(tau, u, v), tau, math.sqrt(then.filter.q))
            # The gain is a share of both misses and of the phase's own variance, so it stays below 1. Forecasts over a span overlap: each
            # counts for one part of it. An hour is too long a span to wait for.
            if span != SPANS[-1]:
                known = without + with_it + 4 * r
                self.score += (without - with_it - WORTH * apart) / known / span
        self.score = max(-MOST, min(MOST, self.score))
        self.in_use = self.score >= (OFF if self.in_use else ON)
        if self.in_use:
            self._why = ""

    # ---- use -----------------------------------------------------------------------------------------------------------------------

    def at(self, mono_ns: int) -> tuple[float, float]:
        """Phase (ns) and rate (ns/s) that changes of temperature have made, since the beginning. Needs a reading."""
        at, value, rate = next((knot for knot in reversed(self._path) if knot[0] <= mono_ns), self._path[0])
        return value + rate * (mono_ns - at) / NS, rate

    def wander(self) -> float:
        """How far the crystal strays beside the temperature, ns/s per sqrt(s)."""
        return self.residual.expected(math.sqrt(self._chosen.q))

    def doubt(self, since: tuple[float, ...]) -> float:
        """How wrong (ns/s) the rate that temperature has made since the low-passes stood at ``since`` may be, by the coefficients."""
        best = self._best[0]
        p, f, f0 = self._chosen.p, self._lows[best].f, since[best]
        u, v = f - f0, f * f - f0 * f0
        variance = u * u * p[2][2] + 2 * u * v * p[2][3] + v * v * p[3][3]
        return COVER * math.sqrt(max(0.0, variance))

    def stand(self) -> tuple[float, ...]:
        """Where the low-passes stand."""
        return tuple(low.f for low in self._lows)

    # ---- what is told ------------------------------------------------------------------------------------------------------------

    def state(self) -> SavedTemperature | None:
        """For the next start; None until something was learned of this thermometer."""
        if not self._past:
            return self._saved if self._saved is not None and self._saved.sensor == self.sensor else None
        chosen = self._chosen
        return SavedTemperature(
            sensor=self.sensor,
            origin=self._origin,
            lag_s=LAGS_S[self._best[0]],
            slope=chosen.state[2],
            slope_sigma=math.sqrt(chosen.p[2][2]),
            curve=chosen.state[3],
            curve_sigma=math.sqrt(chosen.p[3][3]),
            score=self.score,
        )

    def status(self) -> TemperatureStatus:
        """For people. Frequencies are the oscillator's: positive = fast."""
        _, _, a, b = self._chosen.state
        felt = [a * f + b * f * f for f in self._felt]
        explains = (max(felt) - min(felt)) / 1e3 if felt else None
        best = self._lows[self._best[0]]
        why = "" if self.in_use else self._why or self._progress()
        words = f"explains {explains or 0.0:.2f} ppm, in use" if self.in_use else f"watched, does not help yet ({why})"
        words = f"temperature not read: {why}" if self.celsius is None else f"temperature {self.celsius:.1f} °C: {words}"
        return TemperatureStatus(
            sensor=self.sensor,
            celsius=self.celsius,
            explains_ppm=explains,
            in_use=self.in_use,
            why=why,
            score=self.score,
            lag_s=best.lag_s,
            ppm_per_kelvin=-(a + 2 * b * best.f) / KELVIN / 1e3,
            words=words,
        )

    def _progress(self) -> str:
        """How far it is from being used."""
        if len(self._past) <= SPANS[0]:
            return "there is no forecast to judge it by"
        return f"forecasts it made better, less those it made worse: {self.score:.1f}, used from {ON:.0f} on"


class Bend:
    """The phase that the temperature has added since raw ``mono_ns``, beyond the straight line of that instant; see the module's text.
    Needs a reading."""

    def __init__(self, temperature: Temperature, mono_ns: int) -> None:
        self._temperature, self._start_ns = temperature, mono_ns
        self._value, self._rate = temperature.at(mono_ns)
        self._stood = temperature.stand()
        self._turn = Turn(mono_ns, 0.0, 0.0, 0.0, 0.0)

    def at(self, mono_ns: int) -> tuple[float, float]:
        """(ns, ns/s) at raw ``mono_ns``: not long before the last reading."""
        value, rate = self._temperature.at(mono_ns)
        return value - self._value - self._rate * (mono_ns - self._start_ns) / NS, rate - self._rate

    def turn(self, mono_ns: int) -> Turn:
        """How the line goes on from raw ``mono_ns``, with what of it is in doubt. To be asked with every reading."""
        ns, rate = self.at(mono_ns)
        before = self._turn
        doubt_ns = before.doubt_ns + before.doubt_rate * (mono_ns - before.mono_ns) / NS
        self._turn = Turn(mono_ns, ns, rate, doubt_ns, SHARE * abs(rate) + self._temperature.doubt(self._stood))
        return self._turn
