"""What a boot makes of the settings, and how the machine gets it. A usual boot finds everything as the last one did, and repeats it.

To read and judge the settings takes longer than all the rest: 0.3 s of a PC's processor, many seconds of a small board's, and the daemon
waits for it. So this module loads nothing of that, and what a boot without any complaint made is kept with a fingerprint of what it was
made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from ppsd.appliance.boot import BOOTCFG, LIMIT_BYTES, TRIAL, Command, partition, replace, slot_of
from ppsd.config.contents import contents
from refclock.errors import explain
from refclock.kernel.files import owners, replace_file

R = TypeVar("R")
BOX_FILE: Final = "box.toml"
DAEMON_FILE: Final = "refclock.toml"
DEFAULTS: Final = "/usr/share/refclock/appliance"
"""The two files as the image has them."""
KEPT: Final = "/data/box"
"""The last good box.toml, both files as last seen on the card, and what was made of them."""
OWN: Final = {BOX_FILE: f"{KEPT}/{BOX_FILE}", DAEMON_FILE: f"/data/etc/refclock/{DAEMON_FILE}"}
"""The box's own copy of each file."""
HOST_KEY: Final = "/data/ssh/ssh_host_ed25519_key"
DROP_IN: Final = "systemd/system/refclock-clock.service.d/20-box.conf"
"""Below /run: what the configuration allows the clock process beyond its unit. Below /usr/lib: the same for the configuration that the
image comes with."""
RUN: Final = "/run/refclock-box"
USER: Final = "user.txt"
"""The file on a boot partition that tells the firmware the pins. config.txt includes it."""
PINS_TRIED: Final = f"{KEPT}/pins-tried"
"""The pins for which the box was last restarted: it is not done twice for the same."""
MADE: Final = f"{KEPT}/made.json"
INPUTS: Final = (
    *(f"{place}/{name}" for name in OWN for place in (BOOTCFG, f"{KEPT}/seen", DEFAULTS)),
    *OWN.values(),
    f"/usr/lib/{DROP_IN}",
)
"""Files whose content decides what is made."""
_HERE: Final = Path(__file__).parents[1]
_CODE: Final = ("appliance/*.py", "config/*.py", "cli/privileges.py")
"""What makes it. Another version may make something else of the same files."""


class Made(NamedTuple):
    """``files``: (text, mode) by path, for this boot. ``hostname``; ``pins``: content of user.txt. ``login``: somebody may log in."""

    files: Mapping[str, tuple[str, int]]
    hostname: str
    pins: str
    login: bool


# ---- the memory of the last boot ------------------------------------------------------------------------------------------------------


def fingerprint(root: Path) -> str:
    """Of everything that decides what is made: the two files in all their copies, the names beside them on the card, the files that they
    may refer to, and the code."""
    told: list[object] = [[name, _digest(root / name.lstrip("/"))] for name in INPUTS]
    told.append(sorted(path.name for path in (root / BOOTCFG.lstrip("/")).glob("*") if path.name != "STATUS.txt"))
    told.append(_sizes((root / OWN[DAEMON_FILE].lstrip("/")).parent.glob("*")))
    told.append([_sizes(_HERE.glob(pattern)) for pattern in _CODE])
    return hashlib.blake2b(json.dumps(told).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        return hashlib.blake2b(contents(path, LIMIT_BYTES)).hexdigest()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"


def _sizes(files: Iterable[Path]) -> list[object]:
    found = ((path.name, path.stat()) for path in sorted(files))
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]


