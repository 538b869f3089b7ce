"""Real receivers, recorded: what they may and may not be believed, against what gpsd made of the same bytes."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from ppsd.cli.replay import replay
from ppsd.process.exit_codes import BAD_DATA, IO_ERROR

DATA = Path(__file__).parents[2] / "data"
RECORDINGS = DATA / "recordings"
FILES = sorted(p for p in RECORDINGS.iterdir() if p.suffix in (".log", ".jsonl"))
GPSD = json.loads((RECORDINGS / "gpsd-tpv.json").read_text())
"""Recording of gpsd's own tests: the [time, mode] reports that gpsd makes of it."""
LEAP_TRAP = "satpulse-lea6t-coldstart-excerpt.jsonl"
TABLE = DATA / "recordings.json"
NOT_BEFORE = date(2010, 1, 1)
"""One window for the table: earlier recordings (2001, 2005 ...) show what the rollover repair makes of a date that cannot be."""
KEPT = ("protocol", "others", "receiver", "labels", "trusted", "first", "last", "rejected", "without_checksum", "broken", "dates", "health")

NO_TIME = {
    "bu303-nofix.log": "SiRF binary is not read, and has no fix",
    "oncore-binary-no-utc-offset.log": "Oncore binary is not read; its UTC is GPS time",
    "trimble-res720.log": "TSIP is not read",
    "trimble-smt-360.log": "TSIP is not read; its time is days off",
    "skytraq.log": "never a fix, only a battery clock",
}
DIFFERENT: dict[str, tuple[str, set[str], set[str]]] = {
    # file: (reason, seconds of gpsd that are no labels, labels that gpsd lacks)
    "garmin48.log": (
        "gpsd takes the odd seconds of GLL, which this receiver computes for another instant than RMC and GGA",
        {"22:53:09", "22:53:11", "22:53:13", "22:53:15", "22:53:17", "22:53:33", "22:53:35"},
        {"22:53:10", "22:53:12", "22:53:14", "22:53:16", "22:53:18", "22:53:34"},
    ),
    "humminbird-M37.log": (
        "every other second is stated by GLL alone, which has no date; gpsd reports no 2D time for two early cycles",
        {"19:41:02", "19:41:06", "19:41:10", "19:41:22"},
        {"19:41:03", "19:41:04"},
    ),
    "tcp-test.log": ("RMC and ZDA of one cycle are 2 s apart: both are in doubt, gpsd takes RMC", set(), {"19:32:23"}),
    "triton400.log": ("the only sentence with 03:01:30 is a GLL; the GGA is torn", {"03:01:30"}, set()),
    "gp-320fw-2019-03-28.log": ("gpsd reports nothing for a cycle without GGA", set(), {"16:45:20"}),
    "hp58534a.log": ("gpsd drops sentences without checksum", set(), {"22:24:49"}),
    "ublox-lea-4t.log": ("gpsd's first report predates the receiver's first message", {"20:35:40"}, {"20:35:43"}),
    "ublox-lea-5h.log": ("at the 18 min gap gpsd keeps the date of the RMC for a GGA without one", {"08:55:15"}, {"08:37:36"}),
}


@cache
def run(path: Path, not_before: date | None) -> tuple[list[dict[str, object]], dict[str, object]]:
    out = io.StringIO()
    assert replay(path, not_before, True, out) == 0
    *lines, summary = [json.loads(line) for line in out.getvalue().splitlines()]
    return lines, summary["summary"]


def second(text: str) -> int:
    """POSIX second that a time names: fractions from .95 on belong to the next one."""
    return int(datetime.fromisoformat(text).timestamp() + 0.05)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_recording_runs(path: Path) -> None:
    """No recording raises; the readable report and the JSON agree on the number of seconds."""
    lines, summary = run(path, NOT_BEFORE)
    assert len(lines) == summary["labels"]
    out = io.StringIO()
    assert replay(path, NOT_BEFORE, False, out) == 0
    assert sum(line[:2] == "20" for line in out.getvalue().splitlines()) == summary["labels"]


def test_table_is_what_the_recordings_give(request: pytest.FixtureRequest) -> None:
    """Protocol, labels, reasons of rejection and date verdict of every recording are those of the committed table."""
    summaries = {path.name: run(path, NOT_BEFORE)[1] for path in FILES}
    seen = {name: {key: summary[key] for key in KEPT if summary.get(key)} for name, summary in summaries.items()}
    if request.config.getoption("--update-golden"):
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in seen.items())
        TABLE.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    assert seen == json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [n for n in sorted(GPSD) if n != "april6_2019.log" and not n.startswith("gp-320fw-2019-04")])
