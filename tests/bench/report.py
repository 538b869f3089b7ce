"""Figures of a benchmark by round, the table that they make, and the two files in which it is kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servers import FIFO, LOAD_CORE, SERVER_CORE


@dataclass(slots=True)
class Row:
    """One line of the table; ``values`` by round."""

    name: str
    unit: str
    values: list[float]
    target: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def missed(self) -> bool:
        if self.target is None:
            return False
        return self.median < self.target if self.at_least else self.median > self.target

    def cells(self) -> list[str]:
        """name, median, range, unit, target, verdict."""
        target = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g}"
        verdict = "" if self.target is None else "MISSED" if self.missed else "met"
        spread = f"{min(self.values):.4g} .. {max(self.values):.4g}" if len(self.values) > 1 else ""
        return [self.name, f"{self.median:.4g}", spread, self.unit, target, verdict]


@dataclass(slots=True)
class Report:
    """What has been measured by ``program``, which `make bench-NAME` runs."""

    title: str
    program: Path
    notes: list[str]
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, unit: str, values: list[float], target: float | None = None, at_least: bool = False) -> None:
        """One more line."""
        self.rows.append(Row(name, unit, values, target, at_least))
        print("  ".join(cell for cell in self.rows[-1].cells() if cell), flush=True)

    def text(self) -> str:
        """The table for people's eyes."""
        head = ["", "median", "range over rounds", "unit", "target", ""]
        cells = [head, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        return "\n".join([*lines, "", *self.notes])

    def markdown(self) -> str:
        """The table as it is kept."""
        made = f"Written by `make bench-{self.program.stem}`; how it is taken stands in tests/bench/{self.program.name}."
        lines = [f"# {self.title}", "", made, "", *(f"* {note}" for note in self.notes)]
        lines += ["", "| figure | median | range over rounds | unit | target | |", "|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def kept(self) -> int:
        """Print the table and write it beside the program; 1 when a target is missed."""
        self.notes.append(f"load average after, our own load included: {os.getloadavg()[0]:.2f}")
        missed = [row.name for row in self.rows if row.missed]
        print("\n" + self.text())
        rows = [{"name": row.name, "unit": row.unit, "target": row.target, "values": row.values} for row in self.rows]
        found = json.dumps({"about": self.notes, "rows": rows}, indent=1)
        self.program.with_suffix(".json").write_text(found + "\n", encoding="utf-8")
        self.program.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        print(f"\nMISSED: {', '.join(missed)}" if missed else "\nevery target met")
        return 1 if missed else 0


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def alternated(cases: dict[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every case once a round, in an order that rotates."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(cases[name]())
    return found


def circumstances(rounds: int, secs: float) -> list[str]:
    """The machine, and how it is used."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    chrony = subprocess.run(["chronyd", "--version"], capture_output=True, text=True, check=True).stdout.split()[3]
    fifo = "servers and load under SCHED_FIFO 10" if FIFO else "SCHED_FIFO not allowed: ordinary priorities"
    return [
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {model}, Linux {platform.release()}, chrony {chrony}",
        f"{rounds} rounds of {secs} s, server on core {SERVER_CORE}, load on core {LOAD_CORE}, {fifo}",
        f"load average before: {os.getloadavg()[0]:.2f} (1 min)",
    ]
