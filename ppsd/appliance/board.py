"""What an owner of the hardware sees that no emulator shows: ``refclock doctor --board``, to be pasted into a report.

Each fact comes with what it means and what is expected, so that whoever reads the report need not know the board. Serial numbers, hardware
addresses and keys are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ppsd.appliance.boot import booted_slot, command
from ppsd.appliance.led import WANTED, light
from ppsd.appliance.loader import Slots
from ppsd.appliance.slots import Loader
from refclock.kernel.host import Host

LABELS: Final = ("bootcfg", "boot_a", "boot_b", "root_a", "root_b", "data")
"""Partitions of the image."""
WARM_C, HOT_C = 70.0, 80.0
"""°C: a crystal in this heat drifts; and from here on a Raspberry Pi lowers its clock rate (Raspberry Pi's documentation)."""
WATCHED_S: Final = 3.2
"""s for which pulses are counted: three of them, wherever in the second it begins."""
CLOCKSOURCES: Final = ("arch_sys_counter", "tsc", "kvm-clock")
"""Counters that the processor reads itself."""


class State(StrEnum):
    """How a fact compares with what is expected."""

    GOOD = "ok"
    ODD = "LOOK"
    NOT_HERE = "-"


@dataclass(frozen=True, slots=True)
class Fact:
    """What was ``found``, what it ``means``, and what is ``expected``."""

    name: str
    state: State
    found: str
    means: str
    expected: str


Pause = Callable[[float], None]


def _is_pi(host: Host) -> bool:
    return (host.text("/proc/device-tree/model") or "").startswith("Raspberry Pi")


def _cells(host: Host, name: str) -> list[int]:
    """A property of the device tree as numbers of 32 bits; none when it is not there."""
    try:
        data = host.path(f"/proc/device-tree/{name}").read_bytes()
    except OSError:
        return []
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data) - 3, 4)]


def _tree_text(host: Host, name: str) -> str:
    """A property of the device tree as a text."""
    return (host.text(f"/proc/device-tree/{name}") or "").rstrip("\0").replace("\0", " ")


# ---- the facts --------------------------------------------------------------------------------------------------------------------------


def board(host: Host, _: Pause) -> Fact:
    """Which board."""
    model, revision = _tree_text(host, "model"), _cells(host, "system/linux,revision")
    if not model:
        model = " ".join(filter(None, (host.text(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))))
    found = (model or "unknown") + (f", revision {revision[0]:x}" if revision else "")
    known = re.match(r"Raspberry Pi (3|4|5|400|500|Zero 2|Compute Module [345])", model) or not _is_pi(host)
    expected = "a Raspberry Pi 3, 4, 5, 400, 500, Zero 2 W, Compute Module 3, 4 or 5, or a PC"
    return Fact("board", State.GOOD if known and model else State.ODD, found, "which machine this is", expected)


def kernel(host: Host, _: Pause) -> Fact:
    """Which kernel."""
    found = host.text("/proc/sys/kernel/osrelease") or "unknown"
    needs = _tree_text(host, "model").startswith("Raspberry Pi 5") and "rp1" not in (host.text("/proc/modules") or "")
    means = "the kernel; that of a Raspberry Pi 5 needs the drivers of RP1 for its network, USB and pins"
    return Fact("kernel", State.ODD if needs else State.GOOD, found, means, "that of the image" + (", with rp1 loaded" if needs else ""))


def slot(host: Host, _: Pause) -> Fact:
    """Which slot was booted, and how updates are tried."""
    slots, means = Slots(host, command), "which of the two systems on the card runs, and how a new version is tried"
    try:
        running, choice = slots.running, slots.choice()
    except OSError as error:
        return Fact("slot", State.NOT_HERE, str(error), means, "slot A or B of the image")
    how = {
        Loader.TRYBOOT: "the firmware tries it once (tryboot)",
        Loader.GRUB: "GRUB counts its starts",
        Loader.COUNTER: "a counter on the card; a kernel that does not start at all is not left by itself",
    }[slots.loader]
    usual = running is choice.usual
    found = f"{running}, {'the usual one' if usual else 'on trial'}; a new version: {how}"
    return Fact("slot", State.GOOD, found, means, "the usual one; on trial after an update")


