"""What the bound is made of, drawn from the real estimator: the pictures of ppsd/discipline/THE_BOUND.md.

Crystals and noise are those of refclock_sim.worlds.noise_scenarios. Each second the estimate made a second ago is held against the truth,
and its bound is taken apart into its terms. The terms are stacked; the black line is |estimate - true|, and must stay below the stack.

    python tests/bench/bound_pictures.py [DIRECTORY]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from refclock_sim.models.oscillator import Oscillator, Term
from refclock_sim.models.pulse import PiLatency, PulseError
from refclock_sim.worlds.noise_scenarios import SCENARIOS

from ppsd.discipline.estimate import Bound
from ppsd.discipline.estimator import Estimator
from refclock.sample import NS

PAGE = Path(__file__).parents[2] / "ppsd" / "discipline"
RAW_START_NS, TAI_START_NS = 5_000 * NS, 1_800_000_037 * NS
SEED = 7

BANDS = ("bias", "place", "chance", "early", "lag", "jump", "doubt", "rate", "wander")
"""From the bottom of the stack to its top."""
COLOURS = ("#4c78a8", "#9ecae9", "#54a24b", "#eeca3b", "#f58518", "#b279a2", "#e45756", "#bab0ac", "#8c7b75")
COLUMNS = 150
"""Of a panel: a column shows the largest error and bound of its seconds."""
FINEST = 500
"""Of a panel's height: a thinner band is left out."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND, GAP = 900, 330, 62, 46, 44, 128, 58


@dataclass(frozen=True, slots=True)
class Second:
    """A second of a run: its number, |error| (us), and the terms of the bound in the order of ``BANDS`` (us)."""

    t_s: int
    error_us: float
    terms_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A stretch of a run, and the top of its scale. ``since``: what its seconds are counted from."""

    title: str
    from_s: int
    until_s: int
    top_us: float
    since: str = "the first pulse"


def terms_us(bound: Bound, dt_s: float) -> tuple[float, ...]:
    """The terms ``dt_s`` after the last sample, growth as two terms of its own."""
    fixed = (bound.bias_ns, bound.place_ns, bound.chance_ns, bound.early_ns, bound.lag_ns, bound.jump_ns, bound.doubt_ns)
    return tuple(term / 1e3 for term in (*fixed, bound.rate * dt_s, bound.wander * dt_s**1.5))


def run(
    estimator: Estimator,
    noise: PulseError,
    length_s: int,
    *,
    constant: float,
    wander: float,
    terms: tuple[Term, ...] = (),
    silent: Callable[[int], bool] = lambda k: False,
) -> list[Second]:
    """One run, a sample a second. As in noise_scenarios the error is taken before the sample of a second arrives."""
    oscillator = Oscillator(SEED, constant, wander, terms)
    raw, last = RAW_START_NS, RAW_START_NS
    seconds = []
    for k in range(length_s):
        tai = TAI_START_NS + k * NS
        if not silent(k):
            stamp = raw + round(noise.late_ns(k, raw))
            if estimator.add(stamp, tai):
                last = stamp
        raw += round(NS * (1.0 + oscillator.advance()))
        if estimator.ready:
            e = estimator.estimate(raw)
            assert e.terms is not None
            seconds.append(Second(k + 1, abs(e.tai_ns - tai - NS) / 1e3, terms_us(e.terms, (raw - last) / NS)))
    return seconds


# ---- drawing -----------------------------------------------------------------------------------------------------------------------------


def marks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``: some three to seven of them."""
    step = next(m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5) if (high - low) / (m * 10.0**e) <= 6)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def amount(us: float) -> str:
    """With a unit."""
    return f"{us / 1000:g} ms" if us >= 1000 else f"{us:g} µs"


