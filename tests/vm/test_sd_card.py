"""The SD card's image, as it is flashed, in an emulated board with a receiver on its USB and a pulse on a pin: from power-on to the time.

One machine lives through all tests of this file, in their order: first boot, receiver pulled and plugged in, second boot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_interface

import pytest
from machine import Machine

STATIC = ip_interface("10.0.2.77/24")
BOX = f"""{{system}}hostname = "attic"

[network]
address = ["{STATIC}"]
gateway = ["10.0.2.2"]

[pins]
pps = 4
"""
DAEMON = """[access]
allow = ["10.0.2.2"]
"""
FIRST_STRATUM_1_S = 150
FIRST_ANSWER_S = 75
PATIENCE = 2.5
"""How much longer than on two idle cores a start may take here before it counts as failed."""
MOST_MEMORY_MIB = 150


@pytest.fixture(scope="module")
def pi(new_machine: Callable[..., Machine], box_toml: str) -> Machine:
    machine = new_machine("virt", {"box.toml": BOX.format(system=box_toml), "refclock.toml": DAEMON})
    machine.address = str(STATIC.ip)
    machine.switch_on()
    return machine


@pytest.fixture(scope="module")
def first_answer_s(pi: Machine) -> float:
    return pi.wait_answer(FIRST_STRATUM_1_S * PATIENCE)


def test_a_client_outside_gets_stratum_1(pi: Machine, first_answer_s: float, figure: Callable[..., None]) -> None:
    """From power-on with a card that was just flashed: an answer, and soon the time of a receiver that was only plugged in."""
    figure("SD card, first boot: first NTP answer", first_answer_s, "s")
    figure("SD card, first boot: stratum 1", pi.wait_stratum_1(FIRST_STRATUM_1_S * PATIENCE), "s")
    header = pi.ask().header
    assert header is not None
    assert header.root_dispersion_ns < 1e9


def test_the_status_says_locked_to_the_pulse(pi: Machine) -> None:
    """The receiver's messages and the kernel's pulse have been found without a word of configuration."""
    pi.wait_login()
    pi.wait_for(lambda: "LOCKED" in pi.run("refclock status", check=False), 120, "not LOCKED")
    told = json.loads(pi.run("refclock status --json"))
    assert told["verdict"] == "LOCKED", told
    said = pi.run("refclock status")
    assert "QEMU_USB_SERIAL" in said
    assert "/dev/pps0" in said
    assert "gps0" in pi.run("refclock sources")


def test_devices_belong_to_the_services_group_alone(pi: Machine) -> None:
    """The receiver and its pulse are the group's, and nobody else may read them."""
    assert pi.run("stat -c '%U:%G %a' /dev/ttyUSB0 /dev/pps0").splitlines() == ["root:dialout 660"] * 2


def test_no_unit_has_failed_and_memory_is_small(pi: Machine, figure: Callable[..., None]) -> None:
    """The whole system runs, in what the smallest board has."""
    pi.wait_for(lambda: "starting" not in pi.run("systemctl is-system-running", check=False), 120, "it does not come to rest")
    assert pi.run("systemctl --failed --plain --no-legend") == ""
    for unit in ("refclock-clock", "refclock-serve", "refclock.target"):
        assert pi.run(f"systemctl is-active {unit}") == "active\n"
    used = memory_mib(pi)
    figure("SD card: memory in use", used, "MiB")
    assert used <= MOST_MEMORY_MIB


def test_what_the_owner_wrote_acts(pi: Machine) -> None:
    """Name, key, address, access list and pin of the card's files."""
    acts(pi)


def test_a_receiver_that_was_pulled_out_comes_back(pi: Machine) -> None:
    """While it is out the server goes on with a growing bound; plugged in again it is taken up, and nothing was restarted."""
    before = pi.run("systemctl show -p MainPID refclock-clock refclock-serve")
    pi.unplug()
    pi.wait_for(lambda: pi.run("ls /dev/ttyUSB0", check=False) == "", 30, "the receiver is still there")
    assert (exchange := pi.ask(3).exchange) is not None
    assert exchange.header.stratum == 1
    pi.plug()
    pi.wait_for(lambda: pi.run("stat -c %G%a /dev/ttyUSB0", check=False) == "dialout660\n", 60, "the receiver is not back")
    pi.wait_for(lambda: heard(pi), 90, "nothing is heard of the receiver")
    pi.wait_for(lambda: "LOCKED" in pi.run("refclock status", check=False), 90, "not LOCKED again")
    assert pi.run("systemctl show -p MainPID refclock-clock refclock-serve") == before


def test_a_second_boot_is_faster_and_a_mistake_in_a_file_changes_nothing(
    pi: Machine, first_answer_s: float, figure: Callable[..., None]
) -> None:
    """What the first boot made is kept. An owner's typing error leaves the last good settings in force, and the card says which line."""
    pi.switch_off()
    good = pi.card.text("box.toml")
    pi.card.write("box.toml", good.replace("attic", "cellar").replace("address =", "adress ="))
    pi.switch_on()
    answer_s = pi.wait_answer(FIRST_STRATUM_1_S * PATIENCE)
    figure("SD card, second boot: first NTP answer", answer_s, "s")
    figure("SD card, second boot: stratum 1", pi.wait_stratum_1(FIRST_STRATUM_1_S * PATIENCE), "s")
    pi.wait_login()
    acts(pi)
    line = next(number for number, text in enumerate(pi.card.text("box.toml").splitlines(), 1) if text.startswith("adress"))
    said = pi.run("cat /boot/refclock/STATUS.txt")
    assert re.search(rf"box\.toml:{line}\b.*adress.*address", said), said
    assert pi.run("systemctl --failed --plain --no-legend") == ""
    assert answer_s < first_answer_s


def acts(pi: Machine) -> None:
    """The settings that the machine was given are in force."""
    assert pi.run("cat /etc/hostname; hostname") == "attic\nattic\n"
    assert str(STATIC) in pi.run("ip -brief -4 address")
    assert "attic" in pi.run("cat /boot/refclock/STATUS.txt")
    assert "gpiopin=4" in pi.card.text("user.txt", "boot_a")
    assert pi.ask().exchange is not None  # 10.0.2.2
    told = pi.run("refclock query 127.0.0.1; refclock access test 10.0.2.3; refclock access test 10.0.2.2", check=False)
    assert "denied" in told, told


def heard(pi: Machine) -> bool:
    """Whether the receiver is there and its seconds arrive."""
    told = json.loads(pi.run("refclock sources --json", check=False) or "[]")
    return any(source["present"] and (source["last_sample_s"] or 99) < 3 for source in told)


def memory_mib(machine: Machine) -> float:
    """What cannot be given back: total less available (proc_meminfo(5))."""
    kib = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in machine.run("cat /proc/meminfo").splitlines())
    }
    return (kib["MemTotal"] - kib["MemAvailable"]) / 1024
