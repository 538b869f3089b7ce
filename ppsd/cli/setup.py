"""``refclock setup``: makes this machine a time server, or the reader of the receiver for the chronyd that is there, and takes it back.

What was there before is written into a file (``JOURNAL``) before anything is changed, so that ``--undo`` also works after a setup that was
interrupted. Installing the Debian package alone changes nothing that serves time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.doctor.doctor import doctor
from ppsd.cli.doctor.finding import Patient
from ppsd.cli.feed import feed_lines
from ppsd.config.contents import contents
from ppsd.config.edit import with_setting
from ppsd.config.file import DEFAULT_FILE, LIMIT_BYTES, load, parse
from ppsd.config.tables import Config
from ppsd.process.control import alive, ask
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, USAGE, Refused
from ppsd.snapshot import Snapshot
from refclock.config import GpsdSource, SockFeed
from refclock.kernel.files import UserFile, owners
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals

APPLIANCE: Final = "appliance"
FEEDER: Final = "feeder"
CHOICES: Final = {
    APPLIANCE: "refclock sets this machine's clock and answers NTP on port 123. Programs that do so now are stopped, also after a reboot.",
    FEEDER: "chronyd goes on to set the clock and to serve. refclock reads the receiver and hands chronyd its samples.",
}
JOURNAL: Final = "/etc/refclock/setup.json"
DROP_IN: Final = "/etc/systemd/system/refclock-clock.service.d/10-setup.conf"
CHRONY_LINES: Final = "/etc/chrony/conf.d/refclock.conf"
CHRONY_DROP_IN: Final = "/etc/systemd/system/chrony.service.d/10-refclock.conf"
CHRONY_SOCKET: Final = "/run/chrony.refclock.sock"
"""Outside /run/chrony, which only chronyd's user may enter. Debian's AppArmor profile of chronyd allows the name."""
UNIT_PLACES: Final = ("/usr/lib", "/lib", "/usr/local/lib", "/etc")
CLOCK_UNITS: Final = ("chrony", "chronyd", "ntpsec", "ntp", "ntpd", "ntpd-rs", "openntpd", "systemd-timesyncd")
"""Units that set the clock; all but the last have port 123."""
RECEIVER_UNITS: Final = ("gpsd.socket", "gpsd")
"""Units that have the receiver open. The socket comes first: it would start the other again."""
STARTED: Final = {APPLIANCE: "refclock.target", FEEDER: "refclock-clock.service"}
OURS: Final = ("refclock.target", "refclock-clock.service", "refclock-serve.service", "refclock-serve.socket")

Systemctl = Callable[..., int]
"""Runs systemctl with the words given; returns its exit code."""


def run(args: argparse.Namespace) -> int:
    """Set up or undo. The exit code of a setup is the doctor's."""
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, "refclock setup: only root may change services; run: sudo refclock setup")
    setup = Setup(Host(), systemctl, sys.stdout)
    if args.undo:
        return setup.undo()
    if not sys.stdin.isatty() and not (args.choice and args.yes):
        raise Refused(USAGE, "refclock setup: there is no terminal to ask on; say --yes --as appliance, or --yes --as feeder")
    setup.tell_owners()
    choice = args.choice or chosen(_answer)
    plan = setup.plan(choice)
    if not args.yes and _answer("Do this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused(FAILED, "refclock setup: nothing was changed")
    code = setup.carry_out(plan)
    return code if code != GOOD else _examine(load(None))


def _answer(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        raise Refused(FAILED, "refclock setup: nothing was changed") from None


def systemctl(*words: str) -> int:
    """Run systemctl. What it complains of, the person sees."""
    quiet = words[0] in ("is-enabled", "is-active")
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run(["systemctl", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False).returncode


def chosen(answer: Callable[[str], str]) -> str:
    """Which of the choices a person wants, explained to him."""
    names = list(CHOICES)
    words = "\n".join(f"  {number}  {name}: {CHOICES[name]}" for number, name in enumerate(names, 1))
    print(f"What shall this machine be?\n{words}")
    while True:
        said = answer(f"1 or {len(names)}: ").strip().lower()
        if said in CHOICES:
            return said
        if said in map(str, range(1, len(names) + 1)):
            return names[int(said) - 1]


def _examine(config: Config) -> int:
    try:
        told = Snapshot.from_json(ask(Path(config.run.directory) / "clock.sock", "snapshot"))
    except (OSError, ValueError):
        told = None
    return doctor(Patient(Host(), config, told), False, None, sys.stdout)


def privileges(config: Config) -> str:
    """The drop-in that gives refclock-clock.service what ``config`` needs beyond the unit; "" when the unit does."""
    lines: list[str] = []
    if config.clock.steer == "kernel":
        lines += ['# clock.steer = "kernel": it sets the clock, and looks for other programs that do.']
        lines += ["CapabilityBoundingSet=CAP_SYS_TIME", "AmbientCapabilities=CAP_SYS_TIME", "ProtectProc=default"]
    if any(isinstance(source, GpsdSource) for source in config.sources):
        lines += ["# A source is gpsd, which talks TCP on this machine."]
        lines += ["PrivateNetwork=no", "RestrictAddressFamilies=AF_INET AF_INET6", "IPAddressAllow=localhost"]
    return "\n".join(["# Written by refclock setup.", "[Service]", *lines, ""]) if lines else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a setup does. ``files``: text by name of those that are written. ``stopped``: units that are stopped for good. ``restarted``:
    units that read their new file."""

    choice: str
    files: Mapping[str, str]
    stopped: Sequence[str]
    restarted: Sequence[str]


@dataclass(frozen=True, slots=True)
class Before:
    """What the journal keeps. ``files``: the text of each file that is written, None: there was none. ``enabled``, ``active``: which of
    the stopped units were. ``restarted``: as in Plan."""

    choice: str
    files: Mapping[str, str | None]
    enabled: Sequence[str]
    active: Sequence[str]
    restarted: Sequence[str]


class Setup:
    """The setup of ``host``. The configuration is the default file, which the services read. Refused: it cannot be done, and nothing was
    changed."""

    def __init__(self, host: Host, systemctl: Systemctl, out: TextIO) -> None:
        self._host, self._systemctl, self._out = host, systemctl, out

    def tell_owners(self) -> None:
        """Say who has the clock and port 123 now."""
        setting = ", ".join(map(str, rivals(self._host))) or "no known program"
        serving = ", ".join(self._host.port_holders([("0.0.0.0", 123), ("::", 123)])) or "no program"
        print(f"The clock is set by {setting}; port 123 belongs to {serving}.", file=self._out)

    def plan(self, choice: str) -> Plan:
        """What ``choice`` means here; it is told, and nothing is changed."""
        if not self._installed(STARTED[choice]):
            raise Refused(FAILED, "refclock setup: the services are not installed; install the Debian package (make deb), then try again")
        if self._host.path(JOURNAL).exists():
            raise Refused(FAILED, "refclock setup: it was done before; take it back first: sudo refclock setup --undo")
        if alive(self._host.path(Config().run.directory) / "clock.sock") and not self._runs(STARTED[FEEDER]):
            raise Refused(FAILED, "refclock setup: refclock runs in the foreground; end it first (its own terminal, Ctrl-C)")
        text = self._text(DEFAULT_FILE) or ""
        hears_gpsd = any(isinstance(source, GpsdSource) for source in parse(text, DEFAULT_FILE).sources)
        stopped = [] if hears_gpsd else [unit for unit in RECEIVER_UNITS if self._runs(unit)]
        restarted: list[str] = []
        if choice == APPLIANCE:
            stopped += [unit for unit in CLOCK_UNITS if self._runs(unit)]
            self._refuse_others(stopped)
            text = with_setting(with_setting(text, "clock", "steer", "kernel"), "server", "enabled", True)
            files: dict[str, str] = {}
        else:
            if not self._host.path("/etc/chrony").is_dir() or not self._runs("chrony"):
                why = "chronyd does not run here; start it, or see what `refclock feed ntpd` prints for another program"
                raise Refused(FAILED, f"refclock setup: {why}")
            text = with_setting(with_setting(text, "clock", "steer", "none"), "server", "enabled", False)
            if CHRONY_SOCKET not in text:
                text = f'{text.rstrip()}\n\n[[feed]]\ntype = "sock"\npath = "{CHRONY_SOCKET}"\n'.lstrip()
            restarted = ["chrony"]
            config = parse(text, DEFAULT_FILE)
            ours = [feed for feed in config.feeds if isinstance(feed, SockFeed) and feed.path == CHRONY_SOCKET]
            lines = "\n".join(feed_lines("chrony", ours, config.sources))
            files = {
                CHRONY_LINES: f"# Written by refclock setup.\n{lines}\n",
                CHRONY_DROP_IN: "# Written by refclock setup: chronyd makes the socket for root alone.\n[Service]\n"
                f"ExecStartPost=-+/bin/chgrp refclock {CHRONY_SOCKET}\nExecStartPost=-+/bin/chmod 0660 {CHRONY_SOCKET}\n",
            }
        files[DEFAULT_FILE] = text
        if drop_in := privileges(parse(text, DEFAULT_FILE)):
            files[DROP_IN] = drop_in
        plan = Plan(choice, files, stopped, restarted)
        for sentence in _told(plan):
            print(sentence, file=self._out)
        return plan

    def carry_out(self, plan: Plan) -> int:
        """Do it. FAILED when a service did not start: what was done stays, for ``--undo``."""
        before = Before(
            plan.choice,
            {name: self._text(name) for name in plan.files},
            [unit for unit in plan.stopped if self._systemctl("is-enabled", "--quiet", unit) == 0],
            [unit for unit in plan.stopped if self._systemctl("is-active", "--quiet", unit) == 0],
            plan.restarted,
        )
        self._write(JOURNAL, json.dumps(asdict(before), indent=1))
        for name, text in plan.files.items():
            self._write(name, text)
        codes = [self._systemctl("daemon-reload")]
        codes += [self._systemctl("disable", "--now", unit) for unit in plan.stopped]
        codes += [self._systemctl("restart", unit) for unit in plan.restarted]
        codes += [self._systemctl("enable", "--now", STARTED[plan.choice])]
        if any(codes):
            print("Not all of this succeeded: see above. Take it back: sudo refclock setup --undo", file=self._out)
            return FAILED
        print("Done. Take it back: sudo refclock setup --undo", file=self._out)
        return GOOD

    def undo(self) -> int:
        """Put everything back as it was before the setup."""
        journal = self._text(JOURNAL)
        if journal is None:
            raise Refused(FAILED, "refclock setup: there is nothing to take back")
        before = Before(**json.loads(journal))
        self._systemctl("disable", "--now", *OURS)
        now = self._text(DEFAULT_FILE)
        if now is not None and now != before.files[DEFAULT_FILE]:
            kept = UserFile(self._host.path(DEFAULT_FILE), owners()).replace(now.encode(), ".setup")
            print(f"the configuration as it is now: {kept}", file=self._out)
        for name, text in before.files.items():
            if text is None:
                self._host.path(name).unlink(missing_ok=True)
            else:
                self._write(name, text)
        codes = [self._systemctl("daemon-reload")]
        codes += [self._systemctl("restart", unit) for unit in before.restarted]
        codes += [self._systemctl("enable", unit) for unit in before.enabled]
        codes += [self._systemctl("start", unit) for unit in before.active]
        if any(codes):
            print(f"Not all of this succeeded: see above. What was before is in {JOURNAL}; try again.", file=self._out)
            return FAILED
        self._host.path(JOURNAL).unlink()
        print("Everything is as it was before the setup.", file=self._out)
        return GOOD

    def _runs(self, unit: str) -> bool:
        """Whether a unit runs now or at the next boot. Not so for another name of a unit, which systemctl neither enables nor disables."""
        on = (self._systemctl(verb, "--quiet", unit) == 0 for verb in ("is-active", "is-enabled"))
        return self._installed(unit) and any(on)

    def _installed(self, unit: str) -> bool:
        name = unit if "." in unit else f"{unit}.service"
        files = (self._host.path(f"{place}/systemd/system/{name}") for place in UNIT_PLACES)
        return any(file.exists() and not file.is_symlink() for file in files)

    def _refuse_others(self, stopped: Sequence[str]) -> None:
        """Refused when a program sets the clock that is none of the units that are stopped."""
        others = [rival for rival in rivals(self._host) if not any(f"now {unit}" in rival.remedy for unit in stopped)]
        if others:
            why = "; ".join(f"{rival} sets the clock as well: {rival.remedy}" for rival in others)
            raise Refused(FAILED, f"refclock setup: {why}; then try again. Nothing was changed")

    def _text(self, name: str) -> str | None:
        path = self._host.path(name)
        return contents(path, LIMIT_BYTES).decode("utf-8") if path.exists() else None

    def _write(self, name: str, text: str) -> None:
        path = self._host.path(name)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        UserFile(path, owners()).replace(text.encode())


def _told(plan: Plan) -> list[str]:
    """What a plan does, in words."""
    said = [f"stop and disable: {', '.join(plan.stopped)}"] if plan.stopped else []
    said += [f"write: {', '.join(sorted(plan.files))}"]
    said += [f"restart: {', '.join(plan.restarted)}"] if plan.restarted else []
    return ["This will", *(f"  {words}" for words in said), f"  start, now and at every boot: {STARTED[plan.choice]}"]
