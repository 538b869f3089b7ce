"""Where ntpq is answered: control packets (mode 6) that come to the NTP port from this machine itself.

Flow: NTP server threads, which hand such packets over -> **mode6** -> ``ppsd.faces.mode6.answer`` -> back, from the address that was asked.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Final

from ppsd.faces.mode6 import Told, answer
from ppsd.serve.last_snapshot import LastSnapshot
from ppsd.serve.ntp_server import NtpServer
from ppsd.snapshot import Client

AT_ONCE: Final = 16
"""Packets that are answered before others of this process get their turn."""
CLIENTS_TOLD: Final = 512
"""The latest clients that are looked at for ntpq -c mrulist: more than one reply has room for."""


class ControlPackets:
    """Answers the control packets that ``server`` hands over from now on; it has not been started."""

    def __init__(self, server: NtpServer, clock: LastSnapshot) -> None:
        self._server, self._snapshot = server, clock
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
