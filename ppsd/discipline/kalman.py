"""A bank of Kalman filters on one crystal: x = TAI - raw (ns), y = dx/dt (ns/s), each member with another wander w.

    x' = y,   y' = white noise of strength w^2        (random-walk frequency: ADEV = w sqrt(tau/3))

Place in the flow: the estimators feed it samples, and read phase and frequency off its weighted mixture.

Members are weighed by how likely they make the recent samples. A quiet crystal therefore gets a long memory, one in a draught a short
memory. A member that has become hopeless starts anew from the mixture. Two members follow a drift of y too, as of a room that warms.

The scout is one more filter, as restless as the most restless member. It is never weighed and never restarted. When the crystal does what
it never did before, the weights lag behind and the scout does not: its distance from the mixture shows the lag.

Pure; time in seconds, phases in ns. The constants without a derivation were found by hand on the first 21 scenarios of
tests/bench/clock.py; the other 13 were not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ppsd.discipline.noise import Noise

WANDERS = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
"""ns/s per sqrt(s), of the members: from a TCXO (1e-10) over crystals in a box, a room and a draught to one that is breathed on."""
USUAL_WANDER = 1.0
"""ns/s per sqrt(s), of a crystal in a room. One of ``WANDERS``."""
DRIFT_WANDERS = (0.1, 1.0)
"""ns/s per sqrt(s), of the members that follow a drift: a TCXO, and a crystal in a room, on a day that warms and cools."""
DRIFT_WALK = 2e-3
"""ns/s^2 per sqrt(s): how the drift may change. On a sinusoid of 0.25 ppm in 2 h and 1 us of noise (scenario h) the error is 0.167 us with
2e-3 and 3e-3, 0.189 us with 1e-3 and 0.249 us without drift. The best filter that is told everything has 0.163 us."""
DRIFT_SIGMA = 0.3
"""ns/s^2: standard deviation of the drift at first: 1 ppm an hour."""
KEPT_OF_WEIGHT = 0.99
"""Share of its log weight that a member keeps at a sample, at least: a hundred samples count. Where noise is wide the filter remembers for
longer and the weights with it: samples of less time than that say nothing of w."""
KEPT_OF_WEIGHT_POLLED = 0.999
"""The same on a polled line, where only beats of the grid tell anything (83 s each for a crystal 12 ppm off and frames of 1 ms)."""
LONG_RUN = 1e-4
"""Weight of a sample in the long-run likelihoods: three hours of pulses say what the crystal is like."""
LONG_RUN_CUT = 50.0
"""Nats below the best member at which a sample's log likelihood is cut off for the long run: one sample must not decide it."""
UNUSUAL = -3.5
"""Log weight to which a member returns that the long run speaks against, while recent samples say nothing: crystals do change. Members with
drift start with it."""
RULED_OUT = -10.0
"""Log likelihood over the long run (1 : 20 000) below which the usual wander no longer widens the bound."""
HOPELESS, REINSTATED = -12.0, -10.0
"""Log weight below which a member starts anew from the mixture (1 : 160 000), and the one that it gets then."""
OFF_GRID = 1e-4
"""Share of samples that lie in no frame of a polled line: keeps the likelihood of an impossible sample finite."""
INFORMATION_CUT = 0.999
"""Share of a variance that one sample may take away: a covariance stays positive."""
FASTEST = 5e8
"""ns/s; a frequency error of half. No clock has it: a filter that says so has followed samples that mark no time."""
ROOT_TAU = math.sqrt(2 * math.pi)


