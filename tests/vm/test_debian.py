"""``refclock setup`` on Debian with chrony and gpsd, under real systemd: both ways and back, an upgrade, a removal, a receiver plugged in.

The whole Debian lies in the machine's memory: an initramfs. A script in it does one thing after the other and prints what it sees; the
tests read that. One boot, one machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from debians import later_version, mirror, package
from machine import BOARDS, Qmp
from usb_receiver import UsbReceiver

from ppsd import version

pytestmark = [pytest.mark.vm, pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack a Debian")]

DEPENDS = ("libnettle8t64", "python3", "python3-cffi-backend", "python3-serial", "python3-structlog", "tzdata", "passwd")
INCLUDE = ("systemd-sysv", "udev", "dbus", "kmod", "chrony", "gpsd", "linux-image-amd64", *DEPENDS)
MODULES = ("ohci_pci", "ftdi_sio", "usbserial", "cdc_acm", "gnss", "pps_ldisc")
LEFT_OUT = (
    "boot/*",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
    "var/lib/apt/lists/*",
    "var/cache/apt/*",
    "usr/lib/udev/hwdb.d/*",
)
QUIETLY = "rdinit=/init systemd.show_status=0 no_timer_check"
"""The last: on a busy host the emulation may deliver too few ticks for the check that a PC's kernel makes at its start."""
LONGEST_S = 1500
"""s from power-on to the end. It took 760 on two cores that had twelve other things to do (measured)."""

TRIAL = r"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin SYSTEMD_COLORS=0 LC_ALL=C.UTF-8
OURS='refclock.target refclock-clock.service refclock-serve.service refclock-serve.socket refclock-web.service'
OTHERS='chrony.service gpsd.socket gpsd.service'
state() { for unit in $OURS $OTHERS; do echo "$unit $(systemctl is-enabled $unit 2>/dev/null) $(systemctl is-active $unit)"; done; }
failed() { systemctl --failed --plain --no-legend; }
files() { find /etc -type f -o -type l | sort | xargs sha256sum 2>/dev/null | grep -v refclock.toml.setup; }
step() { echo "=== $1"; }
wait_until() {
    end=$(($(date +%s) + 240))
    while [ $(date +%s) -lt $end ]; do eval "$1" && return; sleep 1; done
    echo "given up: $1"
}
process() { systemctl show -P MainPID $1; }

step installed; state; failed
files > /before
step drivers; grep -c ttyUSB /proc/devices

step appliance; refclock setup --yes --as appliance; echo "exit $?"
step appliance-state; state; failed
step exposure; systemd-analyze security --no-pager 2>/dev/null | grep refclock
step privileges
for unit in refclock-clock refclock-serve; do
    pid=$(process $unit)
    echo "$unit $(id -nu $(stat -c %u /proc/$pid)) $(grep -E 'CapEff|NoNewPrivs|^Seccomp:' /proc/$pid/status | tr -s '\t\n' ' ')"
done
step answer; refclock query 127.0.0.1

step PLUG
wait_until 'test -e /dev/ttyUSB0'
wait_until 'refclock query 127.0.0.1 | grep -q "stratum 1"'
step plugged; ls -l /dev/ttyUSB0; refclock sources; refclock query 127.0.0.1

step crash; before=$(process refclock-clock); kill -KILL $before
wait_until "[ \$(process refclock-clock) != $before ] && [ \$(process refclock-clock) != 0 ]"
refclock query 127.0.0.1

step upgrade; before=$(process refclock-clock)
dpkg -i /later.deb 2>&1
[ $(process refclock-clock) != $before ] && echo 'another process'
state; failed; wait_until 'refclock query 127.0.0.1 | grep -q "stratum 1"'

step undo; refclock setup --undo; echo "exit $?"
state; failed
files > /after; diff /before /after && echo 'the same files'
chronyc -n tracking | head -1

# Without a pulse chronyd is promised a second; with one that does not come nothing would be handed over.
printf '[[source]]\ntype = "receiver"\npps = ""\n' > /etc/refclock/refclock.toml
step feeder; refclock setup --yes --as feeder; echo "exit $?"
step feeder-state; state; failed; ls -l /run/chrony.refclock.sock
wait_until 'chronyc -c sources | grep -q "^#,[*+-],GPS"'
step fed; chronyc -n sources
wait_until 'systemctl is-active -q refclock-web'
python3 -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:9124/metrics").read().decode())' | grep refclock_up
systemctl restart chrony
sleep 2; wait_until 'chronyc -c sources | grep -q "^#,.,GPS,[0-9]*,[0-9]*,[1-9]"'
step fed-again; chronyc -n sources; refclock feed chrony

