"""``refclock doctor --report``: one text for a bug report: what the doctor finds, the configuration, the daemon's state, the machine.

The key file is read only to take its keys out wherever they stand. The sky view goes without directions: with the time they give the place.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ppsd import version
from ppsd.appliance import board
from ppsd.cli.doctor.finding import Patient
from ppsd.config.contents import contents
from ppsd.config.file import as_toml
from ppsd.faces.anonymous import Anonymiser
from refclock.config import GpsdSource
from refclock.kernel.host import Host

JOURNAL: Final = (
    *("journalctl", "--no-hostname", "--output=short-iso", "--no-pager", "--lines=400", "--quiet"),
    *("--unit=refclock-clock", "--unit=refclock-serve", "--unit=refclock-nts-ke", "--unit=refclock-web", "--unit=refclock.target"),
)
APPLIANCE: Final = " refclock.slot="
"""What the boot loader of the image writes on the kernel's command line (``ppsd.appliance.boot``)."""
KEY_FILE_BYTES: Final = 1 << 20
FACTS: Final = (
    ("board", ("/proc/device-tree/model", "/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name")),
    ("kernel", ("/proc/sys/kernel/osrelease", "/proc/sys/kernel/version")),
    ("clocksource", ("/sys/devices/system/clocksource/clocksource0/current_clocksource",)),
)
"""What the machine is -> the files that tell."""
DEVICES: Final = ("/dev/tty[AU]*[0-9]", "/dev/serial[0-9]", "/dev/serial/by-id/*", "/dev/gnss*", "/dev/pps*", "/dev/ptp*", "/dev/rtc[0-9]")
MODULES: Final = (
    "pps",
    "usbserial",
    "ftdi",
    "cp210x",
    "pl2303",
    "ch341",
    "cdc_acm",
    "gnss",
    "nf_",
    "ip_tables",
    "ptp",
    "rtc",
    "8021q",
    "bonding",
)
"""Beginnings of names of kernel modules that concern time, serial lines and networks."""


def bug_report(patient: Patient, findings: str) -> str:
    """The whole report. ``findings``: the doctor's, in words."""
    sections = [(title, body.rstrip() or "nothing") for title, body in _sections(patient, findings)]
    text = "\n\n".join(f"==== {title} ====\n{body}" for title, body in sections) + "\n"
    return Anonymiser(_names(patient), _secrets(patient)).clean(text)


def _sections(p: Patient, findings: str) -> Iterator[tuple[str, str]]:
    yield "refclock", f"version {version()}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors"
    yield "doctor", findings
    yield "configuration", "\n".join(p.problems) if p.problems else as_toml(p.config)
    yield "clock process", json.dumps(_without_directions(p.clock.to_json()), indent=1) if p.clock else "not running, or not to be asked"
    yield "server process", p.server if isinstance(p.server, str) else json.dumps(p.server.to_json(), indent=1)
    yield "clients", f"{len(p.clients)} known here, {sum(client.drops > 0 for client in p.clients)} of them with refused requests"
    yield "machine", _machine(p.host)
    yield "addresses", "\n".join(f"{a.interface}: {a.address}/{a.length}{'' if a.lasting else ' (on loan)'}" for a in p.addresses)
    yield "devices", _devices(p.host)
    if APPLIANCE in f" {p.host.text('/proc/cmdline') or ''}":
        yield "board", board.report(list(board.facts(p.host, p.pause)), f"refclock {version()}")
    yield "journal", p.output(JOURNAL) or "not readable: run this as root, or as a member of the group systemd-journal"


def _without_directions(told: dict[str, Any]) -> dict[str, Any]:
    for source in told["sources"]:
        for satellite in source["satellites"]:
            satellite["elevation"] = satellite["azimuth"] = None
    return told


def _machine(host: Host) -> str:
    lines = [f"{what}: {' '.join(text.strip(chr(0)) for file in files if (text := host.text(file)))}" for what, files in FACTS]
    system = (host.text("/etc/os-release") or "").splitlines()
    lines += [line.replace("PRETTY_NAME=", "system: ").replace('"', "") for line in system if line.startswith("PRETTY_NAME=")]
    lines += [line for line in (host.text("/proc/meminfo") or "").splitlines() if line.startswith(("MemTotal", "MemAvailable", "Swap"))]
    loaded = [line.split()[0] for line in (host.text("/proc/modules") or "").splitlines() if line.startswith(MODULES)]
    return "\n".join([*lines, f"modules: {' '.join(loaded)}"])


def _devices(host: Host) -> str:
    lines = []
    for file in (file for pattern in DEVICES for file in host.names(pattern)):
        target, held = host.target(file), ", ".join(host.holders(file))
        lines.append(file + (f" -> {target}" if target != file else "") + (f", open in {held}" if held else ""))
    for file in host.names("/sys/bus/usb/devices/*/product"):
        where = file.rpartition("/")[0]
        lines.append(f"USB {host.text(f'{where}/idVendor')}:{host.text(f'{where}/idProduct')} {host.text(file)}")
    return "\n".join([*lines, *(f"{file.split('/')[4]}: {host.text(file)}" for file in host.names("/sys/class/pps/*/name"))])


def _names(p: Patient) -> Iterator[str]:
    """Known names: this machine's, those in /etc/hosts, of configured and compared servers, of the person at the keyboard."""
    own = p.host.text("/proc/sys/kernel/hostname") or ""
    yield from (own, own.partition(".")[0], p.host.text("/proc/sys/kernel/domainname") or "", p.host.text("/etc/hostname") or "")
    for line in (p.host.text("/etc/hosts") or "").splitlines():
        yield from line.partition("#")[0].split()[1:]
    for line in (p.host.text("/etc/resolv.conf") or "").splitlines():
        if line.startswith(("search ", "domain ")):
            yield from line.split()[1:]
    yield from (source.host for source in p.settings if isinstance(source, GpsdSource))
    yield from (server.partition(":")[0] for server in p.servers)
    yield from (os.environ.get(variable, "") for variable in ("SUDO_USER", "USER", "LOGNAME"))


def _secrets(p: Patient) -> Iterator[str]:
    """Every word of the key file that may be a key: all but the first two of a line (number and type)."""
    if not p.config.keys.file:
        return
    try:
        lines = contents(Path(str(p.host.path(p.config.keys.file))), KEY_FILE_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:  # who may not read the keys cannot tell them either
        return
    for line in lines:
        for word in line.partition("#")[0].split()[1:]:
            yield from (word, word.partition(":")[2])
