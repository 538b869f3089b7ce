"""``refclock metrics``: the page for Prometheus on the terminal, and as a file for node_exporter."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_daemon import LOCKED
from prometheus_client.parser import text_string_to_metric_families

from ppsd.cli import main as cli
from ppsd.cli import metrics
from ppsd.process.exit_codes import GOOD, NO_DAEMON, NO_PERMISSION, USAGE, Refused
from ppsd.snapshot import Snapshot


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "clock_snapshot", lambda _: LOCKED)


def test_both_sets_of_names(locked: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Our names, and with --compat chrony those of chrony_exporter."""
    assert cli.main(["metrics", "--run-dir", str(tmp_path)]) == GOOD
    assert "\nrefclock_locked 1\n" in capsys.readouterr().out
    assert cli.main(["metrics", "--compat", "chrony", "--run-dir", str(tmp_path)]) == GOOD
    assert "\nchrony_tracking_stratum 1\n" in capsys.readouterr().out


def test_a_file_is_replaced_whole(locked: None, tmp_path: Path) -> None:
    """node_exporter finds the old file or the new one, readable for its user, and nothing else in the directory."""
    file = tmp_path / "refclock.prom"
    file.write_text("old")
    with file.open() as reader:
        assert cli.main(["metrics", "--output", str(file), "--run-dir", str(tmp_path)]) == GOOD
        assert reader.read() == "old"
    assert list(text_string_to_metric_families(file.read_text(encoding="utf-8")))
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["refclock.prom"]


def test_a_name_that_no_collector_reads_is_refused(locked: None, tmp_path: Path) -> None:
    """node_exporter reads *.prom alone; a timer that writes another name would never be noticed."""
    assert cli.main(["metrics", "--output", str(tmp_path / "refclock.txt"), "--run-dir", str(tmp_path)]) == USAGE
    assert not list(tmp_path.iterdir())


def test_a_dead_daemon_is_told(tmp_path: Path) -> None:
    """Without a daemon the file says so, instead of telling old values for ever; the exit code does as well."""
    file = tmp_path / "refclock.prom"
    assert cli.main(["metrics", "--output", str(file), "--run-dir", str(tmp_path)]) == NO_DAEMON
    assert 'refclock_up{process="clock"} 0\n' in file.read_text(encoding="utf-8")


def test_who_may_not_ask_raises_no_alarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A timer without the right to ask writes nothing: the daemon may well be alive."""

    def refuse(_: Path) -> Snapshot:
        raise Refused(NO_PERMISSION, "not allowed")

    monkeypatch.setattr(metrics, "clock_snapshot", refuse)
    assert cli.main(["metrics", "--output", str(tmp_path / "x.prom"), "--run-dir", str(tmp_path)]) == NO_PERMISSION
    assert not list(tmp_path.iterdir())
