"""The PC's image in an emulated PC: what its services may do, and how they come back.

One machine lives through all tests of this file. What a unit promises is read from systemd in the guest, what the process has from /proc.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable

import pytest
from machine import Machine

SERVICES = ("refclock-clock", "refclock-serve", "refclock-web")
TIMEKEEPERS = SERVICES[:2]
"""Those without which no client has the time, watched by systemd for seconds."""
MOST_EXPOSED = 1.5
"""Highest exposure by systemd-analyze, of 10. systemd 252 gives chrony 3.7, gpsd 9.6."""
PATIENCE_S = 400
"""s: longest wait for what takes a minute on two idle cores."""
SYS_TIME = 1 << 25
"""Capability 25: to set the clock (linux/capability.h)."""
OPENS = """
import os, sys
for place in ("/dev", "/dev/mapper", "/dev/pts", "/dev/input", "/dev/net"):
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
        path = f"{place}/{name}"
        if not os.path.islink(path) and not os.path.isdir(path) and not os.path.isfile(path):
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
            except OSError:
                continue
            print(path)
"""
"""Prints the devices that can be opened."""
HARMLESS = re.compile(r"/dev/(null|zero|full|u?random|tty|ptmx|pts/.*)")


@pytest.fixture(scope="module")
def pc(new_machine: Callable[..., Machine]) -> Machine:
    machine = new_machine("pc")
    machine.switch_on()
    machine.wait_answer(PATIENCE_S)
    machine.wait_login()
    machine.wait_for(lambda: "running" in machine.run("systemctl is-system-running", check=False), PATIENCE_S, "it does not come to rest")
    return machine


def shown(pc: Machine, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    lines = pc.run(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def status(pc: Machine, unit: str) -> dict[str, str]:
    """/proc/PID/status of a service's process."""
    pid = shown(pc, unit, "MainPID")["MainPID"]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in pc.run(f"cat /proc/{pid}/status").splitlines())}


def test_every_unit_is_up(pc: Machine, figure: Callable[..., None]) -> None:
    """Nothing has failed, the three of refclock run, and a receiver that is on the USB is found."""
    figure("PC with BIOS: login", pc.on_for_s, "s")
    assert pc.run("systemctl --failed --plain --no-legend") == ""
    for unit in ("refclock.target", "refclock-serve.socket", *map("{}.service".format, SERVICES)):
        assert pc.run(f"systemctl is-active {unit}") == "active\n", unit
    figure("PC with BIOS: stratum 1", pc.wait_stratum_1(PATIENCE_S), "s")


def test_what_is_not_wanted_rests(pc: Machine) -> None:
    """NTS is off, so its process has ended at once, well, and is not started again."""
    told = shown(pc, "refclock-nts-ke", "ActiveState", "Result", "NRestarts")
    assert told == {"ActiveState": "inactive", "Result": "success", "NRestarts": "0"}
    assert "NTS is not enabled" in pc.run("journalctl -u refclock-nts-ke -o cat")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_confined_as_promised(pc: Machine, unit: str) -> None:
    """systemd's judge, with all drop-ins that are in force."""
    told = pc.run(f"SYSTEMD_COLORS=0 systemd-analyze security --no-pager {unit}")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= MOST_EXPOSED, told


@pytest.mark.parametrize(("unit", "capabilities"), [("refclock-clock", SYS_TIME), ("refclock-serve", 0), ("refclock-web", 0)])
def test_a_process_has_the_rights_that_its_unit_names_and_no_other(pc: Machine, unit: str, capabilities: int) -> None:
    """Its own user, its capabilities, a seccomp filter, and no way to gain more."""
    of = status(pc, unit)
    user = shown(pc, unit, "User")["User"]
    assert set(of["Uid"].split()) == {pc.run(f"id -u {user}").strip()}
    assert set(of["Gid"].split()) == {pc.run("getent group refclock | cut -d: -f3").strip()}
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(of[name], 16) == capabilities, (name, of)
    assert int(of["CapInh"], 16) == int(of["CapAmb"], 16) == 0, "a program that it starts would have them too"
    assert of["Seccomp"] == "2"
    assert of["NoNewPrivs"] == "1"


def test_no_process_of_the_services_is_root(pc: Machine) -> None:
    """Not even a helper. What clients' packets reach has another user than what moves the clock."""
    for unit, user in zip(SERVICES, ("refclock", "refclock-serve", "refclock-serve"), strict=True):
        owners = pc.run(f"for f in $(cat /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs); do stat -c %U /proc/$f; done")
        assert set(owners.split()) == {user}


def test_the_clock_process_has_no_network_and_the_others_no_device(pc: Machine) -> None:
    """The clock process sees a loopback and no more, and opens receivers and pulses alone; the others open nothing."""
    pid = shown(pc, "refclock-clock", "MainPID")["MainPID"]
    assert len(pc.run(f"nsenter -t {pid} -n ip -brief link").splitlines()) == 1
    opened = opens(pc, "refclock-clock")
    assert "/dev/ttyUSB0" in opened
    assert {re.sub(r"\d+$", "", name) for name in opened} <= {"/dev/ttyUSB", "/dev/ttyS", "/dev/pps", "/dev/cpu_dma_latency"}
    assert opens(pc, "refclock-serve") == opens(pc, "refclock-web") == []


