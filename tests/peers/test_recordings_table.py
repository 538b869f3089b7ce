"""The table of recordings (tests/data/recordings.json): what is made of each receiver that we have heard, to the last rejected sentence."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import pytest
from test_recordings import FILES, ROOT

from ppsd.cli.replay import replay

TABLE = ROOT / "tests" / "data" / "recordings.json"
NOT_BEFORE = date(2010, 1, 1)
"""One window for all: earlier recordings (2001, 2005 ...) show what the rollover repair makes of a date that cannot be."""
KEPT = ("protocol", "others", "receiver", "labels", "trusted", "first", "last", "rejected", "without_checksum", "broken", "dates", "health")


def verdict(path: Path) -> dict[str, object]:
    out = io.StringIO()
    assert replay(path, NOT_BEFORE, True, out) == 0
    summary = json.loads(out.getvalue().splitlines()[-1])["summary"]
    return {key: summary[key] for key in KEPT if summary.get(key)}


def test_table_is_what_the_recordings_give(request: pytest.FixtureRequest) -> None:
    """Protocol, labels, reasons of rejection and date verdict of every recording at hand are those of the committed table."""
    seen = {path.name: verdict(path) for path in FILES}
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    if request.config.getoption("--update-golden"):
        table = dict(sorted((table | seen).items()))
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in table.items())
        TABLE.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    for name, row in seen.items():
        assert row == table.get(name), name
