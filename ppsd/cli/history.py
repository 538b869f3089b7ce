"""``refclock history``: what was measured in the last hour, day and month, for people; and all of it in the formats of other programs.

It is asked of the web process, which keeps it. Without one, as when nothing runs, minutes and hours are read from the file itself.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ppsd.cli.daemon import may_not_ask, run_directory
from ppsd.config.file import load
from ppsd.faces.text import plain_duration, plain_ns
from ppsd.history.formats import FORMS
from ppsd.history.spans import Span, series_s
from ppsd.history.stability import deviations, percentile
from ppsd.history.store import LATEST, Damaged, Store
from ppsd.process.control import ask
from ppsd.process.exit_codes import BAD, GOOD, NO_DAEMON, USAGE, Refused

STEPS: Final = {"second": 1, "minute": 60, "hour": 3600}
"""Lengths of spans in s, by the words of --every."""
PAGE: Final = 300
"""Spans in one answer of the web process: of eight sources each they take 0.6 MB, and a reply has at most 1 MB."""
PATIENCE_S: Final = 10.0
"""s to wait for one answer: it may come from an SD card."""
PERCENTS: Final = (0.0, 1.0, 5.0, 50.0, 95.0, 99.0, 100.0)
SHOWN: Final = (0.0, 5.0, 50.0, 95.0, 100.0)
"""Percentiles that are told, and those that fit a line."""
WINDOWS: Final = (("last hour", 3600, 1), ("last day", 86_400, 60), ("last 30 days", 30 * 86_400, 3600))
"""What is shown: its name, how long it is, and the length of its spans, in s."""
BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 22
"""Columns of a sparkline."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A line of the summary. ``of``: its value in a span; ``told``: the value in words; ``unit``: of the number in JSON."""

    name: str
    unit: str
    of: Callable[[Span], float | None]
    told: Callable[[float], str]


QUANTITIES: Final = (
    Quantity("offset", "ns", lambda s: s.offsets.mean if s.offsets else None, plain_ns),
    Quantity("error bound", "ns", lambda s: s.bound_ns, plain_ns),
    Quantity("frequency", "ppm", lambda s: s.frequency_ppm, lambda v: f"{v:+.3f}"),
    Quantity("temperature", "celsius", lambda s: s.celsius, lambda v: f"{v:.1f} °C"),
    Quantity("satellites", "count", lambda s: s.satellites, lambda v: f"{v:.0f}"),
    Quantity("requests", "per second", lambda s: s.requests / s.seconds if s.requests is not None else None, lambda v: f"{v:.3g}/s"),
)


def run(args: argparse.Namespace) -> int:
    """Print the summary, or export."""
    book = _Book(run_directory(args.run_dir))
    if args.action == "export":
        since = 0 if args.since is None else int(time.time() - args.since)
        for line in FORMS[args.form or "csv"](book.read(STEPS[args.every], since)):
            print(line)
        return GOOD
    if args.form not in (None, "json"):
        raise Refused(USAGE, f"refclock history --{args.form}: only an export has that form: refclock history export --{args.form}")
    now = int(time.time())
    found = [(name, step_s, list(book.read(step_s, now - long_s))) for name, long_s, step_s in WINDOWS]
    if args.form == "json":
        print(json.dumps({name.replace(" ", "_"): _summary(spans, step_s) for name, step_s, spans in found}))
        return GOOD
    told = [_block(name, step_s, spans) for name, step_s, spans in found if spans]
    print("\n\n".join(told) if told else "nothing has been measured yet")
    return GOOD if told else BAD


