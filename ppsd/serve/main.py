"""The serve process: NTP on the network, from the record that the clock process publishes.

Flow: record (mmap) -> C threads (``ppsd.serve.ntp_server``) -> NTP clients. Python starts the threads and then sleeps. Its one loop wakes
for a request on ``serve.sock``, a signal, a broadcast, an answer of an upstream server (``ppsd.serve.upstream``) or the watchdog. The
process needs no device, and no privilege once the port is bound: started by root, it becomes ``run.user`` before the first packet. systemd
may also hand over the sockets (LISTEN_FDS, sd_listen_fds(3)); ``server.listen`` is then ignored.

The threads do not talk to the clock process. While it is absent they answer from the last record, whose bound grows by its own rule.
Without a record they answer with leap indicator 3. The loop asks it for what chronyc and ntpq want to know, and only the loop waits.

SIGTERM, SIGINT: the process ends with exit code 0.
SIGHUP: the configuration, the key file and the secret of NTS are read again; bad ones are refused and the old ones stay. Rules, limits
and keys are replaced without losing a request, and of the addresses only those that differ. A change of threads, table size or log needs
new sockets. Requests that wait in the old sockets' queues are then lost, and NTP clients ask again.

Each address is served when it can be (``ppsd.serve.addresses``). Interfaces and addresses that come or go are noticed at once, through
netlink, and every few seconds besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ppsd.config.file import load
from ppsd.config.keys import SymmetricKey, read_keys
from ppsd.config.nts_secret import DIRECTORY, believed, nts_place, nts_secret
from ppsd.config.tables import Config, ServerConfig, changed, covering, parse_endpoint, without_waiting
from ppsd.ntp.nts_keys import CookieKeys, cookie_keys
from ppsd.process.control import JUDGE, TELL, Asked, ControlServer, Reloaded, Reloads, judgement
from ppsd.process.exit_codes import GOOD, complain
from ppsd.process.lifecycle import FIRST_FD, Signals, handed_over, make_run_directory, notify, refused_addresses, watchdog_s
from ppsd.process.log import open_log, speaker
from ppsd.serve.addresses import Addresses
from ppsd.serve.chronyc import Chronyc, Facts, handed
from ppsd.serve.mode6 import ControlPackets
from ppsd.serve.ntp_server import NtpServer, ServerRules
from ppsd.serve.nts_keyring import Keyring
from ppsd.serve.timestamping import stamping
from ppsd.serve.upstream import Upstreams
from ppsd.snapshot import NtsReport, ServerReport, Snapshot
from refclock.errors import explain
from refclock.exchange.upstream import FILE
from refclock.kernel.files import Opener
from refclock.kernel.interfaces import InterfaceWatch, Network, networks
from refclock.kernel.sandbox import SERVE, Account, Capability, Helper, account, confine, lend, refused, to_drop
from refclock.kernel.timescale import utc_second
from refclock.schema import ConfigError

OWN_KEYS = (
    *("server.", "access.", "limits.", "keys.", "nts.enabled", "nts.secret", "chronyc.", "log."),
    *("clock.upstreams", "upstream "),
)
"""How the names of the keys begin that concern this process (``ppsd.config.tables``)."""
THREADS = 4
"""Most threads unless configured: a Pi has four cores, and one thread answers about 300 000 requests/s."""
CLIENTS_TOLD = 2000
"""Most clients in one reply. Each takes up to 300 octets, and a reply has at most 1 MB (``ppsd.process.control``)."""
LOOK_S = 2.0
"""Seconds between two looks at addresses and files, which take some system calls, and between two watchdog messages at most."""
TOLD_S = 0.2
"""Seconds for which a snapshot is told to everybody: chronyc and ntpq ask once for each source."""
SETTLE_S = 0.2
"""Seconds from a change of interfaces to the look at them. Changes come in bursts, and a look takes some milliseconds."""
NETWORKS_S = 60.0
"""Seconds between two readings of the interfaces' networks when no interface has changed: a router may announce another one."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What requests are authenticated with: the keys of the key file, and the secret of NTS cookies. ``secret``: None without NTS."""

    keys: tuple[SymmetricKey, ...] = ()
    secret: bytes | None = field(default=None, repr=False)

    def cookies(self, run_dir: Path) -> CookieKeys | None:
        """The keys of cookies that are in force now, by the served time."""
        return None if self.secret is None else cookie_keys(self.secret, utc_second(run_dir / "timescale"))


