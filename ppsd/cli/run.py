"""``refclock run``: prepares and starts a run in the foreground.

Flow: configuration file and command line -> **run** (effective configuration, run directory, programs) -> ``ppsd.cli.supervisor``, which
keeps the programs alive. Without any ``[[source]]`` the clock process looks for receivers.

With ``--sim`` the source is a simulated receiver. Simulated time must reach no other program by accident: the run directory belongs to the
user, the server listens on loopback, and feeds are served only when their configuration was named on the command line.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.daemon import holders, server_report, sim_directory
from ppsd.cli.sim import preload_environment
from ppsd.cli.supervisor import Program, Screen, Supervisor, python
from ppsd.config.file import DEFAULT_FILE, as_toml, load
from ppsd.config.keys import read_keys
from ppsd.config.tables import ChronycConfig, Config, LogConfig, MetricsConfig, RunConfig, changed, parse_endpoint, waiting, without_waiting
from ppsd.faces.text import top_line, undelivered
from ppsd.process.control import JUDGE, Reloaded, alive, ask
from ppsd.process.exit_codes import USAGE, Refused, io_failure
from ppsd.process.lifecycle import handed_over, make_run_directory, refused_addresses
from ppsd.snapshot import Snapshot
from refclock.config import ReceiverSource
from refclock.devices.ports import SERIAL_PATTERNS, pulses, serial_ports
from refclock.errors import explain
from refclock.kernel.files import owners, replace_file
from refclock.kernel.host import Host
from refclock.schema import ConfigError, Problem

SIM_LISTEN = "127.0.0.1:11123"
SIM_CHRONYC = "127.0.0.1:10323"
SIM_METRICS = "127.0.0.1:19124"
"""Addresses of the simulation's server, and where it answers chronyc and Prometheus; ports above 1023 need no privilege."""
JUDGE_S = 5.0
"""s within which a process judges a new configuration; it takes some milliseconds."""
START_S: Final = 5.0
"""s after the clock process's start before a server that does not answer is told: both start at once."""


def run(args: argparse.Namespace) -> int:
    """Run everything until told to stop."""
    if args.ntp is not None and parse_endpoint(args.ntp) is None:
        raise Refused(USAGE, f"refclock run: --ntp {args.ntp}: must be an address and port like 127.0.0.1:11123 or [::1]:11123")
    wanted = Run(args.config, args.sim, args.ntp, args.run_dir, watched=sys.stdout.isatty())
    try:
        wanted.prepare()
        return _keep_alive(wanted, args.duration, sys.stdout)
    except PermissionError as error:
        code = io_failure(error)
        if not args.sim:
            print("refclock: be root or the daemon's user, give a --run-dir of your own, or try: refclock run --sim", file=sys.stderr)
        return code


def spelled(script: Path) -> tuple[list[str], str]:
    """How a person calls the program ``script`` in another terminal: (what must be typed once before, the command)."""
    found = shutil.which(script.name)
    name = script.name if found is not None and Path(found).resolve() == script.resolve() else shlex.quote(str(script))
    if os.geteuid() == 0 and "SUDO_USER" in os.environ:
        return [], f"sudo {name}"
    activate = script.with_name("activate")  # of a virtual environment (venv)
    if name != script.name and activate.exists():
        return [f". {shlex.quote(str(activate))}"], script.name
    return [], name


