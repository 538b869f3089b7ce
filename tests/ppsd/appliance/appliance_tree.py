"""An appliance in a directory, for tests of what it does at a boot."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ppsd.appliance.box import DROP_IN, Applied, Box

IMAGE = Path(__file__).parents[3] / "image" / "appliance"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ me@laptop"


class Appliance:
    """A machine in a directory. Programs are not run: mounting shows the firmware's partition, and keys are made of letters."""

    def __init__(self, root: Path) -> None:
        self.root, self.ran = root, list[Sequence[str]]()
        for directory in ("boot/refclock", "data", "proc", "sys/class/block/mmcblk0p2", "firmware", "etc"):
            (root / directory).mkdir(parents=True)
        shutil.copytree(IMAGE, root / "usr/share/refclock/appliance", ignore=lambda _, names: {n for n in names if not n.endswith(".toml")})
        for name in ("refclock.toml", "box.toml"):
            shutil.copyfile(IMAGE / name, root / "boot/refclock" / name)
        self.write("proc/cmdline", "refclock.slot=a quiet\n")
        self.write("sys/class/block/mmcblk0p2/uevent", "DEVNAME=mmcblk0p2\nPARTNAME=boot_a\n")
        self.write("firmware/config.txt", "include user.txt\n")
        self.write(f"usr/lib/{DROP_IN}", "[Service]\n# kernel\n")
        self.boot()
        self.ran.clear()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def card(self, text: str, name: str = "box.toml") -> None:
        """The owner edits a file on another machine."""
        self.write(f"boot/refclock/{name}", text)

    def boot(self) -> Applied:
        """What was in memory is gone, and the settings are applied anew."""
        self.forget()
        return self.box().apply()

    def forget(self) -> None:
        """The power is off: what was in memory is gone."""
        for gone in ("run", "root"):
            shutil.rmtree(self.root / gone, ignore_errors=True)

    def box(self) -> Box:
        return Box(self.root, self.run, lambda config: f"[Service]\n# {config.clock.steer}\n" if config.clock.steer != "none" else "")

    def run(self, words: Sequence[str]) -> int:
        self.ran.append(words)
        match words:
            case ["mount", *_, where] if "remount" not in words[2]:
                for file in (self.root / "firmware").iterdir():
                    shutil.copyfile(file, Path(where) / file.name)
            case ["umount", where]:
                for file in Path(where).iterdir():
                    shutil.copyfile(file, self.root / "firmware" / file.name)
                    file.unlink()
            case ["ssh-keygen", *_, file]:
                Path(file).write_text("private", encoding="utf-8")
                Path(f"{file}.pub").write_text("public", encoding="utf-8")
        return 0
