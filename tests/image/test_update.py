"""`make update`: what is in the image comes out of the update, signed; RAUC and refclock believe it with the image's certificate alone."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "image" / "build"))

import signing  # noqa: E402
import update  # noqa: E402

from ppsd import version  # noqa: E402
from ppsd.appliance.update import Rauc  # noqa: E402
from ppsd.process.exit_codes import Refused  # noqa: E402

pytestmark = pytest.mark.peers

LAYOUT = """label: gpt
size=8MiB, name=bootcfg
size=4MiB, name=boot_a
size=4MiB, name=boot_b
size=4MiB, name=root_a
size=4MiB, name=root_b
name=data
"""


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small image, laid out as the real one, among the directories of a build."""
    monkeypatch.setattr(update, "IMAGES", tmp_path)
    monkeypatch.setattr(signing, "KEYS", tmp_path / "keys")
    made = tmp_path / f"refclock-{version()}-amd64.img"
    with made.open("wb") as stream:
        stream.truncate(32 << 20)
    subprocess.run(["sfdisk", "-q", made], input=LAYOUT, text=True, check=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "hello").write_text("from the root\n", encoding="utf-8")
    (root / "noise").write_bytes(random.Random(1).randbytes(100_000))
    subprocess.run(["mksquashfs", root, tmp_path / "root.squashfs", "-quiet", "-no-progress"], check=True)
    with made.open("r+b") as stream:
        found = update.partitions(stream)
        stream.seek(found["root_a"][0])
        stream.write((tmp_path / "root.squashfs").read_bytes())
        stream.seek(found["boot_a"][0] + (2 << 20))
        stream.write(b"the kernel")
    yield made


def believing(certificate: Path) -> Rauc:
    """rauc on a box whose image carries this certificate."""
    return Rauc(("rauc", f"--keyring={certificate}"))


def test_the_update_is_the_image(image: Path, tmp_path: Path) -> None:
    """Boot and root partition come out as they are in the image, and the update says what it is for."""
    made = update.bundle("amd64")
    _, certificate = signing.signing()
    told = believing(certificate).look(made)
    assert (told.compatible, told.version, set(told.sizes)) == ("refclock-amd64", version(), {"boot", "root"})
    out = tmp_path / "out"
    subprocess.run(["rauc", f"--keyring={certificate}", "extract", made, out], check=True, capture_output=True)
    with image.open("rb") as stream:
        found = update.partitions(stream)
        for kind in ("boot", "root"):
            content = (out / f"{kind}.img").read_bytes()
            stream.seek(found[f"{kind}_a"][0])
            assert content == stream.read(len(content))
    assert (out / "boot.img").stat().st_size == found["boot_a"][1]
    assert (out / "hook.sh").stat().st_mode & 0o111
    listed = subprocess.run(["unsquashfs", "-cat", out / "root.img", "hello"], capture_output=True, text=True, check=True)
    assert listed.stdout == "from the root\n"


def test_what_is_not_signed_by_our_key_is_refused(image: Path, tmp_path: Path) -> None:
    """Another key's update, half an update, and something else: each with a sentence that says what to do."""
    made = update.bundle("amd64")
    signing.make(tmp_path / "other.key", tmp_path / "other.pem", "somebody else")
    with pytest.raises(Refused, match="its signature is not by the key that this box believes"):
        believing(tmp_path / "other.pem").look(made)
    _, certificate = signing.signing()
    half, else_, spoilt = tmp_path / "half.raucb", tmp_path / "else.raucb", tmp_path / "spoilt.raucb"
    whole = made.read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    else_.write_bytes(b"hello")
    for file in (half, else_):
        with pytest.raises(Refused, match="no update, or only a part of one; nothing was changed"):
            believing(certificate).look(file)
    spoilt.write_bytes(whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:])
    with pytest.raises(Refused, match="nothing was changed"):
        believing(certificate).look(spoilt)


def test_the_key_is_named_by_variables(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UPDATE_KEY and UPDATE_CERT sign instead of the development key; one without the other is a mistake that is said."""
    signing.make(tmp_path / "ours.key", tmp_path / "ours.pem", "us")
    monkeypatch.setenv("UPDATE_KEY", str(tmp_path / "ours.key"))
    with pytest.raises(SystemExit, match="name both"):
        signing.signing()
    monkeypatch.setenv("UPDATE_CERT", str(tmp_path / "ours.pem"))
    assert believing(tmp_path / "ours.pem").look(update.bundle("amd64")).version == version()
    assert not (tmp_path / "keys").exists()
    assert (tmp_path / "ours.key").stat().st_mode & 0o077 == 0
