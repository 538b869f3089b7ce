"""The recorder: seconds in memory, minutes on disk now and then, whatever clock, server and disk do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from spans_at_hand import NOON, snapshot

from ppsd.history.recorder import PENDING, SECONDS_KEPT, WRITE_S, Recorder
from ppsd.history.spans import Span
from ppsd.history.store import FILE_NAME, MINUTE_S, Store

MIB = 1 << 20
FOREVER = 1 << 40


def packets(replies: int, drops: int = 0) -> Mapping[str, Mapping[str, int]]:
    return {"reply": {"basic": replies}, "drop": {"rate": drops}}


def play(recorder: Recorder, *seconds: range) -> None:
    for at in itertools.chain(*seconds):
        recorder.take(snapshot(at, offset_ns=at % 7), packets(10 * at, at) if at % 10 == 0 else None)


def read(recorder: Recorder, step_s: int) -> list[Span]:
    return list(recorder.read(step_s, 0, FOREVER, FOREVER))


def test_an_hour_by_the_second_and_all_by_the_minute(tmp_path: Path) -> None:
    """Two hours: the last one by the second, every minute that has ended, and both hours as far as they are written."""
    recorder = Recorder(tmp_path, 8 * MIB)
    play(recorder, range(7200))
    seconds, minutes = read(recorder, 1), read(recorder, MINUTE_S)
    assert (len(seconds), seconds[0].at, seconds[-1].at) == (SECONDS_KEPT, NOON + 3600, NOON + 7199)
    assert [minute.at for minute in minutes] == [NOON + 60 * n for n in range(119)]
    assert {minute.seconds for minute in minutes} == {60}
    recorder.close()
    store = Store(tmp_path, 8 * MIB)
    assert [hour.seconds for hour in store.read(3600, 0, FOREVER)] == [3600, 3600]
    store.close()


def test_requests_are_counted_once(tmp_path: Path) -> None:
    """Ten requests a second and one drop: 660 in each minute; a server that was started anew counts from zero and loses none of its own."""
    recorder = Recorder(tmp_path, 8 * MIB)
    play(recorder, range(181))
    assert [(minute.requests, minute.drops) for minute in read(recorder, MINUTE_S)[1:]] == [(660, 60), (660, 60)]
    recorder.take(snapshot(190), packets(55))
    assert read(recorder, 1)[-1].requests == 55
    recorder.close()


def test_at_most_ten_minutes_are_lost(tmp_path: Path) -> None:
    """What is on disk is never older than ten minutes: that is what a power cut costs."""
    recorder = Recorder(tmp_path, 8 * MIB)
    play(recorder, range(4000))
    after_a_cut = Store(tmp_path, 8 * MIB, read_only=True)
    *_, last = after_a_cut.read(MINUTE_S, 0, FOREVER)
    assert NOON + 4000 - (last.at + 60) <= WRITE_S == 600
    after_a_cut.close()
    recorder.close()


def test_a_disk_that_fails_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it cannot be written, minutes wait in memory, up to a day of them, and the trouble is told; then all are written."""
    recorder = Recorder(tmp_path, 8 * MIB)
    play(recorder, range(600))

    def full(self: Store, minutes: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        play(recorder, range(600, 3000))
        assert "No space left" in recorder.trouble
        assert len(read(recorder, MINUTE_S)) == 49
    play(recorder, range(3000, 4300))
    assert recorder.trouble == ""
    recorder.close()
    store = Store(tmp_path, 8 * MIB)
    assert [minute.at for minute in store.read(MINUTE_S, 0, FOREVER)] == [NOON + 60 * n for n in range(72)]
    store.close()
    assert PENDING == 1440


def test_without_a_directory_it_tells_why_and_goes_on(tmp_path: Path) -> None:
    """Where it may not write, the last hour is there all the same, and the reason is told."""
    recorder = Recorder(tmp_path / "nowhere", 8 * MIB)
    assert "no history is kept" in recorder.trouble
    play(recorder, range(130))
    assert len(read(recorder, 1)) == 130
    assert len(read(recorder, MINUTE_S)) == 2
    recorder.close()


def test_a_damaged_file_is_replaced_and_told(tmp_path: Path) -> None:
    """The old file stays beside the new one, for whoever wants to save it."""
    (tmp_path / FILE_NAME).write_bytes(b"damaged\n" * 1000)
    recorder = Recorder(tmp_path, 8 * MIB)
    assert "begins anew" in recorder.trouble
    play(recorder, range(130))
    assert recorder.trouble == ""
    recorder.close()
    assert (tmp_path / f"{FILE_NAME}.damaged").read_bytes().startswith(b"damaged")


def test_a_clock_that_goes_back_and_leaps(tmp_path: Path) -> None:
    """Before its first lock the clock may be years off: nothing raises, and what was measured since is there."""
    recorder = Recorder(tmp_path, 8 * MIB)
    play(recorder, range(40_000, 40_130), range(200), range(150, 400))
    assert recorder.deviations()
    assert {minute.at for minute in read(recorder, MINUTE_S)} >= {NOON + 60 * n for n in range(6)}
    recorder.close()


def test_the_stability_of_the_last_hour(tmp_path: Path) -> None:
    """Allan deviations at powers of two, from the seconds in memory."""
    recorder = Recorder(None, 0)
    play(recorder, range(1000))
    found = recorder.deviations()
    assert list(found) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert 0 < found[256] < found[1] < 1e-8
    recorder.close()