def columns(seconds: Sequence[Second], panel: Panel) -> list[Second]:
    """The panel's seconds, at most ``COLUMNS`` of them: of each column the one with the largest bound, with the largest error."""
    shown = [s for s in seconds if panel.from_s <= s.t_s <= panel.until_s]
    size = -(-len(shown) // COLUMNS)
    groups = [shown[i : i + size] for i in range(0, len(shown), size)]
    return [Second(g[0].t_s, max(s.error_us for s in g), max(g, key=lambda s: sum(s.terms_us)).terms_us) for g in groups]


def is_shown(shown: Sequence[Second], band: int, top_us: float) -> bool:
    """Whether a band is wide enough to be seen."""
    return any(s.terms_us[band] >= top_us / FINEST for s in shown)


def draw_panel(seconds: Sequence[Second], panel: Panel, left: float, width: float) -> list[str]:
    """SVG elements of one panel."""
    height = HEIGHT - TOP - BOTTOM

    def x(t_s: float) -> float:
        return left + (t_s - panel.from_s) / (panel.until_s - panel.from_s) * width

    def y(us: float) -> float:
        return TOP + height * (1 - min(us, panel.top_us) / panel.top_us)

    shown = columns(seconds, panel)
    out = [f'<text x="{left:.0f}" y="{TOP - 10}" class="t">{escape(panel.title)}</text>']
    for i in reversed(range(len(BANDS))):
        tops = [sum(s.terms_us[: i + 1]) for s in shown]
        if not is_shown(shown, i, panel.top_us):
            continue
        line = " ".join(f"{x(s.t_s):.0f},{y(v):.1f}" for s, v in zip(shown, tops, strict=True))
        base = f"{x(shown[-1].t_s):.0f},{y(0):.0f} {x(shown[0].t_s):.0f},{y(0):.0f}"
        out.append(f'<polygon fill="{COLOURS[i]}" points="{line} {base}"/>')
    errors = " ".join(f"{x(s.t_s):.0f},{y(s.error_us):.1f}" for s in shown)
    out.append(f'<polyline points="{errors}" fill="none" stroke="#000" stroke-width="1.6"/>')
    scale, times = marks(0, panel.top_us), marks(panel.from_s, panel.until_s)
    out += [f'<path d="M{left:.0f} {y(us):.1f}h{width:.0f}" stroke="#000" stroke-opacity=".14"/>' for us in scale]
    out += [f'<text x="{left - 6:.0f}" y="{y(us) + 4:.1f}" text-anchor="end">{amount(us)}</text>' for us in scale]
    out += [f'<text x="{x(t_s):.0f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{t_s:g}</text>' for t_s in times]
    out.append(f'<text x="{left + width / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">seconds since {panel.since}</text>')
    return out


def picture(title: str, seconds: Sequence[Second], panels: Sequence[Panel]) -> str:
    """An SVG document."""
    width = (WIDTH - LEFT - LEGEND - GAP * (len(panels) - 1)) / len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title><style>.t{{font-weight:bold}}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="8" y="17" font-size="14" class="t">{escape(title)}</text>',
    ]
    for i, panel in enumerate(panels):
        out += draw_panel(seconds, panel, LEFT + i * (width + GAP), width)
    used = [i for i in range(len(BANDS)) if any(is_shown(columns(seconds, panel), i, panel.top_us) for panel in panels)]
    left = WIDTH - LEGEND + 14
    for row, i in enumerate(reversed(used)):
        top = TOP + 4 + row * 22
        out.append(f'<rect x="{left}" y="{top}" width="14" height="14" fill="{COLOURS[i]}"/>')
        out.append(f'<text x="{left + 20}" y="{top + 12}">{BANDS[i]}</text>')
    top = TOP + 12 + len(used) * 22
    out.append(f'<path d="M{left} {top + 7}h14" stroke="#000" stroke-width="1.6"/><text x="{left + 20}" y="{top + 12}">|error|</text>')
    return "\n".join([*out, "</svg>", ""])


# ---- the pictures ------------------------------------------------------------------------------------------------------------------------


def cold_start() -> tuple[str, list[Second], list[Panel]]:
    """Pulses of a Raspberry Pi as `refclock run` times them: 15 us of bias, and nothing stated of the mean."""
    g = SCENARIOS["g"]
    seconds = run(Estimator(50.0, 15e3, polled=False), PiLatency(SEED), 1200, constant=g.constant, wander=g.wander)
    return (
        "Cold start: pulses on a Raspberry Pi's GPIO, crystal 50 ppm off",
        seconds,
        [Panel("the first minute", 0, 60, 100.0), Panel("the first 20 minutes", 60, 1200, 25.0)],
    )


def holdover() -> tuple[str, list[Second], list[Panel]]:
    """Scenario f: six hours of pulses, then an hour of none."""
    f = SCENARIOS["f"]
    stop = f.silent_from_s or 0
    estimator = Estimator(50.0, f.bias_us * 1e3, centred=True)
    seconds = run(estimator, f.noise(SEED), f.length_s, constant=f.constant, wander=f.wander, silent=lambda k: k >= stop)
    return (
        "Holdover: after six hours of pulses there are none",
        [Second(s.t_s - stop, s.error_us, s.terms_us) for s in seconds],
        [Panel("around the loss", -60, 120, 10.0, "the last pulse"), Panel("the hour after it", 0, 3600, 600.0, "the last pulse")],
    )


def polled() -> tuple[str, list[Second], list[Panel]]:
    """Scenario c-beat: stamps on a grid of 1 ms frames that beats with the crystal."""
    c = SCENARIOS["c-beat"]
    seconds = run(Estimator(50.0, 0.0, centred=True), c.noise(SEED), 3000, constant=c.constant, wander=c.wander)
    return (
        "A modem line over USB, polled each millisecond, crystal 12 ppm off",
        seconds,
        [Panel("the first five minutes", 0, 300, 2000.0), Panel("the first fifty minutes", 300, 3000, 200.0)],
    )


def main() -> int:
    """0; 1 when an error was larger than its bound."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    failed = False
    for name, make in (("cold-start", cold_start), ("holdover", holdover), ("polled", polled)):
        title, seconds, panels = make()
        text = picture(title, seconds, panels)
        (out / f"bound-{name}.svg").write_text(text, encoding="utf-8")
        over = [s for s in seconds if s.error_us > sum(s.terms_us)]
        failed = failed or bool(over)
        print(f"{name}: {len(text) / 1000:.0f} kB, {len(seconds)} seconds, {len(over)} beyond the bound")
        for t_s in (0, *(p.from_s for p in panels), *(p.until_s for p in panels)):
            s = min(seconds, key=lambda s: abs(s.t_s - t_s))
            told = ", ".join(f"{band} {us:.3g}" for band, us in zip(BANDS, s.terms_us, strict=True) if us)
            print(f"  {s.t_s} s: error {s.error_us:.3g} us, bound {sum(s.terms_us):.4g} us = {told}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
