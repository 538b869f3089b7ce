"""State on disk: never half written, never believed when damaged, never in the way."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from records import true_record

from ppsd.clock.state import FILE_NAME, LIMIT_BYTES, left_record, load, save
from refclock.kernel.timescale import TimescaleReader, TimescaleWriter
from refclock.sample import Leap

STATE = {"version": 1, "rate": -12.25e-6, "sources": {"gps0": {"delay": {"delay_ms": 143.5, "byte_ns": 104166}}}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Numbers and texts survive; the directory is made; the file is the owner's only; nothing else is left there."""
    directory = tmp_path / "a" / "b"
    assert save(directory, {"old": 1}) is None
    assert save(directory, STATE) is None
    assert load(directory) == (STATE, None)
    assert (directory / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in directory.iterdir()] == [FILE_NAME]


def test_first_start(tmp_path: Path) -> None:
    """No file yet is no news."""
    assert load(tmp_path) == ({}, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"x": ' + b"9" * 5000 + b"}",
        b"[" * 60_000,
        b" " * (LIMIT_BYTES + 1),
        bytes(range(128, 256)) * 4,
    ],
)
def test_damaged_state_is_ignored_with_a_reason(tmp_path: Path, data: bytes) -> None:
    """Zero length, zeros, garbage, another kind of JSON: nothing, and a sentence for the log."""
    (tmp_path / FILE_NAME).write_bytes(data)
    state, why = load(tmp_path)
    assert state == {}
    assert why is not None
    assert "ignored" in why


def test_failure_is_a_reason_and_the_old_state_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or a file in place of the directory: told, not raised; the last good state is still there."""
    assert save(tmp_path, STATE) is None

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        why = save(tmp_path, {"frequency_ppm": 1.0})
    assert why is not None
    assert "No space left" in why
    assert load(tmp_path) == (STATE, None)
    assert save(tmp_path, {"frequency_ppm": 2.0}) is None
    blocked = tmp_path / "file"
    blocked.touch()
    assert "cannot be written" in (save(blocked, STATE) or "")
    assert "cannot be read" in (load(blocked)[1] or "")


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in place of the file is not read, nor what it points to written."""
    target = tmp_path / "target"
    target.write_text(json.dumps({"x": 1}))
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / FILE_NAME).symlink_to(target)
    (directory / f".{FILE_NAME}.new").symlink_to(target)
    assert load(directory)[0] == {}
    assert save(directory, STATE) is None
    assert json.loads(target.read_text()) == {"x": 1}
    assert load(directory) == (STATE, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
def test_state_of_another_user_is_not_believed(tmp_path: Path) -> None:
    """A file that another user made, or in a directory that he can change, says nothing; and nothing is written into his directory."""
    directory = tmp_path / "state"
    assert save(directory, STATE) is None
    os.chown(directory / FILE_NAME, 12345, 12345)
    assert load(directory)[0] == {}
    assert "belongs to another user (12345)" in (load(directory)[1] or "")
    os.chown(directory / FILE_NAME, 0, 0)
    directory.chmod(0o777)
    for why in (load(directory)[1], save(directory, {"x": 1})):
        assert "can be changed by another user" in (why or "")
    directory.chmod(0o755)
    assert load(directory) == (STATE, None)


@pytest.mark.parametrize(
    "lie",
    [
        {"rate": math.nan},
        {"rate": -0.5},
        {"bound_ns": math.nan},
        {"bound_rate": -1e-9},
        {"bound_wander_ns": math.inf},
        {"tai_ns": -1},
        {"tai_offset_s": 1 << 30},
        {"leap_step_s": -7},
        {"stratum": 255},
    ],
    ids=str,
)
def test_a_record_that_no_clock_can_have_is_neither_served_nor_resumed(tmp_path: Path, lie: dict[str, float]) -> None:
    """A record file that parses and lies: readers see an unsynchronised record, and the next run begins anew."""
    path = tmp_path / "timescale"
    writer = TimescaleWriter(path)
    writer.publish(true_record())
    reader = TimescaleReader(path)
    reading = reader.read()
    assert reading is not None
    assert reading.leap is Leap.NORMAL
    writer.publish(replace(true_record(), **lie))
    reading = reader.read()
    assert reading is not None
    assert (reading.leap, reading.stratum) == (Leap.UNSYNCHRONISED, 0)
    left = left_record(path)
    assert left is not None
    assert left.stratum == 0
