"""The images that people flash, looked at without starting them. Where ``make image`` has not just been run it is, which takes minutes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from card import Card

from ppsd import version

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "image"
BUILD = ROOT / "image" / "build"
OVERLAYS = ROOT / "image" / "appliance" / "overlays"
sys.path.insert(0, str(BUILD))

import packages  # noqa: E402
from initramfs import Archive  # noqa: E402

ARCHITECTURES = ("arm64", "amd64")
MOST_COMPRESSED_BYTES = 180_000_000
FIXED = {"refclock": 900, "refclock-serve": 901, "refclock-led": 902, "messagebus": 110, "systemd-network": 112, "systemd-resolve": 113}
"""Numbers of users in the first version. No later version may change them: files of theirs are on the data partition."""
LAYOUT = {
    "arm64": ["bootcfg", "boot_a", "boot_b", "root_a", "root_b", "data"],
    "amd64": ["bios", "bootcfg", "boot_a", "boot_b", "root_a", "root_b", "data"],
}
MODULES = {
    "all": {"ftdi_sio", "pl2303", "cp210x", "ch341", "cdc_acm", "pps_ldisc", "gnss", "loop", "nf_tables", "nft_ct", "8021q"},
    "arm64": {"pps_gpio", "macb", "genet", "lan78xx", "smsc95xx", "brcmfmac", "bcm2835_wdt", "virtio_net", "cdc_ether"},
    "amd64": {"e1000e", "igb", "igc", "r8169", "iTCO_wdt", "virtio_net", "cdc_ether"},
}

pytestmark = [pytest.mark.slow, pytest.mark.peers]


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it is flashed, and its root file system unpacked."""

    architecture: str
    card: Card
    root: Path


@pytest.fixture(scope="module", params=ARCHITECTURES)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Each of the images."""
    architecture = str(request.param)
    subprocess.run(["make", "image", f"IMAGES={architecture}", "RENEW=1"], cwd=ROOT, check=True)
    directory = tmp_path_factory.mktemp(architecture)
    card = Card(WORK / f"refclock-{version()}-{architecture}.img", directory / "card", size=0)
    squashfs, part = directory / "squashfs", card.partitions["root_a"]
    with card.path.open("rb") as disk, squashfs.open("wb") as made:
        disk.seek(part.begin)
        made.write(disk.read(part.size))
    subprocess.run(["unsquashfs", "-q", "-n", "-d", directory / "root", squashfs], check=True, stdout=subprocess.DEVNULL)
    squashfs.unlink()
    return Image(architecture, card, directory / "root")


def lines(image: Image, path: str) -> list[list[str]]:
    """A list of users or groups."""
    return [line.split(":") for line in (image.root / path).read_text(encoding="utf-8").splitlines()]


def test_the_partitions_have_their_names_and_places(image: Image) -> None:
    """Updates, /init and the firmware find them; data is the last one and can grow."""
    assert list(image.card.partitions) == LAYOUT[image.architecture]
    assert max(image.card.partitions.values(), key=lambda part: part.begin) == image.card.partitions["data"]
    with image.card.path.open("rb") as disk:
        mbr = disk.read(512)
    kinds = [mbr[446 + 16 * entry + 4] for entry in range(4)]
    if image.architecture == "arm64":
        starts = [int.from_bytes(mbr[446 + 16 * entry + 8 : 446 + 16 * entry + 12], "little") * 512 for entry in range(4)]
        for entry, name in enumerate(("bootcfg", "boot_a", "boot_b")):
            assert kinds[entry] == 0x0C, "old boot ROMs read the MBR"
            assert starts[entry] == image.card.partitions[name].begin
    else:
        assert 0xEE in kinds
        assert mbr[:2] != b"\0\0", "GRUB for BIOS is in the MBR"


def test_the_download_is_small_and_said_to_be_whole(image: Image) -> None:
    """At most 180 MB, with its sum beside it."""
    packed = WORK / f"refclock-{version()}-{image.architecture}.img.zst"
    assert packed.stat().st_size <= MOST_COMPRESSED_BYTES
    subprocess.run(["sha256sum", "--quiet", "-c", f"{packed.name}.sha256"], cwd=WORK, check=True)


def test_nobody_has_a_password(image: Image) -> None:
    """No account of the image can log in with a password, and no console asks for one."""
    assert {second for _, second, *_ in lines(image, "etc/shadow")} == {"*"}
    for unit in ("getty@.service", "serial-getty@.service", "console-getty.service", "getty-static.service"):
        assert (image.root / "etc/systemd/system" / unit).readlink() == Path("/dev/null")
    assert not (image.root / "root/.ssh").exists()
    assert not list((image.root / "etc/ssh").glob("ssh_host_*"))


def test_users_have_the_numbers_that_they_had(image: Image) -> None:
    """What is on the data partition belongs to the same users in every version."""
    numbers = {name: int(uid) for name, _, uid, *_ in lines(image, "etc/passwd")}
    assert {name: numbers[name] for name in FIXED} == FIXED
    assert len(set(numbers.values())) == len(numbers)


def test_no_program_gives_rights_to_whoever_starts_it(image: Image) -> None:
    """No file is set-user-id, set-group-id or writable for all; everything is root's."""
    odd = []
    for path in image.root.rglob("*"):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH | stat.S_IWGRP):
            odd.append(str(path.relative_to(image.root)))
        if os.geteuid() == 0:
            assert (about.st_uid, about.st_gid) == (0, 0), path
    assert odd == []


