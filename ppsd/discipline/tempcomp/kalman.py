"""A crystal with its temperature: the low-pass between thermometer and crystal, and the Kalman filter that learns what it does.

With f = (T - T0) / 10 K, low-passed:   dx/dt = y + a f + b f^2,   y' = white noise of strength w^2

x = TAI - raw (ns). Pure; seconds, ns, ns/s. ``model`` runs one filter for each wander and each low-pass.
"""

from __future__ import annotations

import math

SLOPE, CURVE = 3000.0, 1000.0
"""ns/s: standard deviations of a and b before anything is known: 0.3 ppm/K and 0.01 ppm/K^2 (AT cuts; a tuning fork's is learned)."""
AGES = 100.0
"""ns/s per day^0.5: how a and b may change."""
LIKELIHOOD_KEPT = 0.998
"""Share of a log likelihood that is left after a step: nine hours weigh."""
UNLIKELIEST = -12.0
"""Least log likelihood of one step: a jump of the crystal is one event, whatever its size."""

Row = list[float]


class Filter:
    """Kalman filter of (x, y, a, b) with one wander; without ``slope`` and ``curve`` a and b stay 0. ``likelihood``: log, forgetting."""

    def __init__(self, wander: float, slope: float, curve: float) -> None:
        self.q = wander * wander
        self.ages = (AGES**2 / 86_400.0) if slope else 0.0
        self.state = [0.0, 0.0, 0.0, 0.0]
        self.p: list[Row] = [[0.0] * 4 for _ in range(4)]
        self.p[2][2], self.p[3][3] = slope * slope, curve * curve
        self.likelihood = 0.0

    def forecaster(self) -> Filter:
        """What ``variance`` needs, as it is now."""
        frozen = Filter(0.0, 0.0, 0.0)
        frozen.q, frozen.p = self.q, [row[:] for row in self.p]
        return frozen

    def start(self, x: float, y: float, r: float, pyy: float) -> None:
        """Phase and frequency anew, the coefficients stay."""
        self.state[:2] = x, y
        for i in (0, 1):
            for j in range(4):
                self.p[i][j] = self.p[j][i] = 0.0
        self.p[0][0], self.p[1][1] = r, pyy

    def predict(self, dt: float, u: float, v: float) -> None:
        """``dt`` s pass, in which the integrals of f and f^2 were ``u`` and ``v``: P becomes F P F' + Q, where only the first row of F and
        the phase and frequency of Q are not trivial."""
        p, s, q = self.p, self.state, self.q
        s[0] += s[1] * dt + s[2] * u + s[3] * v
        row = [p[0][j] + dt * p[1][j] + u * p[2][j] + v * p[3][j] for j in range(4)]
        p00 = row[0] + dt * row[1] + u * row[2] + v * row[3] + q * dt**3 / 3
        row[1] += q * dt * dt / 2
        p[0] = [p00, row[1], row[2], row[3]]
        p[1][0], p[2][0], p[3][0] = row[1], row[2], row[3]
        p[1][1] += q * dt
        p[2][2] += self.ages * dt
        p[3][3] += self.ages * dt

    def update(self, z: float, r: float) -> None:
        """A measurement of x with variance ``r``."""
        p, s = self.p, self.state
        spread = p[0][0] + r
        nu = z - s[0]
        self.likelihood = LIKELIHOOD_KEPT * self.likelihood + max(UNLIKELIEST, -0.5 * nu * nu / spread) - 0.5 * math.log(spread)
        gain = [p[i][0] / spread for i in range(4)]
        top = p[0][:]
        for i in range(4):
            s[i] += gain[i] * nu
            p[i] = [p[i][j] - gain[i] * top[j] for j in range(4)]

    def variance(self, dt: float, u: float, v: float) -> float:
        """Of a forecast's phase by frequency and coefficients, ``dt`` s ahead (integrals of f and f^2 as in ``predict``)."""
        w = (0.0, dt, u, v)
        return sum(w[i] * w[j] * self.p[i][j] for i in range(1, 4) for j in range(1, 4))


class LowPass:
    """What the crystal is taken to feel: ``f`` after a lag, and its integrals since the beginning: ``u`` of f, ``v`` of f^2."""

    def __init__(self, lag_s: float) -> None:
        self.lag_s = lag_s
        self.f = 0.0
        self.u = self.v = 0.0

    def read(self, f: float, dt: float) -> None:
        """``f`` was read ``dt`` s after the last reading."""
        before = self.f
        self.f += (f - self.f) * (1.0 - math.exp(-dt / self.lag_s))
        self.u += (before + self.f) / 2 * dt
        self.v += (before * before + self.f * self.f) / 2 * dt