def firmware(host: Host, _: Pause) -> Fact:
    """What the Raspberry Pi's firmware says of itself and of this start."""
    where = "chosen/bootloader"
    means = "the firmware in the board's EEPROM, the boot partition that it took, and whether it tries another"
    version, partition = _tree_text(host, f"{where}/version"), _cells(host, f"{where}/partition")
    tried, stamp = _cells(host, f"{where}/tryboot"), _cells(host, f"{where}/build-timestamp")
    if not _is_pi(host):
        return Fact("firmware", State.NOT_HERE, "this is no Raspberry Pi", means, "on a Raspberry Pi 4 and 5: its version")
    if not (version or stamp or partition):
        return Fact("firmware", State.NOT_HERE, "it tells nothing to Linux", means, "nothing on a 3 and Zero 2 W; on a 4 and 5 its version")
    found = [f"version {version[:12]}"] if version else []
    found += [f"built at {stamp[0]} s after 1970"] if stamp else []
    found += [f"boot partition {partition[0]}"] if partition else []
    found += [f"tryboot {'yes' if tried[0] else 'no'}"] if tried else []
    return Fact("firmware", State.GOOD, ", ".join(found), means, "a boot partition of the slot that runs; tryboot only after an update")


def overlays(host: Host, _: Pause) -> Fact:
    """Which pins the device tree gives to the pulse, and whether Bluetooth has the UART."""
    means = "what config.txt and user.txt on the card made of the pins: dtoverlay=pps-gpio, disable-bt"
    if not host.path("/proc/device-tree").exists():
        return Fact("pins", State.NOT_HERE, "this machine has no device tree", means, "on a Raspberry Pi: the pulse's pin")
    found = []
    for node in host.names("/proc/device-tree/**/compatible") if _is_pi(host) else host.names("/proc/device-tree/*/compatible"):
        name = node.removeprefix("/proc/device-tree/").removesuffix("/compatible")
        if "pps-gpio" in _tree_text(host, f"{name}/compatible"):
            cells = _cells(host, f"{name}/gpios")
            found.append(f"pulse on GPIO {cells[1]} ({name})" if len(cells) >= 2 else f"pulse without a pin ({name})")
        if name.endswith("/bluetooth"):
            found.append(f"Bluetooth {'off' if _tree_text(host, f'{name}/status') == 'disabled' else 'on'}")
    pulse = any("GPIO" in each for each in found)
    return Fact("pins", State.GOOD if pulse else State.ODD, "; ".join(found) or "no pulse", means, "the GPIO number that box.toml names")


def pulses(host: Host, pause: Pause) -> Fact:
    """Whether edges come at the pulse devices."""

    def counts() -> dict[str, tuple[int, ...]]:
        return {path.rpartition("/")[2]: _edges(host, path) for path in host.names("/sys/class/pps/pps*")}

    means = "edges that the kernel stamped while this looked, rising and falling"
    before = counts()
    if not before:
        return Fact("pulses", State.ODD, "no /dev/pps device", means, "one, when a pulse is wired to the pins")
    pause(WATCHED_S)
    after, found, good = counts(), [], False
    for name, edges in after.items():
        came = [now - then for now, then in zip(edges, before.get(name, edges), strict=True)]
        good = good or any(2 <= number <= 5 for number in came)
        found.append(f"{name} ({host.text(f'/sys/class/pps/{name}/name') or 'unnamed'}): {came[0]} rising, {came[1]} falling")
    shown = f"in {WATCHED_S:g} s at {'; '.join(found)}"
    return Fact("pulses", State.GOOD if good else State.ODD, shown, means, "3 or 4 of one kind, once the receiver has a fix")


def _edges(host: Host, path: str) -> tuple[int, int]:
    """Rising and falling edges so far (Documentation/ABI/testing/sysfs-pps: "seconds.nanoseconds#number")."""
    told = (host.text(f"{path}/{edge}") or "" for edge in ("assert", "clear"))
    rising, falling = (int(number) if (number := text.rpartition("#")[2]).isdigit() else 0 for text in told)
    return rising, falling