@dataclass(slots=True)
class Member:
    """One filter: x, y and their covariance; ``q`` = w^2; ``log_weight`` relative to the best; ``long_run``: mean log likelihood."""

    prior: ClassVar[float] = 0.0
    """Its log weight before anything was seen."""

    q: float
    x: float
    y: float
    pxx: float
    pxy: float
    pyy: float
    log_weight: float = 0.0
    long_run: float = 0.0

    @property
    def calm(self) -> bool:
        """Whether it is too slow to follow a sawtooth in the samples."""
        return self.q <= USUAL_WANDER**2

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
        self.x += self.y * dt
        self.pxx += dt * (2 * self.pxy + dt * (self.pyy + self.q * dt / 3))
        self.pxy += dt * (self.pyy + self.q * dt / 2)
        self.pyy += self.q * dt

    def update(self, score: float, information: float) -> None:
        """The log likelihood of x has the slope ``score`` (1/ns) and the curvature -``information`` (1/ns^2) at the prediction."""
        pxx, pxy = self.pxx, self.pxy
        self.x += pxx * score
        self.y += pxy * score
        self.pyy -= pxy * pxy * information
        self.pxy -= pxx * pxy * information
        self.pxx -= pxx * pxx * information

    def restart(self, mixed: Mixture) -> None:
        """Start anew from the mixture."""
        self.x, self.y, self.pxx, self.pxy, self.pyy = mixed.x, mixed.y, mixed.pxx, 0.0, mixed.pyy
        self.log_weight = REINSTATED


@dataclass(slots=True)
class Drifting(Member):
    """A member that also follows d = dy/dt (ns/s^2), a random walk itself: a temperature that goes on rising."""

    prior: ClassVar[float] = UNUSUAL
    d: float = 0.0
    pxd: float = 0.0
    pyd: float = 0.0
    pdd: float = DRIFT_SIGMA**2

    @property
    def calm(self) -> bool:
        """Never: a sawtooth looks like a drift that ends."""
        return False

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass: P becomes F P F' + Q for the state (x, y, d)."""
        half = dt * dt / 2
        self.x += self.y * dt + self.d * half
        self.y += self.d * dt
        pxx, pxy, pxd, pyy, pyd, pdd = self.pxx, self.pxy, self.pxd, self.pyy, self.pyd, self.pdd
        xy, xd, yd = pxy + pyy * dt + pyd * half, pxd + pyd * dt + pdd * half, pyd + pdd * dt  # of F P
        q, qd, cube = self.q, DRIFT_WALK**2, dt * dt * dt
        self.pxx = pxx + pxy * dt + pxd * half + xy * dt + xd * half + q * cube / 3 + qd * cube * dt * dt / 20
        self.pxy = xy + xd * dt + q * half + qd * cube * dt / 8
        self.pxd = xd + qd * cube / 6
        self.pyy = pyy + pyd * dt + yd * dt + q * dt + qd * cube / 3
        self.pyd = yd + qd * half
        self.pdd = pdd + qd * dt

    def update(self, score: float, information: float) -> None:
        """As of a member without drift."""
        pxx, pxy, pxd = self.pxx, self.pxy, self.pxd
        self.d += pxd * score
        self.pyd -= pxy * pxd * information
        self.pdd -= pxd * pxd * information
        self.pxd -= pxx * pxd * information
        Member.update(self, score, information)

    def restart(self, mixed: Mixture) -> None:
        """Start anew, the drift unknown."""
        Member.restart(self, mixed)
        self.d, self.pxd, self.pyd, self.pdd = 0.0, 0.0, 0.0, DRIFT_SIGMA**2


@dataclass(frozen=True, slots=True)
class Mixture:
    """The weighted bank as one filter: its means, and variances with the spread between the members in them."""

    x: float
    y: float
    pxx: float
    pyy: float