step remove; dpkg -r refclock 2>&1
step removed; state; failed; pgrep -f ppsd
files > /after; diff /before /after | grep -v refclock
chronyc -n sources
step purge; dpkg -P refclock 2>&1
find / -xdev -iname '*refclock*' -not -name 'refclock.deb'
getent passwd refclock refclock-serve; getent group refclock
step end
systemctl poweroff --no-block
"""
UNIT = """[Unit]
Description=The trial
After=chrony.service gpsd.socket
[Service]
ExecStart=/trial
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
"""


def installed(root: Path, directory: Path) -> None:
    """A Debian in ``root`` that has our package installed, and its next version in /later.deb."""
    options = ["--quiet", "--variant=minbase", f"--include={','.join(INCLUDE)}"]
    options += [f"--dpkgopt=path-exclude=/{name}" for name in (*LEFT_OUT[1:4], "etc/kernel/postinst.d/initramfs-tools")]
    making = subprocess.Popen(["mmdebstrap", *options, "trixie", root, f"deb {mirror()} trixie main"])
    deb = package("amd64", directory)
    later = later_version(deb, directory)
    assert making.wait() == 0
    for name, file in (("refclock.deb", deb), ("later.deb", later)):
        shutil.copyfile(file, root / name)
    subprocess.run(["chroot", root, "dpkg", "-i", "/refclock.deb"], check=True, stdout=subprocess.DEVNULL)


def initramfs(root: Path, directory: Path) -> tuple[Path, Path]:
    """(kernel, initramfs) of the Debian in ``root``, which does the trial."""
    (root / "trial").write_text(TRIAL, encoding="utf-8")
    (root / "trial").chmod(0o755)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    (wanted.parent / "trial.service").write_text(UNIT, encoding="utf-8")
    (wanted / "trial.service").symlink_to("../trial.service")
    (wanted.parent / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    (root / "init").symlink_to("usr/lib/systemd/systemd")
    kernel = shutil.copyfile(next(root.glob("boot/vmlinuz-*")), directory / "kernel")
    keep_modules(root)
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    archive = directory / "initramfs"
    with archive.open("wb") as file:
        subprocess.run("find . -xdev | cpio --quiet -o -H newc", shell=True, cwd=root, stdout=file, check=True)
    return kernel, archive


def keep_modules(root: Path) -> None:
    """Of the kernel's modules only those of the devices that are used here, and what they need."""
    (modules,) = (root / "usr/lib/modules").iterdir()
    words = ["modprobe", "-d", root, "-S", modules.name, "--show-depends", "-a", *MODULES]
    needed = set(re.findall(r"^insmod (\S+)", subprocess.run(words, capture_output=True, text=True, check=True).stdout, re.MULTILINE))
    kept = {Path(name).name for name in needed}
    for path in modules.rglob("*.ko*"):
        if path.name not in kept:
            path.unlink()
    subprocess.run(["depmod", "-b", root, modules.name], check=True)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, figure: Callable[[str, float, str], None]) -> Iterator[dict[str, str]]:
    """What the trial printed: step -> its lines."""
    directory = tmp_path_factory.mktemp("debian")
    root = directory / "root"
    installed(root, directory)
    kernel, archive = initramfs(root, directory)
    shutil.rmtree(root)
    console, receiver = directory / "console", UsbReceiver(directory / "receiver")
    words = [*BOARDS["pc"].words, "-M", "pc", "-m", "1536", "-nodefaults", "-display", "none", "-no-reboot"]
    words += ["-kernel", str(kernel), "-initrd", str(archive), "-append", f"console=ttyS0 quiet {QUIETLY}"]
    words += ["-serial", f"file:{console}", "-qmp", f"unix:{directory / 'qmp'},server=on,wait=off", "-device", "pci-ohci,id=usb"]
    words += ["-chardev", f"socket,id=line,path={receiver.socket},server=on,wait=off"]
    qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL)
    began, plugged, qmp = time.monotonic(), False, Qmp(directory / "qmp")
    try:
        while qemu.poll() is None:
            said = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
            assert time.monotonic() < began + LONGEST_S, said[-3000:]
            if "=== PLUG" in said and not plugged:
                qmp.execute("device_add", driver="usb-serial", bus="usb.0", chardev="line", id="receiver", **{"always-plugged": True})
                receiver.connect()
                plugged = True
            time.sleep(1)
        figure("Debian, from power-on through setup, upgrade and removal", time.monotonic() - began, "s")
    finally:
        qmp.close()
        qemu.kill()
        qemu.wait()
        receiver.close()
    steps = console.read_text(encoding="utf-8", errors="replace").replace("\r", "").split("=== ")[1:]
    yield {name.strip(): text for name, _, text in (step.partition("\n") for step in steps)}


def states(text: str) -> dict[str, tuple[str, ...]]:
    """unit -> (enabled, active)"""
    found = re.findall(r"^(\S+\.(?:service|socket|target)) (\S*) (\S+)$", text, re.MULTILINE)
    return {unit: (enabled, active) for unit, enabled, active in found}


BEFORE = {
    "refclock.target": ("disabled", "inactive"),
    "refclock-clock.service": ("disabled", "inactive"),
    "chrony.service": ("enabled", "active"),
    "gpsd.socket": ("enabled", "active"),
}


