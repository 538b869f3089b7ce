"""``refclock history``: the summary for people, and exports, from the process that keeps the history or from its file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from spans_at_hand import minute, snapshot

from ppsd.cli import history
from ppsd.cli import main as cli
from ppsd.history.spans import second
from ppsd.history.store import Store
from ppsd.process.control import ControlServer
from ppsd.process.exit_codes import GOOD, NO_DAEMON, USAGE

NOW = 2_000_000_040


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 0.5)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """A run directory where a process answers, with an hour of seconds and 700 minutes."""
    steps = {
        1: [replace(second(snapshot(0, (n * 37) % 100), 5, 0), at=NOW - 3000 + n) for n in range(3000)],
        60: [replace(minute(0, n % 50), at=NOW - 700 * 60 + 60 * n) for n in range(700)],
        3600: [],
    }

    def answer(line: str) -> str:
        step_s, since, most = map(int, line.split()[1:])
        found = [span for span in steps[step_s] if span.at >= since][:most]
        return json.dumps({"spans": [(span.row(), [one.row() for one in span.sources]) for span in found]})

    server = ControlServer(tmp_path / "web.sock", answer)
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.wait(0.001):
            server.handle_ready()

    thread = threading.Thread(target=loop)
    thread.start()
    yield tmp_path
    stopped.set()
    thread.join()
    server.close()


pytestmark = pytest.mark.device


def test_the_summary(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A block for each window with something in it, within 80 columns: course and percentiles of each quantity, and the stability."""
    assert cli.main(["history", "--run-dir", str(kept)]) == GOOD
    told = capsys.readouterr().out
    assert "last hour, by the second: 50 m known, locked 100 %" in told
    assert "last day, by the minute: 11 h 40 m known" in told
    assert "last 30 days" not in told
    (offset, *_) = [line for line in told.splitlines() if line.startswith("offset")]
    assert offset.split()[-10:] == ["0", "ns", "5", "ns", "50", "ns", "94", "ns", "99", "ns"]
    assert "stability   1 s " in told
    assert max(map(len, told.splitlines())) <= 80


def test_the_summary_as_json(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same values, with more percentiles, mean and standard deviation."""
    assert cli.main(["history", "--json", "--run-dir", str(kept)]) == GOOD
    told = json.loads(capsys.readouterr().out)
    assert told["last_hour"]["offset"]["p50"] == pytest.approx(49.5)
    assert told["last_hour"]["offset"]["unit"] == "ns"
    assert set(told["last_hour"]["allan_deviation"]) >= {"1", "512"}
    assert told["last_30_days"]["seconds"] == 0


def test_an_export_has_every_span_once(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More spans than one answer has room for come in order, each once; --since leaves out the older ones."""
    assert cli.main(["history", "export", "--loopstats", "--run-dir", str(kept)]) == GOOD
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines)) == 700
    assert lines == sorted(lines, key=lambda line: [float(word) for word in line.split()[:2]])
    assert cli.main(["history", "export", "--json", "--every", "second", "--since", "100", "--run-dir", str(kept)]) == GOOD
    assert len(json.loads(capsys.readouterr().out)) == 100


def test_without_a_daemon_the_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When nothing runs, what is on disk is told; where there is no file either, that is said."""
    (tmp_path / "refclock.toml").write_text(f'[run]\nstate = "{tmp_path}/state"\n', encoding="utf-8")
    assert cli.main(["history", "export", "--run-dir", str(tmp_path)]) == NO_DAEMON
    assert "no file that can be read" in capsys.readouterr().err
    (tmp_path / "state" / "history").mkdir(parents=True)
    store = Store(tmp_path / "state" / "history", 8 << 20)
    store.add([minute(n) for n in range(3)])
    store.close()
    assert cli.main(["history", "export", "--csv", "--run-dir", str(tmp_path)]) == GOOD
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_form_that_only_an_export_has(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal names the command that has it."""
    assert cli.main(["history", "--loopstats", "--run-dir", str(kept)]) == USAGE
    assert "refclock history export --loopstats" in capsys.readouterr().err


def test_a_sparkline() -> None:
    """Lowest to highest in eight steps; blank where nothing was measured; a constant is a low line."""
    assert history.sparkline([(n, float(n)) for n in range(8)], 0, 8, 8) == "▁▂▃▄▅▆▇█"
    assert history.sparkline([(0, 1.0), (7, 2.0)], 0, 8, 8) == "▁      █"
    assert history.sparkline([(n, 5.0) for n in range(8)], 0, 8, 4) == "▁▁▁▁"
    assert history.sparkline([], 0, 8, 4) == "    "
