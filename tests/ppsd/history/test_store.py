"""The history on disk: what was written is there again, after power cuts, restarts and years; the file stays small."""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from spans_at_hand import NOON, minute

from ppsd.history.store import (
    DAY_S,
    FILE_NAME,
    HOUR_S,
    HOURS_KEPT_S,
    MINUTE_S,
    MINUTES_KEPT_S,
    PAGE_BYTES,
    Damaged,
    Store,
    set_aside,
)

MIB = 1 << 20


def ats(store: Store, step_s: int = MINUTE_S) -> list[int]:
    return [span.at for span in store.read(step_s, 0, 1 << 40)]


def test_minutes_and_their_hours_come_back(tmp_path: Path) -> None:
    """After a restart all is there, and each hour is merged of its minutes."""
    written = [minute(n, offset_ns=n) for n in range(130)]
    store = Store(tmp_path, 8 * MIB)
    store.add(written[:70])
    store.close()
    store = Store(tmp_path, 8 * MIB)
    store.add(written[70:])
    assert list(store.read(MINUTE_S, 0, 1 << 40)) == written
    hours = list(store.read(HOUR_S, 0, 1 << 40))
    assert [(hour.at, hour.seconds) for hour in hours] == [(NOON, 3600), (NOON + 3600, 3600), (NOON + 7200, 600)]
    assert hours[1].offsets is not None
    assert (hours[1].offsets.low, hours[1].offsets.high, hours[1].offsets.mean) == (60.0, 119.0, pytest.approx(89.5))
    assert [span.at for span in store.read(MINUTE_S, NOON + 60, NOON + 3600, 2)] == [NOON + 60, NOON + 120]
    store.close()


def test_a_minute_of_two_runs_is_one(tmp_path: Path) -> None:
    """A restart within a minute keeps what the first run saw of it; a clock that was set back replaces what it wrote before."""
    store, whole = Store(tmp_path, 8 * MIB), minute(0)
    store.add([replace(whole, seconds=20)])
    store.add([replace(whole, seconds=30)])
    assert [span.seconds for span in store.read(MINUTE_S, 0, 1 << 40)] == [50]
    store.add([replace(whole, refid="GPS")])
    assert [(span.seconds, span.refid) for span in store.read(MINUTE_S, 0, 1 << 40)] == [(60, "GPS")]
    store.close()


def test_a_power_cut_costs_the_last_write_at_most(tmp_path: Path) -> None:
    """The log beside the file ends anywhere, and with anything: the file opens, is whole, and holds a beginning of what was written."""
    store = Store(tmp_path, 8 * MIB)
    for n in range(12):
        store.add([minute(2 * n), minute(2 * n + 1)])
    cut, chance = tmp_path / "cut", random.Random(7)
    log = (tmp_path / f"{FILE_NAME}-wal").read_bytes()
    known: set[int] = set()
    for size in [0, len(log), *(chance.randrange(len(log)) for _ in range(40))]:
        shutil.rmtree(cut, ignore_errors=True)
        cut.mkdir()
        shutil.copy(tmp_path / FILE_NAME, cut)
        (cut / f"{FILE_NAME}-wal").write_bytes(log[:size] + chance.randbytes(chance.randrange(3) * 2000))
        left = Store(cut, 8 * MIB)
        found = ats(left)
        assert found == [NOON + 60 * n for n in range(len(found))]
        assert len(found) % 2 == 0
        left.add([minute(100)])
        assert ats(left)[-1] == NOON + 6000
        left.close()
        known.add(len(found))
    assert {0, 24} <= known
    assert len(known) > 4
    store.close()