def remembered(root: Path) -> Made | None:
    """What the last boot made, when this one would make the same; else None."""
    try:
        told = json.loads(contents(root / MADE.lstrip("/"), LIMIT_BYTES))
        if told["of"] != fingerprint(root):
            return None
        files = {str(name): (str(text), int(mode)) for name, (text, mode) in told["files"].items()}
        return Made(files, str(told["hostname"]), str(told["pins"]), bool(told["login"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# ---- carrying it out ------------------------------------------------------------------------------------------------------------------


class Machine:
    """The appliance whose files are below ``root``. ``run`` runs its programs. ``troubles``: what could not be done, a sentence each; the
    rest is done all the same."""

    def __init__(self, root: Path, run: Command) -> None:
        self.root, self.run = root, run
        self.troubles: list[str] = []

    def carry_out(self, made: Made) -> bool:
        """Bring it into force. Returns whether the firmware must read the pins anew."""
        for name, (text, mode) in made.files.items():
            self.attempt(name, partial(self.write, name, text, mode))
        if self.path(f"/run/{DROP_IN}").exists() and self.run(["systemctl", "daemon-reload"]) != 0:
            self.troubles.append("systemd did not read what refclock-clock.service may do with this configuration")
        if self.run(["hostname", made.hostname]) != 0:
            self.troubles.append(f"the name could not be set to {made.hostname}")
        if made.login:
            self.attempt("the ssh host key", self._make_host_key)
        return self.attempt("the pins", lambda: self._set_pins(made.pins)) or False

    def remember(self, made: Made) -> None:
        """Keep it for the next boot."""
        told = {"of": fingerprint(self.root)} | made._asdict()
        self.attempt(MADE, lambda: self.save(MADE, json.dumps(told).encode()))

    def _make_host_key(self) -> None:
        """Make this box's ssh host key, once for all: a client that has seen it must not be warned after every boot."""
        key = self.path(HOST_KEY)
        if key.exists() and key.stat().st_size:
            return
        made = key.with_name("new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700, parents=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "refclock", "-f", str(made / key.name)]
        if self.run(words) != 0:
            raise OSError("ssh-keygen failed, so nobody can log in")
        for part in (f"{key.name}.pub", key.name):  # the private one last: while it is missing all is made anew
            with (made / part).open("rb") as stream:
                os.fsync(stream.fileno())
            (made / part).replace(key.with_name(part))
        made.rmdir()
        fd = os.open(key.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _set_pins(self, pins: str) -> bool:
        """Tell the firmware the pins. Returns whether it must read them anew. A machine without that firmware has no config.txt."""
        slot, wanted = slot_of(self.text("/proc/cmdline")), pins.encode()
        device = partition(self.root, f"boot_{slot}") if slot else ""
        if not device:
            return False
        with self._mounted(device) as directory:
            if not (directory / "config.txt").exists() or _content(directory / USER) == wanted:
                return False
            replace(directory / USER, wanted, self.run)
        with self._mounted(device) as directory:  # read from the card, not from memory
            if _content(directory / USER) != wanted:
                raise OSError("the card does not keep what is written to it; use another card")
        if self.text(TRIAL).strip() == f"refclock.slot={slot}":
            raise OSError("they act at the next start: this one tries a new version, and a restart would leave it")
        if self.read(PINS_TRIED) == wanted:
            raise OSError("they act at the next start")
        self.save(PINS_TRIED, wanted)
        return True

    @contextlib.contextmanager
    def _mounted(self, device: str) -> Iterator[Path]:
        directory = self.path(f"{RUN}/boot")
        directory.mkdir(parents=True, exist_ok=True)
        if self.run(["mount", "-t", "vfat", "-o", "ro", device, str(directory)]) != 0:
            raise OSError(f"the boot partition {device} cannot be read")
        try:
            yield directory
        finally:
            self.run(["umount", str(directory)])

    # ---- files ---------------------------------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Where ``name`` is below the root."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it cannot be read."""
        return _content(self.path(name))

    def text(self, name: str) -> str:
        """The text of a file; "" when it cannot be read."""
        return (self.read(name) or b"").decode("utf-8", "replace")

    def write(self, name: str, text: str, mode: int) -> None:
        """Write a file of this boot."""
        path = self.path(name)
        path.parent.mkdir(mode=0o755 if mode & 0o044 else 0o700, parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.new")
        made.unlink(missing_ok=True)
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
            stream.write(text)
        made.chmod(mode)
        made.replace(path)

    def save(self, name: str, data: bytes) -> None:
        """Keep a file for the next boots, when it changed. Those of ``KEPT`` may have the passphrase of the wireless network."""
        path = self.path(name)
        if _content(path) == data:
            return
        secret = name.startswith(KEPT)
        path.parent.mkdir(mode=0o700 if secret else 0o755, parents=True, exist_ok=True)
        replace_file(path, data, 0o600 if secret else 0o644, owners())

    def attempt(self, what: str, do: Callable[[], R]) -> R | None:
        """Do one thing. What prevents it is told, and the rest goes on."""
        try:
            return do()
        except OSError as error:
            self.troubles.append(explain(error, what))
            return None


def _content(path: Path) -> bytes | None:
    try:
        return contents(path, LIMIT_BYTES)
    except OSError:
        return None