@dataclass(slots=True)
class Run:
    """One foreground run. ``config_path``: as given by the user, None = the default file. ``listen``: replaces the configured addresses."""

    config_path: Path | None
    simulated: bool
    listen: str | None
    run_dir: Path | None
    host: Host = field(default_factory=Host)
    config: Config = field(default_factory=Config)
    directory: Path = Path()
    sockets: int = 0
    """How many sockets systemd has handed over; they are the server's."""
    preload: dict[str, str] = field(default_factory=dict)
    """The environment in which programs see the simulated devices; empty until it is known."""
    looks: bool = False
    """Whether the clock process looks for receivers, because none is configured."""
    watched: bool = False
    """Whether a person sees the output: of a simulation only warnings are logged then, so that the greeting stays on the screen."""

    def prepare(self) -> None:
        """Check the configuration, make the run directory, write the effective configuration. Starts nothing. ConfigError, OSError."""
        configured = self._configured()
        self.directory = (self.run_dir or (sim_directory() if self.simulated else Path(configured.run.directory))).absolute()
        make_run_directory(self.directory, private=self.simulated and self.run_dir is None, user=configured.run.user)
        if alive(self.directory / "clock.sock"):
            raise OSError(errno.EADDRINUSE, "refclock runs there already (refclock status shows it)", str(self.directory))
        if self.simulated:
            for left in ("ttySIM0", "timescale"):  # receiver and time of an earlier simulation are not continued
                (self.directory / left).unlink(missing_ok=True)
        self._write(self._effective(configured))
        self.sockets = handed_over()

    def _configured(self) -> Config:
        """The configuration as the user has it. ConfigError."""
        configured = load(self.config_path)
        if self.simulated and self.config_path is None:  # this machine's own file may well steer its clock
            return replace(configured, clock=replace(configured.clock, steer="none"))
        if self.simulated and configured.clock.steer != "none":
            raise ConfigError([Problem(configured.file, 0, "clock.steer", 'a simulation must not steer the clock; set it to "none"')])
        return configured

    def reload(self) -> Reloaded:
        """Read the configuration again. It is put in force when nothing stands against it, and everything that runs has tried what it needs
        of it; else the old one stays."""
        old = self.config
        try:
            configured = self._effective(self._configured())
            new = without_waiting(old, configured)
            read_keys(new)
            self._write(new)
            problems = self._judged(old, new)
            if problems:
                self._write(old)
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
        except OSError as error:
            problems = [explain(error)]
        if problems:
            return Reloaded(False, (*problems, "the configuration stays as it was"))
        return Reloaded(True, tuple(_news(old, configured)))

    def _judged(self, old: Config, new: Config) -> list[str]:
        """What the running processes have against the configuration in ``file``. One that does not run has nothing against it."""
        problems: list[str] = []
        served = ["serve"] if old.server.enabled and new.server.enabled else []
        keyed = ["nts-ke"] if old.establishes_keys and new.establishes_keys else []
        for name in ("clock", *served, *keyed):
            try:
                told = ask(self.directory / f"{name}.sock", JUDGE, JUDGE_S)["problems"]
            except (FileNotFoundError, ConnectionRefusedError):
                continue
            except (OSError, KeyError) as error:
                told = [f"the {name} process does not answer ({error})"]
            problems += [str(problem) for problem in told]
        if new.server.enabled and not old.server.enabled and not self.sockets:
            problems += refused_addresses(end for text in new.server.listen if (end := parse_endpoint(text)) is not None)
        return problems

    @property
    def file(self) -> Path:
        """The effective configuration, which the children read."""
        return self.directory / "refclock.toml"

    def _effective(self, configured: Config) -> Config:
        """The configuration with the command line's changes in it."""
        config = configured
        if self.listen is not None:
            config = replace(config, server=replace(config.server, enabled=True, listen=(self.listen,)))
        elif self.simulated:
            config = replace(config, server=replace(config.server, listen=(SIM_LISTEN,)))
        if self.simulated and config.chronyc == ChronycConfig():
            config = replace(config, chronyc=ChronycConfig(listen=(SIM_CHRONYC,)))
        if self.simulated and config.metrics == MetricsConfig():
            config = replace(config, metrics=MetricsConfig(listen=(SIM_METRICS,)))
        if self.simulated:
            state = str(self.directory / "state")
            pulse = "/dev/pps-sim0" if config.simulation.pulse else ""
            source = ReceiverSource(name="gps0", device=str(self.directory / "ttySIM0"), pps=pulse, pps_over_usb=False)
            feeds = config.feeds if self.config_path is not None else ()
            if self.watched and config.log == LogConfig():
                config = replace(config, log=LogConfig(level="warning"))
            config = replace(config, run=replace(config.run, directory=str(self.directory), state=state), sources=(source,), feeds=feeds)
            config = replace(config, upstreams=())  # real servers know nothing of simulated time
        elif self.run_dir is not None:
            config = replace(config, run=replace(config.run, directory=str(self.directory)))
        return config

    def _write(self, config: Config) -> None:
        note = f"# Made by refclock run from {config.file or 'the defaults'}: changes here are lost.\n\n"
        replace_file(self.file, (note + as_toml(config)).encode(), 0o644, owners(config.run.user))
        self.config, self.looks = config, not config.sources and not config.upstreams_alone

    def keep(self) -> str:
        """Write the effective configuration again when somebody has removed it: children read it when they start. Returns why that failed,
        or ""."""
        if self.file.exists():
            return ""
        try:
            self._write(self.config)
        except OSError as error:
            return explain(error)
        return ""

    def programs(self) -> list[Program]:
        """The programs to keep alive, in the order of starting."""
        words = ("--config", str(self.file), "--run-dir", str(self.directory), *(["--simulated"] if self.simulated else []))
        clock = Program("clock", python("ppsd", "clock", *words), reports=True)
        serve = Program("serve", python("ppsd", "serve", *words), reports=True, sockets=self.sockets)
        served = [serve] if self.config.server.enabled else []
        if self.config.establishes_keys:
            served.append(Program("nts-ke", python("ppsd", "nts-ke", *words), reports=True))
        if self.config.metrics.listen or self.config.history.enabled:
            served.append(Program("web", python("ppsd", "web", *words), reports=True))
        if not self.simulated:
            return [clock, *served]
        sim_words = self.simulator_words()
        self.preload = self.preload or preload_environment(sim_words)
        clock = replace(clock, env=self.preload, awaits=self.directory / "ttySIM0")
        return [Program("simulator", python("refclock_sim", *sim_words)), clock, *served]

    def simulator_words(self) -> list[str]:
        """The simulator's command line for ``[simulation]``."""
        sim = self.config.simulation
        return [
            *("--directory", str(self.directory), "--receiver", sim.receiver, "--baud", str(sim.baud)),
            *("--offset", repr(sim.offset_s), "--seed", str(sim.seed), *([] if sim.pulse else ["--no-pulse"])),
        ]

    def greeting(self) -> list[str]:
        """Lines that say what runs, and commands to try next, exactly as they can be typed in another terminal."""
        config = self.config
        where = f"{self.sockets} sockets handed over" if self.sockets else ", ".join(config.server.listen)
        ntp = f"NTP on {where}" if config.server.enabled else "no NTP server"
        clock = "your clock is not touched" if config.clock.steer == "none" else "disciplining the system clock"
        what = f"SIMULATED receiver ({config.simulation.receiver}); " if self.simulated else ""
        lines = [f"refclock: {what}{clock}", f"{ntp}; run directory {self.directory}"]
        if self.looks:
            lines.append(self.outlook())
        elif not self.simulated:
            named = config.upstreams if config.upstreams_alone else config.sources
            lines.append("sources: " + ", ".join(f"{s.name} ({s.kind})" for s in named))
        usual = (sim_directory(), Path(RunConfig().directory))  # the commands find these by themselves
        where = "" if self.directory in usual else f" --run-dir {shlex.quote(str(self.directory))}"
        first, called = spelled(Path(sys.executable).with_name("refclock"))
        commands = [*first, f"{called} status{where}", f"{called} sources{where}"]
        if config.server.enabled:
            address = config.server.listen[0].replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:").removesuffix(":123")
            commands.append(f"{called} query {address}")
        asked = next((end for text in config.chronyc.listen if (end := parse_endpoint(text)) is not None), None)
        if self.simulated and config.server.enabled and asked is not None and shutil.which("chronyc"):
            commands.append(f"chronyc -h {asked[0]} -p {asked[1]} sources")
        return [*lines, "try, in another terminal:", *(f"  {command}" for command in commands)]

    def outlook(self) -> str:
        """The lines on which the clock process looks for receivers, in one sentence."""
        ports, some = serial_ports(self.host), [pulse.path for pulse in pulses(self.host) if not pulse.refused]
        left = "".join(f"; {port.path} is left to {', '.join(port.holders)}" for port in ports if port.holders)
        where = self.config.file or DEFAULT_FILE
        free = ", ".join(port.path for port in ports if not port.holders)
        if not free:
            looked = " ".join(f"/dev/{pattern}" for pattern in SERIAL_PATTERNS)
            return f"no receiver found (looked for {looked}){left}: plug one in, it will be noticed, or write a [[source]] into {where}"
        return f"no [[source]] configured; looking for receivers on {free}; pulse: {', '.join(some) or 'none'}{left}"

    def report(self) -> tuple[str, str]:
        """(key, status line) from the clock process; the line is printed again when the key changes."""
        try:
            clock = Snapshot.from_json(ask(self.directory / "clock.sock", "snapshot", 0.2))
            failed = ""
            if clock.uptime_s > START_S:
                server = server_report(self.directory, 0.2) if clock.listen else ""
                failed = undelivered(clock, server, holders(clock.listen, server, self.host))
            return f"{failed} {clock.verdict} {clock.why}", top_line(clock, failed)
        except (OSError, ValueError):
            return "none", "waiting for the clock process"


def _news(old: Config, configured: Config) -> Iterator[str]:
    """What people are told of a configuration that was taken."""
    later = waiting(old, configured)
    now = [name for name in changed(old, configured) if name not in later]
    yield f"changed: {', '.join(now)}" if now else "nothing has changed" + (" that takes effect now" if later else "")
    if later:
        yield f"changed for the next start of refclock only: {', '.join(later)}"


def _keep_alive(run: Run, duration_s: float | None, out: TextIO) -> int:
    """Keep the programs of a prepared run alive; returns the exit code."""
    programs, screen = run.programs(), Screen(out, run.config.log.format)

    def reload() -> tuple[Reloaded, list[Program]]:
        what = run.reload()
        screen.speak(run.config.log.format)
        return what, run.programs()

    supervisor = Supervisor(programs, screen, report=run.report, reload=reload, keep=run.keep, control=run.directory / "run.sock")
    for line in run.greeting():
        screen.line(line)
    return supervisor.run(duration_s)
