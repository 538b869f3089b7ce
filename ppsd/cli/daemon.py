"""Finds the run directory of the running daemon and asks its processes for their state. Used by the commands."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ppsd.process.control import PATIENCE_S, alive, ask
from ppsd.process.exit_codes import FAILED, NO_DAEMON, NO_PERMISSION, Refused
from ppsd.snapshot import LineReport, ServerReport, Snapshot
from refclock.errors import explain

if TYPE_CHECKING:
    from refclock.kernel.host import Host

UNSEEN: Final = "not to be asked by this user"
"""Instead of the server's report: it may well run."""


def run_directory(given: Path | None) -> Path:
    """``given``, else $REFCLOCK_RUN_DIR, else the simulation's when only a simulation runs, else the system's."""
    if given is not None:
        return given
    named = os.environ.get("REFCLOCK_RUN_DIR", "")
    if named:
        return Path(named)
    system, sim = system_directory(), sim_directory()
    if not (_is_ours(sim) and alive(sim / "clock.sock")):
        return system
    if alive(system / "clock.sock"):
        print(f"refclock: two daemons are alive; this is {system}, the other: --run-dir {sim}", file=sys.stderr)
        return system
    return sim


def _is_ours(directory: Path) -> bool:
    """Whether this user made the directory. Any user may make one of that name under /tmp, and answer there with a time of his own."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def system_directory() -> Path:
    """The run directory of the default configuration; a broken file falls back to the default."""
    from ppsd.config.file import load  # noqa: PLC0415 (with --run-dir no configuration is read)
    from ppsd.config.tables import Config  # noqa: PLC0415
    from refclock.schema import ConfigError  # noqa: PLC0415

    try:
        return Path(load(None).run.directory)
    except ConfigError:
        return Path(Config().run.directory)


def sim_directory() -> Path:
    """Default run directory of ``run --sim``: below XDG_RUNTIME_DIR, else in the temporary directory with the user's number in its name."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "refclock-sim"
    from tempfile import gettempdir  # noqa: PLC0415 (10 ms, and whoever has logged in does not need it)

    return Path(gettempdir()) / f"refclock-sim-{os.geteuid()}"


def clock_snapshot(directory: Path) -> Snapshot:
    """The snapshot of the clock process. Refused: there is no answer, or an invalid one."""
    path = directory / "clock.sock"
    try:
        return Snapshot.from_json(ask(path, "snapshot"))
    except PermissionError:
        raise may_not_ask(path) from None
    except (FileNotFoundError, ConnectionRefusedError):
        start = "start one: refclock run, or without a receiver: refclock run --sim"
        raise Refused(NO_DAEMON, f"refclock: no daemon in {directory} ({start})") from None
    except TimeoutError:
        raise silent("daemon", directory, PATIENCE_S) from None
    except OSError as error:
        raise Refused(NO_DAEMON, f"refclock: {explain(error, str(path))}") from None
    except ValueError as error:
        raise Refused(NO_DAEMON, f"refclock: {path}: {error}") from None


def silent(who: str, directory: Path, waited_s: float) -> Refused:
    """The refusal when a process that runs does not answer."""
    why = "it is busy, or stopped (its log says which); try again"
    return Refused(FAILED, f"refclock: the {who} in {directory} has not answered for {waited_s:g} s: {why}")


def server_report(directory: Path, timeout_s: float = 1.0) -> ServerReport | str:
    """The report of the serve process; a few words why there is none."""
    try:
        return ServerReport.from_json(ask(directory / "serve.sock", "snapshot", timeout_s))
    except FileNotFoundError:
        return "not running"
    except ConnectionRefusedError:
        return "not running (it was killed)"
    except PermissionError:
        return UNSEEN
    except OSError as error:
        return f"not answering ({error.strerror or error})"
    except ValueError as error:
        return f"not understood ({error})"


def holders(listen: Sequence[str], server: ServerReport | str, host: Host | None = None) -> dict[str, str]:
    """Which program holds an address that is to be served, while no server of ours runs. What only root may see is left out."""
    if not isinstance(server, str) or not listen:
        return {}
    from ppsd.config.tables import parse_endpoint  # noqa: PLC0415 (a daemon that is well needs neither of these)
    from refclock.kernel.host import Host  # noqa: PLC0415

    host, found = host or Host(), {}
    for text in listen:
        endpoint = parse_endpoint(text)
        if endpoint is not None and (who := host.port_holders([endpoint])):
            found[text] = ", ".join(who)
    return found


def configuration(directory: Path, given: Path | None) -> Path | None:
    """The configuration file to go by: the one ``given``, else what ``refclock run`` made for the daemon that is alive there, else the
    default one (None)."""
    running = directory / "refclock.toml"
    return running if given is None and running.exists() and alive(directory / "clock.sock") else given


def read_lines(directory: Path) -> list[LineReport]:
    """The receivers' lines that the daemon reads; none without a daemon, or with one that this user may not ask."""
    try:
        return LineReport.many(ask(directory / "clock.sock", "lines"))
    except (OSError, ValueError):
        return []


def read_line(directory: Path, device: str | None, host: Host) -> LineReport | None:
    """The daemon's line on ``device``, or of the source of that name; without one its first line. None: it reads no such line."""
    lines = read_lines(directory)
    if device is None:
        return next(iter(lines), None)
    return next((line for line in lines if line.source == device or host.target(line.device) == host.target(device)), None)


def may_not_ask(path: Path) -> Refused:
    """The refusal when this user may not use the control socket at ``path``."""
    return Refused(NO_PERMISSION, f"refclock: {path}: not allowed; try as the daemon's user, as root or as a member of run.group")
