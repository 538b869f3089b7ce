"""The NTS-KE process: gives clients, over TLS, the keys and cookies with which the NTP server knows them (RFC 8915 section 4).

Flow: TCP -> ``ppsd.serve.nts_sessions`` -> cookies, sealed with the key of the day (``ppsd.ntp.nts_keys``), which the serve process opens.
The two share nothing but the secret (``ppsd.config.nts_secret``). When this one fails, clients that have cookies do not notice. It has no
device and no privilege: started by root, it becomes ``run.user`` before the first client.

Certificate and key come from files, which are read again when they change, or are this machine's own (``ppsd.serve.certificates``). Without
a usable certificate nobody is answered, and files are looked at again. SIGTERM, SIGINT: the process ends with exit code 0, as it does when
``nts.enabled`` is false. SIGHUP: the configuration is read again; a bad one is refused and the old one stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Final

from ppsd.config.contents import contents
from ppsd.config.file import load
from ppsd.config.nts_secret import nts_place, nts_secret
from ppsd.config.tables import Config, changed, parse_endpoint, without_waiting
from ppsd.ntp.nts import COOKIES, NTP_PORT
from ppsd.ntp.nts_keys import cookie_key, period_of
from ppsd.process.control import JUDGE, TELL, ControlServer, Reloaded, Reloads, judgement
from ppsd.process.exit_codes import GOOD
from ppsd.process.lifecycle import FIRST_FD, Signals, handed_over, make_run_directory, notify, watchdog_s
from ppsd.process.log import open_log
from ppsd.serve.certificates import Credentials, OwnCertificates, Pair
from ppsd.serve.nts_sessions import Offer, Sessions, sealed_cookie, tls_context
from ppsd.snapshot import NtsReport, Unserved
from refclock import BUILD_DATE
from refclock.errors import explain
from refclock.kernel.files import owners
from refclock.kernel.interfaces import client_addresses, networks
from refclock.kernel.sandbox import SERVE, Account, Helper, account, confine, lend, refused, to_drop
from refclock.kernel.timescale import utc_second
from refclock.schema import ConfigError
from refclock.timescales import day_of

OWN_KEYS: Final = ("nts.", "access.", "log.")
"""How the names of the keys begin that concern this process (``ppsd.config.tables``)."""
LOOK_S: Final = 2.0
"""s between two looks at addresses and sockets."""
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


class NtsKe:
    """One run of the process. OSError: its control socket cannot be made."""

    def __init__(self, config: Config, run_dir: Path, place: Path, helper: Helper, fds: Sequence[int]) -> None:
        self.config, self._run_dir, self._place, self._helper = config, run_dir, place, helper
        self._started_s = time.monotonic()
        self._reloads = Reloads()
        self.log = open_log(config.log.format, config.log.level, "nts-ke")
        self._control = ControlServer(run_dir / "nts-ke.sock", self._answer, group=config.run.group)
        self._sessions = Sessions(self.log, self._admits, fds)
        self._listen()
        self._networks()
        self._secret = b""
        self._shown: Credentials | None = None
        self._authority: Pair | None = None
        self._problem = ""
        self._files_s = 0.0

    def confine(self, to: Account, also: int) -> None:
        """Give up, before the first client, what this process does not need: root's user, all rights, system calls of others."""
        if to_drop(to):
            with contextlib.suppress(OSError):  # where files may not be given away, the next start replaces it
                os.chown(self._control.path, to.user, -1)
        for what in confine(SERVE, [], to, also):
            self.log.warning("not given up", what=what)

    def _listen(self) -> None:
        wanted = {text: endpoint for text in self.config.nts.listen if (endpoint := parse_endpoint(text)) is not None}
        self._sessions.listen(wanted)

    def _networks(self) -> None:
        """Take up the networks that the interfaces are in, which may be answered."""
        try:
            self._rules = self.config.access.rules(networks())
        except OSError:
            self._rules = self.config.access.rules()

    def _admits(self, address: str) -> bool:
        """Whether the NTP server would answer a client, with or without a key."""
        return self._rules.decide(address.partition("%")[0]).action in ("allow", "authenticated")

    # ---- what clients are given ------------------------------------------------------------------------------------------------------

    def _cookies(self, keys: bytes) -> list[bytes]:
        period = period_of(utc_second(self._run_dir / "timescale"))
        key = cookie_key(self._secret, period)
        return [sealed_cookie(key, period, keys, os.urandom(NONCE_BYTES)) for _ in range(COOKIES)]

    def _port(self) -> int | None:
        """The port that clients are told; None: the usual one."""
        own = self.config.nts
        if own.port is not None or own.server:
            return own.port
        ports = {endpoint[1] for text in self.config.server.listen if (endpoint := parse_endpoint(text)) is not None}
        return None if NTP_PORT in ports or not ports else min(ports)

    def _read_credentials(self, config: Config) -> Credentials:
        """Those that the configuration names, or this machine's own. OSError, ValueError."""
        own = config.nts
        if own.certificate:
            chain = contents(Path(own.certificate), CERTIFICATE_BYTES, opener=self._helper.open)
            key = contents(Path(own.key), CERTIFICATE_BYTES, private=owners(config.run.user), opener=self._helper.open)
            return Credentials.of(chain, key)
        made = OwnCertificates(self._place, date.fromisoformat(BUILD_DATE), owners(config.run.user))
        names, now_s = own_names(config), time.time()
        self._authority = made.authority(names[0], now_s)
        return made.server(self._authority, names, now_s).credentials()

    def renew(self) -> None:
        """Read secret and certificate again, and use what has changed. What cannot be used leaves the old one in force."""
        try:
            secret = nts_secret(self.config, self._place, self._helper.open)
            found = self._read_credentials(self.config)
            if secret != self._secret or self._shown is None or not self._shown.same(found):
                tls = tls_context(found)
                self._secret, self._shown = secret, found
                self._sessions.offer = Offer(tls, self._cookies, self.config.nts.server, self._port())
                self.log.info("certificate in force", names=", ".join(found.names[:8]), until=day_of(found.until_s))
                self._tell()
            self._problem = ""
        except (OSError, ValueError) as error:
            why = explain(error) if isinstance(error, OSError) else f"{self.config.nts.certificate}: {error}"
            if why != self._problem:
                self._problem = why
                what = "the certificate stays as it was" if self._shown is not None else "no keys are established: there is no certificate"
                self.log.error(what, problem=why)
                self._tell()

    # ---- questions and reloads -------------------------------------------------------------------------------------------------------

    def _answer(self, line: str) -> str:
        if line == JUDGE:
            return judgement(self._read()[1])
        if line == TELL:
            return self._reloads.answer()
        if line == "snapshot":
            return json.dumps(self.report().to_json())
        if line == "ca":
            if self._authority is None or self.config.nts.certificate:
                return json.dumps(
                    {"error": "the certificate is not of this machine's own authority: clients know its authority, or need its file"}
                )
            return json.dumps({"pem": self._authority.pem().decode(), "names": self._shown.names if self._shown else ()})
        return json.dumps({"error": f"unknown verb {line[:32]!r}; known: snapshot, ca, {JUDGE}, {TELL}"})

    def report(self) -> NtsReport:
        """Key establishment as it stands."""
        own = not self.config.nts.certificate
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

    def _read(self) -> tuple[Config, list[str]]:
        """The configuration as it is now on disk, and what stands against it."""
        try:
            found = load(Path(self.config.file) if self.config.file else None, self._helper.open)
            if found.nts.enabled and found.nts.secret:
                nts_secret(found, self._place, self._helper.open)
            if found.nts.enabled and found.nts.certificate:  # the own one would be made
                tls_context(self._read_credentials(found))
        except ConfigError as error:
            return self.config, [str(problem) for problem in error.problems]
        except OSError as error:
            return self.config, [explain(error)]
        except ValueError as error:
            return self.config, [f"nts.certificate: {error}"]
        return found, []

    def reload(self) -> None:
        """Put the configuration on disk in force, or keep the old one when that is bad."""
        found, problems = self._read()
        if problems:
            for problem in problems:
                self.log.answer("error", "configuration refused, the old one stays", problem=problem)
            self._reloads.happened(Reloaded(False, (*problems, "the NTS-KE process keeps its configuration")))
            return
        found = without_waiting(self.config, found)
        names = [name for name in changed(self.config, found) if name.startswith(OWN_KEYS)]
        self.config = found
        self.log.speak(found.log.format, found.log.level)
        self._listen()
        self._networks()
        self._shown = None
        self.renew()
        told = f"the NTS-KE process has taken up: {', '.join(names)}" if names else "the NTS-KE process: nothing has changed"
        self._reloads.happened(Reloaded(True, (told,)))

    # ---- the loop --------------------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        served = ", ".join(self._sessions.served) or "no address"
        notify(f"READY=1\nSTATUS={self._problem or f'establishing keys on {served}'}")

    def run(self, signals: Signals, until_s: float | None) -> None:
        """Answer until told to stop, until ``until_s`` (time.monotonic), or until NTS is no longer wanted."""
        poll = select.poll()
        for one in (self._sessions, self._control, signals.wake):
            poll.register(one, select.POLLIN)
        look_s, pause_s = time.monotonic(), watchdog_s(LOOK_S)
        while not signals.stop and self.config.nts.enabled and (until_s is None or time.monotonic() < until_s):
            due_s = min(look_s, self._sessions.deadline_s() or look_s)
            ready = {fd for fd, _ in poll.poll(max(0.0, min(pause_s, due_s - time.monotonic())) * 1000)}
            if self._sessions.fileno() in ready:
                self._sessions.handle_ready()
            self._sessions.expire()
            if self._control.fileno() in ready:
                self._control.handle_ready()
            if signals.wake in ready:
                signals.drain()
            if signals.reload:
                signals.reload = False
                self.reload()
            if (now_s := time.monotonic()) >= look_s:
                look_s = max(look_s, now_s - LOOK_S) + LOOK_S
                self._look(now_s)
            notify("WATCHDOG=1")

    def _look(self, now_s: float) -> None:
        """Look after what others may take away or bring."""
        try:
            self._helper.enter()
        except BrokenPipeError:  # it would never find the others again; started anew, it is root for a while
            raise
        except OSError:  # the next look tries again
            pass
        if self._control.renew():
            self.log.warning("the control socket was removed by somebody and is made anew", path=str(self._control.path))
        self._sessions.review()
        if now_s >= self._files_s:
            self._files_s = now_s + FILES_S
            self._networks()
            self.renew()
        self.log.settle()
        for call in refused():
            self.log.error("system call refused: this process does not make it", call=call)

    def close(self) -> None:
        """Close the sockets."""
        self._sessions.close()
        self._control.close()


def readable(file: str) -> set[str]:
    """The files that are read again: the configuration ``file``, and what it names for NTS."""
    try:
        own = load(Path(file)).nts if file else None
    except ConfigError:
        own = None
    named = [name for name in (own.certificate, own.key, own.secret) if name] if own is not None else []
    return {file, *named, *map(os.path.realpath, named)}


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Answer until a signal, for ``duration_s``, or until NTS is not enabled any more. Returns 0. OSError: see NtsKe.

    ``simulated`` has no effect: whoever gets cookies is served a time that is marked as simulated.
    """
    del simulated
    until_s = None if duration_s is None else time.monotonic() + duration_s
    signals = Signals()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    make_run_directory(run_dir, user=config.run.user)
    to = account(config.run.user, config.run.group)
    helper = Helper(to, run_dir, lambda: readable(config.file))
    fds = [FIRST_FD + number for number in range(handed_over())]
    place = nts_place(Path(config.run.state), to)
    run_dir, group = lend(run_dir, to)
    process = NtsKe(config, run_dir, place, helper, fds)
    process.confine(to, group)
    try:
        process.run(signals, until_s)
    finally:
        notify("STOPPING=1")
        process.close()
    return GOOD
