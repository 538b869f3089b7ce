"""The simulator's oscillators and pulse errors: statistics, history by seed, signs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
from refclock_sim.models import oscillator, pulse
from refclock_sim.models.oscillator import Oscillator
from refclock_sim.models.pulse import MS, Gaussian, LoadBursts, Offset, Outliers, PiLatency, PulseError, Sawtooth, UsbFrames, UsbPolling

SECONDS = 20_000


def history(model: PulseError, drift_ns: int = 0, seconds: int = SECONDS) -> list[float]:
    """Errors of consecutive pulses; the host's raw clock gains ``drift_ns`` a second."""
    return [model.late_ns(k, k * (1_000_000_000 + drift_ns)) for k in range(seconds)]


# ---- oscillators ----------------------------------------------------------------------------------------------------------------------


def test_a_walk_spreads_with_the_root_of_time() -> None:
    """Random-walk FM of step w is w * sqrt(n) wide after n seconds, about its constant part, in steps of any length."""
    ends = []
    for seed in range(400):
        crystal = Oscillator(seed, 5e-6, 1e-9)
        for _ in range(100):
            crystal.advance()
        ends.append(crystal.advance(300.0))
    assert statistics.fmean(ends) == pytest.approx(5e-6, abs=4e-9)
    assert statistics.stdev(ends) == pytest.approx(1e-9 * math.sqrt(400), rel=0.15)


def test_terms_follow_time() -> None:
    """Ramp, step with thermal lag and sinusoid have their sizes at their times, and add up."""
    terms = [oscillator.ramp(1e-6, 10, 20), oscillator.step(2e-6, 50, 10), oscillator.sinusoid(3e-6, 400)]
    crystal = Oscillator(0, 0.0, 0.0, terms)
    errors = [crystal.advance() for _ in range(201)]
    assert errors[0] == 0
    assert errors[20] == pytest.approx(0.5e-6 + 3e-6 * math.sin(math.tau * 20 / 400))
    assert errors[60] == pytest.approx(1e-6 + 2e-6 * (1 - math.exp(-1)) + 3e-6 * math.sin(math.tau * 60 / 400))
    assert errors[100] == pytest.approx(1e-6 + 2e-6 * (1 - math.exp(-5)) + 3e-6)
    assert oscillator.step(1e-6, 5)(5.1) == 1e-6


def test_an_oscillators_history_belongs_to_its_seed() -> None:
    """The same seed gives the same history, another one another."""
    first, again, other = ([c.advance() for _ in range(50)] for c in (Oscillator(s, 12e-6, 1e-9) for s in (1, 1, 2)))
    assert first == again != other


# ---- pulses ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "mean", "deviation"),
    [
        (lambda s: Gaussian(s, 200.0), 0.0, 200.0),
        (lambda s: PiLatency(s, mean_removed=True), 0.0, 4_177.0),
        (lambda s: PiLatency(s, base_ns=11_000.0), 12_400.0, 4_177.0),
        (UsbPolling, 0.5 * MS, MS / math.sqrt(12)),
        (lambda s: Offset(40.0) + Gaussian(s, 10.0), 40.0, 10.0),
    ],
    ids=["gaussian", "pi", "pi with base", "usb polling", "sum"],
)
def test_noise_has_its_mean_and_deviation(make: Callable[[int], PulseError], mean: float, deviation: float) -> None:
    """A model's mean and standard deviation are those of its formula."""
    errors = history(make(3))
    assert statistics.fmean(errors) == pytest.approx(mean, abs=5 * deviation / math.sqrt(SECONDS))
    assert statistics.stdev(errors) == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize("make", [PiLatency, UsbPolling], ids=["pi", "usb polling"])
def test_nothing_is_stamped_before_it_happens(make: Callable[[int], PulseError]) -> None:
    """A latency is never negative."""
    assert min(history(make(1))) >= 0


def test_usb_frames_make_a_sawtooth_in_the_hosts_time() -> None:
    """The delay to the next frame of the host's own crystal shrinks by its drift each second and starts anew after 1 ms."""
    errors = history(UsbFrames(2, jitter_ns=0.0), drift_ns=12_000, seconds=1000)
    assert 0 < min(errors) < 12_000
    assert MS - 12_000 < max(errors) <= MS
    steps = [(after - before) % MS for before, after in itertools.pairwise(errors)]
    assert set(map(round, steps)) == {round(MS) - 12_000}


def test_outliers_are_as_many_and_as_late_as_said() -> None:
    """5 % of the pulses, 1 to 20 ms, half of them below the geometric mean; the rest not at all."""
    late = [e for e in history(Outliers(4)) if e]
    assert len(late) == pytest.approx(0.05 * SECONDS, rel=0.15)
    assert MS <= min(late) <= max(late) <= 20 * MS
    assert statistics.median(late) == pytest.approx(MS * math.sqrt(20), rel=0.15)


def test_load_comes_in_bursts() -> None:
    """Pulses are late only within 20 s of every 600, and there most are."""
    errors = history(LoadBursts(5, first_s=100), seconds=6100)
    busy = [k for k, e in enumerate(errors) if e]
    assert all(k >= 100 and (k - 100) % 600 < 20 for k in busy)
    assert len(busy) == pytest.approx(0.8 * 200, rel=0.15)
    assert all(0.5 * MS <= errors[k] <= 4 * MS for k in busy)


def test_a_sawtooth_is_a_function_of_the_second() -> None:
    """It stays within half a step, moves by its drift, and gives receiver and pulse the same answer in any order."""
    saw, same = Sawtooth(6), Sawtooth(6)
    errors = [saw.late_ns(k) for k in range(1000)]
    assert [same.late_ns(k) for k in reversed(range(1000))] == errors[::-1]
    half = 1e9 / 48e6 / 2
    assert all(-half <= e < half for e in errors)
    assert {round((b - a) % (2 * half), 3) for a, b in itertools.pairwise(errors)} == {7.3}


@pytest.mark.parametrize("name", sorted(pulse.PRESETS))
def test_a_pulses_history_belongs_to_its_seed(name: str) -> None:
    """Every preset repeats itself with the same seed; those with chance in them differ with another."""
    first, again, other = (history(pulse.PRESETS[name](s), 9, 400) for s in (1, 1, 2))
    assert first == again
    assert name == "perfect" or first != other