class _Book:
    """The history of the daemon in ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._socket, self._config = run_dir / "web.sock", run_dir / "refclock.toml"

    def read(self, step_s: int, since: int) -> Iterator[Span]:
        """The spans from ``since`` on, the earliest first. Refused: nobody has them."""
        try:
            yield from self._asked(step_s, since)
        except (FileNotFoundError, ConnectionRefusedError):
            yield from self._from_file(step_s, since)
        except PermissionError:
            raise may_not_ask(self._socket) from None
        except (OSError, ValueError, TypeError) as error:
            raise Refused(NO_DAEMON, f"refclock history: {self._socket}: {error}") from None

    def _asked(self, step_s: int, since: int) -> Iterator[Span]:
        while True:
            rows: list[Any] = ask(self._socket, f"history {step_s} {since} {PAGE}", PATIENCE_S)["spans"]
            spans = [Span.of(row, sources) for row, sources in rows]
            yield from spans
            if len(spans) < PAGE:
                return
            since = spans[-1].at + 1

    def _from_file(self, step_s: int, since: int) -> Iterator[Span]:
        if step_s == 1:
            return  # the seconds have gone with the process that remembered them
        directory = Path(load(self._config if self._config.exists() else None).run.state) / "history"
        try:
            store = Store(directory, 0, read_only=True)
            yield from store.read(step_s, since, LATEST)
            store.close()
        except (OSError, Damaged) as error:
            raise Refused(NO_DAEMON, f"refclock history: no web process, and no file that can be read: {directory}: {error}") from None


# ---- the summary ------------------------------------------------------------------------------------------------------------------------


def _known(spans: Iterable[Span], quantity: Quantity) -> list[tuple[int, float]]:
    return [(span.at, value) for span in spans if (value := quantity.of(span)) is not None]


def _summary(spans: Sequence[Span], step_s: int) -> dict[str, Any]:
    """For JSON."""
    told: dict[str, Any] = {"step_s": step_s, "seconds": sum(s.seconds for s in spans), "locked": sum(s.locked for s in spans)}
    for quantity in QUANTITIES:
        values = sorted(value for _, value in _known(spans, quantity))
        if values:
            mean = math.fsum(values) / len(values)
            deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
            percents = {f"p{percent:g}": percentile(values, percent) for percent in PERCENTS}
            told[quantity.name.replace(" ", "_")] = {"unit": quantity.unit, "mean": mean, "deviation": deviation, **percents}
    told["allan_deviation"] = {f"{tau:g}": value for tau, value in deviations(series_s(spans, step_s), step_s)} if spans else {}
    return told


def _block(name: str, step_s: int, spans: Sequence[Span]) -> str:
    """A window for people: a line for each quantity, with its course and its percentiles."""
    seconds, locked = sum(s.seconds for s in spans), sum(s.locked for s in spans)
    by = next(word for word, length in STEPS.items() if length == step_s)
    heading = f"{name}, by the {by}: {plain_duration(seconds)} known, locked {100 * locked / seconds:.4g} %"
    names = ("min", "5 %", "50 %", "95 %", "max")
    lines = [heading, f"{'':<12}{'':<{WIDTH}}" + "".join(f"{one:>9}" for one in names)]
    for quantity in QUANTITIES:
        known = _known(spans, quantity)
        if known:
            values = sorted(value for _, value in known)
            told = "".join(f"{quantity.told(percentile(values, percent)):>9}" for percent in SHOWN)
            lines.append(f"{quantity.name:<12}{sparkline(known, spans[0].at, spans[-1].at + step_s)}{told}")
    stable = [f"{tau:.0f} s {value:.1e}" for tau, value in deviations(series_s(spans, step_s), step_s)]
    if stable:
        lines.append(f"{'stability':<12}{', '.join(stable[::2])}")
    return "\n".join(lines)


def sparkline(points: Sequence[tuple[int, float]], start: int, end: int, width: int = WIDTH) -> str:
    """The course of (time, value) from ``start`` to ``end`` in ``width`` columns; blank where there is no value."""
    columns: list[list[float]] = [[] for _ in range(width)]
    for at, value in points:
        columns[min(width - 1, max(0, (at - start) * width // max(1, end - start)))].append(value)
    means = [sum(values) / len(values) if values else None for values in columns]
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if mean is None else BLOCKS[round((mean - low) * scale)] for mean in means)
