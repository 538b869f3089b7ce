"""The box at each boot: the owner's two files on the card become the settings of the system, before network and daemon start.

refclock.toml is the daemon's, box.toml the box's own (``ppsd.appliance.settings``). Nothing in them, and no file that cannot be read or
written, ends this: what is wrong is told, in STATUS.txt on the card and by ``refclock box status``, and the rest is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ppsd.appliance import settings as box
from ppsd.appliance.boot import BOOTCFG, LIMIT_BYTES, Command
from ppsd.appliance.boot import replace as replace_on_card
from ppsd.appliance.led import MISTAKES, WANTED
from ppsd.appliance.made import BOX_FILE, DAEMON_FILE, DEFAULTS, DROP_IN, KEPT, OWN, RUN, Machine, Made
from ppsd.appliance.network import DNSSD, FIREWALL, WIFI, firewall, key_ports, networkd_files, ntp_service, served_ports, wifi_file
from ppsd.appliance.pins import user_text
from ppsd.appliance.settings import BoxSettings
from ppsd.appliance.shared import Judge, Settled, settle
from ppsd.config.contents import contents
from ppsd.config.file import parse_bytes
from ppsd.config.tables import Config
from refclock.errors import printable
from refclock.schema import ConfigError, Problem

T = TypeVar("T")
STATUS: Final = "STATUS.txt"
AUTHORIZED: Final = "/root/.ssh/authorized_keys"
WORDS: Final = f"{RUN}/words"
"""What happened at this boot, a sentence a line."""


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
    """The appliance whose files are below ``root``. ``run`` runs its programs. ``privileges``: the drop-in of the clock process that
    a configuration needs. ``check``: raises ConfigError for what a configuration refers to, such as keys."""

    def __init__(
        self, root: Path, run: Command, privileges: Callable[[Config], str], check: Callable[[Config], object] = lambda _: None
    ) -> None:
        self._privileges, self._check = privileges, check
        self._machine = Machine(root, run)

    def look(self) -> Applied:
        """What is in force, and what is wrong with it. Nothing is changed."""
        settings, config = self._settled()
        return Applied(settings.value, config.value, self._problems(settings, config), tuple(self._machine.text(WORDS).splitlines()))

    def apply(self) -> Applied:
        """Bring the settings into force. What is made without a complaint, the next boot may repeat."""
        machine = self._machine
        settings, config = self._settled()
        self._keep(BOX_FILE, settings)
        self._keep(DAEMON_FILE, config)
        made = self._made(settings.value, config.value)
        reboot = machine.carry_out(made)
        words = (*(words for words in (settings.words, config.words) if words), *machine.troubles)
        problems = self._problems(settings, config)
        for name, told in ((WORDS, words), (MISTAKES, problems)):
            text = "".join(f"{printable(str(line))}\n" for line in told)
            machine.attempt(name, partial(machine.write, name, text, 0o644))
        if not problems and not machine.troubles:
            machine.remember(made)
        return Applied(settings.value, config.value, problems, words, reboot)

    def write_status(self, text: str) -> None:
        """Put STATUS.txt onto the card, for a person who reads it on another machine. OSError: it cannot be written."""
        replace_on_card(self._machine.path(f"{BOOTCFG}/{STATUS}"), text.replace("\n", "\r\n").encode(), self._machine.run)

    # ---- the two files --------------------------------------------------------------------------------------------------------------

    def _settled(self) -> tuple[Settled[BoxSettings], Settled[Config]]:
        return self._settle(BOX_FILE, box.parse), self._settle(DAEMON_FILE, self._judge_config)

    def _settle(self, name: str, judge: Judge[T]) -> Settled[T]:
        read = self._machine.read
        default, own, seen = read(f"{DEFAULTS}/{name}") or b"", read(OWN[name]), read(f"{KEPT}/seen/{name}")
        try:
            card = contents(self._machine.path(f"{BOOTCFG}/{name}"), LIMIT_BYTES)
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
            told = (replace(p, what=f"{p.what}; it belongs into {BOX_FILE}") if p.key in box.TABLES else p for p in error.problems)
            return None, list(told)
        return config, []

    def _keep(self, name: str, settled: Settled[T]) -> None:
        """Save what is in force, and what has been seen. In this order a power cut at any moment leaves the owner's edit to be taken
        again, and the box's change to be written again."""
        machine, card, seen = self._machine, f"{BOOTCFG}/{name}", f"{KEPT}/seen/{name}"
        if settled.lost is not None:
            machine.attempt(OWN[name], lambda: machine.save(f"{KEPT}/{name}.replaced", settled.lost or b""))
        machine.attempt(OWN[name], lambda: machine.save(OWN[name], settled.content))
        if settled.to_card:
            machine.attempt(card, lambda: replace_on_card(self._machine.path(card), settled.content, machine.run))
        if machine.read(card) == settled.content:
            machine.attempt(seen, lambda: machine.save(seen, settled.content))

    def _problems(self, settings: Settled[BoxSettings], config: Settled[Config]) -> tuple[Problem, ...]:
        return (*settings.problems, *config.problems, *self._misnamed())

    def _misnamed(self) -> list[Problem]:
        """Files that the owner meant for ours: Windows hides .txt, and makes copies."""
        found = sorted(path.name for path in self._machine.path(BOOTCFG).glob("*"))
        named = [(name, ours) for name in found for ours in OWN if name.lower().startswith(ours[:-5]) and name.lower() != ours]
        return [Problem(name[:64], 0, "", f"is not read; did you mean {ours}?") for name, ours in named if name.lower() != f"{ours}.new"]

    # ---- what is made of them ---------------------------------------------------------------------------------------------------------

    def _made(self, settings: BoxSettings, config: Config) -> Made:
        """Everything that this boot gets. What the last boot had is gone: it was in memory."""
        keys, ports, name = settings.system.ssh_keys, served_ports(config.server), settings.system.hostname
        files = {"/etc/hostname": (f"{name}\n", 0o644), WANTED: (settings.system.led, 0o644)}
        files |= {path: (text, 0o644) for path, text in networkd_files(settings).items()}
        files[FIREWALL] = firewall(ports, bool(keys), key_ports(config.nts)), 0o644
        if ports:
            files[DNSSD] = ntp_service(ports[0]), 0o644
        if keys:
            files[AUTHORIZED] = "".join(f"{line}\n" for line in keys), 0o600
        if settings.wifi.ssid:
            files[WIFI] = wifi_file(settings.wifi), 0o600
        if (drop_in := self._privileges(config)) != self._machine.text(f"/usr/lib/{DROP_IN}"):
            files[f"/run/{DROP_IN}"] = drop_in, 0o644
        return Made(files, name, user_text(settings.pins), bool(keys))
