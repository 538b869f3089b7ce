"""Keys of upstreams: asked of the NTS-KE process, and kept while the serve process is started anew.

Flow: ``ask`` -> ``nts-client.sock`` (``ppsd.serve.nts_client``) -> ``take`` -> ``ppsd.serve.upstream``. Nothing waits.

What is kept is written when the process ends and removed when it is read: a cookie that has been sent is in no file, so none is sent twice.
After a power cut keys are established anew.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ppsd.config.contents import contents
from ppsd.config.tables import Upstream
from ppsd.ntp.nts_association import REFRESH_NS
from ppsd.ntp.nts_errands import ANSWER_BYTES, FILE, Errand, Keys, NoKeys, answer_of
from ppsd.process.log import Log
from refclock.errors import explain
from refclock.kernel.files import replace_file
from refclock.sample import NS

KEPT: Final = "upstream-keys"
"""The name of the file, in the directory of NTS."""
KEPT_BYTES: Final = 1 << 20
"""Octets of it that are read; a server's keys take 2 kB."""
FIELDS: Final = ("host", "nts_port", "ca")
"""Keys are used on only while these of the upstream are what they were."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys of an upstream's server, and the POSIX second at which they were established."""

    keys: Keys
    made_s: int


class Keyring:
    """See the module. ``directory``: where keys are kept; None: nowhere. ``trusted``: whose file is believed. ``fileno``: readable when
    ``take`` has answers."""

    def __init__(self, run_dir: Path, log: Log, directory: Path | None = None, trusted: Collection[int] = ()) -> None:
        self._door, self._log, self._trusted = run_dir / FILE, log, trusted
        self._path = None if directory is None else directory / KEPT
        self._epoll = select.epoll()
        self._errands: dict[int, tuple[Errand, socket.socket]] = {}
        self._kept: dict[str, dict[str, object]] = {}
        self._is_read = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._epoll.fileno()

    # ---- the NTS-KE process ----------------------------------------------------------------------------------------------------------

    def ask(self, upstream: Upstream, address: str) -> str:
        """Have keys established with the server at ``address``. Returns why nobody can be asked, or ""."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        errand = Errand(upstream.name, address, upstream.host, upstream.nts_port, upstream.ca)
        try:
            sock.connect(str(self._door))
            sock.send(errand.to_bytes())
        except OSError as error:
            sock.close()
            do = "if it stays away: sudo systemctl start refclock-nts-ke; its log says why it ended"
            return f"no keys of NTS, for the process that gets them is not there ({explain(error)}); {do}"
        self._errands[sock.fileno()] = errand, sock
        self._epoll.register(sock, select.EPOLLIN)
        return ""

    def take(self) -> Iterator[tuple[Errand, Keys | NoKeys]]:
        """The answers that have come."""
        for fd, _ in self._epoll.poll(0):
            errand, sock = self._errands.pop(fd)
            with sock:
                try:
                    data = sock.recv(ANSWER_BYTES)
                    answer = answer_of(data) if data else NoKeys("the NTS-KE process has ended")
                except (OSError, ValueError):
                    answer = NoKeys("the NTS-KE process gave no answer that is understood")
            yield errand, answer

    def abandon(self, upstream: Upstream, address: str) -> None:
        """No keys of this server are wanted any more."""
        for fd, (errand, sock) in list(self._errands.items()):
            if (errand.name, errand.address) == (upstream.name, address):
                del self._errands[fd]
                sock.close()  # epoll forgets it

    # ---- over a restart --------------------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, dict[str, object]]:
        if self._path is None or self._is_read:
            return {}
        self._is_read = True
        try:
            told = json.loads(contents(self._path, KEPT_BYTES, private=self._trusted))
            self._path.unlink()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._log.warning("the kept keys of NTS are not used", problem=explain(error) if isinstance(error, OSError) else str(error))
            return {}
        return {place: one for place, one in told.items() if isinstance(one, dict)} if isinstance(told, dict) else {}

    def kept(self, upstream: Upstream, address: str) -> Kept | None:
        """Keys of the last run, which are used once. None: there are none, they are old, or the upstream is another one by now."""
        self._kept |= self._read()
        one = self._kept.pop(_place(upstream.name, address), None)
        if one is None or any(one.get(name) != getattr(upstream, name) for name in FIELDS):
            return None
        made_s, told = one.get("made_s"), one.get("keys")
        if not isinstance(made_s, int) or not isinstance(told, dict) or not _is_fresh(made_s):
            return None
        with contextlib.suppress(ValueError):
            return Kept(Keys.of(told), made_s)
        return None

    def keep(self, upstream: Upstream, address: str, kept: Kept) -> None:
        """Have these keys written by ``close``."""
        fields = {name: getattr(upstream, name) for name in FIELDS}
        self._kept[_place(upstream.name, address)] = fields | {"made_s": kept.made_s, "keys": kept.keys.told()}

    def close(self) -> None:
        """Write what is kept, and end."""
        for _, sock in self._errands.values():
            sock.close()
        self._epoll.close()
        fresh = {place: one for place, one in self._kept.items() if isinstance(made_s := one.get("made_s"), int) and _is_fresh(made_s)}
        if self._path is None or not fresh:
            return
        try:
            replace_file(self._path, json.dumps(fresh).encode(), 0o600, self._trusted)
        except OSError as error:
            self._log.warning("the keys of NTS are not kept", problem=explain(error))


def _is_fresh(made_s: int) -> bool:
    """Whether keys of that POSIX second are still used."""
    return time.time() - made_s <= REFRESH_NS // NS


def _place(name: str, address: str) -> str:
    return f"{name} {address}"