def rules_of(config: Config, secrets: Secrets, cookies: CookieKeys | None, own: tuple[Network, ...]) -> ServerRules:
    """The rules for the server threads, from the configuration, its secrets, the keys that these make today, and the networks that the
    interfaces are in."""
    limits = config.limits
    return ServerRules(
        ranges=config.access.rules(own).ranges(),
        keys=secrets.keys,
        nts=cookies,
        rate=limits.rate,
        burst=limits.burst,
        leak=limits.leak,
        kod_rate=limits.kod_rate,
        cpu_limit=limits.cpu_limit,
        tell_denied=config.access.denied == "kod",
        symmetric=config.server.symmetric,
        dscp=config.server.dscp,
        smear=config.server.leap_smear,
    )


def socket_part(server: ServerConfig) -> ServerConfig:
    """``server`` with every key that can change without new sockets set to its default. Two configurations whose results differ need
    new sockets."""
    plain = ServerConfig()
    return replace(
        server,
        listen=plain.listen,
        interface=plain.interface,
        symmetric=plain.symmetric,
        dscp=plain.dscp,
        leap_smear=plain.leap_smear,
        smear_public=plain.smear_public,
        broadcast=plain.broadcast,
        broadcast_key=plain.broadcast_key,
        broadcast_poll=plain.broadcast_poll,
    )


def _news(old: ServerConfig, new: ServerConfig) -> Iterator[tuple[str, int]]:
    """The addresses that a server of ``old`` can try for ``new``. One that takes in another, or is taken in, its own sockets still hold."""
    ours = [end for text in old.listen if (end := parse_endpoint(text)) is not None]
    for text in new.listen:
        wanted = parse_endpoint(text)
        if wanted is not None and wanted not in ours and not covering(wanted, ours) and not any(covering(end, [wanted]) for end in ours):
            yield wanted


def _processors() -> int:
    """How many processors this process may use; 1 where the kernel does not say."""
    try:
        return len(os.sched_getaffinity(0))
    except OSError:
        return os.cpu_count() or 1


