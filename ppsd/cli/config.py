"""``refclock config``: checks or shows the configuration. Commands with ``--apply`` write to it by ``apply``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

from ppsd.config.edit import edit
from ppsd.config.file import DEFAULT_FILE, as_toml, doubts, load
from ppsd.config.keys import read_keys
from ppsd.config.tables import SERVER_USER, Config, parse_endpoint
from ppsd.process.exit_codes import BAD_CONFIG, GOOD, complain
from refclock.errors import explain
from refclock.kernel.files import group_number, user_number
from refclock.kernel.host import Host
from refclock.kernel.interfaces import has_address
from refclock.schema import ConfigError, suggestion


def run(args: argparse.Namespace) -> int:
    """``check`` or ``show``."""
    config = load(args.config)
    read_keys(config)
    if args.action == "show":
        print(as_toml(config), end="")
    elif found := doubts(config):
        raise ConfigError(found)
    else:
        lacking = "upstreams alone" if config.upstreams_alone else "no source, so a receiver is looked for"
        sources = _counted(len(config.sources), "source") if config.sources else lacking
        print(f"{config.file or 'no file, the defaults'}: good; {sources}; {_counted(len(config.feeds), 'feed')}")
        for remark in remarks(config, Host()):
            print(f"but: {remark}")
    return GOOD


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def remarks(config: Config, host: Host, has: Callable[[str], bool] = has_address) -> Iterator[str]:
    """What is no mistake in the file, but does not work on this machine as it is now. ``has``: whether it has an address."""
    wanted, there = config.server.interface, [path.rpartition("/")[2] for path in host.names("/sys/class/net/*")]
    if config.server.enabled and wanted and there and wanted not in there:
        names = ", ".join(there)
        yield f"server.interface: there is no {wanted} now{suggestion(wanted, there)}; nobody is served until it comes; there are {names}"
    tables = {
        "server": config.server.listen if config.server.enabled else (),
        "chronyc": config.chronyc.listen,
        "metrics": config.metrics.listen,
    }
    for key, text in ((f"{table}.listen", text) for table, listed in tables.items() for text in listed):
        host_address = (parse_endpoint(text) or ("",))[0]
        if host_address and not _everywhere(host_address) and not has(host_address):
            yield f"{key}: no interface has {host_address} now; nobody is answered at {text} until one does; ip address lists what there is"
    user, group = config.run.user, config.run.group
    if user != SERVER_USER and user_number(user) is None:
        yield f"run.user: there is no user {user}, so a number that nobody has serves; make it: sudo useradd --system {user}"
    if group and group_number(group) is None:
        yield f"run.group: there is no group {group}, so its members may not ask; make it: sudo groupadd --system {group}"


def _everywhere(address: str) -> bool:
    """Whether every machine has that address, or its lack is the owner's will (IPv6 switched off): loopback, and the wildcards."""
    return address in ("127.0.0.1", "::1") or ip_address(address).is_unspecified


def file_of(config: Config, given: Path | None) -> Path:
    """The file of ``config``; the default file when it has none."""
    return given or Path(config.file or DEFAULT_FILE)


def load_to_write(given: Path | None) -> Config:
    """The configuration that a command with ``--apply`` is going to change. A file that is not there is going to be made."""
    return Config() if given is not None and not given.exists() else load(given)


def apply(path: Path, change: Callable[[str], str], command: str, out: TextIO) -> int:
    """Change the configuration at ``path`` and report it; returns the exit code. OSError: it cannot be written."""
    try:
        backup = edit(path, change)
    except ConfigError as error:
        complain(error)
        print(f"refclock {command}: {path} was left as it is: with the change it would not be valid", file=sys.stderr)
        return BAD_CONFIG
    except OSError as error:
        raise OSError(error.errno, explain(error, f"{path} was left as it is")) from error
    print(f"written into {path}" + (f"; as it was: {backup}" if backup else ""), file=out)
    return GOOD