def uart(host: Host, _: Pause) -> Fact:
    """Which serial ports there are, and whether one is a console."""
    ports = [name for pattern in ("ttyAMA*", "ttyS[0-9]*", "ttyUSB*", "ttyACM*") for name in host.names(f"/dev/{pattern}")]
    real = [name for name in ports if not name.startswith("/dev/ttyS") or _is_port(host, name)]
    consoles = re.findall(r"console=(tty(?:AMA|S)\d+)", host.text("/proc/cmdline") or "")
    means = "serial ports for receivers; a console of the kernel on one writes into the receiver"
    found = ", ".join(f"{name} ({holder})" if (holder := ", ".join(host.holders(name))) else name for name in real) or "none"
    if _is_pi(host) and consoles:
        return Fact(
            "uart", State.ODD, f"{found}; console on {', '.join(consoles)}", means, "no console=ttyAMA0 on the kernel's command line"
        )
    expected = "/dev/ttyAMA0 for the header of a Raspberry Pi; ttyUSB or ttyACM for USB receivers; refclock has the one in use"
    return Fact("uart", State.GOOD if real else State.ODD, found, means, expected)


def _is_port(host: Host, name: str) -> bool:
    """Whether a ttyS has hardware behind it (serial_core(4): type 0 is unknown)."""
    return host.number(f"/sys/class/tty/{name.rpartition('/')[2]}/type") not in (None, 0)


def temperature(host: Host, _: Pause) -> Fact:
    """How hot the processor is, and whether it or its supply holds it back."""
    told = host.number("/sys/class/thermal/thermal_zone0/temp")
    means = "heat makes the crystal drift, and a weak supply makes everything unsteady"
    expected = f"below {WARM_C:g} °C, no under-voltage"
    if told is None:
        return Fact("temperature", State.NOT_HERE, "no thermometer", means, expected)
    celsius = told / 1000
    low = [path for path in host.names("/sys/class/hwmon/*") if host.text(f"{path}/name") == "rpi_volt"]
    weak = any(host.number(f"{path}/in0_lcrit_alarm") for path in low)
    slowed = celsius >= HOT_C
    found = f"{celsius:.1f} °C" + ("; under-voltage: another power supply or cable" if weak else "") + ("; slowed down" if slowed else "")
    return Fact("temperature", State.ODD if weak or celsius >= WARM_C else State.GOOD, found, means, expected)


def watchdog(host: Host, _: Pause) -> Fact:
    """Whether a watchdog guards the system."""
    path = "/sys/class/watchdog/watchdog0"
    means = "restarts the box when the whole system hangs"
    if not host.path(path).exists():
        return Fact("watchdog", State.ODD, "none", means, "active, 15 s")
    state, identity, timeout = (host.text(f"{path}/{name}") for name in ("state", "identity", "timeout"))
    found = f"{identity or 'unnamed'}, {state or 'unknown'}, {timeout or '?'} s"
    return Fact("watchdog", State.GOOD if state == "active" else State.ODD, found, means, "active, 15 s")


def partitions(host: Host, _: Pause) -> Fact:
    """The partitions of the card, and whether data has grown to its end."""
    sizes: dict[str, int] = {}
    for name in host.names("/sys/class/block/*/uevent"):
        label = re.search(r"^PARTNAME=(.*)$", host.text(name) or "", re.MULTILINE)
        size = host.number(f"{name.removesuffix('/uevent')}/size")
        if label is not None and label[1] in LABELS and size is not None:
            sizes[label[1]] = size * 512 // 1_000_000  # sysfs counts in 512 octets, whatever the device
    lacking = [label for label in LABELS if label not in sizes]
    shown = ", ".join(f"{label} {sizes[label]} MB" for label in LABELS if label in sizes) or "none of the image"
    found = f"{shown}; missing: {', '.join(lacking)}" if sizes and lacking else shown
    state = State.NOT_HERE if not sizes else State.ODD if lacking else State.GOOD
    return Fact("card", state, found, "the partitions of the image by their names", f"{', '.join(LABELS)}; data fills the card")


