"""Where ntpq is answered: control packets (mode 6) that come to the NTP port from this machine itself.

Flow: NTP server threads, which hand such packets over -> **mode6** -> ``ppsd.faces.mode6.answer`` -> back, from the address that was asked.
The clock process is asked for its snapshot over its control socket. That may take ``PATIENCE_S``, at most once in ``KEPT_S`` or, after a
failure, in ``SULKED_S``. Only this process's poll loop waits then, never a server thread.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Final

from ppsd.faces.mode6 import Told, answer
from ppsd.process.control import ask
from ppsd.serve.ntp_server import NtpServer
from ppsd.snapshot import Client, Snapshot

PATIENCE_S: Final = 1.0
"""s to wait for the clock process, which is well when it answers within milliseconds."""
KEPT_S: Final = 0.2
"""s for which a snapshot is told to everybody: ntpq asks once for each source."""
SULKED_S: Final = 2.0
"""s without asking a clock process that did not answer."""
AT_ONCE: Final = 16
"""Packets that are answered before others of this process get their turn."""
CLIENTS_TOLD: Final = 512
"""The latest clients that are looked at for ntpq -c mrulist: more than one reply has room for."""


class LastSnapshot:
    """The clock process's snapshot, at most ``KEPT_S`` old."""

    def __init__(self, clock_socket: Path) -> None:
        self._clock_socket = clock_socket
        self._last: Snapshot | None = None
        self._ask_s = 0.0

    def read(self) -> Snapshot | None:
        """The snapshot; None while the clock process does not answer."""
        if time.monotonic() >= self._ask_s:
            try:
                self._last = Snapshot.from_json(ask(self._clock_socket, "snapshot", PATIENCE_S))
            except (OSError, ValueError):
                self._last = None
            self._ask_s = time.monotonic() + (SULKED_S if self._last is None else KEPT_S)
        return self._last


class ControlPackets:
    """Answers the control packets that ``server`` hands over from now on; it has not been started."""

    def __init__(self, server: NtpServer, clock_socket: Path) -> None:
        self._server, self._snapshot = server, LastSnapshot(clock_socket)
        self._secret, self._fd = secrets.token_bytes(16), server.hand_over()

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._fd

    def handle_ready(self) -> None:
        """Answer those that wait."""
        for _ in range(AT_ONCE):
            handed = self._server.control()
            if handed is None:
                return
            where, packet = handed
            told = Told(self._snapshot.read, self._clients, time.time_ns(), self._secret)
            for part in answer(packet, where.hex(), told):
                with contextlib.suppress(OSError):  # who asked has gone, or the address is not served any more
                    self._server.reply(where, part)

    def _clients(self) -> list[Client]:
        return self._server.clients(CLIENTS_TOLD)[0]
