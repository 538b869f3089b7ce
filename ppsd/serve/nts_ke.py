"""The NTS-KE process: gives clients, over TLS, the keys and cookies with which the NTP server knows them (RFC 8915 section 4).

Flow: TCP -> ``ppsd.serve.nts_sessions`` -> cookies, sealed with the key of the day (``ppsd.ntp.nts_keys``), which the serve process opens.
The two share nothing but the secret (``ppsd.config.nts_secret``). When this one fails, clients that have cookies do not notice. It also
gets keys of upstreams, for the serve process (``ppsd.serve.nts_client``).

Certificate and key come from files, which are read again when they change, or are this machine's own (``ppsd.serve.certificates``). Without
a usable certificate nobody is answered, and files are looked at again. The process also ends, with exit code 0, when ``nts.enabled`` is
false and no upstream has ``nts``. How it lives: ``ppsd.process.service``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Collection
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Final

from ppsd.config.contents import contents
from ppsd.config.nts_secret import nts_place, nts_secret
from ppsd.config.tables import Config, parse_endpoint
from ppsd.ntp.nts import COOKIES, NTP_PORT
from ppsd.ntp.nts_keys import cookie_key, period_of
from ppsd.process.service import Role, Surroundings, run
from ppsd.serve.certificates import Credentials, OwnCertificates, Pair
from ppsd.serve.nts_client import KeyClient
from ppsd.serve.nts_sessions import Offer, Sessions, sealed_cookie, tls_context
from ppsd.snapshot import NtsReport, Unserved
from refclock import BUILD_DATE
from refclock.errors import explain
from refclock.kernel.files import owners
from refclock.kernel.interfaces import client_addresses, networks
from refclock.kernel.timescale import served_second, utc_second
from refclock.timescales import civil_s, day_of

FILES_S: Final = 10.0
"""s between two looks at certificate files, at the own certificate's end and at this machine's names and networks."""
CERTIFICATE_BYTES: Final = 1 << 20
"""Octets of a certificate's or a key's file at most; a chain has some kB."""
NICENESS: Final = 10
"""nice(1): the NTP server comes first. TLS takes a processor some milliseconds for each client, also for one that wants nothing else."""
NONCE_BYTES: Final = 16


def own_names(config: Config) -> tuple[str, ...]:
    """The names and addresses that the own certificate is for: those configured, else this machine's."""
    if config.nts.names:
        return config.nts.names
    host = socket.gethostname()
    first = host.partition(".")[0]
    names = dict.fromkeys((host, f"{first}.local", *([config.nts.server] if config.nts.server else [])))
    with contextlib.suppress(OSError):
        names |= dict.fromkeys(str(own.address) for own in client_addresses())
    return tuple(names)


def _reads(config: Config) -> Collection[str]:
    """The files that the configuration names for NTS."""
    own = config.nts
    return [name for name in (own.certificate, own.key, own.secret, *(upstream.ca for upstream in config.asked)) if name]


OWN_KEYS: Final = ("nts.", "access.", "log.", "clock.upstreams", "upstream ")
ROLE: Final = Role(name="nts-ke", words="the NTS-KE process", keys=OWN_KEYS, place=nts_place, reads=_reads)