@pytest.mark.parametrize("damage", ["noise", "text", "another", "torn"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    """What is no history, or not whole, is not written into; renamed, it makes room for a new one."""
    path = tmp_path / FILE_NAME
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(n) for n in range(60)])
    store.close()
    if damage == "torn":
        data = bytearray(path.read_bytes())
        data[2 * PAGE_BYTES : 3 * PAGE_BYTES] = b"\xa5" * PAGE_BYTES
        path.write_bytes(data)
    elif damage == "another":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
    else:
        path.write_bytes(random.Random(1).randbytes(9000) if damage == "noise" else b"not a database\n" * 300)
    with pytest.raises(Damaged):
        Store(tmp_path, 8 * MIB)
    assert set_aside(tmp_path).exists()
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(0)])
    assert ats(store) == [NOON]
    store.close()


def test_damage_that_is_met_while_reading_is_told(tmp_path: Path) -> None:
    """A card that fails under a running daemon: what is read is right, or it is told that the file is damaged."""
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(n) for n in range(60)])
    store.close()
    reader = Store(tmp_path, 0, read_only=True)
    path, whole = tmp_path / FILE_NAME, list(reader.read(MINUTE_S, 0, 1 << 40))
    reader.close()
    chance, data = random.Random(3), path.read_bytes()
    for _ in range(30):
        torn, at = bytearray(data), PAGE_BYTES + chance.randrange(len(data) - PAGE_BYTES - 500)
        torn[at : at + 500] = chance.randbytes(500)
        path.write_bytes(torn)
        try:
            reader = Store(tmp_path, 0, read_only=True)
            assert len(list(reader.read(MINUTE_S, 0, 1 << 40))) <= 2 * len(whole)
            reader.close()
        except (Damaged, OSError):
            pass


def test_the_file_never_outgrows_its_limit(tmp_path: Path) -> None:
    """Months by the minute into a small file: it stays below the limit, keeps the newest minutes and every hour, and goes on."""
    store, most = Store(tmp_path, 2 * MIB), 2 * MIB
    template = minute(0)
    for day in range(16):
        first = NOON + day * DAY_S
        store.add([replace(template, at=first + 60 * n) for n in range(1440)])
        assert (tmp_path / FILE_NAME).stat().st_size <= most
    kept = ats(store)
    assert kept[-1] == NOON + 16 * DAY_S - 60
    assert kept == list(range(kept[0], kept[-1] + 60, 60))
    assert len(kept) > 3000
    assert len(ats(store, HOUR_S)) == 16 * 24
    store.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """Minutes go after two months, hours after ten years; what was written under a clock that was years ahead goes as well."""
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(0), minute(1)])
    store.add([replace(minute(0), at=NOON + 8 * 365 * DAY_S)])
    assert ats(store) == [NOON + 8 * 365 * DAY_S]
    assert len(ats(store, HOUR_S)) == 2
    back = NOON + DAY_S
    store.add([replace(minute(0), at=back)])
    assert ats(store) == [back]
    store.add([replace(minute(0), at=back + HOURS_KEPT_S + 3 * DAY_S)])
    assert ats(store, HOUR_S) == [(back + HOURS_KEPT_S + 3 * DAY_S) // HOUR_S * HOUR_S]
    assert MINUTES_KEPT_S >= 60 * DAY_S
    store.close()


@pytest.mark.parametrize("years", [-50, 50])
def test_a_clock_that_is_not_set_deletes_nothing(tmp_path: Path, years: int) -> None:
    """A board without a battery starts in any year: until it is synchronised, no row is too old or too far ahead."""
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(0)])
    store.add([replace(minute(0), at=NOON + years * 365 * DAY_S, stratum=0, refid="", leap="unsynchronised")])
    assert NOON in ats(store)
    store.close()


def test_a_reader_beside_the_writer(tmp_path: Path) -> None:
    """sqlite3(1), or a copy of this program, may read while the daemon writes; it cannot write."""
    store = Store(tmp_path, 8 * MIB)
    store.add([minute(0)])
    reader = Store(tmp_path, 0, read_only=True)
    store.add([minute(1)])
    assert ats(reader) == [NOON, NOON + 60]
    with pytest.raises(OSError):
        reader.add([minute(2)])
    reader.close()
    store.close()
    with pytest.raises(OSError):
        Store(tmp_path / "nowhere", 0, read_only=True)