class Serve:
    """One run of the server. OSError: the control socket could not be bound, or no address at all and waiting would not help."""

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        run_dir: Path,
        fds: list[int],
        started_s: float,
        *,
        helper: Helper,
        reloads: Reloads,
    ) -> None:
        self._started_s, self._run_dir, self.helper, self.reloads = started_s, run_dir, helper, reloads
        self.config, self.secrets = config, secrets
        self.log = open_log(config.log.format, config.log.level, "serve")
        self._watch = self._open_watch()
        self._own = self._own_networks()
        own = config.server
        threads = own.threads or min(_processors(), THREADS)
        rules = self._rules = self._rules_now(config, secrets)
        self._server = NtpServer(run_dir / "timescale", [], rules, threads=threads, table_bytes=own.client_table_mib << 20)
        try:
            inherited = handed(fds, config.chronyc.listen)
            self._addresses = Addresses(self._server, self.log, [fd for fd in fds if fd not in inherited.values()])
            self._addresses.serve(own.listen, own.interface)
            self._control = ControlServer(run_dir / "serve.sock", self._answer, group=config.run.group)
        except OSError:
            self._server.close()
            raise
        self._clock = clock = Asked(run_dir / "clock.sock", "snapshot", Snapshot.from_json, TOLD_S)
        established = Asked(run_dir / "nts-ke.sock", "snapshot", NtsReport.from_json, TOLD_S)
        self._facts = Facts(clock, established, self._server, self._admits)
        self._chronyc = Chronyc(self._facts, self.log, inherited)
        self._chronyc.listen(config.chronyc)
        self._controls = ControlPackets(self._server, clock, self.report)
        if self._control.complaint:
            self.log.warning("control socket", problem=self._control.complaint)
        kept = Path(config.run.state) / DIRECTORY
        self._upstreams = Upstreams(run_dir / FILE, self.log, Keyring(run_dir, self.log, kept, believed(config)))
        self._ask_upstreams()
        self._look_s, self._networks_s = started_s + LOOK_S, started_s + NETWORKS_S
        self._broadcast_s = 0.0
        self._broadcast_failed = ""

    def confine(self, to: Account, also: int) -> None:
        """Before the first packet, give up what serving does not need: root's user, all rights but that to bind a low port (for addresses
        that come later), system calls of others. A user who is not root has only the system calls to give up."""
        if to_drop(to):
            with contextlib.suppress(OSError):  # where files may not be given away, the next start replaces it
                os.chown(self._control.path, to.user, -1)  # so that this process may remove it
        for what in confine(SERVE, [Capability.NET_BIND_SERVICE], to, also):
            self.log.warning("not given up", what=what)
        if os.geteuid() == to.user and not to.exists:
            self.log.info("serving as a user that nobody has", user=to.user, why=f"there is no user {self.config.run.user}")

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()
        self._notify()

    def configure(self, config: Config, secrets: Secrets) -> None:
        """Put new addresses, rules, limits and keys in force. OSError: none of the addresses can be served; nothing has changed."""
        self._addresses.serve(config.server.listen, config.server.interface)
        rules = self._rules_now(config, secrets)
        self._server.configure(rules)
        self.log.speak(config.log.format, config.log.level)
        self._chronyc.listen(config.chronyc)
        self.config, self.secrets, self._rules = config, secrets, rules
        self._ask_upstreams()
        self._broadcast_s = 0.0
        self.log.answer("info", "rules, limits and keys renewed")
        self._notify()

    def _ask_upstreams(self) -> None:
        """Ask the configured upstreams."""
        ends = [end for text in self.config.server.listen if (end := parse_endpoint(text)) is not None]
        self._upstreams.configure(self.config.asked, self.secrets.keys, (port for _, port in ends))

    def judge(self) -> tuple[Config, Secrets, list[str]]:
        """The configuration as it is now on disk, its secrets, and what stands against them. New addresses are tried. A missing
        secret is made; nothing else is changed."""
        old = self.config
        try:
            found = load(Path(old.file) if old.file else None, self.helper.open)
            secrets = Secrets(
                read_keys(found, self.helper.open), read_secret(found, account(found.run.user, found.run.group), self.helper.open)
            )
        except ConfigError as error:
            return old, self.secrets, [str(problem) for problem in error.problems]
        except OSError as error:
            return old, self.secrets, [explain(error)]
        return found, secrets, [] if self._addresses.activated else refused_addresses(_news(old.server, found.server))

    def refuse(self, problems: list[str]) -> None:
        """Tell why a configuration was not taken."""
        for problem in problems:
            self.log.answer("error", "configuration refused, the old one stays", problem=problem)
        self.reloads.happened(Reloaded(False, (*problems, "the server keeps its configuration")))

    def _notify(self) -> None:
        """Tell systemd what is served."""
        served, unserved = self._addresses.served, [one.address for one in self._addresses.unserved if not one.harmless]
        status = f"serving NTP on {', '.join(served) or 'no address'}" + (f"; not on {', '.join(unserved)}" if unserved else "")
        notify(f"READY=1\nSTATUS={status}")

    def _open_watch(self) -> InterfaceWatch | None:
        try:
            return InterfaceWatch()
        except OSError as error:
            self.log.warning("changes of interfaces are noticed late", problem=explain(error))
            return None

    def _own_networks(self) -> tuple[Network, ...]:
        """The networks that the interfaces are in; none where the kernel does not tell."""
        try:
            return networks()
        except OSError as error:
            self.log.warning("the interfaces' networks are not known, private ones are", problem=explain(error))
            return ()

    def _interfaces_changed(self) -> None:
        """Have them looked at soon: they change in bursts, as when containers start."""
        if self._watch is not None and not self._watch.drain():
            self.log.warning("changes of interfaces are noticed late: the kernel no longer tells them")
            self._watch.close()
            self._watch = None
        self._networks_s = self._look_s = min(self._look_s, time.monotonic() + SETTLE_S)
        self._upstreams.wake()

    def _look(self, now_s: float) -> None:
        """Look after what others may take away or bring: interfaces, addresses, and the files in the run directory."""
        self._look_s = now_s + LOOK_S
        if self._addresses.review():
            self._notify()
        try:
            self.helper.enter()
        except BrokenPipeError:  # this process would serve an old record for ever; started again, it is root for a while
            raise
        except OSError:  # the next look tries again
            pass
        self._chronyc.review()
        if self._control.renew():
            self.log.warning("the control socket was removed by somebody and is made anew", path=str(self._control.path))
        if self.secrets.cookies(self._run_dir) != self._rules.nts:
            self._renew_rules()
            self.log.info("a new period of NTS cookies", keys=len(self._rules.nts.keys) if self._rules.nts is not None else 0)
        if now_s < self._networks_s:
            return
        self._networks_s = now_s + NETWORKS_S
        if self._upstreams.replaceable and (clock := self._clock.last()) is not None:
            self._upstreams.judged(clock)
        own = self._own_networks()
        if own != self._own:
            self._own = own
            self._renew_rules()
            self.log.info("own networks", networks=", ".join(f"{network.prefix} ({network.interface})" for network in own))

    def _rules_now(self, config: Config, secrets: Secrets) -> ServerRules:
        return rules_of(config, secrets, secrets.cookies(self._run_dir), self._own)

    def _renew_rules(self) -> None:
        """Put in force what has come of time and interfaces."""
        rules = self._rules_now(self.config, self.secrets)
        self._server.configure(rules)
        self._rules = rules

    def _answer(self, line: str) -> str:
        verb, _, argument = line.partition(" ")
        if verb == "clients":
            most = min(int(argument), CLIENTS_TOLD) if argument.isdecimal() else CLIENTS_TOLD
            found, known = self._server.clients(most)
            return json.dumps({"known": known, "clients": [asdict(client) for client in found]})
        if line == "rules":
            rules = [asdict(rule) for rule in self.config.access.rules(self._own).rules()]
            return json.dumps({"denied": self.config.access.denied, "rules": rules})
        if verb == "access":
            try:
                return json.dumps(asdict(self.config.access.rules(self._own).decide(argument)))
            except ValueError as error:
                return json.dumps({"error": str(error)})
        if line == JUDGE:
            return judgement(self.judge()[2])
        if line == TELL:
            return self.reloads.answer()
        if line != "snapshot":
            return json.dumps({"error": f"unknown verb {line[:32]!r}; known: snapshot, clients, access, rules, {JUDGE}, {TELL}"})
        return json.dumps(self.report().to_json())

    def report(self) -> ServerReport:
        """The server as it stands."""
        return ServerReport(
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started_s,
            addresses=self._addresses.served,
            socket_activated=self._addresses.activated,
            counters=self._facts.counters(),
            interfaces=tuple(stamping()),
            unserved=self._addresses.unserved,
            commands=self._chronyc.served,
            uncommanded=self._chronyc.unserved,
            keys=len(self.secrets.keys),
        )

    def _admits(self, address: str) -> bool:
        """Whether the NTP server answers an address, with or without a key."""
        return self.config.access.rules(self._own).decide(address).action in ("allow", "authenticated")

    def _broadcast(self) -> None:
        """Send the broadcasts when they are due; log a failure when it changes."""
        own, now_s = self.config.server, time.monotonic()
        if not own.broadcast or now_s < self._broadcast_s:
            return
        self._broadcast_s = now_s + 2.0**own.broadcast_poll
        failed = ""
        for text in own.broadcast:
            endpoint = parse_endpoint(text)
            assert endpoint is not None
            try:
                self._server.broadcast(*endpoint, own.broadcast_key, own.broadcast_poll)
            except OSError as error:
                failed = error.strerror or str(error)
        if failed and failed != self._broadcast_failed:
            self.log.warning("broadcast failed", problem=failed)
        self._broadcast_failed = failed

    def wait(self, signals: Signals, until_s: float | None) -> None:
        """Answer requests until a signal arrives, or until ``until_s`` (time.monotonic)."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._chronyc, select.POLLIN)
        poll.register(self._controls, select.POLLIN)
        poll.register(self._upstreams, select.POLLIN)
        poll.register(signals.wake, select.POLLIN)
        watched, beat_s = -1 if self._watch is None else self._watch.fileno(), watchdog_s(LOOK_S)
        if watched >= 0:
            poll.register(watched, select.POLLIN)
        while until_s is None or time.monotonic() < until_s:
            self._broadcast()
            self._upstreams.work()
            self.log.settle()
            due_s = self._look_s if until_s is None else min(self._look_s, until_s)
            pause_s = max(0.0, min(beat_s, due_s - time.monotonic(), self._upstreams.due_s()))
            if self.config.server.broadcast:
                pause_s = max(0.0, min(pause_s, self._broadcast_s - time.monotonic()))
            ready = {fd for fd, _ in poll.poll(pause_s * 1000)}
            if self._control.fileno() in ready:
                self._control.handle_ready()
            if self._chronyc.fileno() in ready:
                self._chronyc.handle_ready()
            if self._controls.fileno() in ready:
                self._controls.handle_ready()
            if self._upstreams.fileno() in ready:
                self._upstreams.handle_ready()
            if watched in ready:
                self._interfaces_changed()
                if self._watch is None:
                    poll.unregister(watched)
                    watched = -1
            if (now_s := time.monotonic()) >= self._look_s:
                self._look(now_s)
            notify("WATCHDOG=1")
            self._tell_refusals()
            if signals.wake in ready:
                signals.drain()
                return

    def _tell_refusals(self) -> None:
        for call in refused():
            self.log.error("system call refused: this process does not make it", call=call)

    def close(self) -> None:
        """Close the server's sockets and the control socket."""
        self._tell_refusals()
        self._upstreams.close()
        self._chronyc.close()
        self._control.close()
        self._server.close()
        if self._watch is not None:
            self._watch.close()


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Serve until a signal, or for ``duration_s``. Returns 0, or 78 for a bad key file. OSError: see Serve.

    ``simulated`` has no effect: a simulated record is marked as such.
    """
    del simulated
    started_s = time.monotonic()
    until_s = None if duration_s is None else started_s + duration_s
    signals = Signals()
    make_run_directory(run_dir, user=config.run.user)
    to = account(config.run.user, config.run.group)
    helper = Helper(to, run_dir, lambda: readable(config.file))
    fds = [FIRST_FD + number for number in range(handed_over())]
    try:
        keys = read_keys(config)
    except ConfigError as error:
        return complain(error, speaker(open_log(config.log.format, config.log.level, "serve"), config.log.format))
    nts_place(Path(config.run.state), to)  # a reload may turn NTS on, and could not make it any more
    try:
        secrets = Secrets(keys, read_secret(config, to))
    except OSError as error:  # the time is served all the same
        secrets = Secrets(keys)
        open_log(config.log.format, config.log.level, "serve").error("NTS is off", problem=explain(error))
    run_dir, group = lend(run_dir, to)
    serve = Serve(config, secrets, run_dir, fds, started_s, helper=helper, reloads=Reloads())
    serve.confine(to, group)
    serve.start()
    try:
        while not signals.stop and (until_s is None or time.monotonic() < until_s):
            serve.wait(signals, until_s)
            if signals.reload and not signals.stop:
                signals.reload = False
                serve = _reload(serve, run_dir, fds, started_s)
    finally:
        notify("STOPPING=1")
        serve.close()
    return GOOD


def read_secret(config: Config, to: Account, opener: Opener = os.open) -> bytes | None:
    """The secret of NTS cookies, made when it is missing; None without NTS. OSError: it cannot be used."""
    return nts_secret(config, nts_place(Path(config.run.state), to), opener) if config.nts.enabled else None


def readable(file: str) -> set[str]:
    """The files that a reload reads: the configuration ``file``, and the keys and the secret that it names."""
    try:
        found = load(Path(file)) if file else Config()
    except ConfigError:
        found = Config()
    named = [path for path in (found.keys.file, found.nts.secret) if path]
    return {file, *named, *map(os.path.realpath, named)}


def _reload(serve: Serve, run_dir: Path, fds: list[int], started_s: float) -> Serve:
    """The server under the configuration now on disk, or under the old one if the new one is bad. Sockets are made anew only when what
    they need has changed."""
    renewed, secrets, problems = serve.judge()
    if problems:
        serve.refuse(problems)
        return serve
    old, old_secrets, reloads = serve.config, serve.secrets, serve.reloads
    renewed = without_waiting(old, renewed)
    names = [name for name in changed(old, renewed) if name.startswith(OWN_KEYS)]
    names += [] if secrets.keys == old_secrets.keys else ["the keys in the file"]
    if secrets.secret and old_secrets.secret not in (None, secrets.secret):
        names.append("another NTS secret")
    told = f"the server has taken up: {', '.join(names)}" if names else "the server: nothing has changed"
    if socket_part(renewed.server) == socket_part(old.server):
        try:
            serve.configure(renewed, secrets)
        except OSError as error:
            serve.refuse([explain(error)])
            return serve
        reloads.happened(Reloaded(True, (f"{told}; no request was lost",)))
        return serve
    serve.close()
    try:
        serve = Serve(renewed, secrets, run_dir, fds, started_s, helper=serve.helper, reloads=reloads)
        serve.start()
    except OSError as error:
        serve = Serve(old, old_secrets, run_dir, fds, started_s, helper=serve.helper, reloads=reloads)
        serve.start()
        serve.refuse([explain(error)])
        return serve
    reloads.happened(Reloaded(True, (f"{told}; its sockets were made anew",)))
    return serve
