"""What the history writes to a card in a day: `make bench-history`. Prints a table and writes tests/bench/history.json.

A day is played through the recorder second by second, as fast as it goes, into a file that has two months in it. Counted are the octets
that SQLite writes (/proc/self/io: wchar), those that the kernel sends to the disk for this process (write_bytes), and for root the sectors
that reach a loop device with ext4 on it. Its journal is in them: that is what wears an SD card. The limit is 20 MB a day.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "ppsd" / "faces"), str(ROOT / "tests" / "ppsd" / "history")]

from spans_at_hand import NOON, minute, snapshot  # noqa: E402

from ppsd.history.recorder import Recorder  # noqa: E402
from ppsd.history.store import DAY_S, FILE_NAME, MINUTES_KEPT_S, Store  # noqa: E402

LIMIT = 20_000_000
SIZE = 64 << 20
SECTOR = 512
IMAGE = 256 << 20


def counted() -> dict[str, int]:
    return {name: int(value) for name, value in (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())}


def sectors(device: str) -> int:
    """Sectors written to a block device so far (Documentation/block/stat.rst)."""
    os.sync()
    return int(Path(f"/sys/block/{device}/stat").read_text().split()[6])


def mounted(image: Path, place: Path) -> str:
    """Mount a new ext4 on a loop device; returns its name, "" where that is not possible."""
    image.touch()
    os.truncate(image, IMAGE)
    place.mkdir()
    for words in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop,noatime", str(image), str(place)]):
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        if done.returncode:
            return ""
    found = subprocess.run(["findmnt", "-no", "SOURCE", str(place)], capture_output=True, text=True, check=True).stdout
    return Path(found.strip()).name


def filled(directory: Path) -> None:
    """Two months of minutes, so that as much goes as comes."""
    store, template = Store(directory, SIZE), minute(0)
    first = NOON - MINUTES_KEPT_S - DAY_S
    for day in range(MINUTES_KEPT_S // DAY_S + 1):
        store.add([replace(template, at=first + day * DAY_S + 60 * n) for n in range(1440)])
    store.close()


def play(directory: Path) -> float:
    """A day; returns the processor's time for one second, in µs."""
    recorder = Recorder(directory, SIZE)
    seconds = [snapshot(at, offset_ns=(at * 37) % 1000 - 500) for at in range(DAY_S)]
    started = time.process_time()
    for at, clock in enumerate(seconds):
        recorder.take(clock, {"reply": {"basic": 40 * at}} if at % 10 == 0 else None)
    spent = time.process_time() - started
    recorder.close()
    return spent / DAY_S * 1e6


def main() -> int:
    with TemporaryDirectory(dir=ROOT / "build") as where:
        place = Path(where) / "card"
        device = mounted(Path(where) / "card.img", place)
        place.mkdir(exist_ok=True)
        try:
            filled(place)
            before, reached = counted(), sectors(device) if device else 0
            per_second = play(place)
            after = counted()
            told = {
                "written by SQLite, MB a day": (after["wchar"] - before["wchar"]) / 1e6,
                "sent to the disk, MB a day": (after["write_bytes"] - before["write_bytes"]) / 1e6,
                "size of the file, MB": (place / FILE_NAME).stat().st_size / 1e6,
                "processor for each second, µs": per_second,
            }
            if device:
                told["that reached ext4's device, MB a day"] = (sectors(device) - reached) * SECTOR / 1e6
        finally:
            if device:
                subprocess.run(["umount", str(place)], check=True)
    told = {name: round(value, 2) for name, value in told.items()}
    for name, value in told.items():
        print(f"{name:<40} {value:10.2f}")
    (ROOT / "tests" / "bench" / "history.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(max(value for name, value in told.items() if "MB a day" in name) * 1e6 > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