def opens(pc: Machine, unit: str) -> list[str]:
    """The devices that a service's process can open, but for those that every process may have."""
    of = shown(pc, unit, "MainPID", "User")
    move = f"echo $$ >/sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs"
    become = f"nsenter -t {of['MainPID']} -m setpriv --reuid {of['User']} --regid refclock --init-groups --bounding-set -all"
    return [line for line in pc.run(f"{move}; {become} python3 -c '{OPENS}'").splitlines() if not HARMLESS.fullmatch(line)]


def test_only_what_is_served_listens_and_the_rest_is_closed(pc: Machine) -> None:
    """NTP, ssh with a key, names on the local network, DHCP. What somebody else opens cannot be reached from outside."""
    sockets = [line.split() for line in pc.run("ss -lntuH").splitlines() if "127.0.0" not in line and "[::1]" not in line]
    listening = {(words[0], words[4].rpartition(":")[2]) for words in sockets}
    assert listening <= {("udp", "123"), ("tcp", "22"), ("udp", "5353"), ("udp", "5355"), ("tcp", "5355"), ("udp", "68"), ("udp", "546")}
    pc.run("systemd-run --unit stranger python3 -m http.server 8080")
    pc.wait_for(lambda: "8080" in pc.run("ss -lntH"), 60, "the stranger does not listen")
    port = pc.forward(8080)
    with socket.create_connection(("127.0.0.1", port), 10) as tcp:
        tcp.settimeout(5)
        tcp.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(TimeoutError, ConnectionError):
            assert tcp.recv(1) == b""
    pc.run("systemctl stop stranger")


@pytest.mark.parametrize("unit", TIMEKEEPERS)
def test_a_restarted_service_serves_again(pc: Machine, unit: str, figure: Callable[..., None]) -> None:
    """Each alone, in any order: clients get the time again without a hand."""
    began = time.monotonic()
    pc.run(f"systemctl restart {unit}")
    pc.wait_stratum_1(PATIENCE_S)
    figure(f"PC: stratum 1 after a restart of {unit}", time.monotonic() - began, "s")


@pytest.mark.parametrize("unit", TIMEKEEPERS)
def test_a_killed_service_comes_back(pc: Machine, unit: str, figure: Callable[..., None]) -> None:
    """SIGKILL, as from a kernel that is out of memory."""
    before = shown(pc, unit, "MainPID")
    began = time.monotonic()
    pc.run(f"kill -9 {before['MainPID']}")
    pc.wait_for(lambda: shown(pc, unit, "MainPID", "ActiveState") not in ({"ActiveState": "active"} | before, gone), PATIENCE_S, "not back")
    pc.wait_for(lambda: pc.run(f"systemctl is-active {unit}", check=False) == "active\n", PATIENCE_S, "not active")
    pc.wait_stratum_1(PATIENCE_S)
    figure(f"PC: stratum 1 after SIGKILL of {unit}", time.monotonic() - began, "s")


gone = {"MainPID": "0"}


def test_services_that_hang_are_started_anew(pc: Machine, figure: Callable[..., None]) -> None:
    """SIGSTOP stands for a process that does nothing any more: systemd's watchdog sees it. The server answers while the clock process
    hangs."""
    before = {unit: shown(pc, unit, "NRestarts")["NRestarts"] for unit in TIMEKEEPERS}
    began = time.monotonic()
    pc.run("systemctl kill --signal=STOP refclock-clock")
    assert pc.ask(3).header is not None
    pc.run("systemctl kill --signal=STOP refclock-serve")

    def restarted() -> bool:
        return all(shown(pc, unit, "NRestarts")["NRestarts"] > before[unit] for unit in TIMEKEEPERS)

    pc.wait_for(restarted, PATIENCE_S, "the watchdog sees nothing")
    figure("PC: hung services started anew", time.monotonic() - began, "s")
    pc.wait_stratum_1(PATIENCE_S)
    assert "watchdog" in pc.run("journalctl -u 'refclock-*' -o cat").lower()


def test_the_right_to_set_the_clock_is_used(pc: Machine) -> None:
    """The image steers the system clock: what the kernel is told is that it is synchronised."""
    told = json.loads(pc.run("refclock status --json", check=False))
    assert told["steering"] == "kernel", told["steering"]


def test_a_pc_with_uefi_starts_to_an_answer(pc: Machine, new_machine: Callable[..., Machine], figure: Callable[..., None]) -> None:
    """The same disk, started by the other kind of firmware."""
    pc.cut_power()  # an emulated machine that rests takes half a processor
    machine = new_machine("uefi")
    machine.switch_on()
    figure("PC with UEFI: first NTP answer", machine.wait_answer(PATIENCE_S), "s")
    machine.wait_login()
    assert machine.run("ls /sys/firmware/efi") != ""
