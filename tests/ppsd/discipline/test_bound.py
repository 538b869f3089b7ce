"""The bound, term by term: when each of them is there, and how large it is."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from statistics import median

import pytest

from ppsd.discipline.estimate import Bound, Estimate
from ppsd.discipline.estimator import Estimator
from refclock.sample import NS

RAW0, TAI0 = 10**13 + 123_456, 1_800_000_037 * NS
FLOOR_NS = 50.0


def heard(estimator: Estimator, late_ns: Iterable[float], first: int = 0) -> int:
    """Give it a sample a second, the first one in second ``first``; ``late_ns`` after the second on a crystal that is 12 ppm off. Returns
    raw time of the last one."""
    raw = 0
    for k, late in enumerate(late_ns, first):
        raw = RAW0 + k * (NS + 12_000) + round(late)
        estimator.add(raw, TAI0 + k * NS)
    return raw


def noise(count: int, seed: int = 1, scale_ns: float = 1000.0) -> list[float]:
    gauss = Random(seed).gauss
    return [gauss(0.0, scale_ns) for _ in range(count)]


def terms(estimate: Estimate) -> Bound:
    assert estimate.terms is not None
    return estimate.terms


def test_the_terms_add_up_to_the_bound() -> None:
    """At the last sample the bound is their sum; later it has grown by rate and wander, as any later reader of the record computes it."""
    estimator = Estimator(FLOOR_NS, 700.0)
    last = heard(estimator, noise(200))
    now, later = estimator.estimate(last), estimator.estimate(last + 600 * NS)
    t = terms(now)
    parts = (t.bias_ns, t.jump_ns, t.early_ns, t.place_ns, t.lag_ns, t.doubt_ns, t.refused_ns, t.chance_ns, t.apart_ns)
    assert now.bound_ns == t.total_ns == pytest.approx(sum(parts))
    assert later.bound_ns == pytest.approx(now.bound_at(last + 600 * NS) - t.lag_ns + terms(later).lag_ns)
    assert later.bound_ns == terms(later).after(600.0)
    assert min(t.rate, t.wander) > 0.0


def test_bias_is_what_is_stated() -> None:
    """In full from the first estimate to the last."""
    estimator = Estimator(FLOOR_NS, 1234.5)
    for k in range(0, 500, 10):
        last = heard(estimator, noise(10, k), k)
        assert terms(estimator.estimate(last)).bias_ns == 1234.5


@pytest.mark.parametrize("centred", [True, False])
def test_place_is_the_early_edge_unless_the_mean_is_stated(centred: bool) -> None:
    """1.5 robust sigmas of the noise when nothing is stated of its mean, else nothing."""
    estimator = Estimator(FLOOR_NS, 0.0, centred=centred)
    now = estimator.estimate(heard(estimator, noise(500)))
    assert 800.0 < now.jitter_ns < 1200.0
    assert terms(now).place_ns == pytest.approx(0.0 if centred else 1.5 * now.jitter_ns)


def test_place_holds_a_sawtooth_whole() -> None:
    """Two jumps of 20 us within 1000 s: from then on the size of the jump."""
    estimator = Estimator(FLOOR_NS, 0.0, centred=True)
    heard(estimator, noise(200))
    last = heard(estimator, [late + 20_000 for late in noise(100, 2)], 200)
    assert terms(estimator.estimate(last)).place_ns == 0.0
    last = heard(estimator, noise(100, 3), 300)
    assert terms(estimator.estimate(last)).place_ns == pytest.approx(20_000, rel=0.1)


def test_early_is_four_ranges_and_fades_with_the_square() -> None:
    """Of the first five residuals; a quarter of it after five further samples, a ninth after ten. Of exact samples there is none."""
    estimator = Estimator(FLOOR_NS, 0.0)
    first = terms(estimator.estimate(heard(estimator, [0.0, 900.0, -300.0, 600.0, 0.0]))).early_ns
    assert 4 * 900 < first < 4 * 1500
    for samples, share in ((5, 4), (10, 9)):
        last = heard(estimator, [100.0] * 5, samples)
        assert terms(estimator.estimate(last)).early_ns == pytest.approx(first / share)
    exact = Estimator(FLOOR_NS, 0.0)
    assert terms(exact.estimate(heard(exact, [0.0] * 5))).early_ns < 1.0


def test_jump_stays_for_five_minutes() -> None:
    """A phase that jumps by 5 ms is followed after 20 samples on one line; the jump is in the bound for 300 s and then gone."""
    estimator = Estimator(FLOOR_NS, 0.0)
    last = heard(estimator, noise(100))
    assert terms(estimator.estimate(last)).jump_ns == 0.0
    last = heard(estimator, [late + 5e6 for late in noise(20, 2)], 100)
    assert estimator.restarts == 1
    assert terms(estimator.estimate(last)).jump_ns == pytest.approx(5e6, rel=0.01)
    assert terms(estimator.estimate(last + 299 * NS)).jump_ns > 0.0
    assert terms(estimator.estimate(last + 301 * NS)).jump_ns == 0.0


def test_lag_shows_a_crystal_that_changes_as_it_never_did() -> None:
    """Quiet for an hour, it changes by 0.5 ppm at once: within half a minute the lag is more than twice what chance may do, the bound
    covers the estimate all the way, and ten minutes later most of the lag is gone."""
    estimator = Estimator(FLOOR_NS, 0.0, centred=True)
    late = noise(3600)
    quiet = terms(estimator.estimate(heard(estimator, late)))
    assert quiet.lag_ns < quiet.chance_ns
    lags, shares = [], []
    for k in range(3600, 4500):
        off = (k - 3599) * 500.0
        last = heard(estimator, [noise(1, k)[0] + off], k)
        now = estimator.estimate(last)
        behind = now.tai_ns - (TAI0 + k * NS) - (last - RAW0 - k * (NS + 12_000) - off)
        assert abs(behind) <= now.bound_ns
        lags.append(terms(now).lag_ns)
        shares.append(terms(now).lag_ns / terms(now).chance_ns)
    assert max(shares[:30]) > 2.0
    assert median(lags[-300:]) < max(lags) / 5


@pytest.mark.parametrize("polled", [True, False])
def test_doubt_is_most_of_a_frame_while_stamps_stand_still(polled: bool) -> None:
    """Exact stamps on a crystal that is exactly nominal may be frames of 1 ms: 0.7 ms until 1000 s have passed, unless the line is known
    not to be polled. Stamps that move by more than a twenty-fifth of a frame end it at once."""
    estimator = Estimator(FLOOR_NS, 0.0, polled=polled)
    for k in range(1100):
        estimator.add(RAW0 + k * NS, TAI0 + k * NS)
        if k in (10, 990):
            assert terms(estimator.estimate(RAW0 + k * NS)).doubt_ns == (700_000.0 if polled else 0.0)
    assert terms(estimator.estimate(RAW0 + 1099 * NS)).doubt_ns == 0.0
    moving = Estimator(FLOOR_NS, 0.0, polled=polled)
    assert terms(moving.estimate(heard(moving, noise(20)))).doubt_ns == 0.0


def test_chance_shrinks_with_samples_and_is_some_sigmas() -> None:
    """4 to 6 sigmas of the phase; after a thousand samples a small part of what it was after ten."""
    estimator = Estimator(FLOOR_NS, 0.0)
    seen = []
    for first, last in ((0, 10), (10, 1000)):
        now = estimator.estimate(heard(estimator, noise(last - first, first), first))
        seen.append(terms(now).chance_ns)
        assert 4.0 < terms(now).chance_ns / now.phase_sigma_ns < 6.0
    assert seen[1] < seen[0] / 5


def test_a_polled_line_has_no_place_and_a_fixed_cover() -> None:
    """Stamps at frames of 1 ms that drift and jump: the second is in the middle of what they leave possible, known to 5.3 sigmas of it,
    tens of times nearer than a frame."""
    estimator = Estimator(FLOOR_NS, 0.0)
    raw = 0
    for k in range(1500):
        raw = RAW0 + k * (NS + 12_000)
        raw += -raw % 1_000_000  # seen when the next frame begins
        estimator.add(raw, TAI0 + k * NS + 500_000)  # in the middle of it
    now = estimator.estimate(raw)
    assert (terms(now).place_ns, terms(now).lag_ns, terms(now).doubt_ns) == (0.0, 0.0, 0.0)
    assert terms(now).chance_ns == pytest.approx(5.3 * now.phase_sigma_ns)
    assert now.bound_ns < 100_000
