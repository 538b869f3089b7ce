"""What the boot loader chose, and the FAT partition for the owner's files and the boot loader's.

That partition is mounted read-only. Whoever writes it makes it writable for as long as that takes, replaces a file as a whole, and does so
only when the content changes: a power cut then leaves the old file or the new one, and the card wears no faster than it must.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ppsd.config.contents import contents

if TYPE_CHECKING:
    from refclock.kernel.host import Host

BOOTCFG: Final = "/boot/refclock"
"""Where /init mounts the partition ``bootcfg``."""
TRIAL: Final = "/data/update/trial"
"""Names the slot on trial as the kernel's command line does, for refclock-trial.service and /init."""
LIMIT_BYTES: Final = 1 << 20
"""Octets; a larger file on that partition is not read."""

Command = Callable[[Sequence[str]], int]
"""Runs a program of this machine with the words given; returns its exit code."""


def command(words: Sequence[str]) -> int:
    """Run a program. What it complains of goes to the log. A program that is not there has exit code 127, as in a shell."""
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode
    except FileNotFoundError:
        return 127


def slot_of(line: str) -> str:
    """The slot that a kernel's command line names, "a" or "b"; "" when it names none."""
    found = re.search(r"(?:^|\s)refclock\.slot=([ab])(?=\s|$)", line)
    return found[1] if found else ""


def booted_slot(host: Host) -> str:
    """The slot that was booted; "" when this machine does not run the image."""
    return slot_of(host.text("/proc/cmdline") or "")


def partition(root: Path, label: str) -> str:
    """The device of the partition with that label, of the machine whose files are below ``root``; "" when there is none. The kernel tells
    it before udev makes any link."""
    for event in sorted(root.glob("sys/class/block/*/uevent")):
        with contextlib.suppress(OSError):
            told = event.read_text(encoding="utf-8", errors="replace").splitlines()
            if f"PARTNAME={label}" in told:
                return next((f"/dev/{line.removeprefix('DEVNAME=')}" for line in told if line.startswith("DEVNAME=")), "")
    return ""


@contextlib.contextmanager
def writable(directory: Path, run: Command) -> Iterator[None]:
    """The file system mounted at ``directory`` is writable inside, and read-only again afterwards. A directory that is no mount point of
    its own is left as it is. OSError: it cannot be made writable."""
    if not directory.is_mount():
        yield
        return
    if run(["mount", "-o", "remount,rw", str(directory)]) != 0:
        raise OSError(f"{directory} cannot be made writable: the card may be locked or worn out")
    try:
        yield
    finally:
        run(["mount", "-o", "remount,ro", str(directory)])


def replace(path: Path, data: bytes, run: Command) -> bool:
    """Make ``data`` the content of ``path`` on the FAT partition mounted at its directory. Returns whether it had to be written. OSError:
    it could not be; the old file is unchanged.

    FAT has no journal, so the order counts in which the card learns of it (linux/fs/fat/namei_vfat.c: vfat_rename): the new content, that
    its temporary name is gone, that the name means the new content, and at last that the old content's clusters are free. When the power
    goes in between, the name means the one or the other, and at worst clusters are lost that the next start gives back."""
    with contextlib.suppress(OSError):
        if contents(path, LIMIT_BYTES) == data:
            return False
    with writable(path.parent, run):
        partial = path.with_name(f"{path.name}.new")
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(partial.open("wb"))
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            with contextlib.suppress(FileNotFoundError):
                opened.enter_context(path.open("rb"))  # what is open keeps its clusters
            partial.replace(path)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, directory)
            os.fsync(directory)
            os.fsync(stream.fileno())
    return True
