"""A simulated receiver on a machine's USB: hw-sim's own program behind QEMU's usb-serial.

Flow: ``python -m refclock_sim`` (a tty) -> **this** -> QEMU's character device -> the guest's /dev/ttyUSB0, and back. Its true second is
this host's. What nobody in the guest reads is lost, as in a USB converter, which keeps less than a second of messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import tty
from pathlib import Path

from refclock_sim.ports.device import TTY

KEPT = 20 * 768
"""Bytes that wait for the guest, as the kernel counts them (768 for a short piece): a third of a second at 9600 baud."""
SIOCOUTQ = 0x5411
"""ioctl of a socket: bytes that the other end has not read (linux/sockios.h)."""
POLL_S = 0.05


class UsbReceiver:
    """A receiver of a ``kind`` (refclock_sim.receiver.output.MODELS). ``directory``: for its tty, and ``socket`` for QEMU."""

    def __init__(self, directory: Path, kind: str = "ublox8") -> None:
        directory.mkdir(parents=True)
        self.socket = directory / "usb.sock"
        words = [sys.executable, "-m", "refclock_sim", "--directory", str(directory), "--receiver", kind, "--no-pulse"]
        self._program = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self._program.stdout is not None
        self._program.stdout.readline()  # it says that it is there
        self._line = os.open(directory / TTY, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._line)
        self._to_guest: socket.socket | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def connect(self, limit_s: float = 30) -> None:
        """Put the plug in: QEMU has made its socket, or makes it soon."""
        until = time.monotonic() + limit_s
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            try:
                made.connect(str(self.socket))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > until:
                    made.close()
                    raise
                time.sleep(POLL_S)
        made.setblocking(False)
        self._to_guest = made  # from now on the thread has it

    def disconnect(self) -> None:
        """Pull the plug: nothing that was said is heard later."""
        pulled, self._to_guest = self._to_guest, None
        if pulled is not None:
            time.sleep(2 * POLL_S)  # the thread has let go of it
            pulled.close()

    def close(self) -> None:
        """End the program and the thread."""
        self._ended = True
        self._thread.join()
        self.disconnect()
        self._program.terminate()
        self._program.wait()
        if self._program.stdout is not None:
            self._program.stdout.close()
        os.close(self._line)

    def _copy(self) -> None:
        while not self._ended:
            there = self._to_guest
            listened: list[int | socket.socket] = [self._line, *([there] if there is not None else [])]
            try:
                ready = select.select(listened, [], [], POLL_S)[0]
            except (OSError, ValueError):  # the plug was pulled meanwhile
                continue
            with contextlib.suppress(OSError):
                if self._line in ready:
                    said = os.read(self._line, 4096)
                    if there is not None and _unread(there) < KEPT:
                        there.send(said)
                if there is not None and there in ready:
                    os.write(self._line, there.recv(4096))


def _unread(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQ, bytes(4)))[0])