def test_the_machine_is_nobody_yet(image: Image) -> None:
    """Identity is made at the first start: two boxes of one image are two boxes."""
    assert (image.root / "etc/machine-id").read_bytes() == b""
    assert image.card.text("box.toml") == (ROOT / "image/appliance/box.toml").read_text(encoding="utf-8")


def test_the_services_are_switched_on(image: Image) -> None:
    """The time server, the owner's settings, the firewall and the end of a trial start with the system."""
    wanted = {link.name for link in (image.root / "etc/systemd/system").glob("*.wants/*")}
    ours = {"refclock.target", "refclock-clock.service", "refclock-box.service", "refclock-firewall.service", "refclock-good.service"}
    assert ours | {"refclock-trial.timer", "refclock-grow.service", "systemd-networkd.service", "ssh.service"} <= wanted
    assert "CAP_SYS_TIME" in (image.root / "usr/lib/systemd/system/refclock-clock.service.d/20-box.conf").read_text(encoding="utf-8")


def test_python_is_compiled(image: Image) -> None:
    """Each module has its byte code, which is used without a look at the source: no start compiles anything."""
    for place in ("usr/lib/refclock/lib/python3/site-packages/ppsd", "usr/lib/python3/dist-packages/structlog", "usr/lib/python3.13/json"):
        for source in (image.root / place).rglob("*.py"):
            [compiled] = source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")
            assert compiled.read_bytes()[4] == 1, f"{compiled}: a hash that is not checked (PEP 552)"


def test_modules_that_a_receiver_needs_are_there(image: Image) -> None:
    """USB bridges, pulses, updates and the network of emulators and boards."""
    listed = (next((image.root / "usr/lib/modules").iterdir()) / "modules.dep").read_text(encoding="ascii")
    there = {Path(line.partition(":")[0]).name.removesuffix(".ko").replace("-", "_") for line in listed.splitlines()}
    assert MODULES["all"] | MODULES[image.architecture] <= there


def test_the_bill_of_materials_names_every_package(image: Image) -> None:
    """SPDX, with a version and a checksum for each Debian package."""
    bill = json.loads((WORK / f"refclock-{version()}-{image.architecture}.spdx.json").read_text(encoding="utf-8"))
    assert bill["spdxVersion"] == "SPDX-2.3"
    named = {part["name"] for part in bill["packages"]}
    assert {"refclock", "systemd", "python3.13", "openssh-server"} <= named
    assert all(
        re.fullmatch(r"[0-9a-f]{64}", part["checksums"][0]["checksumValue"]) for part in bill["packages"] if part["name"] != "refclock"
    )


@contextmanager
def trees(card: Card, directory: Path) -> Iterator[list[Path]]:
    """The device trees of boot_a."""
    found = []
    for name in card.names("boot_a"):
        if name.endswith(".dtb"):
            (directory / name).write_bytes(card.read(name, "boot_a") or b"")
            found.append(directory / name)
    yield found


@pytest.mark.parametrize("overlay", sorted(path.stem for path in OVERLAYS.glob("*.dts")))
def test_an_overlay_fits_every_board_that_it_is_for(image: Image, overlay: str, tmp_path: Path) -> None:
    """The firmware can lay it over the device tree of each board: the labels that it needs are there. Where a board has other pins (Pi 5),
    it is refused, not half applied."""
    if image.architecture != "arm64":
        pytest.skip("a PC has no device tree")
    made = tmp_path / "overlay.dtbo"
    made.write_bytes(image.card.read(f"overlays/{overlay}.dtbo", "boot_a") or b"")
    with trees(image.card, tmp_path) as boards:
        assert len(boards) >= 10
        for board in boards:
            done = subprocess.run(["fdtoverlay", "-i", board, "-o", tmp_path / "merged", made], capture_output=True, text=True, check=False)
            fits = board.name.startswith("bcm2712") == overlay.endswith("-pi5")
            assert (done.returncode == 0) == fits, f"{overlay} on {board.name}: {done.stderr}"


def test_a_version_that_the_mirror_no_longer_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build says which package is gone, and what to do; nothing is taken in its place."""
    monkeypatch.setattr(packages, "mirrors", lambda: {"debian": f"file://{tmp_path}"})
    helper = tmp_path / "helper"
    gone = packages.Package("systemd", "1-1", "0" * 64, "debian", "pool/main/s/systemd/systemd_1-1_arm64.deb")
    helper.write_text("#!/bin/sh\necho '404  Not Found' >&2; exit 100\n", encoding="utf-8")
    helper.chmod(0o755)
    monkeypatch.setattr(packages, "APT_HELPER", str(helper))
    with pytest.raises(packages.Gone, match=r"no longer has systemd 1-1: run make image-lock"):
        packages.fetch([gone], tmp_path / "debs")


def test_the_initial_file_system_is_one_that_kernels_read() -> None:
    """cpio lists what was put in, directories first, with the sizes and kinds that it had."""
    archive = Archive(1_700_000_000)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, b"program")
    archive.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    said = subprocess.run(["cpio", "-tv", "--quiet"], input=archive.packed(), capture_output=True, check=True).stdout.decode()
    assert [re.split(r"\s+", line)[0] for line in said.splitlines()] == ["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx"]
    assert said.rstrip().endswith("bin/sh -> busybox")
