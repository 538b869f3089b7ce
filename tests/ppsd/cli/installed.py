"""A machine of files below a directory, on which the package is installed, with a systemctl that only remembers."""

from __future__ import annotations

import io
import re
from pathlib import Path

from ppsd.cli.setup import Setup
from refclock.kernel.host import Host


class Systemctl:
    """Units that are enabled, active and masked. ``broken``: a unit that does not start. ``patience``: calls after which the person at the
    terminal has had enough."""

    def __init__(self, *units: str) -> None:
        self.enabled, self.active, self.broken = set(units), set(units), ""
        self.masked: set[str] = set()
        self.restarted: list[str] = []
        self.patience = 1000

    def __call__(self, verb: str, *words: str) -> int:
        self.patience -= 1
        if self.patience < 0:
            raise KeyboardInterrupt
        units = [word.removesuffix(".service") for word in words if not word.startswith("--")]
        if "chronyd" in units:
            if verb in ("enable", "disable"):
                return 1  # another name of chrony
            units = ["chrony"]
        if verb == "is-enabled":
            return int(units[0] not in self.enabled)
        if verb == "is-active":
            return int(units[0] not in self.active)
        if verb in ("disable", "mask"):
            self.enabled -= set(units)
            self.active -= set(units)
        if verb == "mask":
            self.masked |= set(units)
        if verb == "unmask":
            self.masked -= set(units)
            self.enabled |= {unit for unit in units if "getty" in unit}  # systemd-getty-generator does, as long as there is a console
        if verb == "enable":
            self.enabled |= set(units)
        if verb in ("start", "restart") or (verb == "enable" and "--now" in words):
            if self.broken in units or self.masked & set(units):
                return 1
            self.active |= set(units)
            self.restarted += units
        return 0


class Machine:
    """The files of a machine, and its services."""

    def __init__(self, root: Path, *units: str) -> None:
        self.root, self.systemctl, self.out = root, Systemctl(*units), io.StringIO()
        for name in ("refclock.target", "refclock-clock.service"):
            self.write(f"/usr/lib/systemd/system/{name}", "")
        for unit in units:
            name = re.sub("@.*", "@", unit)
            self.write(f"/usr/lib/systemd/system/{name if '.' in name else f'{name}.service'}", "")
        alias = root / "etc/systemd/system/chronyd.service"
        alias.parent.mkdir(parents=True)
        alias.symlink_to("../../../usr/lib/systemd/system/chrony.service")
        self.write("/etc/chrony/chrony.conf", "pool ntp.example iburst\nconfdir /etc/chrony/conf.d\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.root / name.lstrip("/")).read_text(encoding="utf-8")

    def state(self) -> tuple[dict[str, str], set[str], set[str], set[str]]:
        """Every directory, every file with its text, and the services that are on."""
        files = {str(path): path.read_text(encoding="utf-8") if path.is_file() else "" for path in self.root.rglob("*")}
        return files, set(self.systemctl.enabled), set(self.systemctl.active), set(self.systemctl.masked)

    def setup(self) -> Setup:
        return Setup(Host(self.root), self.systemctl, self.out)

    def do(self, choice: str) -> int:
        return self.setup().carry_out(self.setup().plan(choice))
