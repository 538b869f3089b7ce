"""The box at each boot: the owner's two files on the card become the settings of the system, before network and daemon start.

refclock.toml is the daemon's, box.toml the box's own (``ppsd.appliance.settings``). Nothing in them, and no file that cannot be
read or written, ends this: what is wrong is told, in STATUS.txt on the card and by ``refclock box status``, and the rest is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ppsd.appliance import settings as box
from ppsd.appliance.boot import BOOTCFG, LIMIT_BYTES, Command, booted_slot
from ppsd.appliance.boot import replace as replace_on_card
from ppsd.appliance.led import MISTAKES, WANTED
from ppsd.appliance.loader import TRIAL
from ppsd.appliance.network import DNSSD, FIREWALL, WIFI, firewall, networkd_files, ntp_service, served_ports, wifi_file
from ppsd.appliance.pins import USER, user_text
from ppsd.appliance.settings import BoxSettings
from ppsd.appliance.shared import Judge, Settled, settle
from ppsd.config.contents import contents
from ppsd.config.file import parse_bytes
from ppsd.config.tables import Config
from refclock.errors import explain, printable
from refclock.kernel.files import owners, replace_file
from refclock.kernel.host import Host
from refclock.schema import ConfigError, Problem

T = TypeVar("T")
R = TypeVar("R")
DAEMON_FILE: Final = "refclock.toml"
STATUS: Final = "STATUS.txt"
DEFAULTS: Final = "/usr/share/refclock/appliance"
"""The two files as the image has them."""
DATA: Final = "/data"
KEPT: Final = f"{DATA}/box"
"""The last good box.toml, and both files as last seen on the card."""
OWN: Final = {box.FILE: f"{KEPT}/{box.FILE}", DAEMON_FILE: f"{DATA}/etc/refclock/{DAEMON_FILE}"}
"""The box's own copy of each file."""
HOST_KEY: Final = f"{DATA}/ssh/ssh_host_ed25519_key"
AUTHORIZED: Final = "/root/.ssh/authorized_keys"
DROP_IN: Final = "systemd/system/refclock-clock.service.d/20-box.conf"
"""Below /run: what the configuration allows the clock process beyond its unit. Below /usr/lib: the same for the configuration that the
image comes with."""
RUN: Final = "/run/refclock-box"
WORDS: Final = f"{RUN}/words"
"""What happened at this boot, a sentence a line."""
PINS_TRIED: Final = f"{KEPT}/pins-tried"
"""The pins for which the box was last restarted: it is not done twice for the same."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a boot made of the owner's files. ``problems``: mistakes in them. ``words``: what happened, and what could not be done, a
    sentence each. ``reboot``: the firmware must read the pins anew."""

    settings: BoxSettings
    config: Config
    problems: tuple[Problem, ...]
    words: tuple[str, ...]
    reboot: bool = False


