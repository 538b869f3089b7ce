"""ppsd.appliance.board: what an owner of the hardware pastes into a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ppsd.appliance.board import State, facts, report
from refclock.kernel.host import Host

PI4: dict[str, str | bytes] = {
    "proc/cmdline": "refclock.slot=a quiet",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/system/linux,revision": b"\x00\xc0\x31\x14",
    "proc/device-tree/chosen/bootloader/version": "d7b2fd0a6a1b9c50\0",
    "proc/device-tree/chosen/bootloader/partition": b"\0\0\0\2",
    "proc/device-tree/chosen/bootloader/tryboot": b"\0\0\0\0",
    "proc/device-tree/pps@12/compatible": "pps-gpio\0",
    "proc/device-tree/pps@12/gpios": b"\0\0\0\7\0\0\0\x12\0\0\0\0",
    "proc/device-tree/soc/serial@7e201000/bluetooth/compatible": "brcm,bcm43438-bt\0",
    "proc/device-tree/soc/serial@7e201000/bluetooth/status": "disabled\0",
    "proc/sys/kernel/osrelease": "7.2.12-arm64\n",
    "proc/meminfo": "MemTotal:        1917000 kB\nMemFree: 1 kB\nMemAvailable:    1700000 kB\n",
    "proc/mounts": "root / overlay rw,relatime 0 0\n/dev/x /data ext4 rw 0 0\n/dev/y /boot/refclock vfat ro,umask=077 0 0\n",
    "sys/class/pps/pps0/name": "pps@12.-1\n",
    "sys/class/pps/pps0/assert": "1790000000.000001000#100\n",
    "sys/class/pps/pps0/clear": "0.000000000#0\n",
    "dev/ttyAMA0": "",
    "dev/ttyS0": "",
    "sys/class/tty/ttyS0/type": "0\n",
    "sys/class/thermal/thermal_zone0/temp": "48200\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    "sys/class/watchdog/watchdog0/identity": "Broadcom BCM2835 Watchdog timer\n",
    "sys/class/watchdog/watchdog0/state": "active\n",
    "sys/class/watchdog/watchdog0/timeout": "15\n",
    "sys/class/net/end0/operstate": "up\n",
    "sys/class/net/end0/speed": "1000\n",
    "sys/class/leds/ACT/brightness": "0\n",
    "sys/class/leds/PWR/brightness": "1\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
    **{f"sys/class/block/mmcblk0p{n}/uevent": f"DEVNAME=mmcblk0p{n}\nPARTNAME={label}\n" for n, label in
       enumerate(("bootcfg", "boot_a", "boot_b", "root_a", "root_b", "data"), 1)},
    **{f"sys/class/block/mmcblk0p{n}/size": "1000000\n" for n in range(1, 7)},
}  # fmt: skip


def machine(root: Path, files: dict[str, str | bytes]) -> Host:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return Host(root)


def pulse_in(root: Path) -> Callable[[float], None]:
    """Three edges come while the report waits."""

    def pause(_: float) -> None:
        (root / "sys/class/pps/pps0/assert").write_text("1790000003.000001000#103\n", encoding="utf-8")

    return pause


def states(host: Host, pause: Callable[[float], None] = lambda _: None) -> dict[str, tuple[State, str]]:
    return {fact.name: (fact.state, fact.found) for fact in facts(host, pause)}


def test_a_healthy_raspberry_pi_is_told_in_full(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    """Each fact has its meaning and what is expected; only what this directory cannot have (GRUB, autoboot.txt) is told as missing."""
    host = machine(tmp_path, PI4)
    found = list(facts(host, pulse_in(tmp_path)))
    assert [fact.name for fact in found if fact.state is State.ODD] == []
    golden("board.txt", report(found, "refclock 1.2") + "\n")


@pytest.mark.parametrize(
    ("name", "content", "fact", "words"),
    [
        ("sys/class/thermal/thermal_zone0/temp", "84000\n", "temperature", "84.0 °C; slowed down"),
        ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n", "temperature", "under-voltage: another power supply"),
        ("sys/class/watchdog/watchdog0/state", "inactive\n", "watchdog", "inactive"),
        ("sys/class/block/mmcblk0p6/uevent", "DEVNAME=mmcblk0p6\n", "card", "missing: data"),
        ("proc/cmdline", "refclock.slot=a console=ttyAMA0,115200", "uart", "console on ttyAMA0"),
        ("proc/device-tree/pps@12/compatible", "other\0", "pins", "Bluetooth off"),
        ("sys/class/net/end0/operstate", "down\n", "network", "end0 down"),
        ("proc/mounts", "root / overlay rw 0 0\n/dev/y /boot/refclock vfat rw 0 0\n", "mounts", "vfat rw"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "jiffies\n", "counter", "jiffies"),
        ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0", "kernel", "7.2.12"),
        ("proc/device-tree/model", "Raspberry Pi Model B Rev 2\0", "board", "Raspberry Pi Model B"),
        ("proc/meminfo", "MemTotal: 500000 kB\nMemAvailable: 20000 kB\n", "memory", "19 MB available"),
    ],
)
def test_what_differs_is_marked(tmp_path: Path, name: str, content: str, fact: str, words: str) -> None:
    """Whoever reads the report sees at once where to look."""
    state, found = states(machine(tmp_path, PI4 | {name: content}), pulse_in(tmp_path))[fact]
    assert state is State.ODD
    assert words in found


def test_pulses_that_do_not_come_are_marked(tmp_path: Path) -> None:
    """A device is there, and no edge: the wire, or no fix."""
    state, found = states(machine(tmp_path, PI4))["pulses"]
    assert (state, found) == (State.ODD, "in 3.2 s at pps0 (pps@12.-1): 0 rising, 0 falling")


def test_a_pc_and_an_empty_machine_are_told_as_well(tmp_path: Path) -> None:
    """Nothing that is missing ends the report."""
    found = states(machine(tmp_path, {"sys/class/dmi/id/product_name": "NUC7\n", "sys/class/dmi/id/sys_vendor": "Intel\n"}))
    assert found["board"] == (State.GOOD, "Intel NUC7")
    assert found["firmware"][0] is found["pins"][0] is State.NOT_HERE
    assert found["light"][0] is State.NOT_HERE
    assert len(states(machine(tmp_path / "empty", {"x": ""}))) == len(found)


def test_the_report_names_no_person_and_no_serial_number(tmp_path: Path) -> None:
    """It is made to be published."""
    secret: dict[str, str | bytes] = {
        "proc/device-tree/serial-number": "10000000abcdef01\0",
        "sys/class/net/end0/address": "dc:a6:32:01:02:03\n",
        "etc/hostname": "alice-clock\n",
    }
    told = report(list(facts(machine(tmp_path, PI4 | secret), pulse_in(tmp_path))), "")
    assert not [word for word in ("abcdef01", "dc:a6", "alice") if word in told]
