"""``refclock setup``: makes this machine a time server, or the reader of the receiver for the server that is there, and takes it back.

What was there before is written into a file (``JOURNAL``) before anything is changed, so that ``--undo`` also works after a setup that was
interrupted. Installing the Debian package alone changes nothing that serves time, removing it takes the setup back, and an upgrade renews
the drop-ins (``--renew``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.privileges import MADE, lines_used, privileges
from ppsd.cli.takers import TAKERS, Taker
from ppsd.config.contents import contents
from ppsd.config.edit import with_setting
from ppsd.config.file import DEFAULT_FILE, LIMIT_BYTES, load, parse
from ppsd.config.tables import Config
from ppsd.process.control import alive
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, USAGE, Refused
from refclock.config import GpsdSource
from refclock.kernel.files import UserFile, owners
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals

APPLIANCE: Final = "appliance"
FEEDER: Final = "feeder"
CHOICES: Final = {
    APPLIANCE: "refclock sets this machine's clock and answers NTP on port 123. Programs that do so now are stopped, also after a reboot.",
    FEEDER: "The chronyd, ntpd or ntpd-rs that is here goes on to set the clock and to serve. refclock hands it the receiver's time.",
}
JOURNAL: Final = "/etc/refclock/setup.json"
DROP_INS: Final = "/etc/systemd/system/"
DROP_IN: Final = f"{DROP_INS}refclock-clock.service.d/10-setup.conf"
UNIT_PLACES: Final = ("/usr/lib", "/lib", "/usr/local/lib", "/etc")
CLOCK_UNITS: Final = ("chrony", "chronyd", "ntpsec", "ntp", "ntpd", "ntpd-rs", "openntpd", "systemd-timesyncd")
"""Units that set the clock. All but the last may have port 123."""
RECEIVER_UNITS: Final = ("gpsd.socket", "gpsd")
"""Units that have the receiver open. The socket comes first: it would start the other again."""
STARTED: Final = {APPLIANCE: "refclock.target", FEEDER: "refclock-clock.service"}
"""The unit that brings all others that are wanted."""
OURS: Final = (
    *("refclock.target", "refclock-clock.service", "refclock-serve.service", "refclock-nts-ke.service", "refclock-web.service"),
    *("refclock-serve.socket", "refclock-chronyc.socket"),
)

Systemctl = Callable[..., int]
"""Runs systemctl with the words given; returns its exit code."""


def run(args: argparse.Namespace) -> int:
    """Set up or undo. The exit code of a setup is the doctor's."""
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, "refclock setup: only root may change services; run: sudo refclock setup")
    setup = Setup(Host(), systemctl, sys.stdout)
    if args.renew:
        return setup.renew()
    if args.undo:
        return setup.undo()
    if not sys.stdin.isatty() and not (args.choice and args.yes):
        raise Refused(USAGE, "refclock setup: there is no terminal to ask on; say --yes --as appliance, or --yes --as feeder")
    setup.tell_owners()
    choice = args.choice or chosen(_answer)
    plan = setup.plan(choice)
    confirmed(args.yes)
    code = setup.carry_out(plan)
    if code != GOOD:
        return code
    from ppsd.cli.doctor.doctor import doctor, patient_of  # noqa: PLC0415 (``refclock box apply`` takes ``privileges`` alone, at every boot)

    config = load(None)
    return doctor(patient_of(Path(config.run.directory), config), False, None, sys.stdout)