class Box:
    """The appliance whose files are below ``host``'s root. ``run`` runs its programs. ``privileges``: the drop-in of the clock process that
    a configuration needs. ``check``: raises ConfigError for what a configuration refers to, such as keys."""

    def __init__(
        self, host: Host, run: Command, privileges: Callable[[Config], str], check: Callable[[Config], object] = lambda _: None
    ) -> None:
        self._host, self._run, self._privileges, self._check = host, run, privileges, check
        self._troubles: list[str] = []

    def look(self) -> Applied:
        """What is in force, and what is wrong with it. Nothing is changed."""
        settings, config = self._settled()
        words = tuple((self._host.text(WORDS) or "").splitlines())
        return Applied(settings.value, config.value, self._problems(settings, config), words)

    def apply(self) -> Applied:
        """Bring the settings into force."""
        settings, config = self._settled()
        self._keep(box.FILE, settings)
        self._keep(DAEMON_FILE, config)
        for name, (text, mode) in self._files(settings.value, config.value).items():
            self._try(name, partial(self._write, name, text, mode))
        if self._host.path(f"/run/{DROP_IN}").exists() and self._run(["systemctl", "daemon-reload"]) != 0:
            self._troubles.append("systemd did not read what refclock-clock.service may do with this configuration")
        if self._run(["hostname", settings.value.system.hostname]) != 0:
            self._troubles.append("the name could not be set; it is still " + (self._host.text("/proc/sys/kernel/hostname") or "unknown"))
        if settings.value.system.ssh_keys:
            self._try("the ssh host key", self._make_host_key)
        reboot = self._try("the pins", lambda: self._set_pins(settings.value)) or False
        words = (*(words for words in (settings.words, config.words) if words), *self._troubles)
        problems = self._problems(settings, config)
        for name, told in ((WORDS, words), (MISTAKES, problems), (WANTED, (settings.value.system.led,))):
            self._try(name, partial(self._write, name, "".join(f"{printable(str(line))}\n" for line in told), 0o644))
        return Applied(settings.value, config.value, problems, words, reboot)

    def write_status(self, text: str) -> None:
        """Put STATUS.txt onto the card, for a person who reads it on another machine. OSError: it cannot be written."""
        replace_on_card(self._host.path(f"{BOOTCFG}/{STATUS}"), text.replace("\n", "\r\n").encode(), self._run)

    # ---- the two files --------------------------------------------------------------------------------------------------------------

    def _settled(self) -> tuple[Settled[BoxSettings], Settled[Config]]:
        return self._settle(box.FILE, box.parse), self._settle(DAEMON_FILE, self._judge_config)

    def _settle(self, name: str, judge: Judge[T]) -> Settled[T]:
        default = self._read(f"{DEFAULTS}/{name}") or b""
        own, seen = self._read(OWN[name]), self._read(f"{KEPT}/seen/{name}")
        try:
            card = contents(self._host.path(f"{BOOTCFG}/{name}"), LIMIT_BYTES)
        except FileNotFoundError:
            card = None
        except OSError as error:
            settled = settle(name, seen, seen, own, default, judge)
            wrong = Problem(name, 0, "", f"cannot be read: {error.strerror or error}")
            return Settled(settled.value, settled.content, problems=(wrong, *settled.problems))
        return settle(name, card, seen, own, default, judge)

    def _judge_config(self, data: bytes, name: str) -> tuple[Config | None, list[Problem]]:
        try:
            config = parse_bytes(data, name)
            self._check(config)
        except ConfigError as error:
            told = (replace(p, what=f"{p.what}; it belongs into {box.FILE}") if p.key in box.TABLES else p for p in error.problems)
            return None, list(told)
        return config, []

    def _keep(self, name: str, settled: Settled[T]) -> None:
        """Save what is in force, and what has been seen. In this order a power cut at any moment leaves the owner's edit to be taken
        again, and the box's change to be written again."""
        card, seen = f"{BOOTCFG}/{name}", f"{KEPT}/seen/{name}"
        if settled.lost is not None:
            self._try(OWN[name], lambda: self._save(f"{KEPT}/{name}.replaced", settled.lost or b""))
        self._try(OWN[name], lambda: self._save(OWN[name], settled.content))
        if settled.to_card:
            self._try(card, lambda: replace_on_card(self._host.path(card), settled.content, self._run))
        if self._read(card) == settled.content:
            self._try(seen, lambda: self._save(seen, settled.content))

    # ---- files of the system ----------------------------------------------------------------------------------------------------------

    def _files(self, settings: BoxSettings, config: Config) -> Mapping[str, tuple[str, int]]:
        """(text, mode) of each file that this boot gets. Those of the last boot are gone: they were in memory."""
        keys, ports = settings.system.ssh_keys, served_ports(config.server)
        files = dict.fromkeys(["/etc/hostname"], (f"{settings.system.hostname}\n", 0o644))
        files |= {name: (text, 0o644) for name, text in networkd_files(settings).items()}
        files[FIREWALL] = firewall(ports, bool(keys)), 0o644
        if ports:
            files[DNSSD] = ntp_service(ports[0]), 0o644
        if keys:
            files[AUTHORIZED] = "".join(f"{line}\n" for line in keys), 0o600
        if settings.wifi.ssid:
            files[WIFI] = wifi_file(settings.wifi), 0o600
        if (drop_in := self._privileges(config)) != (self._read(f"/usr/lib/{DROP_IN}") or b"").decode():
            files[f"/run/{DROP_IN}"] = drop_in, 0o644
        return files

    def _make_host_key(self) -> None:
        """Make this box's ssh host key, once for all: a client that has seen it must not be warned after every boot."""
        key = self._host.path(HOST_KEY)
        if key.exists() and key.stat().st_size:
            return
        made = key.with_name("new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700, parents=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "refclock", "-f", str(made / key.name)]
        if self._run(words) != 0:
            raise OSError("ssh-keygen failed, so nobody can log in")
        for part in (f"{key.name}.pub", key.name):  # the private one last: while it is missing all is made anew
            with (made / part).open("rb") as stream:
                os.fsync(stream.fileno())
            (made / part).replace(key.with_name(part))
        made.rmdir()
        _sync(key.parent)

    # ---- pins ---------------------------------------------------------------------------------------------------------------------------

    def _set_pins(self, settings: BoxSettings) -> bool:
        """Tell the firmware the pins. Returns whether it must read them anew. A machine without that firmware has no config.txt."""
        slot = booted_slot(self._host)
        device = partition(self._host, f"boot_{slot}") if slot else ""
        if not device:
            return False
        wanted = user_text(settings.pins).encode()
        with self._mounted(device) as directory:
            if not (directory / "config.txt").exists() or self._content(directory / USER) == wanted:
                return False
            replace_on_card(directory / USER, wanted, self._run)
        with self._mounted(device) as directory:  # read from the card, not from memory
            if self._content(directory / USER) != wanted:
                raise OSError("the card does not keep what is written to it; use another card")
        if self._host.text(TRIAL) == f"refclock.slot={slot}":
            raise OSError("they act at the next start: this one tries a new version, and a restart would leave it")
        if self._read(PINS_TRIED) == wanted:
            raise OSError("they act at the next start")
        self._save(PINS_TRIED, wanted)
        return True

    @contextlib.contextmanager
    def _mounted(self, device: str) -> Iterator[Path]:
        directory = self._host.path(f"{RUN}/boot")
        directory.mkdir(parents=True, exist_ok=True)
        if self._run(["mount", "-t", "vfat", "-o", "ro", device, str(directory)]) != 0:
            raise OSError(f"the boot partition {device} cannot be read")
        try:
            yield directory
        finally:
            self._run(["umount", str(directory)])

    # ---- reading and writing ---------------------------------------------------------------------------------------------------------

    def _problems(self, settings: Settled[BoxSettings], config: Settled[Config]) -> tuple[Problem, ...]:
        return (*settings.problems, *config.problems, *self._misnamed())

    def _misnamed(self) -> list[Problem]:
        """Files that the owner meant for ours: Windows hides .txt, and makes copies."""
        known = [box.FILE, DAEMON_FILE]
        found = (path.rpartition("/")[2] for path in self._host.names(f"{BOOTCFG}/*"))
        named = [(name, ours) for name in found for ours in known if name.lower().startswith(ours[:-5]) and name.lower() != ours]
        return [Problem(name[:64], 0, "", f"is not read; did you mean {ours}?") for name, ours in named if name.lower() != f"{ours}.new"]

    def _content(self, path: Path) -> bytes | None:
        try:
            return contents(path, LIMIT_BYTES)
        except OSError:
            return None

    def _read(self, name: str) -> bytes | None:
        return self._content(self._host.path(name))

    def _write(self, name: str, text: str, mode: int) -> None:
        """Write a file of this boot."""
        path = self._host.path(name)
        path.parent.mkdir(mode=0o755 if mode & 0o044 else 0o700, parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.new")
        made.unlink(missing_ok=True)
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
            stream.write(text)
        made.chmod(mode)
        made.replace(path)

    def _save(self, name: str, data: bytes) -> None:
        """Keep a file for the next boots, when it changed. Those of ``KEPT`` may have the passphrase of the wireless network."""
        path = self._host.path(name)
        if self._content(path) == data:
            return
        secret = name.startswith(KEPT)
        path.parent.mkdir(mode=0o700 if secret else 0o755, parents=True, exist_ok=True)
        replace_file(path, data, 0o600 if secret else 0o644, owners())

    def _try(self, what: str, do: Callable[[], R]) -> R | None:
        """Do one thing. What prevents it is told, and the rest goes on."""
        try:
            return do()
        except OSError as error:
            self._troubles.append(explain(error, what))
            return None


def partition(host: Host, label: str) -> str:
    """The device of the partition with that label; "" when there is none. The kernel tells it before udev makes any link."""
    for name in host.names("/sys/class/block/*/uevent"):
        told = (host.text(name) or "").splitlines()
        if f"PARTNAME={label}" in told:
            return next((f"/dev/{line.removeprefix('DEVNAME=')}" for line in told if line.startswith("DEVNAME=")), "")
    return ""


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
