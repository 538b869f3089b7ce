"""An emulated computer with the appliance's image in it: QEMU, its console, its network, a receiver on its USB, a pulse on a pin.

Flow: card -> **machine** -> (QEMU) -> UDP 123 and ssh on ports of this host. The emulation is QEMU's own (TCG): what /dev/kvm promises is
not always true. Nothing survives ``close``, and QEMU ends with the process that started it.

The pulse: of the ``virt`` board's device tree the power button becomes a pps-gpio on the same pin, and one press of it (QMP
``system_powerdown``) at each second of this host's clock is a pulse.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from card import Card
from usb_receiver import UsbReceiver

from ppsd.cli.query import Try, ask_once

T = TypeVar("T")

GUEST = "10.0.2.15"
"""The guest's address by DHCP; this host is 10.0.2.2 to it (QEMU manual, user mode networking)."""
SSH = ("-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "HostKeyAlias=guest", "-o", "StrictHostKeyChecking=accept-new")
"""Whose host key is another one after a boot is not believed."""
SSH_LATE_S = 20
"""s that one try to log in may take: under emulation the keys alone take some."""
NO_TIMER = "IO-APIC + timer doesn't work!"
"""A PC's kernel waits 70 ms for four ticks of its timer at its start. On a busy host the emulation may deliver fewer."""
ENDED_S = 30
"""s until QEMU must have ended by itself."""
BUTTON = re.compile(r"gpio-keys \{.*?gpios = (<0x[0-9a-f]+ 0x03 0x00>);.*?\};\s*\};", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of computer. ``words``: QEMU's command, but for what every machine has. ``disk``: the bus of the card. ``network``: the
    network device. ``model``: the section of a Pi's config.txt that holds; "" when firmware of its own starts the disk. ``consoles``: what
    is added to a Pi's command line. ``tree``: the board's device tree on the boot partition. ``usb``: the controller for the receiver."""

    words: tuple[str, ...]
    disk: str = "virtio"
    network: str = "virtio-net-pci"
    model: str = ""
    consoles: str = ""
    tree: str = ""
    usb: tuple[str, ...] = ("-device", "pci-ohci,id=usb")
    pulse: bool = False


_PC = ("qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64,-cx16,-svm", "-smp", "1", "-m", "512")
"""Without cmpxchg16b, of which QEMU 7.2 spoils the flags now and then: the guest's kernel panics in its allocator (measured)."""
_ARM = ("qemu-system-aarch64", "-accel", "tcg,thread=multi")
VIRT = ("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "512")
BOARDS = {
    "pc": Board((*_PC, "-M", "pc")),
    "uefi": Board((*_PC, "-M", "q35")),
    "virt": Board((*_ARM, *VIRT), model="pi4", consoles="console=ttyAMA0", pulse=True),
    "raspi3b": Board(
        (*_ARM, "-M", "raspi3b"),
        disk="sd",
        network="usb-net",
        model="pi3",
        # QEMU's model of the watchdog restarts the board in the moment in which it is armed (hw/misc/bcm2835_powermgt.c).
        consoles="console=ttyAMA0,115200 console=ttyS1,115200 modprobe.blacklist=bcm2835_wdt",
        tree="bcm2837-rpi-3-b.dtb",
        usb=(),
    ),
}
OVMF = Path("/usr/share/OVMF")
"""UEFI for PCs, of Debian's package ovmf."""


class Qmp:
    """A connection to QEMU's monitor (QEMU Machine Protocol)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ENDED_S)
        until = time.monotonic() + ENDED_S
        while self._socket.connect_ex(str(path)) != 0:
            assert time.monotonic() < until, f"QEMU does not listen on {path}"
            time.sleep(0.05)
        self._lines = self._socket.makefile()
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Do it; what is returned. ConnectionError: QEMU has ended. AssertionError: it was refused."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self._lines:
            told = json.loads(line)
            assert "error" not in told, f"{command}: {told['error']}"
            if "return" in told:
                return told["return"]
        raise ConnectionResetError("QEMU has ended")

    def last_words(self) -> str:
        """Why QEMU has ended: "guest-reset", "guest-shutdown", ...; "" when it was killed."""
        reason = ""
        with contextlib.suppress(OSError):
            for line in self._lines:
                told = json.loads(line)
                reason = told["data"]["reason"] if told.get("event") == "SHUTDOWN" else reason
        return reason

    def close(self) -> None:
        """Let go of it."""
        self._lines.close()
        self._socket.close()


class Pulse:
    """Presses the button at each second of this host's clock, while ``on``."""

    def __init__(self, qmp: Qmp) -> None:
        self.on = True
        self._qmp = qmp
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._press, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; QEMU may have ended already."""
        self._ended.set()
        self._thread.join()
        self._qmp.close()

    def _press(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.wait(1 - time.time() % 1):
                if self.on:
                    self._qmp.execute("system_powerdown")
                time.sleep(0.01)  # a wait that ended early must not press twice


class Machine:
    """A computer of a ``board`` (BOARDS) with a ``card``; ``directory``: for its files. It is off until ``switch_on``.

    ``address``: the guest's, when it was given another one than DHCP's."""

    def __init__(self, board: str, card: Card, directory: Path, key: Path | None = None) -> None:
        self.board, self.card, self.directory, self.key = BOARDS[board], card, directory, key
        self.name = board
        self.address = GUEST
        self.receiver: UsbReceiver | None = None
        self.pulse: Pulse | None = None
        self.boots = self.restarts = 0
        """Starts, and those of them by which the guest restarted itself while it was waited for."""
        self.on_since = 0.0
        self.off_because = ""
        """As Qmp.last_words."""
        self._with = {"receiver": True, "pulse": True}
        self.ntp, self.ssh = _free_port(socket.SOCK_DGRAM), _free_port(socket.SOCK_STREAM)
        self._qemu: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._login: subprocess.Popen[bytes] | None = None
        """The connection that all commands use."""
        directory.mkdir(parents=True, exist_ok=True)

    # ---- power ---------------------------------------------------------------------------------------------------------------------

    def switch_on(self, receiver: bool = True, pulse: bool = True) -> None:
        """Power on, with a receiver on the USB and a pulse where the board can have them."""
        self._with = {"receiver": receiver, "pulse": pulse}
        assert self._qemu is None, "it is on"
        tryboot = "with command '0 tryboot'" in self.console()
        self.boots += 1
        for name in ("qmp", "pulse"):
            (self.directory / name).unlink(missing_ok=True)
        words = [*self.board.words, *self._devices(), *self._firmware(tryboot)]
        if self.board.usb:
            if self.receiver is None and receiver:
                self.receiver = UsbReceiver(self.directory / "receiver")
            words += self.board.usb
            if self.receiver is not None:
                words += ["-chardev", f"socket,id=line,path={self.receiver.socket},server=on,wait=off"]
                words += ["-device", "usb-serial,bus=usb.0,id=receiver,chardev=line,always-plugged=on"]
        with (self.directory / "qemu.log").open("ab") as log:
            log.write(f"{' '.join(words)}\n".encode())
            log.flush()
            self._qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.on_since = time.monotonic()
        self._qmp = Qmp(self.directory / "qmp")
        if self.receiver is not None:
            self.receiver.connect()
        if self.board.pulse and pulse:
            self.pulse = Pulse(Qmp(self.directory / "pulse"))

    @property
    def on_for_s(self) -> float:
        """s since the power came."""
        return time.monotonic() - self.on_since

    def running(self) -> bool:
        """Whether it has power and has not switched itself off."""
        return self._qemu is not None and self._qemu.poll() is None

    def cut_power(self) -> None:
        """From one instruction to the next. What the guest has not handed to its disk is lost."""
        if self._qemu is not None:
            self._qemu.kill()
            self._power_is_gone()

    def wait_off(self, limit_s: float = 90) -> None:
        """It switches itself off, or restarts: then ``switch_on`` is what firmware and power do."""
        assert self._qemu is not None
        try:
            self._qemu.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs on after {limit_s} s:\n{self.console()[-3000:]}") from None
        self._power_is_gone()

    def switch_off(self) -> None:
        """Shut it down in an orderly way."""
        self.run("systemctl poweroff", check=False)
        self.wait_off()

    def reboot(self) -> None:
        """Restart it by its own command, up to the first instruction of the new start."""
        self.run("systemctl reboot", check=False)
        self.wait_off()
        self.switch_on()

    def close(self) -> None:
        """Power off, and nothing of it is left running."""
        self.cut_power()
        if self.receiver is not None:
            self.receiver.close()
            self.receiver = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> None:
        """Power and firmware stay on when the guest restarts by itself. A PC that the emulation gave no timer (below) starts anew."""
        since = self.on_since
        if NO_TIMER in self.console():
            self.cut_power()
            self.switch_on(**self._with)
        elif self._qemu is not None and not self.running():
            self._power_is_gone()
            if self.off_because == "guest-reset":
                self.restarts += 1
                self.switch_on(**self._with)
                self.on_since = since

    def _power_is_gone(self) -> None:
        assert self._qemu is not None
        self._qemu.wait()
        self._qemu = None
        if self.pulse is not None:
            self.pulse.close()
            self.pulse = None
        if self._qmp is not None:
            self.off_because = self._qmp.last_words()
            self._qmp.close()
            self._qmp = None
        if self.receiver is not None:
            self.receiver.disconnect()
        if self._login is not None:
            self._login.kill()
            self._login.wait()
            self._login = None

    # ---- parts ---------------------------------------------------------------------------------------------------------------------

    def _devices(self) -> list[str]:
        here = self.directory
        forwards = f"hostfwd=udp:127.0.0.1:{self.ntp}-{self.address}:123,hostfwd=tcp:127.0.0.1:{self.ssh}-{self.address}:22"
        network = self.board.network + (",romfile=" if self.board.network.endswith("-pci") else "")
        return [
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-drive", f"file={self.card.path},if={self.board.disk},format=raw"),
            *("-netdev", f"user,id=lan,{forwards}", "-device", f"{network},netdev=lan"),
            *("-qmp", f"unix:{here / 'qmp'},server=on,wait=off", "-qmp", f"unix:{here / 'pulse'},server=on,wait=off"),
            *("-serial", f"file:{self._console_file()}"),
        ]

    def _firmware(self, tryboot: bool) -> list[str]:
        if self.name == "uefi":
            variables = self.directory / "uefi-variables.fd"
            if not variables.exists():
                shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", variables)
            flash = "if=pflash,format=raw"
            return ["-drive", f"{flash},readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}", "-drive", f"{flash},file={variables}"]
        if not self.board.model:
            return []
        start = self.card.start(self.board.model, self.directory, tryboot)
        line = " ".join(word for word in start.command_line.split() if not word.startswith("console=serial"))
        words = ["-kernel", str(start.kernel), "-initrd", str(start.initramfs), "-append", f"{line} {self.board.consoles}"]
        overlays = [value.partition(",")[0] for value in start.settings.get("dtoverlay", [])]
        if self.board.tree:
            tree = self.card.read(self.board.tree, start.boot)
            assert tree is not None, f"{self.board.tree} is not on the boot partition"
            (self.directory / "board.dtb").write_bytes(tree)
            for overlay in overlays:
                there = self.card.read(f"overlays/{overlay}.dtbo", start.boot)
                assert there is not None, f"overlays/{overlay}.dtbo is not on the boot partition"
                (self.directory / "overlay").write_bytes(there)
                whole = [str(self.directory / name) for name in ("board.dtb", "board.dtb", "overlay")]
                subprocess.run(["fdtoverlay", "-i", whole[0], "-o", whole[1], whole[2]], check=True)
            return [*words, "-dtb", str(self.directory / "board.dtb")]
        pulse = "pps-gpio" in overlays
        return [*words, *(["-dtb", str(_virt_with_pulse(self.directory))] if pulse else [])]

    # ---- what is seen of it --------------------------------------------------------------------------------------------------------

    def _console_file(self) -> Path:
        return self.directory / f"console-{self.boots}.log"

    def console(self) -> str:
        """What this boot, or the last one, has printed on the serial console."""
        file = self._console_file()
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def ask(self, timeout_s: float = 1.0) -> Try:
        """One NTP request from outside."""
        return ask_once(("127.0.0.1", self.ntp), socket.AF_INET, timeout_s)

    def wait_for(self, look: Callable[[], T], limit_s: float, what: str) -> T:
        """What ``look`` returns once it is true. AssertionError with the console when that takes more than ``limit_s``."""
        until = time.monotonic() + limit_s
        while not (seen := look()):
            self._follow()
            assert self.running(), f"{what}: the machine is off\n{self.console()[-3000:]}\n{self._errors()}"
            assert time.monotonic() < until, f"{what}: not within {limit_s} s\n{self.console()[-3000:]}"
            time.sleep(0.5)
        return seen

    def wait_answer(self, limit_s: float = 240) -> float:
        """s from power-on to the first NTP answer, which may be "not synchronised"."""
        self.wait_for(lambda: self.ask().header is not None, limit_s, "no NTP answer")
        return self.on_for_s

    def wait_stratum_1(self, limit_s: float = 300) -> float:
        """s from power-on until an NTP client outside gets the time."""
        self.wait_for(lambda: (e := self.ask().exchange) is not None and e.header.stratum == 1, limit_s, "no stratum 1")
        return self.on_for_s

    def _errors(self) -> str:
        return (self.directory / "qemu.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    # ---- inside --------------------------------------------------------------------------------------------------------------------

    def _ssh(self) -> list[str]:
        files = {"ControlPath": self.directory / "ssh", "UserKnownHostsFile": self.directory / "known_hosts"}
        return ["ssh", *SSH, *(word for name, file in files.items() for word in ("-o", f"{name}={file}"))]

    def run(self, script: str, limit_s: float = 120, check: bool = True, given: bytes = b"") -> str:
        """What a shell script prints that root runs in the guest (ssh with the owner's key). ``given``: its standard input."""
        until = time.monotonic() + limit_s
        if self._login is None or self._login.poll() is not None:
            assert self.key is not None, "no key: nobody can log in"
            (self.directory / "ssh").unlink(missing_ok=True)
            way = ["-M", "-N", "-p", str(self.ssh), "-i", str(self.key), "-o", f"ConnectTimeout={SSH_LATE_S}"]
            way += ["-o", "ServerAliveInterval=10", "root@127.0.0.1"]
            with (self.directory / "ssh.log").open("ab") as log:
                words = ["setpriv", "--pdeathsig", "TERM", *self._ssh(), *way]
                self._login = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            while not (self.directory / "ssh").exists():
                if self._login.poll() is not None or time.monotonic() > until:
                    assert not check, f"nobody can log in:\n{(self.directory / 'ssh.log').read_text(encoding='utf-8')[-1000:]}"
                    return ""
                time.sleep(0.1)
        words = [*self._ssh(), "root@127.0.0.1", script]
        try:
            left = max(1.0, until - time.monotonic())
            done = subprocess.run(words, capture_output=True, input=given, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            assert not check, f"not within {limit_s} s: {script}\n{self.console()[-2000:]}"
            return ""
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0 or not check, f"{script}: exit code {done.returncode}\n{said}{done.stderr.decode(errors='replace')}"
        return said

    def wait_login(self, limit_s: float = 240) -> None:
        """Until commands can be run."""

        def works() -> bool:
            return self.run("echo in", SSH_LATE_S + 10, check=False) == "in\n"

        self.wait_for(works, limit_s, "nobody can log in")

    # ---- the receiver --------------------------------------------------------------------------------------------------------------

    def unplug(self) -> None:
        """Pull the receiver out of the USB."""
        assert self._qmp is not None
        assert self.receiver is not None
        self._qmp.execute("device_del", id="receiver")
        self.receiver.disconnect()

    def plug(self) -> None:
        """Plug the receiver in again."""
        assert self._qmp is not None
        assert self.receiver is not None
        self.receiver.connect()
        self._qmp.execute("device_add", driver="usb-serial", bus="usb.0", id="receiver", chardev="line", **{"always-plugged": True})

    # ---- the network ---------------------------------------------------------------------------------------------------------------

    def forward(self, port: int) -> int:
        """A port of this host that leads to a TCP port of the guest until the power goes."""
        here = _free_port(socket.SOCK_STREAM)
        assert self._qmp is not None
        line = f"hostfwd_add tcp:127.0.0.1:{here}-{self.address}:{port}"
        self._qmp.execute("human-monitor-command", **{"command-line": line})
        return here


def _virt_with_pulse(directory: Path) -> Path:
    """The device tree of the virt board, whose power button is a pulse."""
    plain, source, made = (directory / f"virt.{kind}" for kind in ("plain.dtb", "dts", "dtb"))
    if not made.exists():
        words = ["qemu-system-aarch64", *VIRT[2:], "-M", f"virt,dumpdtb={plain}", "-display", "none"]
        subprocess.run(words, check=True, capture_output=True)
        text = subprocess.run(["dtc", "-q", "-I", "dtb", "-O", "dts", plain], check=True, capture_output=True, text=True).stdout
        text, changed = BUTTON.subn(r'pps { compatible = "pps-gpio"; gpios = \1; };', text)
        assert changed == 1, text
        source.write_text(text, encoding="utf-8")
        subprocess.run(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", made, source], check=True)
    return made


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
