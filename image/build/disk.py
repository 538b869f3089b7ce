"""The partitions of an image and the disk that holds them. No mount and no root is needed."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

from root import Tools

MIB = 1 << 20
SIZES = {"bios": 1, "bootcfg": 192, "boot_a": 128, "boot_b": 128, "root_a": 400, "root_b": 400, "data": 64}
"""MiB of each partition. ``data`` grows to the size of the card when it is first used, the others have room for later versions."""
TYPES = {
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "bootcfg": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "boot_a": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    "boot_b": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
}
"""GPT types: BIOS boot, EFI system, basic data (UEFI 2.10, section 5.3.3; GRUB's manual). All others are Linux file systems."""
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
FAT32_LBA = "0x0C"
SQUASHFS = (
    "-comp",
    "zstd",
    "-Xcompression-level",
    "9",
    "-b",
    "128K",
    "-no-fragments",
    "-all-root",
    "-noappend",
    "-no-progress",
    "-no-xattrs",
)
"""Without fragments: a program or module that is read costs the unpacking of itself and no more."""


@dataclass(frozen=True, slots=True)
class Partition:
    """``name``: the PARTLABEL; ``file``: its content, None: empty; ``mbr``: old boot ROMs must find it in the MBR."""

    name: str
    file: Path | None
    mbr: bool = False


def uuid(name: str) -> str:
    """An identifier that is the same in every build."""
    return str(uuid5(NAMESPACE_DNS, f"{name}.refclock"))


def fat(file: Path, name: str, content: Mapping[str, Path | bytes], tools: Tools, epoch: int) -> Path:
    """A FAT file system with files by their paths. The one that people see is called REFCLOCK."""
    label = "REFCLOCK" if name == "bootcfg" else name.upper()
    file.unlink(missing_ok=True)
    with file.open("wb") as made:
        made.truncate(SIZES[name] * MIB)
    number = uuid(name)[:8]
    tools.run("mkfs.fat", "-F", "32", "--invariant", "-i", number, "-n", label, file)
    staged = file.with_suffix(".files")
    shutil.rmtree(staged, ignore_errors=True)
    for path, what in sorted(content.items()):
        to = staged / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(what if isinstance(what, bytes) else what.read_bytes())
    for path_ in [staged, *staged.rglob("*")]:
        os.utime(path_, (epoch, epoch))
    tools.run("mcopy", "-s", "-m", "-i", file, *sorted(staged.iterdir()), "::", more={"SOURCE_DATE_EPOCH": str(epoch)})
    return file


def squashfs(tree: Path, file: Path, tools: Tools, epoch: int) -> Path:
    """The root file system; all files are root's."""
    tools.run("mksquashfs", tree, file, *SQUASHFS, more={"SOURCE_DATE_EPOCH": str(epoch)})
    return file


def ext4(file: Path, name: str, tools: Tools, epoch: int) -> Path:
    """An empty ext4 file system. Its journal and inodes are such that it can grow online to the largest cards."""
    file.unlink(missing_ok=True)
    with file.open("wb") as made:
        made.truncate(SIZES[name] * MIB)
    options = f"hash_seed={uuid('hash')},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    form = ["-t", "ext4", "-b", "4096", "-i", "16384", "-J", "size=8", "-m", "0", "-L", name, "-U", uuid(name), "-E", options]
    tools.run("mke2fs", "-q", *form, file, more={"SOURCE_DATE_EPOCH": str(epoch)})
    return file


def disk(file: Path, partitions: Sequence[Partition], tools: Tools, hybrid: bool) -> Path:
    """A disk with a GPT, and the first megabyte free for a boot loader."""
    lines = [f"image {file.name} {{", "hdimage {", "align = 1M", f'partition-table-type = "{"hybrid" if hybrid else "gpt"}"']
    lines += [f'disk-uuid = "{uuid("disk")}"', "}"]
    for p in partitions:
        lines += [f"partition {p.name} {{", f"size = {SIZES[p.name]}M"]
        lines += [f'partition-type-uuid = "{TYPES.get(p.name, LINUX)}"', f'partition-uuid = "{uuid(p.name)}"']
        if p.mbr:
            lines.append(f"partition-type = {FAT32_LBA}")
        if p.file is not None:
            lines.append(f'image = "{p.file.absolute()}"')
        lines.append("}")
    lines.append("}")
    config, scratch, empty = file.with_suffix(".genimage"), file.with_suffix(".tmp"), file.with_suffix(".empty")
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)
    empty.mkdir(exist_ok=True)
    places: list[str | Path] = ["--inputpath", empty, "--rootpath", empty, "--outputpath", file.parent, "--tmppath", scratch]
    tools.run("genimage", "--config", config, *places)
    shutil.rmtree(scratch, ignore_errors=True)
    empty.rmdir()
    return file


def first_sector(file: Path, number: int) -> int:
    """Where partition ``number`` (from 1) begins, from the GPT of a disk."""
    with file.open("rb") as opened:
        opened.seek(2 * 512 + (number - 1) * 128 + 32)
        return int(struct.unpack("<Q", opened.read(8))[0])


def bios_boot(file: Path, boot: bytes, core: bytes, number: int) -> None:
    """Put GRUB for BIOS on a disk: ``boot`` into the MBR, ``core`` into partition ``number``. What grub-bios-setup writes into both (GRUB's
    i386/pc/boot.h): the sector of the core, and its list of blocks."""
    sector = first_sector(file, number)
    patched = bytearray(core)
    patched[0x1F4:0x200] = struct.pack("<QHH", sector + 1, (len(core) + 511) // 512 - 1, 0x820)
    with file.open("r+b") as opened:
        opened.write(boot[:0x5C] + struct.pack("<Q", sector) + boot[0x64:0x1B8])
        opened.seek(sector * 512)
        opened.write(patched)
