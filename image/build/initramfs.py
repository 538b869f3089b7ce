"""The initial file system: busybox, drivers of disks and /init. The kernel unpacks it into memory and starts /init."""

from __future__ import annotations

import stat
from pathlib import Path

from packages import CONTENTS
from root import APPLIANCE, Tools, closure, kernel

CHARACTER_DEVICE = 0o020600


class Archive:
    """A cpio archive in the form that kernels read (newc)."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._made, self._entries = epoch, set[str](), list[bytes]()

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """One entry, owned by root, after its directories."""
        above = name.rpartition("/")[0]
        if above and above not in self._made:
            self.add(above, stat.S_IFDIR | 0o755)
        self._made.add(name)
        number = len(self._entries) + 1 if name != "TRAILER!!!" else 0
        fields = (number, mode, 0, 0, 1, self._epoch, len(content), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + "".join(f"{field:08X}" for field in fields).encode() + name.encode() + b"\0"
        self._entries.append(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))

    def packed(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._entries)


def initramfs(tree: Path, tools: Tools, work: Path, epoch: int) -> Path:
    """Make it for the kernel in ``tree``; returns the file."""
    archive = Archive(epoch)
    for directory in ("dev", "proc", "sys", "run"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("dev/console", CHARACTER_DEVICE, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, (tree / "usr/bin/busybox").read_bytes())
    for applet in CONTENTS["kernel"]["applets"]:
        archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    archive.add("sbin/modprobe", stat.S_IFLNK | 0o777, b"/bin/busybox")  # where the kernel itself calls it
    for file in sorted((APPLIANCE / "initramfs").iterdir()):
        archive.add(file.name, stat.S_IFREG | 0o755, file.read_bytes())
    version = kernel(tree)
    names = closure(tree, CONTENTS["kernel"]["early"])
    home = work / "initramfs"
    for name in names:
        content = (tree / "usr/lib/modules" / version / name).read_bytes()
        archive.add(f"lib/modules/{version}/{name}", stat.S_IFREG | 0o644, content)
        file = home / "lib/modules" / version / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (home / "lib/modules" / version / name).write_bytes((tree / "usr/lib/modules" / version / name).read_bytes())
    tools.run("depmod", "-b", home, version)
    for name in ("modules.dep", "modules.alias", "modules.symbols", "modules.softdep"):
        archive.add(f"lib/modules/{version}/{name}", stat.S_IFREG | 0o644, (home / "lib/modules" / version / name).read_bytes())
    made = work / "initrd"
    made.write_bytes(archive.packed())
    tools.run("zstd", "-q", "-f", "-15", made, "-o", work / "initrd.img")
    return work / "initrd.img"
