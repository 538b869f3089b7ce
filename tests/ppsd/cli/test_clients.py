"""``refclock clients`` and ``access test`` beside servers that are away, slow or stopped."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppsd.cli import clients, show
from ppsd.cli.daemon import clock_snapshot
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, Refused


def asked(directory: Path, command: str = "clients", **more: object) -> argparse.Namespace:
    return argparse.Namespace(command=command, run_dir=directory, json=False, csv=False, watch=None, verbose=False, **more)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Path]:
    """The run directory of a server that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "serve.sock"))
        listener.listen()
        yield tmp_path


def test_slow_is_not_absent(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is told as busy or stopped, with what to do. Nobody is advised to start one."""
    monkeypatch.setattr(clients, "PATIENCE_S", 0.2)
    with pytest.raises(Refused) as refused:
        show.run(asked(stopped, count=20))
    assert "has not answered for 0.2 s: it is busy, or stopped" in str(refused.value)
    assert refused.value.code == FAILED


def test_a_slow_daemon_is_not_absent_either(stopped: Path) -> None:
    """The same for ``status`` and the other commands that ask the clock process."""
    (stopped / "clock.sock").symlink_to("serve.sock")
    with pytest.raises(Refused) as refused:
        clock_snapshot(stopped)
    assert "the daemon" in str(refused.value)
    assert "has not answered for 1 s" in str(refused.value)
    assert refused.value.code == FAILED


def test_absent_is_told_with_how_to_start_one(tmp_path: Path) -> None:
    """Without a server the command says how to start one."""
    with pytest.raises(Refused) as refused:
        show.run(asked(tmp_path, count=20))
    assert "start one: refclock run" in str(refused.value)
    assert refused.value.code == NO_DAEMON


def test_rules_of_the_file_are_told_as_such(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``access test`` beside a server that does not answer says whose rules it tells, and does not say that no server runs."""
    config = tmp_path / "refclock.toml"
    config.write_text("[access]\nallow = ['10.0.0.0/8']\n")
    assert clients.run(asked(stopped, "access", action="test", address="10.1.2.3", config=config)) == GOOD
    told = capsys.readouterr().out
    assert "the running server was not asked: timed out" in told
    assert "no server is running" not in told
