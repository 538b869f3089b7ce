"""ppsd.appliance.boot: the slot that was booted, and files on the FAT partition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ppsd.appliance.boot import booted_slot, replace
from refclock.kernel.host import Host


@pytest.mark.parametrize(
    ("line", "slot"),
    [
        ("console=tty0 refclock.slot=b quiet", "b"),
        ("refclock.slot=a", "a"),
        ("refclock.slot=c", ""),
        ("xrefclock.slot=a", ""),
        ("refclock.slot=ab", ""),
        ("quiet", ""),
    ],
)
def test_the_kernel_command_line_names_the_slot(tmp_path: Path, line: str, slot: str) -> None:
    """Only the boot loader's word for a slot makes a machine an appliance."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cmdline").write_text(line + "\n", encoding="utf-8")
    assert booted_slot(Host(tmp_path)) == slot


def test_a_file_is_written_only_when_its_content_changes(tmp_path: Path) -> None:
    """A boot that changes nothing writes nothing to the card."""
    ran: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        ran.append(words)
        return 0

    path = tmp_path / "STATUS.txt"
    assert replace(path, b"one", run)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert not replace(path, b"one", run)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert replace(path, b"two", run)
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["STATUS.txt"]
    assert ran == []  # a directory of a test is no mount point


def test_the_partition_is_read_only_again_also_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that is full does not stay writable."""
    ran: list[str] = []
    monkeypatch.setattr(Path, "is_mount", lambda _: True)

    def run(words: Sequence[str]) -> int:
        ran.append(words[2])
        return 0

    (tmp_path / "file.new").mkdir()
    with pytest.raises(OSError, match=r"file\.new"):
        replace(tmp_path / "file", b"content", run)
    assert ran == ["remount,rw", "remount,ro"]


def test_a_card_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is told which partition, and what may be the matter."""
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(OSError, match="cannot be made writable"):
        replace(tmp_path / "file", b"content", lambda _: 1)
