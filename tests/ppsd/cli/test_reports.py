"""The reports as commands: their forms, watching them, waiting for the clock, and the way from old names to ours."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from known_daemon import CLOCK

from ppsd.cli import main as cli
from ppsd.cli import show, waitsync
from ppsd.cli.old_names import OLD_NAMES
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, USAGE, Refused
from ppsd.snapshot import Snapshot, Verdict
from refclock.sample import Satellite

LOCKED = replace(CLOCK, refid="GPS", system_offset_ns=31_000)
ACQUIRING = replace(LOCKED, verdict=Verdict.ACQUIRING, stratum=0, refid="", leap="unsynchronised")


def told(monkeypatch: pytest.MonkeyPatch, *snapshots: Snapshot | None) -> None:
    """A daemon that says one after the other, and then the last one for ever; None: there is no daemon."""
    left = list(snapshots)

    def snapshot(_: Path) -> Snapshot:
        now = left.pop(0) if len(left) > 1 else left[0]
        if now is None:
            raise Refused(NO_DAEMON, "no daemon")
        return now

    for module in (show, waitsync):
        monkeypatch.setattr(module, "clock_snapshot", snapshot)
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.mark.parametrize("name", ["sources", "sourcestats", "selectdata", "tracking", "peers", "ntpdata", "authdata", "activity"])
def test_every_report_has_every_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    """Text, with legend, ``--csv`` and ``--json`` (which any JSON reader takes); -n changes nothing; two forms at once are refused."""
    told(monkeypatch, LOCKED)
    where = ["--run-dir", str(tmp_path)]
    assert cli.main([name, "-n", *where]) == GOOD
    text = capsys.readouterr().out
    assert cli.main([name, "-v", *where]) == GOOD
    assert capsys.readouterr().out.endswith(text)
    assert cli.main([name, "--csv", *where]) == GOOD
    assert all("," in row for row in capsys.readouterr().out.splitlines())
    assert cli.main([name, "--json", *where]) == GOOD
    json.loads(capsys.readouterr().out)
    assert cli.main([name, "--json", "-c", *where]) == USAGE


def test_watching(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """``--watch`` prints the report again and again, until it is interrupted; where no terminal reads it, without control characters."""
    rounds = 0

    def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise KeyboardInterrupt

    told(monkeypatch, LOCKED)
    monkeypatch.setattr(time, "sleep", sleep)
    cli.main(["tracking", "--csv", "--watch", "5", "--run-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert out.count("47505300,GPS,1,") == 3
    assert "\x1b" not in out


def test_waitsync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It waits for a daemon, and then for its clock: chronyc's lines, 0 when it is synchronised within the limits, else 1."""
    told(monkeypatch, None, ACQUIRING, LOCKED)
    assert cli.main(["waitsync", "--run-dir", str(tmp_path)]) == GOOD
    assert capsys.readouterr().out.splitlines()[2] == "try: 3, refid: 47505300, correction: 0.000031000, skew: 0.012"
    told(monkeypatch, LOCKED)
    assert cli.main(["waitsync", "2", "0.00001", "0", "1", "--csv", "--run-dir", str(tmp_path)]) == FAILED
    assert capsys.readouterr().out == "1,47505300,0.000031000,0.012\n2,47505300,0.000031000,0.012\n"
    assert cli.main(["waitsync", "2", "0", "0.01", "--run-dir", str(tmp_path)]) == FAILED
    assert cli.main(["waitsync", "2", "0.0001", "1", "--run-dir", str(tmp_path)]) == GOOD


@pytest.mark.parametrize(
    ("old", "ours"),
    [
        ("gpsmon", "refclock nmea"), ("cgps", "refclock sats"), ("ntpshmmon", "refclock sources"), ("ppsfind", "refclock detect"),
        ("ppstest", "refclock pps"), ("ntpq -p", "refclock peers"), ("ntpq -c rv", "refclock tracking"), ("ntpdate", "refclock query"),
    ],
)  # fmt: skip
def test_old_names(capsys: pytest.CaptureFixture[str], old: str, ours: str) -> None:
    """``refclock help OLD-NAME`` names our command, and so does the refusal of the old name as a command."""
    with pytest.raises(SystemExit) as end:
        cli.main(["help", *old.split()])
    assert end.value.code == GOOD
    assert f"here it is  {ours}\n" in capsys.readouterr().out
    if " " not in old:
        assert cli.main([old]) == USAGE
        assert ours in capsys.readouterr().err


def test_old_names_lead_to_commands_and_options_that_are_there() -> None:
    """Every ``refclock COMMAND --option`` in the table exists, and no command of ours is in it."""
    assert not OLD_NAMES.keys() & cli.COMMANDS.keys()
    for name, texts in OLD_NAMES.items():
        for command, rest in re.findall(r"refclock ([a-z]+)([^;,]*)", " ; ".join(texts)):
            if command in ("reads", "saves"):
                continue
            assert command in cli.COMMANDS, f"{name}: refclock {command}"
            options = set(re.findall(r"(?<![\w-])--?[a-z]+", rest))
            assert options <= {n for o in cli.COMMANDS[command].options for n in o.names}, f"{name}: {command}{rest}"


def test_help_of_a_report_by_its_old_command(capsys: pytest.CaptureFixture[str]) -> None:
    """``refclock help chronyc sources`` is the help of our report, and plain help tells of old names and exit codes."""
    with pytest.raises(SystemExit):
        cli.main(["help", "chronyc", "sources"])
    assert capsys.readouterr().out.startswith("usage: refclock sources")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    assert "refclock help NAME" in told
    assert "Exit codes: 0 done" in told


def test_state_and_satellites_have_every_form(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """``status`` and ``sats`` as text, rows and JSON; ``sats`` is 1 where no receiver tells of any; two forms at once are refused."""
    sky = (Satellite("GPS", 7, 40, 200, 31, True), Satellite("GPS", 9, None, None, None, False))
    told(monkeypatch, replace(LOCKED, sources=(replace(CLOCK.sources[0], satellites=sky),)))
    where = ["-n", "--run-dir", str(tmp_path)]
    assert cli.main(["status", "--csv", *where]) == GOOD
    assert capsys.readouterr().out == "LOCKED,,0.000018100,1,GPS,normal,-0.000031000,-12.345,gps0,9,12,3700\n"
    assert cli.main(["sats", "--csv", *where]) == GOOD
    assert capsys.readouterr().out == "gps0,G07,GPS,40,200,31,used\ngps0,G09,GPS,,,,\n"
    assert cli.main(["sats", "--json", *where]) == GOOD
    assert [s["number"] for s in json.loads(capsys.readouterr().out)["gps0"]] == [7, 9]
    assert cli.main(["sats", *where]) == GOOD
    assert "in brackets: seen, but not used" in capsys.readouterr().out
    for name in ("status", "sats"):
        assert cli.main([name, "--json", "-c", *where]) == USAGE
    told(monkeypatch, LOCKED)
    assert cli.main(["sats", *where]) == FAILED
