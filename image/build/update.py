"""Makes a signed update of an image: ``python image/build/update.py ARCHITECTURE...``, into build/image beside the image.

The update has the very boot and root partitions of the image, as one RAUC bundle: RAUC writes them into the slot that does not run. The key
is that of ``signing``.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final
from uuid import UUID

ROOT: Final = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "image" / "build"), str(ROOT)]

from signing import signing  # noqa: E402

from ppsd import version  # noqa: E402

IMAGES: Final = ROOT / "build" / "image"
HOOK: Final = ROOT / "image" / "appliance" / "rauc" / "hook.sh"
SECTOR: Final = 512
PIECE: Final = 1 << 20
MANIFEST: Final = """[update]
compatible=refclock-{architecture}
version={version}
build={build}

[bundle]
format=plain

[hooks]
filename=hook.sh

[image.root]
filename=root.img

[image.boot]
filename=boot.img
hooks=post-install
"""


def partitions(image: BinaryIO) -> dict[str, tuple[int, int]]:
    """First octet and length of each partition of a disk image, by its name in the GPT (UEFI specification, 5.3)."""
    image.seek(SECTOR)
    header = image.read(SECTOR)
    if header[:8] != b"EFI PART":
        raise SystemExit(f"update: {image.name} has no GPT: is it an image of refclock?")
    table, count, size = struct.unpack_from("<QII", header, 72)
    found = {}
    for number in range(count):
        image.seek(table * SECTOR + number * size)
        entry = image.read(size)
        if UUID(bytes_le=entry[:16]).int:
            first, last = struct.unpack_from("<QQ", entry, 32)
            found[entry[56:128].decode("utf-16-le").rstrip("\0")] = (first * SECTOR, (last - first + 1) * SECTOR)
    return found


def squashfs_octets(image: BinaryIO, start: int) -> int:
    """How long the squashfs at ``start`` is (its superblock's bytes_used), in whole pages."""
    image.seek(start)
    head = image.read(96)
    if head[:4] != b"hsqs":
        raise SystemExit(f"update: {image.name}: root_a holds no squashfs")
    used: int = struct.unpack_from("<Q", head, 40)[0]
    return -(-used // 4096) * 4096


def copy(image: BinaryIO, start: int, length: int, to: Path) -> None:
    """Copy a part of an image; long zeros become holes."""
    image.seek(start)
    with to.open("wb") as stream:
        while length:
            piece = image.read(min(PIECE, length))
            length -= len(piece)
            stream.seek(len(piece), 1) if not any(piece) else stream.write(piece)
        stream.truncate(stream.tell())


def opened(architecture: str, directory: Path) -> Path:
    """The image as it is written to a card."""
    image = IMAGES / f"refclock-{version()}-{architecture}.img"
    if image.exists():
        return image
    packed = image.with_name(f"{image.name}.zst")
    if not packed.exists():
        raise SystemExit(f"update: there is no {packed.relative_to(ROOT)}; make it: make image IMAGES={architecture}")
    plain = directory / image.name
    subprocess.run(["zstd", "-q", "-d", "--sparse", packed, "-o", plain], check=True)
    return plain


def bundle(architecture: str) -> Path:
    """Make the update; returns its file."""
    made = IMAGES / f"refclock-{version()}-{architecture}.raucb"
    with TemporaryDirectory(dir=IMAGES) as directory:
        content = Path(directory) / "content"
        content.mkdir()
        with opened(architecture, Path(directory)).open("rb") as image:
            found = partitions(image)
            for kind in ("boot", "root"):
                start, length = found[f"{kind}_a"]
                copy(image, start, length if kind == "boot" else squashfs_octets(image, start), content / f"{kind}.img")
        shutil.copy(HOOK, content / "hook.sh")
        build = datetime.fromtimestamp(commit_s(), UTC).date()
        (content / "manifest.raucm").write_text(
            MANIFEST.format(architecture=architecture, version=version(), build=build), encoding="utf-8"
        )
        return sign(content, made)


def sign(content: Path, made: Path) -> Path:
    """Sign what is in the directory ``content`` into the file ``made``."""
    key, certificate = signing()
    made.unlink(missing_ok=True)
    done = subprocess.run(
        ["rauc", "bundle", f"--cert={certificate}", f"--key={key}", content, made], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"update: rauc bundle: {done.stderr.strip()}")
    return made


def commit_s() -> int:
    """POSIX second of the last commit, or SOURCE_DATE_EPOCH."""

    told = (
        os.environ.get("SOURCE_DATE_EPOCH")
        or subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    return int(told)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= {"amd64", "arm64"}:
        raise SystemExit("usage: python image/build/update.py amd64|arm64 ...")
    for name in sys.argv[1:]:
        print(bundle(name))
