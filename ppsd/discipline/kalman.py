"""A bank of Kalman filters on one crystal: x = TAI - raw (ns), y = dx/dt (ns/s), each member with another wander w.

    x' = y,   y' = white noise of strength w^2        (random-walk frequency: ADEV = w sqrt(tau/3))

Two more follow a drift of y as well, as of a room that warms. Forgotten likelihoods weigh the members, so that a quiet crystal gets a
long memory and one in a draught a short one; a member that has become hopeless is restarted from the mixture. A scout beside them, as
restless as the most restless and never weighed, tells by its distance when the mixture lags behind a crystal that does what it never did.
Pure; time in seconds, phases in ns. Used by the estimator only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ppsd.discipline.noise import Noise

WANDERS = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
"""w of the members, ns/s per sqrt(s): from a TCXO (1e-10) over crystals in a box, a room, a draught to one that is breathed on."""
DRIFT_WANDERS = (0.1, 1.0)
"""w of the members that follow a drift of the frequency: a TCXO and a crystal in a room, in a day that warms and cools."""
DRIFT_WALK = 2e-3
"""Of that drift, ns/s^2 per sqrt(s). On a sinusoid of 0.25 ppm in 2 h and 1 us of noise (discipline scenario h) the error is 0.167 us with
2e-3 and 3e-3, 0.189 us with 1e-3, 0.249 us without drift; the best filter that was told everything has 0.163 us."""
DRIFT_SIGMA = 0.3
"""The drift at first, ns/s^2: 1 ppm an hour."""
FORGET = 0.99
"""Of the likelihoods, a sample: a hundred samples weigh (chosen, not optimised), or as many as the filter remembers."""
USUAL_WANDER = 1.0
"""A crystal's in a room, ns/s per sqrt(s). A filter of noise r remembers sqrt(sqrt(r) / w) s: less than that says nothing of w."""
FORGET_FRAMES = 0.999
"""The same on a polled line, where only the beats tell anything (83 s each for a crystal 12 ppm off)."""
LONG = 1e-4
"""Weight of a sample in the long-run likelihoods: three hours of pulses say what the crystal is like."""
UNUSUAL = -3.5
"""Log weight to which a member that the long run speaks against returns while the recent samples say nothing: crystals do change."""
UNLIKELY = -10.0
"""Log likelihood of the long run (1 : 20 000) below which the usual wander is out of the question for the bound."""
HOPELESS = -12.0
"""Log weight at which a member starts anew (1 : 160 000), at ``RESTART``."""
RESTART = -10.0
EPSILON = 1e-4
"""Share of samples that lie on no frame of a polled line: keeps the likelihood of an impossible one finite."""
ROOT_TAU = math.sqrt(2 * math.pi)


@dataclass(slots=True)
class Member:
    """x, y and their covariance; ``q`` = w^2; ``log_weight`` relative to the best; ``long_run``: mean log likelihood."""

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
        """Too slow to follow a sawtooth in the samples."""
        return self.q <= USUAL_WANDER**2

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
        self.x += self.y * dt
        self.pxx += dt * (2 * self.pxy + dt * (self.pyy + self.q * dt / 3))
        self.pxy += dt * (self.pyy + self.q * dt / 2)
        self.pyy += self.q * dt

    def update(self, score: float, information: float) -> None:
        """The likelihood of x has this ``score`` (1/ns) and ``information`` (1/ns^2) at the prediction."""
        pxx, pxy = self.pxx, self.pxy
        self.x += pxx * score
        self.y += pxy * score
        self.pyy -= pxy * pxy * information
        self.pxy -= pxx * pxy * information
        self.pxx -= pxx * pxx * information

    def restart(self, mixed: Mixture) -> None:
        """Anew from the mixture."""
        self.x, self.y, self.pxx, self.pxy, self.pyy = mixed.x, mixed.y, mixed.pxx, 0.0, mixed.pyy
        self.log_weight = RESTART


@dataclass(slots=True)
class Drifting(Member):
    """And d = dy/dt (ns/s^2), a random walk itself: a temperature that goes on rising. Believed when it has shown itself."""

    prior: ClassVar[float] = UNUSUAL
    d: float = 0.0
    pxd: float = 0.0
    pyd: float = 0.0
    pdd: float = DRIFT_SIGMA**2

    @property
    def calm(self) -> bool:
        """A sawtooth is a drift that ends."""
        return False

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
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
        """Anew, the drift unknown."""
        Member.restart(self, mixed)
        self.d, self.pxd, self.pyd, self.pdd = 0.0, 0.0, 0.0, DRIFT_SIGMA**2


@dataclass(frozen=True, slots=True)
class Mixture:
    """The weighted bank: its means, and covariances with the spread between the members in them."""

    x: float
    y: float
    pxx: float
    pyy: float