def confirmed(already: bool) -> None:
    """Ask whether it shall be done, unless that was said ``already``. Refused: not so, and nothing was changed."""
    if not already and _answer("Do this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused(FAILED, "refclock: nothing was changed")


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a setup does. ``files``: text by name of those that are written. ``stopped``: units that are stopped for good; of these
    ``masked`` are started by others, which only a mask prevents. ``restarted``: units that read their new file. ``by_hand``: what the
    person has to do."""

    choice: str
    files: Mapping[str, str]
    stopped: Sequence[str] = ()
    masked: Sequence[str] = ()
    restarted: Sequence[str] = ()
    by_hand: str = ""


@dataclass(frozen=True, slots=True)
class Before:
    """What the journal keeps. ``files``: the text of each file that is written, None: there was none. ``directories``: those that there
    were not. ``enabled``, ``active``: which of the stopped units, and of ours, were. ``masked``, ``restarted``, ``by_hand``: as in Plan.
    ``written``: the text of each drop-in since."""

    choice: str
    files: Mapping[str, str | None]
    enabled: Sequence[str]
    active: Sequence[str]
    restarted: Sequence[str]
    masked: Sequence[str] = ()
    directories: Sequence[str] = ()
    by_hand: str = ""
    written: Mapping[str, str] = field(default_factory=dict)


class Setup:
    """The setup of ``host``. The configuration is the default file, which the services read. Refused: it cannot be done, and nothing was
    changed."""

    def __init__(self, host: Host, systemctl: Systemctl, out: TextIO) -> None:
        self._host, self._systemctl, self._out = host, systemctl, out

    def tell_owners(self) -> None:
        """Say who has the clock and port 123 now."""
        setting = ", ".join(map(str, rivals(self._host))) or "no known program"
        serving = ", ".join(self._port_holders()) or "no program"
        print(f"The clock is set by {setting}; port 123 belongs to {serving}.", file=self._out)

    def plan(self, choice: str, text: str = "") -> Plan:
        """What ``choice`` means here; it is told, and nothing is changed. ``text``: the configuration to begin with instead of the one that
        is there; whether it serves is then its own affair."""
        if not self._installed(STARTED[choice]):
            raise _refusal("the services are not installed; install the Debian package (make deb), then try again")
        if self._host.path(JOURNAL).exists():
            raise _refusal("it was done before; take it back first: sudo refclock setup --undo")
        if alive(self._host.path(Config().run.directory) / "clock.sock") and not self._runs(STARTED[FEEDER]):
            raise _refusal("refclock runs in the foreground; end it first (its own terminal, Ctrl-C)")
        if choice == APPLIANCE:
            plan = self._appliance(text or with_setting(self._configuration(), "server", "enabled", True))
        else:
            plan = self._feeder(text or self._configuration(), self._taker())
        for sentence in _told(plan):
            print(sentence, file=self._out)
        return plan

    def _appliance(self, text: str) -> Plan:
        text = with_setting(text, "clock", "steer", "kernel")
        stopped = [*self._receiver_units(text), *(unit for unit in CLOCK_UNITS if self._runs(unit))]
        self._refuse_others(stopped)
        return self._whole(Plan(APPLIANCE, {}, stopped), text)

    def _feeder(self, text: str, taker: Taker) -> Plan:
        text = with_setting(with_setting(text, "clock", "steer", "none"), "server", "enabled", False)
        if not any(map(taker.is_fed_by, parse(text, DEFAULT_FILE).feeds)):
            text = f"{text.rstrip()}\n\n{taker.table()}".lstrip()
        config = parse(text, DEFAULT_FILE)
        lines, place = taker.lines(config.feeds, config.sources), taker.place(self._host)
        files = dict(taker.drop_ins) | ({place: f"{MADE}\n{lines}"} if place else {})
        by_hand = "" if place else f"put into {taker.configuration}:\n\n{lines}\nthen: sudo systemctl restart {taker.unit}"
        stopped = [*self._receiver_units(text), *([STARTED[APPLIANCE]] if self._runs(STARTED[APPLIANCE]) else [])]
        return self._whole(Plan(FEEDER, files, stopped, restarted=[taker.unit] if place else [], by_hand=by_hand), text)

    def _whole(self, plan: Plan, text: str) -> Plan:
        """``plan`` with the configuration ``text``, and what that needs besides."""
        config, files = parse(text, DEFAULT_FILE), dict(plan.files) | {DEFAULT_FILE: text}
        if drop_in := privileges(config):
            files[DROP_IN] = drop_in
        ttys = {self._host.target(device).rpartition("/")[2] for device in lines_used(config)}
        masked = [login for tty in sorted(ttys) if self._on(login := f"serial-getty@{tty}.service")]
        return replace(plan, files=files, stopped=[*plan.stopped, *masked], masked=masked)

    def carry_out(self, plan: Plan) -> int:
        """Do it. FAILED when a service did not start: what was done stays, for ``--undo``."""
        units = list(dict.fromkeys([*plan.stopped, *STARTED.values()]))
        before = Before(
            plan.choice,
            {name: self._text(name) for name in plan.files},
            [unit for unit in units if unit not in plan.masked and self._systemctl("is-enabled", "--quiet", unit) == 0],
            [unit for unit in units if self._systemctl("is-active", "--quiet", unit) == 0],
            plan.restarted,
            plan.masked,
            self._lacking(plan.files),
            plan.by_hand,
            {name: text for name, text in plan.files.items() if name.startswith(DROP_INS)},
        )
        self._write(JOURNAL, _journal(before))
        for name, text in plan.files.items():
            self._write(name, text)
        codes = [self._systemctl("daemon-reload")]
        codes += [self._systemctl("mask" if unit in plan.masked else "disable", "--now", unit) for unit in plan.stopped]
        codes += [self._systemctl("restart", unit) for unit in plan.restarted]
        codes += [self._systemctl(verb, STARTED[plan.choice]) for verb in ("enable", "restart")]
        if any(codes):
            print("Not all of this succeeded: see above. Take it back: sudo refclock setup --undo", file=self._out)
            return FAILED
        if plan.by_hand:
            print(f"One thing is left to you: {plan.by_hand}", file=self._out)
        print("Done. Take it back: sudo refclock setup --undo", file=self._out)
        return GOOD

    def before(self) -> Before | None:
        """What was here before the setup; None: there was no setup."""
        journal = self._text(JOURNAL)
        if journal is None:
            return None
        known = {spec.name for spec in fields(Before)}
        return Before(**{name: value for name, value in json.loads(journal).items() if name in known})

    def renew(self) -> int:
        """Write the drop-ins of a setup as this version and the present configuration want them. One that somebody has changed is left to
        him. Services are not touched. Without a setup there is nothing to do. ConfigError."""
        before = self.before()
        if before is None:
            return GOOD
        wanted = {name: text for taker in TAKERS for name, text in taker.drop_ins.items() if name in before.files}
        wanted[DROP_IN] = privileges(parse(self._configuration(), DEFAULT_FILE))
        renewed = {name: text for name, text in wanted.items() if (self._text(name) or "") != text}
        for name in [name for name in renewed if not self._is_ours(name, before)]:
            print(f"{name} was changed since the setup, and stays; this version would write:\n{renewed.pop(name)}", file=self._out)
        if not renewed:
            return GOOD
        files = dict.fromkeys(renewed) | dict(before.files)
        directories = sorted({*before.directories, *self._lacking(renewed)})
        self._write(JOURNAL, _journal(replace(before, files=files, directories=directories, written={**before.written, **renewed})))
        for name, text in renewed.items():
            if text:
                self._write(name, text)
            else:
                self._host.path(name).unlink()
            print(f"renewed: {name}", file=self._out)
        return GOOD if self._systemctl("daemon-reload") == 0 else FAILED

    def _is_ours(self, name: str, before: Before) -> bool:
        """Whether a drop-in is as a setup, or an upgrade since, has left it."""
        now, written = self._text(name), before.written.get(name)
        if written is not None:
            return (now or "") == written
        if name not in before.files:
            return now is None
        return now is not None and now.startswith(MADE[:-1])  # earlier versions did not remember what they wrote

    def undo(self) -> int:
        """Put everything back as it was before the setup, also one that was interrupted. A unit that was removed since stays away."""
        before = self.before()
        if before is None:
            raise _refusal("there is nothing to take back")
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
        for name in reversed(before.directories):
            with contextlib.suppress(OSError):  # not empty: others have put something there
                self._host.path(name).rmdir()
        codes = [self._systemctl("unmask", unit) for unit in before.masked]
        codes += [self._systemctl("daemon-reload")]
        for verb, units in (("restart", before.restarted), ("enable", before.enabled), ("start", before.active)):
            codes += [self._systemctl(verb, unit) for unit in units if self._installed(unit)]
        if any(codes):
            print(f"Not all of this succeeded: see above. What was before is in {JOURNAL}; try again.", file=self._out)
            return FAILED
        self._host.path(JOURNAL).unlink()
        if before.by_hand:
            print(f"One thing is left to you, if you did it: take out again what you {before.by_hand}", file=self._out)
        print("Everything is as it was before the setup.", file=self._out)
        return GOOD

    # ---- what there is ---------------------------------------------------------------------------------------------------------------

    def _configuration(self) -> str:
        return self._text(DEFAULT_FILE) or ""

    def _receiver_units(self, text: str) -> list[str]:
        """The units that have the receiver, unless the configuration ``text`` says that it is to be had from them."""
        hears_gpsd = any(isinstance(source, GpsdSource) for source in parse(text, DEFAULT_FILE).sources)
        return [] if hears_gpsd else [unit for unit in RECEIVER_UNITS if self._runs(unit)]

    def _taker(self) -> Taker:
        """The program that is to be fed. Refused: there is none, or more than one."""
        found = [taker for taker in TAKERS if self._runs(taker.unit)]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(taker.unit for taker in found)
            raise _refusal(f"{names} run here, and only one can keep the clock; sudo systemctl disable --now the other, then try again")
        deaf = [unit for unit in CLOCK_UNITS if self._runs(unit)]
        here = (
            f"{' and '.join(deaf)}, which runs here, takes no samples of a receiver" if deaf else "no program that takes samples runs here"
        )
        raise _refusal(f"{here}; install chrony, ntpsec or ntpd-rs, or choose --as appliance. Nothing was changed")

    def _runs(self, unit: str) -> bool:
        """Whether a unit runs now or at the next boot. Not so for another name of a unit, which systemctl neither enables nor disables."""
        return self._installed(unit) and self._on(unit)

    def _on(self, unit: str) -> bool:
        return any(self._systemctl(verb, "--quiet", unit) == 0 for verb in ("is-active", "is-enabled"))

    def _installed(self, unit: str) -> bool:
        name = re.sub(r"@[^.]*", "@", unit if "." in unit else f"{unit}.service")
        files = (self._host.path(f"{place}/systemd/system/{name}") for place in UNIT_PLACES)
        return any(file.exists() and not file.is_symlink() for file in files)

    def _port_holders(self) -> list[str]:
        return self._host.port_holders([("0.0.0.0", 123), ("::", 123)])

    def _refuse_others(self, stopped: Sequence[str]) -> None:
        """Refused when a program sets the clock, or has port 123, that is none of the units that are stopped."""
        some = rivals(self._host)
        others = [rival for rival in some if not any(rival.remedy.endswith(f"now {unit}") for unit in stopped)]
        whys = [f"{rival} sets the clock as well: {rival.remedy}" for rival in others]
        known = set(map(str, some))
        for holder in self._port_holders():
            pid = int(holder.rpartition("(pid ")[2].rstrip(")"))
            unit = self._host.service(pid)
            ours = pid == 1 or f"{unit}.service" in OURS  # systemd holds the socket of refclock-serve
            if holder not in known and unit not in stopped and not ours:
                whys.append(f"{holder} has port 123: " + (f"sudo systemctl disable --now {unit}" if unit else "end it"))
        if whys:
            raise _refusal(f"{'; '.join(whys)}; then try again. Nothing was changed")

    def _text(self, name: str) -> str | None:
        path = self._host.path(name)
        return contents(path, LIMIT_BYTES).decode("utf-8") if path.exists() else None

    def _lacking(self, files: Iterable[str]) -> list[str]:
        """The directories of ``files`` that there are not."""
        parents = {str(parent) for name in files for parent in Path(name).parents}
        return sorted(name for name in parents if not self._host.path(name).exists())

    def _write(self, name: str, text: str) -> None:
        path = self._host.path(name)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        UserFile(path, owners()).replace(text.encode())


def _journal(before: Before) -> str:
    return json.dumps(asdict(before), indent=1)


def _refusal(why: str) -> Refused:
    return Refused(FAILED, f"refclock setup: {why}")


def _told(plan: Plan) -> list[str]:
    """What a plan does, in words."""
    said = [f"stop, and keep from starting: {', '.join(plan.stopped)}"] if plan.stopped else []
    said += [f"write: {', '.join(sorted(plan.files))}"]
    said += [f"restart: {', '.join(plan.restarted)}"] if plan.restarted else []
    said += [f"leave to you: {plan.by_hand.partition(':')[0]} what will be shown"] if plan.by_hand else []
    return [
        "This will",
        *(f"  {words}" for words in said),
        f"  start, now and at every boot: {STARTED[plan.choice]}, and with it metrics and history (refclock-web.service)",
    ]