def test_installation_alone_changes_nothing(seen: dict[str, str]) -> None:
    """chronyd and gpsd run, nothing of ours does."""
    assert states(seen["installed"]).items() >= BEFORE.items()
    assert "failed" not in seen["installed"]


def test_as_an_appliance_it_has_the_clock_and_the_port(seen: dict[str, str]) -> None:
    """The others are off, also at the next boot; ours is on and answers; nothing has failed. The doctor's findings are shown."""
    now = states(seen["appliance-state"])
    assert now["chrony.service"] == now["gpsd.socket"] == ("disabled", "inactive")
    assert now["refclock.target"] == ("enabled", "active")
    assert {now[f"refclock-{name}"][1] for name in ("clock.service", "serve.service", "serve.socket", "web.service")} == {"active"}
    assert "failed" not in seen["appliance-state"]
    assert re.search(r"RC\d\d.*good, \d+ to look at", seen["appliance"], re.DOTALL)
    assert "is held by" not in seen["appliance"]
    assert "stratum" in seen["answer"]


def test_the_services_have_the_rights_that_they_need_and_no_others(seen: dict[str, str]) -> None:
    """Users of their own; the clock process may set the clock (CAP_SYS_TIME), the server has no capability. systemd finds little open."""
    told = {line.split()[0]: line for line in seen["privileges"].splitlines() if line.startswith("refclock-")}
    assert re.match(r"refclock-clock refclock .*CapEff: 0000000002000000", told["refclock-clock"])
    assert re.match(r"refclock-serve refclock-serve .*CapEff: 0000000000000000", told["refclock-serve"])
    assert all("NoNewPrivs: 1" in line and "Seccomp: 2" in line for line in told.values())
    scores = re.findall(r"refclock-\S+\s+([0-9.]+)", seen["exposure"])
    assert len(scores) == 4
    assert all(float(score) <= 1.5 for score in scores), seen["exposure"]


def test_a_receiver_that_is_plugged_in_reaches_the_service_that_runs(seen: dict[str, str]) -> None:
    """Its driver was not loaded when the machine started; the service finds it, and the time of it is served. A killed process is started
    anew meanwhile."""
    assert seen["drivers"].strip() == "0"
    assert "given up" not in seen["PLUG"] + seen["crash"]
    assert "/dev/ttyUSB0" in seen["plugged"]
    assert "stratum 1" in seen["plugged"]
    assert "stratum 1" in seen["crash"]


def test_an_upgrade_restarts_what_runs_and_nothing_else(seen: dict[str, str]) -> None:
    """The new version serves; chronyd and gpsd stay off."""
    assert f"{version()}+1" in seen["upgrade"]
    assert "another process" in seen["upgrade"]
    assert states(seen["upgrade"]) == states(seen["appliance-state"])
    assert "given up" not in seen["upgrade"]


def test_undo_puts_everything_back(seen: dict[str, str]) -> None:
    """Units and the files below /etc are as before the setup, and chronyd works."""
    assert "exit 0" in seen["undo"]
    assert states(seen["undo"]) == states(seen["installed"])
    assert "the same files" in seen["undo"]
    assert "Reference ID" in seen["undo"]


def test_as_a_feeder_it_hands_chronyd_its_time(seen: dict[str, str]) -> None:
    """chronyd keeps clock and port and selects our samples, after a restart of its own too. gpsd has let go of the receiver. Prometheus is
    answered."""
    now = states(seen["feeder-state"])
    assert now["chrony.service"] == ("enabled", "active")
    assert now["refclock-clock.service"] == ("enabled", "active")
    assert now["refclock-serve.service"][1] == now["refclock-serve.socket"][1] == "inactive"
    assert now["gpsd.socket"] == ("disabled", "inactive")
    assert "failed" not in seen["feeder-state"]
    assert "given up" not in seen["feeder-state"] + seen["fed"]
    assert 'refclock_up{process="clock"} 1' in seen["fed"]
    assert re.search(r"^#[*+-] GPS", seen["fed"], re.MULTILINE)
    assert re.search(r"^#. GPS", seen["fed-again"], re.MULTILINE)


def test_after_a_removal_chronyd_works_as_before(seen: dict[str, str]) -> None:
    """The removal takes the setup back by itself: no process, drop-in or line of ours is left, and a purge leaves no file and no user."""
    now = states(seen["removed"])
    assert {unit: now[unit] for unit in ("chrony.service", "gpsd.socket")} == {
        unit: BEFORE[unit] for unit in ("chrony.service", "gpsd.socket")
    }
    assert not re.search(r"^\d+$|^[<>]|failed|GPS", seen["removed"], re.MULTILINE), seen["removed"]
    assert not re.search(r"^(/|refclock)", seen["purge"], re.MULTILINE), seen["purge"]
    assert "end" in seen