class _Doors:
    """Clients of this machine, and key servers of which it is a client (``ppsd.process.service.Doors``)."""

    def __init__(self, sessions: Sessions, client: KeyClient) -> None:
        self._both = sessions, client
        self._epoll = select.epoll()
        for one in self._both:
            self._epoll.register(one.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Go on with whoever is ready; never waits."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for one in self._both:
            if one.fileno() in ready:
                one.handle_ready()

    def review(self) -> None:
        """Open what is not open yet, and end what has lasted too long."""
        for one in self._both:
            one.review()

    def close(self) -> None:
        """Close all."""
        for one in self._both:
            one.close()
        self._epoll.close()


class NtsKe:
    """What the process does (``ppsd.process.service.Work``)."""

    verbs = ("snapshot", "ca")

    def __init__(self, config: Config, around: Surroundings) -> None:
        self._config, self._around = config, around
        self._started_s = time.monotonic()
        self._secret = b""
        self._shown: Credentials | None = None
        self._authority: Pair | None = None
        self._problem = ""
        self._files_s = 0.0
        self._sessions = Sessions(around.log, self._admits, around.fds)
        self._client = KeyClient(around.run_dir, around.log, self._served_s, self._authorities, self._earliest_s)
        self.doors = _Doors(self._sessions, self._client)
        self._listen()
        self._networks()

    @property
    def wanted(self) -> bool:
        """Whether NTS is enabled, for clients or for upstreams."""
        return self._config.establishes_keys

    @property
    def status(self) -> str:
        """For systemd's status line."""
        if not self._config.nts.enabled:
            return "getting keys of upstreams"
        return self._problem or f"establishing keys on {', '.join(self._sessions.served) or 'no address'}"

    def _listen(self) -> None:
        own = self._config.nts
        wanted = {text: endpoint for text in own.listen if (endpoint := parse_endpoint(text)) is not None}
        self._sessions.listen(wanted if own.enabled else {})
        self._client.configure(self._config.asked)

    def _networks(self) -> None:
        """Take up the networks that the interfaces are in, which may be answered."""
        try:
            self._rules = self._config.access.rules(networks())
        except OSError:
            self._rules = self._config.access.rules()

    def _admits(self, address: str) -> bool:
        """Whether the NTP server would answer a client, with or without a key."""
        return self._rules.decide(address.partition("%")[0]).action in ("allow", "authenticated")

    def _served_s(self) -> int | None:
        return served_second(self._around.run_dir / "timescale")

    def _earliest_s(self) -> int:
        """No true date is before it, as a POSIX second."""
        day = self._config.clock.not_before
        return civil_s(day.year, day.month, day.day) or 0

    def _authorities(self, file: str) -> bytes:
        return contents(Path(file), CERTIFICATE_BYTES, opener=self._around.helper.open)

    # ---- what clients are given ------------------------------------------------------------------------------------------------------

    def _cookies(self, keys: bytes) -> list[bytes]:
        period = period_of(utc_second(self._around.run_dir / "timescale"))
        key = cookie_key(self._secret, period)
        return [sealed_cookie(key, period, keys, os.urandom(NONCE_BYTES)) for _ in range(COOKIES)]

    def _port(self) -> int | None:
        """The port that clients are told; None: the usual one."""
        own = self._config.nts
        if own.port is not None or own.server:
            return own.port
        ports = {endpoint[1] for text in self._config.server.listen if (endpoint := parse_endpoint(text)) is not None}
        return None if NTP_PORT in ports or not ports else min(ports)

    def _read_credentials(self, config: Config) -> Credentials:
        """Those that the configuration names, or this machine's own. OSError, ValueError."""
        own = config.nts
        if own.certificate:
            chain = contents(Path(own.certificate), CERTIFICATE_BYTES, opener=self._around.helper.open)
            key = contents(Path(own.key), CERTIFICATE_BYTES, private=owners(config.run.user), opener=self._around.helper.open)
            return Credentials.of(chain, key)
        made = OwnCertificates(self._around.place, date.fromisoformat(BUILD_DATE), owners(config.run.user))
        names, now_s = own_names(config), time.time()
        self._authority = made.authority(names[0], now_s)
        return made.server(self._authority, names, now_s).credentials()

    def begin(self) -> None:
        """Make a certificate where none is configured, as the user that this process has become."""
        self._renew()

    def _renew(self) -> None:
        """Read secret and certificate again, and use what has changed. What cannot be used leaves the old one in force."""
        if not self._config.nts.enabled:
            self._sessions.offer, self._shown, self._problem = None, None, ""
            return
        log = self._around.log
        try:
            secret = nts_secret(self._config, self._around.place, self._around.helper.open)
            found = self._read_credentials(self._config)
            if secret != self._secret or self._shown is None or not self._shown.same(found):
                tls = tls_context(found)
                self._secret, self._shown = secret, found
                self._sessions.offer = Offer(tls, self._cookies, self._config.nts.server, self._port())
                log.info("certificate in force", names=", ".join(found.names[:8]), until=day_of(found.until_s))
            self._problem = ""
        except (OSError, ValueError) as error:
            why = explain(error) if isinstance(error, OSError) else f"{self._config.nts.certificate}: {error}"
            if why != self._problem:
                self._problem = why
                what = "the certificate stays as it was" if self._shown is not None else "no keys are established: there is no certificate"
                log.error(what, problem=why)

    # ---- questions and reloads -------------------------------------------------------------------------------------------------------

    def answer(self, line: str) -> str | None:
        """The reply to a question; None: it is not known."""
        if line == "snapshot":
            return json.dumps(self.report().to_json())
        if line == "ca":
            if self._authority is None or self._config.nts.certificate:
                return json.dumps(
                    {"error": "the certificate is not of this machine's own authority: clients know its authority, or need its file"}
                )
            return json.dumps({"pem": self._authority.pem().decode(), "names": self._shown.names if self._shown else ()})
        return None

    def report(self) -> NtsReport:
        """Key establishment as it stands."""
        own = not self._config.nts.certificate
        return NtsReport(
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started_s,
            addresses=self._sessions.served,
            unserved=tuple(Unserved(one.text, one.why, one.harmless, one.taken) for one in self._sessions.unserved),
            own=own,
            names=self._shown.names if self._shown else (),
            until_s=self._shown.until_s if self._shown else None,
            authority_until_s=self._authority.until_s if own and self._authority else None,
            problem=self._problem,
            open=self._sessions.open,
            sessions=asdict(self._sessions.tally),
        )

    def judge(self, config: Config) -> None:
        """Try the secret, the certificate and the authorities that ``config`` names. OSError, ValueError."""
        for upstream in config.asked:
            if upstream.ca:
                self._authorities(upstream.ca)
        if config.nts.enabled and config.nts.secret:
            nts_secret(config, self._around.place, self._around.helper.open)
        if config.nts.enabled and config.nts.certificate:  # the own one would be made
            try:
                tls_context(self._read_credentials(config))
            except ValueError as error:
                raise ValueError(f"nts.certificate: {error}") from None

    def take_up(self, config: Config) -> None:
        """Put it in force."""
        self._config, self._shown = config, None
        self._listen()
        self._networks()
        self._renew()

    def look(self, now_s: float) -> None:
        """Look at certificate files, at the own certificate's end, and at this machine's names and networks."""
        if now_s >= self._files_s:
            self._files_s = now_s + FILES_S
            self._networks()
            self._renew()

    def close(self) -> None:
        """Nothing is to be kept."""


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Answer until a signal, for ``duration_s``, or until NTS is not enabled any more. Returns 0. OSError: see
    ``ppsd.process.service.run``.

    ``simulated`` has no effect: whoever gets cookies is served a time that is marked as simulated.
    """
    del simulated
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    return run(ROLE, config, run_dir, duration_s, NtsKe)