def mounts(host: Host, _: Pause) -> Fact:
    """What is mounted how: only the data partition may be written."""
    wanted = {"/": "overlay", "/data": "ext4", "/boot/refclock": "vfat"}
    lines = (line.split() for line in (host.text("/proc/mounts") or "").splitlines())
    there = {words[1]: (words[2], words[3].split(",")[0]) for words in lines if len(words) > 3 and words[1] in wanted}
    found = ", ".join(f"{at} {kind} {mode}" for at, (kind, mode) in there.items()) or "unknown"
    good = {at: kind for at, (kind, _) in there.items()} == wanted and there["/boot/refclock"][1] == "ro"
    state = State.GOOD if good else State.ODD if booted_slot(host) else State.NOT_HERE
    means = "nothing but data is written, so that a power cut spoils nothing"
    return Fact("mounts", state, found, means, "/ overlay rw, /data ext4 rw, /boot/refclock vfat ro")


def memory(host: Host, _: Pause) -> Fact:
    """How much memory is left."""
    told = dict(re.findall(r"^(\w+): +(\d+) kB$", host.text("/proc/meminfo") or "", re.MULTILINE))
    total, free = int(told.get("MemTotal", 0)) // 1024, int(told.get("MemAvailable", 0)) // 1024
    found = f"{total} MB, {free} MB available"
    return Fact("memory", State.GOOD if free > 64 else State.ODD, found, "memory of the machine", "more than 64 MB available")


def counter(host: Host, _: Pause) -> Fact:
    """What the kernel counts time by, and the battery clock."""
    source = host.text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    rtc = host.text("/sys/class/rtc/rtc0/name")
    found = f"{source}; battery clock: {rtc or 'none'}"
    means = "the counter behind all time stamps; a battery clock tells the date before the receiver does"
    return Fact(
        "counter",
        State.GOOD if source in CLOCKSOURCES else State.ODD,
        found,
        means,
        f"{', '.join(CLOCKSOURCES[:-1])} or {CLOCKSOURCES[-1]}; a battery clock is not needed",
    )


def network(host: Host, _: Pause) -> Fact:
    """Which links are up."""
    names = [path.rpartition("/")[2] for path in host.names("/sys/class/net/*") if not path.endswith("/lo")]
    shown, up = [], False
    for name in names:
        link, speed = host.text(f"/sys/class/net/{name}/operstate") or "unknown", host.number(f"/sys/class/net/{name}/speed")
        up = up or link == "up"
        shown.append(f"{name} {link}" + (f" {speed} Mbit/s" if speed is not None and speed > 0 else ""))
    return Fact(
        "network", State.GOOD if up else State.ODD, ", ".join(shown) or "none", "interfaces and their links", "a wired one that is up"
    )


def led(host: Host, _: Pause) -> Fact:
    """Which light shows the state."""
    there = ", ".join(path.rpartition("/")[2] for path in host.names("/sys/class/leds/*")) or "none"
    used = light(host, host.text(WANTED) or "auto").rpartition("/")[2]
    expected = "the green one (ACT) of a Raspberry Pi; the kernel knows none on a 5, and a 400 has the red one alone (PWR)"
    state = State.GOOD if used else State.NOT_HERE
    return Fact("light", state, f"{used or 'none'}, of: {there}", "the light that shows the state", expected)


EXAMINATIONS: Final = (
    *(board, kernel, slot, firmware, overlays, pulses, uart, temperature, watchdog, partitions, mounts, memory, counter, network, led),
)


def facts(host: Host, pause: Pause) -> Iterator[Fact]:
    """Every fact, in the order of the report."""
    return (look(host, pause) for look in EXAMINATIONS)


def report(found: Sequence[Fact], about: str) -> str:
    """The facts as text for a terminal or a report. ``about``: the version."""
    lines = [about]
    for fact in found:
        lines += [f"{fact.state:<5}{fact.name:<12}{fact.found}", f"{'':<5}means       {fact.means}", f"{'':<5}expected    {fact.expected}"]
    odd = sum(fact.state is State.ODD for fact in found)
    return "\n".join([*lines, f"{len(found)} facts, {odd} to look at"])
