"""Makes the images that people flash: ``python image/build/image.py [arm64|amd64 ...]``, into build/image.

Everything comes from packages whose versions and checksums are locked; SOURCE_DATE_EPOCH dates every file. Two builds are the same to the
bit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "image/deb"), str(ROOT)]

import disk  # noqa: E402
import package  # noqa: E402
import packages  # noqa: E402
import root  # noqa: E402
from disk import Partition  # noqa: E402
from initramfs import initramfs  # noqa: E402
from signing import signing  # noqa: E402

from ppsd import version  # noqa: E402
from ppsd.appliance.pins import user_text  # noqa: E402
from ppsd.appliance.settings import PinSettings  # noqa: E402

APPLIANCE = root.APPLIANCE
DEVICE_TREES = "dtb"
"""Beside the modules of the kernel."""
OWNERS = ("box.toml", "refclock.toml")
"""The files on bootcfg that people change."""
FIRMWARE = ["bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat"]


def base(architecture: str, work: Path, tools: root.Tools, locks: Path) -> Path:
    """The unpacked packages with the modules that are kept; made once for each lock."""
    tree = work / architecture / "base"
    if root.unpacked(architecture, tree, work / "debs", locks):
        root.prune_modules(tree, tools)
    return tree


def ours(tree: Path, architecture: str, work: Path) -> None:
    """Our package, configured as the clock of its machine."""
    deb = package.package(architecture, work / architecture)
    root.unpack(deb, tree)
    shutil.copyfile(APPLIANCE / "refclock.toml", tree / "etc/refclock/refclock.toml")
    share = tree / "usr/share/refclock/appliance"
    share.mkdir(parents=True, exist_ok=True)
    for name in OWNERS:
        shutil.copyfile(APPLIANCE / name, share / name)
    rauc = (APPLIANCE / "rauc/system.conf").read_text(encoding="utf-8").replace("@ARCHITECTURE@", architecture)
    (tree / "etc/rauc").mkdir(exist_ok=True)
    (tree / "etc/rauc/system.conf").write_text(rauc, encoding="utf-8")
    shutil.copyfile(signing()[1], tree / "etc/rauc/keyring.pem")
    slots = tree / "usr/lib/refclock/slots"
    shutil.copyfile(APPLIANCE / "rauc/slots", slots)
    slots.chmod(0o755)


def grub(work: Path, tools: root.Tools, platform: str, modules: list[str]) -> bytes:
    """GRUB with its modules in one file; it goes on with grub/grub.cfg on bootcfg."""
    early = work / "early.cfg"
    early.write_text("search --no-floppy --set=root --label REFCLOCK\nset prefix=($root)/grub\n", encoding="utf-8")
    made = work / f"grub-{platform}"
    modules_at = tools.tree(f"usr/lib/grub/{platform}")
    tools.run(
        "grub-mkimage",
        "-O",
        platform,
        "-d",
        modules_at,
        "-p",
        "/grub",
        "-c",
        early,
        "-o",
        made,
        *packages.CONTENTS["grub"]["modules"],
        *modules,
    )
    return made.read_bytes()


def pc_image(tree: Path, file: Path, work: Path, tools: root.Tools, epoch: int) -> None:
    """The image of the PC."""
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    parts = list(disk.SIZES)
    config = (APPLIANCE / "grub/grub.cfg").read_text(encoding="utf-8")
    for slot in "ab":
        config = config.replace(f"@BOOT_{slot.upper()}@", str(parts.index(f"boot_{slot}") + 1))
    environment = b"# GRUB Environment Block\n"
    owner = {name: APPLIANCE / name for name in OWNERS} | {
        "EFI/BOOT/BOOTX64.EFI": grub(work, tools, "x86_64-efi", []),
        "grub/grub.cfg": config.encode(),
        "grub/grubenv": environment + b"#" * (1024 - len(environment)),
    }
    slot_a = {"vmlinuz": kernel, "initramfs": initramfs(tree, tools, work, epoch), "boot.cfg": APPLIANCE / "grub/boot.cfg"}
    partitions = [
        Partition("bios", None),
        Partition("bootcfg", disk.fat(work / "bootcfg.fat", "bootcfg", owner, tools, epoch)),
        Partition("boot_a", disk.fat(work / "boot_a.fat", "boot_a", slot_a, tools, epoch)),
        Partition("boot_b", None),
        Partition("root_a", disk.squashfs(tree, work / "root.squashfs", tools, epoch)),
        Partition("root_b", None),
        Partition("data", disk.ext4(work / "data.ext4", "data", tools, epoch)),
    ]
    disk.disk(file, partitions, tools, hybrid=False)
    boot = tools.tree("usr/lib/grub/i386-pc/boot.img").read_bytes()
    disk.bios_boot(file, boot, grub(work, tools, "i386-pc", ["biosdisk"]), 1)


def pi_image(tree: Path, file: Path, work: Path, tools: root.Tools, epoch: int) -> None:
    """The image of the Raspberry Pis."""
    modules = tree / "usr/lib/modules" / root.kernel(tree)
    firmware = tree / "usr/lib/raspi-firmware"
    slot_a: dict[str, Path | bytes] = {name: firmware / name for name in FIRMWARE}
    slot_a |= {tree_.name: tree_ for tree_ in (modules / DEVICE_TREES / "broadcom").glob("*.dtb")}
    for source in sorted((APPLIANCE / "overlays").glob("*.dts")):
        made = work / f"{source.stem}.dtbo"
        tools.run("dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", made, source)
        slot_a[f"overlays/{made.name}"] = made
    slot_a["kernel8.img"] = modules / "vmlinuz"
    slot_a["initramfs"] = initramfs(tree, tools, work, epoch)
    slot_a |= {name: APPLIANCE / "pi" / name for name in ("config.txt", "cmdline.txt")}
    slot_a["user.txt"] = user_text(PinSettings()).encode()
    owner: dict[str, Path | bytes] = {name: APPLIANCE / name for name in OWNERS}
    owner |= {"autoboot.txt": APPLIANCE / "pi/autoboot.txt", "bootcode.bin": firmware / "bootcode.bin"}
    partitions = [
        Partition("bootcfg", disk.fat(work / "bootcfg.fat", "bootcfg", owner, tools, epoch), mbr=True),
        Partition("boot_a", disk.fat(work / "boot_a.fat", "boot_a", slot_a, tools, epoch), mbr=True),
        Partition("boot_b", None, mbr=True),
    ]
    for path in (firmware, modules / DEVICE_TREES):
        shutil.rmtree(path)
    (modules / "vmlinuz").unlink()
    partitions += [
        Partition("root_a", disk.squashfs(tree, work / "root.squashfs", tools, epoch)),
        Partition("root_b", None),
        Partition("data", disk.ext4(work / "data.ext4", "data", tools, epoch)),
    ]
    disk.disk(file, partitions, tools, hybrid=True)


MAKERS = {"arm64": pi_image, "amd64": pc_image}


def build(architecture: str, work: Path, epoch: int, locks: Path) -> Path:
    """Make one image; returns the compressed file."""
    started = time.monotonic()
    tools = root.Tools(work, locks)

    def step(what: str) -> None:
        print(f"{architecture}: {time.monotonic() - started:5.1f} s  {what}", flush=True)

    step("packages")
    tree = work / architecture / "root"
    if tree.exists():
        root.remove(tree)
    made = base(architecture, work, tools, locks)
    subprocess.run(["cp", "-a", made, tree], check=True)
    step("the system")
    ours(tree, architecture, work)
    root.finish(tree, architecture, tools, epoch)
    step("partitions")
    file = work / f"refclock-{version()}-{architecture}.img"
    MAKERS[architecture](tree, file, work / architecture, tools, epoch)
    step("compressing")
    tools.run("zstd", "-q", "-f", "-10", "-T2", file, "-o", f"{file}.zst")
    packed = Path(f"{file}.zst")
    Path(f"{packed}.sha256").write_text(f"{sha256(packed.read_bytes()).hexdigest()}  {packed.name}\n", encoding="utf-8")
    step(f"{packed} ({packed.stat().st_size / 1e6:.1f} MB)")
    return packed


def renewed(architecture: str, work: Path) -> Path:
    """Locks of what the mirror has today, in the directory of the build."""
    for lock in (architecture, "tools"):
        packages.renew(lock, work, work)
    return work


def main(argv: list[str]) -> int:
    """Make the images that were asked for. Gone: see --renew."""
    parser = argparse.ArgumentParser(prog="image.py", description="Makes the images that people flash, into build/image.")
    parser.add_argument("architectures", nargs="*", metavar="arm64|amd64", help="default: both")
    parser.add_argument(
        "--renew", action="store_true", help="where the mirror no longer has a locked version, build with what it has (for tests)"
    )
    parser.add_argument("--compare", action="store_true", help="make each image that is there once more, and tell whether it is the same")
    args = parser.parse_args(argv)
    if unknown := set(args.architectures) - MAKERS.keys():
        parser.error(f"there is no image for {', '.join(sorted(unknown))}")
    said = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    os.environ.setdefault("SOURCE_DATE_EPOCH", said or "1767225600")
    epoch, work = int(os.environ["SOURCE_DATE_EPOCH"]), ROOT / "build" / "image"
    same = True
    for name in args.architectures or MAKERS:
        before = _sum(work, name) if args.compare else ""
        try:
            build(name, work, epoch, packages.HERE)
        except packages.Gone as gone:
            if not args.renew:
                raise
            print(f"image: {gone}. This build, which is for tests, takes what the mirror has now.")
            build(name, work, epoch, renewed(name, work))
        if args.compare:
            same &= _sum(work, name) == before
            print(f"{name}: {'the same to the bit' if _sum(work, name) == before else 'NOT the same as before'}")
    return 0 if same else 1


def _sum(work: Path, architecture: str) -> str:
    return Path(f"{work}/refclock-{version()}-{architecture}.img.zst.sha256").read_text(encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o022)
    try:
        sys.exit(main(sys.argv[1:]))
    except packages.Failed as error:
        sys.exit(f"image: {error}")