def test_seconds_are_those_of_gpsd(name: str) -> None:
    """Labels name the seconds that gpsd reports with a fix, but for the named differences and a cycle more at either end."""
    path = RECORDINGS / f"gpsd-{name}"
    theirs = {second(time) for time, mode in GPSD[name] if mode >= 2}
    start = datetime.fromtimestamp(min(theirs), UTC).date() - timedelta(days=300) if theirs else date(2010, 1, 1)
    lines, _summary = run(path, start)
    ours = {second(str(line["utc"])) for line in lines}
    if name in NO_TIME:
        assert ours == set()
        return
    _reason, missing, extra = DIFFERENT.get(name, ("", set(), set()))
    clock = {s: datetime.fromtimestamp(s, UTC).strftime("%H:%M:%S") for s in ours | theirs}
    assert {clock[s] for s in theirs - ours} == missing
    ends = {min(theirs) - 1, max(theirs) + 1} if theirs else set()
    assert {clock[s] for s in ours - theirs - ends} == extra


def test_week_rollover_is_repaired() -> None:
    """A module that fell back to 1999-08-22 is moved on by 1024 weeks to 2019-04-07; its malformed date "2208-1" is refused."""
    lines, summary = run(RECORDINGS / "gpsd-april6_2019.log", date(2019, 1, 1))
    assert [line["utc"] for line in lines] == ["2019-04-07T00:02:31Z"]
    assert summary["weeks_repaired"] == 1024
    assert summary["rejected"] == {"void": 1, "bad-date": 1}


def test_garbage_dates_while_void_never_label() -> None:
    """After its restart this receiver sends 2006, 2010 and 1999, all void, half of it corrupt: only the second before it is a label."""
    lines, _summary = run(RECORDINGS / "gpsd-gp-320fw-2019-04-07-coldboot.log", date(2019, 1, 1))
    assert [line["utc"] for line in lines] == ["2019-04-07T00:03:45Z"]


def test_free_running_clock_gives_no_labels() -> None:
    """A clock that counts on while void: 23 labels, none for the 20 void seconds, 47 labels."""
    lines, summary = run(RECORDINGS / "gpsd-meinberg-gps164.log", date(2023, 1, 1))
    seconds = [second(str(line["utc"])) for line in lines]
    gaps = [b - a for a, b in pairwise(seconds) if b - a != 1]
    assert (len(seconds), gaps) == (70, [21])
    assert summary["rejected"] == {"void": 20}


def test_sentences_without_checksum_are_told() -> None:
    """The HP 58534A never sends a checksum: read all the same, and said so."""
    _lines, summary = run(RECORDINGS / "gpsd-hp58534a.log", date(2010, 1, 1))
    assert (summary["labels"], summary["without_checksum"]) == (1, 11)


def test_contradicting_sentences_are_in_doubt() -> None:
    """RMC and ZDA of one cycle, two seconds apart: the second of them is in doubt, so it needs a witness."""
    lines, summary = run(RECORDINGS / "gpsd-tcp-test.log", date(2007, 1, 1))
    assert [line["sentence"] for line in lines] == ["RMC", "ZDA"]
    assert summary["trusted"] == 0
    assert "different seconds" in str(lines[1]["why"])


def test_time_only_fix_counts() -> None:
    """A surveyed-in timing receiver has no position fix and valid time: every second is a label that knows its leap count."""
    lines, _summary = run(RECORDINGS / "gpsd-ublox-neo-m8t-s.log", date(2018, 6, 1))
    assert len(lines) == 29
    assert all(line["trusted"] for line in lines)


def test_leap_trap() -> None:
    """A cold receiver, RMC A with a 3D fix, 3 s ahead: not one label is trusted until it has stepped back; then all but the first are."""
    lines, _summary = run(RECORDINGS / LEAP_TRAP, None)
    step = next(i for i in range(1, len(lines)) if second(str(lines[i]["utc"])) < second(str(lines[i - 1]["utc"])))
    assert not any(line["trusted"] for line in lines[: step + 1])
    assert "moved by -3.0 s" in str(lines[step]["why"])
    assert len(lines[step + 1 :]) == 5
    assert all(line["trusted"] for line in lines[step + 1 :])


def test_unreadable_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file and a broken packet log end with sysexits codes and a sentence, not with a traceback."""
    assert replay(tmp_path / "none.log", None, True, io.StringIO()) == IO_ERROR
    assert "none.log: No such file" in capsys.readouterr().err
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"t": "2026-05-01T11:07:22Z", "tag": "NMEA", "ascii": ""}\n{"t": "yesterday"}\n')
    assert replay(broken, None, True, io.StringIO()) == BAD_DATA
    assert "line 2" in capsys.readouterr().err


def test_packet_log_may_be_binary(tmp_path: Path) -> None:
    """Hex and base64 packets are read like text."""
    log = tmp_path / "binary.jsonl"
    log.write_text(
        '{"t": "2026-05-01T11:07:22.5Z", "tag": "UBX", "bin": "b5620a0400000e34"}\n'
        '{"t": "2026-05-01T11:07:23.123456789Z", "tag": "UBX", "bin": "tWIKBAAADjQ="}\n'
    )
    _lines, summary = run(log, None)
    assert summary["frames"] == {"UBX": 2}
    assert summary["not_before"] == "2026-04-30"
