"""A box in a directory: a PC or a Raspberry Pi with two slots, as far as its files tell. Restarts are played as its boot loader would."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ppsd.appliance.loader import AUTOBOOT, GRUB, MAILBOX, MEMORY, REACHED, TRIAL, TRIAL_FILE, Slots
from ppsd.appliance.slots import Choice, Loader, Slot, autoboot, grub_block
from refclock.kernel.host import Host

ROOT = Path(__file__).parents[3]
PARTITIONS = {Slot.A: 2, Slot.B: 3}
SECTORS = {"boot": 131072, "root": 1048576}


class Box(Host):
    """``words``: programs that were called."""

    def __init__(self, root: Path, loader: Loader, architecture: str = "arm64") -> None:
        super().__init__(root)
        self.words: list[list[str]] = []
        self.starts = 0
        if loader is Loader.GRUB:
            self.put(GRUB, grub_block(Choice(Slot.A)))
        else:
            self.put(AUTOBOOT, autoboot(Choice(Slot.A), loader, PARTITIONS))
            self.put("/proc/device-tree/model", b"Raspberry Pi 4 Model B Rev 1.5\0")
        if loader is Loader.TRYBOOT:
            self.put(MAILBOX, b"")
        for kind, first in (("boot", 2), ("root", 4)):
            for number, slot in enumerate(Slot, first):
                link = self.path(f"/dev/disk/by-partlabel/{kind}_{slot}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(f"../../mmcblk0p{number}")
                self.put(f"/sys/class/block/mmcblk0p{number}/partition", f"{number}\n".encode())
                self.put(f"/sys/class/block/mmcblk0p{number}/size", f"{SECTORS[kind]}\n".encode())
        conf = (ROOT / "image/appliance/rauc/system.conf").read_text(encoding="utf-8")
        self.put("/etc/rauc/system.conf", conf.replace("@ARCHITECTURE@", architecture).encode())
        self.start(Slot.A)

    @property
    def slots(self) -> Slots:
        """What the machine's own programs see."""
        return Slots(self, self.run)

    def run(self, words: Sequence[str]) -> int:
        """As a program that succeeds."""
        self.words.append(list(words))
        return 0

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def start(self, slot: Slot) -> None:
        """The kernel of a slot runs: a new boot."""
        self.starts += 1
        self.put("/proc/cmdline", f"quiet refclock.slot={slot} rauc.slot={slot} panic=10\n".encode())
        self.put("/proc/sys/kernel/random/boot_id", f"boot-{self.starts}\n".encode())

    def restart(self, tryboot: bool = False) -> Slot:
        """What the boot loader does; /init counts where it does not. Returns the slot that runs then."""
        loader = self.slots.loader
        if loader is Loader.GRUB:
            choice = self.slots.choice()
            if choice.trial and choice.left:  # as image/appliance/grub/grub.cfg
                self.put(GRUB, grub_block(Choice(choice.usual, choice.trial, choice.left - 1)))
                slot = choice.trial
            else:
                slot = choice.usual
        else:
            slot = self.firmware(tryboot)
            if self.init(slot):
                slot = self.firmware(False)
                assert not self.init(slot)
        self.start(slot)
        return slot

    def firmware(self, tryboot: bool) -> Slot:
        """The slot that autoboot.txt names."""
        sections = self.path(AUTOBOOT).read_text(encoding="ascii").split("[tryboot]")
        number = int(sections[-1 if tryboot else 0].rpartition("boot_partition=")[2].split()[0])
        return next(slot for slot, partition in PARTITIONS.items() if partition == number)

    def init(self, slot: Slot) -> bool:
        """What /init does with the trial; returns whether it restarts."""
        script = """. "$1"; mount() { :; }; sync() { :; }; reboot() { echo "reboot $*"; }; trial "$2" "$3"; reached "$4" "$3" """
        fragment = ROOT / "image/appliance/initramfs/trial.sh"
        words = ["sh", "-euc", script, "sh", str(fragment), str(self.path("/boot/refclock")), slot, str(self.path("/data"))]
        return "reboot -f" in subprocess.run(words, capture_output=True, text=True, check=True).stdout


__all__ = ["AUTOBOOT", "GRUB", "MEMORY", "PARTITIONS", "REACHED", "ROOT", "TRIAL", "TRIAL_FILE", "Box"]
