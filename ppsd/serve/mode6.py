"""Where ntpq is answered: control packets (mode 6) that come to the NTP port from this machine itself.

Flow: NTP server threads, which hand such packets over -> **mode6** -> ``ppsd.faces.mode6.answer`` -> back, from the address that was asked.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from ppsd.faces.mode6 import Clients, Told, answer
from ppsd.process.control import Asked
from ppsd.serve.ntp_server import NtpServer
from ppsd.snapshot import ServerReport, Snapshot

AT_ONCE: Final = 16
"""Packets that are answered before others of this process get their turn."""
CLIENTS_TOLD: Final = 4096
"""Clients that ntpq -c mrulist is told at most, the latest: about a hundred in one reply."""
CLIENTS_KEPT_S: Final = 1.0
"""s between two looks through the table of clients at most: the largest takes some time."""


class ControlPackets:
    """Answers the control packets that ``server`` hands over from now on; it has not been started."""

    def __init__(self, server: NtpServer, clock: Asked[Snapshot], report: Callable[[], ServerReport]) -> None:
        self._server, self._snapshot, self._report = server, clock, report
        self._look, self._look_s = Clients((), 0, 0), 0.0
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
            told = Told(self._snapshot.last, self._report, self._clients, time.time_ns(), self._secret)
            for part in answer(packet, where.hex(), told):
                with contextlib.suppress(OSError):  # who asked has gone, or the address is not served any more
                    self._server.reply(where, part)

    def _clients(self, anew: bool) -> Clients:
        if anew and time.monotonic() >= self._look_s:
            self._look = Clients(*self._server.clients(CLIENTS_TOLD), time.time_ns())
            self._look_s = time.monotonic() + CLIENTS_KEPT_S
        return self._look