class Bank:
    """The members, all started from the same state and covariance."""

    def __init__(self, x: float, y: float, pxx: float, pxy: float, pyy: float) -> None:
        self.members = [Member(w * w, x, y, pxx, pxy, pyy) for w in WANDERS]
        self.members += [Drifting(w * w, x, y, pxx, pxy, pyy, UNUSUAL) for w in DRIFT_WANDERS]
        self.scout = Member(WANDERS[-1] ** 2, x, y, pxx, pxy, pyy)
        """As restless as the most restless member, never weighed nor restarted: see ``astray``."""
        self.samples = 0
        self._mixture: Mixture | None = None  # of the members as they are; None after they have changed

    def twin(self) -> Self:
        """A bank in the same state that goes on by itself."""
        twin = type(self)(0.0, 0.0, 0.0, 0.0, 0.0)
        twin.members, twin.scout = [replace(m) for m in self.members], replace(self.scout)
        twin.samples, twin._mixture = self.samples, self._mixture
        return twin

    def expect(self, wander: float) -> None:
        """An earlier run found the crystal's wander to be this: at first other members are believed less."""
        for m in self.members:
            m.log_weight = max(UNUSUAL, m.prior - abs(math.log(m.q / wander**2)))
        self._mixture = None

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
        for m in self.members:
            m.predict(dt)
        self.scout.predict(dt)
        self._mixture = None

    def sample(self, z: float, noise: Noise, calm: bool) -> None:
        """A sample of x with continuous noise. ``calm``: only the calmest members are asked, for a sawtooth imitates wander."""
        # One clip width for all members: likelihoods of differently clipped samples cannot be compared.
        pxx = self.mixture().pxx
        r = noise.variance_beside(pxx)
        likelihoods = []
        for m in self.members:
            s = m.pxx + r
            nu = noise.feed(z - m.x, pxx)
            likelihoods.append(-math.inf if calm and not m.calm else -0.5 * (noise.misfit(nu, pxx) / s + math.log(s)))
            m.update(nu / s, 1 / s)
        # The scout is compared with no other filter, so its clip is as wide as its own prediction is uncertain.
        scout = self.scout
        r = noise.variance_beside(scout.pxx)
        scout.update(noise.feed(z - scout.x, scout.pxx) / (scout.pxx + r), 1 / (scout.pxx + r))
        # A filter of noise r and wander w remembers sqrt(sqrt(r) / w) s: the weights remember as long.
        memory = math.sqrt(math.sqrt(noise.variance) / USUAL_WANDER)
        self._weigh(likelihoods, max(KEPT_OF_WEIGHT, 1.0 - 1.0 / memory))

    def frame(self, z: float, frame_ns: float, jitter_ns: float) -> None:
        """A sample of a polled line: x lies within half a frame of ``z``, edges blurred by N(0, jitter). A Gaussian that is cut so has no
        simple moments; its likelihood's slope and curvature at the prediction stand for them."""
        likelihoods = []
        for m in self.members:
            s = math.sqrt(m.pxx + jitter_ns * jitter_ns)
            a, b = (z - frame_ns / 2 - m.x) / s, (z + frame_ns / 2 - m.x) / s  # ends of the frame in sigmas
            p = 0.5 * (math.erfc(-b / math.sqrt(2)) - math.erfc(-a / math.sqrt(2))) + OFF_GRID
            fa, fb = math.exp(-a * a / 2) / ROOT_TAU, math.exp(-b * b / 2) / ROOT_TAU
            score = (fa - fb) / (p * s)
            information = score * score - (a * fa - b * fb) / (p * s * s)
            likelihoods.append(math.log(p))
            m.update(score, min(max(0.0, information), INFORMATION_CUT / m.pxx))
        self._weigh(likelihoods, KEPT_OF_WEIGHT_POLLED)

    def _weigh(self, likelihoods: Sequence[float], kept: float) -> None:
        """Give the members their weights after a sample with these log ``likelihoods``; ``kept``: share of the old log weights."""
        # 1. The long run: a plain mean of log likelihoods at first, one that forgets after 1 / LONG_RUN samples.
        self.samples += 1
        gain = max(LONG_RUN, 1.0 / self.samples)
        best = -math.inf
        top = max(likelihoods)
        for m, log_p in zip(self.members, likelihoods, strict=True):
            m.long_run += gain * (max(log_p, top - LONG_RUN_CUT) - m.long_run)
        known = min(self.samples, 1 / LONG_RUN)
        longest = max(m.prior + m.long_run * known for m in self.members)
        # 2. The short run: log weights decay towards what the long run says, no lower than UNUSUAL, and take the sample in.
        for m, log_p in zip(self.members, likelihoods, strict=True):
            usual = m.prior + max(UNUSUAL, m.long_run * known - longest)
            m.log_weight = kept * m.log_weight + (1 - kept) * usual + log_p
            best = max(best, m.log_weight)
        # 3. The best gets log weight 0; the hopeless start anew. All of them start from the mixture that the first one finds, in which the
        #    members after it still have their log weights of step 2.
        mixed: Mixture | None = None
        for m in self.members:
            m.log_weight -= best
            if m.log_weight < HOPELESS:
                mixed = mixed or self._mixed()
                m.restart(mixed)
        self._mixture = None

    def widen(self, phase_ns: float, rate: float) -> None:
        """More may have come than the members' wanders allow for: add these standard deviations (ns, ns/s)."""
        for m in (*self.members, self.scout):
            m.pxx += phase_ns**2
            m.pyy += rate**2
        self._mixture = None

    @property
    def sound(self) -> bool:
        """Whether its numbers mean anything. Samples that jump by years leave a covariance of rounding errors, which may be negative."""
        covariances = all(m.pxx > 0.0 and m.pyy > 0.0 for m in (*self.members, self.scout))  # False for NaN, too
        return covariances and abs(self.mixture().y) < FASTEST

    def astray(self) -> tuple[float, float]:
        """How far the scout is from the mixture, and the standard deviation of that when the mixture is right (ns).

        An efficient estimate has no error in common with its difference from another one (Hausman 1978): the variances subtract.
        """
        now = self.mixture()
        return abs(self.scout.x - now.x), math.sqrt(max(0.0, self.scout.pxx - now.pxx))

    def mixture(self) -> Mixture:
        """The bank as one filter. Computed once after each change of the members."""
        if self._mixture is None:
            self._mixture = self._mixed()
        return self._mixture

    def _mixed(self) -> Mixture:
        top = max(m.log_weight for m in self.members)
        weights = [math.exp(m.log_weight - top) for m in self.members]
        total = sum(weights)
        x = y = pxx = pyy = 0.0
        for w, m in zip(weights, self.members, strict=True):
            x += w * m.x
            y += w * m.y
        x /= total
        y /= total
        for w, m in zip(weights, self.members, strict=True):
            pxx += w * (m.pxx + (m.x - x) ** 2)
            pyy += w * (m.pyy + (m.y - y) ** 2)
        return Mixture(x, y, pxx / total, pyy / total)

    def doubted(self) -> Mixture:
        """The mixture for a bound: no better known than by the member with the usual wander, until the long run rules that one out. Few
        crystals are calmer, hours of samples in wide noise cannot tell, and luck makes many look calm in their first minutes."""
        now = self.mixture()
        usual = next(m for m in self.members if m.q == USUAL_WANDER**2)
        longest = max(m.long_run for m in self.members)
        if (usual.long_run - longest) * min(self.samples, 1 / LONG_RUN) < RULED_OUT:
            return now
        return Mixture(now.x, now.y, max(now.pxx, usual.pxx), max(now.pyy, usual.pyy))

    def wander(self) -> float:
        """w (ns/s per sqrt(s)) that the long run makes likeliest: top of a parabola in log w through the best member without drift and its
        two neighbours."""
        runs = [m.long_run for m in self.members[: len(WANDERS)]]
        i = max(range(len(runs)), key=runs.__getitem__)
        if not 0 < i < len(runs) - 1:
            return WANDERS[i]
        a, b, c = (math.log(WANDERS[j]) for j in (i - 1, i, i + 1))
        fa, fb, fc = runs[i - 1], runs[i], runs[i + 1]
        d1, d2 = (fb - fa) / (b - a), (fc - fb) / (c - b)
        curve = (d2 - d1) / (c - a)
        if not curve < 0.0:
            return WANDERS[i]
        return math.exp(min(c, max(a, (a + b) / 2 - d1 / (2 * curve))))