class Bank:
    """The members, started alike."""

    def __init__(self, x: float, y: float, pxx: float, pxy: float, pyy: float) -> None:
        self.members = [Member(w * w, x, y, pxx, pxy, pyy) for w in WANDERS]
        self.members += [Drifting(w * w, x, y, pxx, pxy, pyy, UNUSUAL) for w in DRIFT_WANDERS]
        self.scout = Member(WANDERS[-1] ** 2, x, y, pxx, pxy, pyy)
        """As restless as the last of them, and never weighed nor restarted: see ``astray``."""
        self.samples = 0

    def expect(self, wander: float) -> None:
        """An earlier run found the crystal's wander to be this: at first the others are believed less."""
        for m in self.members:
            m.log_weight = max(UNUSUAL, m.prior - abs(math.log(m.q / wander**2)))

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
        for m in self.members:
            m.predict(dt)
        self.scout.predict(dt)

    def sample(self, z: float, noise: Noise, calm: bool) -> None:
        """A sample of x with continuous noise. ``calm``: only the calmest members are asked (a sawtooth imitates wander)."""
        pxx = self.mixture().pxx  # one clip for all: likelihoods of differently clipped samples cannot be compared
        r = noise.variance_beside(pxx)
        likelihoods = []
        for m in self.members:
            s = m.pxx + r
            nu = noise.feed(z - m.x, pxx)
            likelihoods.append(-math.inf if calm and not m.calm else -0.5 * (noise.misfit(nu, pxx) / s + math.log(s)))
            m.update(nu / s, 1 / s)
        scout = self.scout
        r = noise.variance_beside(scout.pxx)
        scout.update(noise.feed(z - scout.x, scout.pxx) / (scout.pxx + r), 1 / (scout.pxx + r))
        memory = math.sqrt(math.sqrt(noise.variance) / USUAL_WANDER)
        self._weigh(likelihoods, max(FORGET, 1.0 - 1.0 / memory))

    def frame(self, z: float, frame_ns: float, jitter_ns: float) -> None:
        """A sample of a polled line: x lies within half a frame of ``z``, the edges blurred by N(0, jitter): moments of a cut Gaussian."""
        likelihoods = []
        for m in self.members:
            s = math.sqrt(m.pxx + jitter_ns * jitter_ns)
            a, b = (z - frame_ns / 2 - m.x) / s, (z + frame_ns / 2 - m.x) / s
            p = 0.5 * (math.erfc(-b / math.sqrt(2)) - math.erfc(-a / math.sqrt(2))) + EPSILON
            fa, fb = math.exp(-a * a / 2) / ROOT_TAU, math.exp(-b * b / 2) / ROOT_TAU
            score = (fa - fb) / (p * s)
            information = score * score - (a * fa - b * fb) / (p * s * s)
            likelihoods.append(math.log(p))
            m.update(score, min(max(0.0, information), 0.999 / m.pxx))
        self._weigh(likelihoods, FORGET_FRAMES)

    def _weigh(self, likelihoods: Sequence[float], forget: float) -> None:
        self.samples += 1
        gain = max(LONG, 1.0 / self.samples)
        best = -math.inf
        top = max(likelihoods)
        for m, log_p in zip(self.members, likelihoods, strict=True):
            m.long_run += gain * (max(log_p, top - 50.0) - m.long_run)
        known = min(self.samples, 1 / LONG)
        longest = max(m.prior + m.long_run * known for m in self.members)
        for m, log_p in zip(self.members, likelihoods, strict=True):
            usual = m.prior + max(UNUSUAL, m.long_run * known - longest)
            m.log_weight = forget * m.log_weight + (1 - forget) * usual + log_p
            best = max(best, m.log_weight)
        mixed: Mixture | None = None
        for m in self.members:
            m.log_weight -= best
            if m.log_weight < HOPELESS:
                mixed = mixed or self.mixture()
                m.restart(mixed)

    def widen(self, phase_ns: float, rate: float) -> None:
        """More may have come than the members' wanders allow for: add these standard deviations (ns, ns/s)."""
        for m in (*self.members, self.scout):
            m.pxx += phase_ns**2
            m.pyy += rate**2

    def astray(self) -> tuple[float, float]:
        """How far the scout is from the mixture, and the standard deviation of that when the mixture is right (ns).

        An efficient estimate has no error in common with its difference from another one (Hausman 1978): the variances subtract.
        """
        now = self.mixture()
        return abs(self.scout.x - now.x), math.sqrt(max(0.0, self.scout.pxx - now.pxx))

    def mixture(self) -> Mixture:
        """The bank as one."""
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
        """The mixture, but not better known than by the member with the usual wander before the long run has spoken clearly against it:
        few crystals are calmer, in wide noise hours of samples cannot tell, and luck makes many look calm in their first minutes."""
        now = self.mixture()
        usual = next(m for m in self.members if m.q == USUAL_WANDER**2)
        longest = max(m.long_run for m in self.members)
        if (usual.long_run - longest) * min(self.samples, 1 / LONG) < UNLIKELY:
            return now
        return Mixture(now.x, now.y, max(now.pxx, usual.pxx), max(now.pyy, usual.pyy))

    def wander(self) -> float:
        """w (ns/s per sqrt(s)) that the long run makes likeliest: top of a parabola in log w through the best member (of those without
        drift) and its neighbours."""
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
