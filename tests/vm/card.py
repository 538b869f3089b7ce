"""A machine's card or disk: a copy of the image that is flashed, with its partitions by name, its FAT files, and what a Raspberry Pi's
firmware takes from it.

Flow: image -> **card** -> QEMU. The firmware's part is read from the card itself at each start, so what the guest wrote counts.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
GPT_HEADER = struct.Struct("<8s4I4Q16sQ3I")
"""UEFI specification, table 5-5: signature, ..., first LBA of the entries at index 10, their number and size."""
GPT_NAME = slice(56, 128)
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Partition:
    """``number``: from 1, as firmware and kernel count. ``begin``, ``size``: bytes."""

    number: int
    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class Start:
    """What a Pi's firmware hands over. ``boot``: the boot partition's name. ``settings``: the lines of config.txt that hold for it."""

    boot: str
    kernel: Path
    initramfs: Path
    command_line: str
    settings: dict[str, list[str]] = field(default_factory=dict)


class Card:
    """A copy of ``image`` as ``path``, ``size`` bytes large: the rest of a card that is larger than the image."""

    def __init__(self, image: Path, path: Path, size: int = 4 * GIB) -> None:
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, path], check=True)
        with path.open("r+b") as file:
            file.truncate(max(size, image.stat().st_size))
        self.path = path
        self.partitions = _partitions(path)

    def read(self, name: str, partition: str = "bootcfg") -> bytes | None:
        """A file of a FAT partition; None: there is none."""
        done = self._mtool("mtype", partition, name)
        return done.stdout if done.returncode == 0 else None

    def text(self, name: str, partition: str = "bootcfg") -> str:
        """The same as text; "" for none."""
        return (self.read(name, partition) or b"").decode("utf-8")

    def write(self, name: str, text: str, partition: str = "bootcfg") -> None:
        """Write a file of a FAT partition, as its owner does on another computer."""
        done = self._mtool("mcopy", partition, name, text.encode())
        assert done.returncode == 0, done.stderr.decode()

    def names(self, partition: str = "bootcfg") -> list[str]:
        """The files at the top of a FAT partition."""
        done = self._mtool("mdir", partition, "")
        assert done.returncode == 0, done.stderr.decode()
        return [line.rpartition("::/")[2] for line in done.stdout.decode().splitlines()]

    def _mtool(self, tool: str, partition: str, name: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        words = {"mtype": [], "mcopy": ["-o", "-"], "mdir": ["-b"]}[tool]
        on = f"{self.path}@@{self.partitions[partition].begin}"
        return subprocess.run([tool, "-i", on, *words, f"::{name}"], input=given, capture_output=True, check=False)

    def _config(self, partition: str) -> str:
        """config.txt with the files that it includes."""
        text = self.text("config.txt", partition)
        return re.sub(r"(?m)^include (\S+)$", lambda found: self.text(found[1], partition), text)

    def start(self, model: str, directory: Path, tryboot: bool = False) -> Start:
        """Do as the firmware of a Pi (``model``: "pi3", the section of its files): files go into ``directory``."""
        chosen = settings(self.text("autoboot.txt"), model, tryboot).get("boot_partition", ["2"])
        label = next(name for name, partition in self.partitions.items() if partition.number == int(chosen[-1]))
        told = settings(self._config(label), model, tryboot)
        prefix = told.get("os_prefix", [""])[-1]
        kernel = prefix + told.get("kernel", ["kernel8.img"])[-1]
        initramfs = prefix + told["initramfs"][-1].split()[0]
        command_line = self.text(prefix + told.get("cmdline", ["cmdline.txt"])[-1], label)
        for name in (kernel, initramfs):
            data = self.read(name, label)
            assert data is not None, f"{name} is not on {label}: {self.names(label)}"
            (directory / Path(name).name).write_bytes(data)
        there = (directory / Path(kernel).name, directory / Path(initramfs).name)
        return Start(label, *there, " ".join(command_line.split()), told)


def settings(text: str, model: str, tryboot: bool = False) -> dict[str, list[str]]:
    """The values by name of config.txt or autoboot.txt, of the sections that hold for a Pi ``model``."""
    found: dict[str, list[str]] = {}
    holds = {"all", model, *(["tryboot"] if tryboot else [])}
    section = "all"
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if named := re.fullmatch(r"\[(.*)\]", line):
            section = named[1].lower()
        elif line and section in holds:
            name, _, value = line.partition(" " if line.startswith("initramfs ") else "=")
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def _partitions(path: Path) -> dict[str, Partition]:
    with path.open("rb") as disk:
        disk.seek(SECTOR)
        header = GPT_HEADER.unpack(disk.read(GPT_HEADER.size))
        assert header[0] == b"EFI PART", f"{path} has no GPT"
        disk.seek(header[10] * SECTOR)
        entries = [disk.read(header[12]) for _ in range(header[11])]
    found = {}
    for number, entry in enumerate(entries, 1):
        first, last = struct.unpack_from("<QQ", entry, 32)
        if any(entry[:16]):
            name = entry[GPT_NAME].decode("utf-16-le").rstrip("\0")
            found[name] = Partition(number, first * SECTOR, (last - first + 1) * SECTOR)
    return found


def unpacked(image: Path, directory: Path) -> Path:
    """The image as it is on a card; a compressed one (.zst) is unpacked into ``directory`` once."""
    if image.suffix != ".zst":
        return image
    made = directory / image.stem
    if not made.exists() or made.stat().st_mtime < image.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        fresh = made.with_suffix(".new")
        subprocess.run(["zstd", "-q", "-d", "-f", "--sparse", image, "-o", fresh], check=True)
        shutil.move(fresh, made)
    return made
