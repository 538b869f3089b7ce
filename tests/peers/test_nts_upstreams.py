"""NTS servers as our upstreams: chronyd's, and ours; keys over a restart, keys that the server has lost, and who proves nothing."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from packet_net import NO_CLOCK, chronyc, ntpsec_programs
from peers import REFCLOCK, Processes, let_others_in, snapshot, wait_for
from refclock_sim.ports.device import clock_environment
from test_upstreams import Daemon, chronyd
from unpacked import of_release

from refclock.kernel.files import owners

certificates = pytest.importorskip("ppsd.serve.certificates", reason="NTS needs pyOpenSSL")

HOST = "127.0.1.1"
TABLE = '[[upstream]]\nname = "{name}"\nhost = "{host}"\nnts = true\nca = "{ca}"\nminpoll = 1\nmaxpoll = 1\n'


class Secured(Daemon):
    """A daemon of ours with the process that speaks TLS; ``listen``: where it answers."""

    listen = "127.0.0.1:123"

    def __init__(self, processes: Processes, config: str) -> None:
        super().__init__(processes, config)
        let_others_in(processes.directory)
        self._words = ["--config", str(self._file), "--run-dir", str(self.run_dir)]
        self.started.append(processes.start("nts-ke", [*REFCLOCK, "nts-ke", *self._words]))

    def _write(self, config: str) -> None:
        super()._write(config)
        text = self._file.read_text(encoding="utf-8").replace('listen = ["127.0.0.1:123"]', f'listen = ["{self.listen}"]')
        self._file.write_text(text, encoding="utf-8")

    def restart_serve(self) -> None:
        """End the serve process and start it again."""
        self.started[1].send_signal(signal.SIGTERM)
        self.started[1].wait(20)
        self.started[1] = self.processes.start("serve", [*REFCLOCK, "serve", *self._words])

    def heard(self, name: str) -> bool:
        """Whether the server is followed by all that the clock process knows."""
        return self.upstreams().get(name, {}).get("tally") in ("-", "*", "+")

    def answers(self, name: str) -> bool:
        """Whether its last two requests were answered."""
        return self.heard(name) and self.upstreams()[name]["reach"] & 3 == 3

    def authentication(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = self.upstreams().get(name, {}).get("authentication", {})
        return told


@pytest.fixture
def daemon(network: Processes) -> Iterator[Callable[[str], Secured]]:
    started: list[Secured] = []

    def start(config: str) -> Secured:
        started.append(Secured(network, config))
        started[-1].fed.set()
        return started[-1]

    yield start
    for one in started:
        one.close()
    time.sleep(1.5)  # their next look
    for name in ("serve", "nts-ke"):
        assert "system call refused" not in network.output(name)


class Credentials:
    """A certificate for a server, by an authority of its own, in files of ``directory``."""

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        place = directory / "authority"
        place.mkdir(mode=0o700)
        made = certificates.OwnCertificates(place, date(2026, 11, 1), owners())
        authority = made.authority("box", time.time())
        pair = made.server(authority, names, time.time())
        self.ca, self.certificate, self.key = directory / "ca.pem", place / "server.crt", place / "server.key"
        self.ca.write_bytes(authority.pem())
        self.certificate.write_bytes(pair.pem())
        self.key.write_bytes(pair.secret_pem())
        self.key.chmod(0o600)


class ChronydServer:
    """chronyd as a server of NTS, with a certificate by an authority of its own."""

    def __init__(self, processes: Processes, names: tuple[str, ...] = (HOST,), program: Sequence[str] = ("chronyd",)) -> None:
        self.processes, self.program = processes, program
        self.credentials = Credentials(processes.directory, names)
        self.ca, self.directory = self.credentials.ca, processes.directory / "near"
        self.start()

    def start(self) -> None:
        c = self.credentials
        lines = [f"ntsservercert {c.certificate}", f"ntsserverkey {c.key}", f"bindcmdaddress {self.directory}/chronyd.sock"]
        chronyd(self.processes, "near", HOST, "ntsprocesses 0", *lines, program=self.program)

    def established(self) -> int:
        """How many key establishments it counts."""
        found = re.search(r"NTS-KE connections accepted: (\d+)", chronyc(self.processes, self.directory, "serverstats"))
        return int(found[1]) if found else -1


def test_chronyd_is_followed_by_nts_over_a_restart_and_when_it_has_lost_its_keys(
    network: Processes, daemon: Callable[[str], Secured]
) -> None:
    """Keys are established once, at the port that chronyd names; the sealed answers count; sources, authdata and ntpdata tell of it. After
    a restart of ours no new keys are needed. After one of chronyd, which has other keys then, its NTSN brings new ones."""
    server = ChronydServer(network)
    ours = daemon(TABLE.format(name="near", host=HOST, ca=server.ca))
    wait_for("near is heard", lambda: ours.heard("near"), 40)
    assert ours.authentication("near")["mode"] == "nts"
    wait_for("eight cookies", lambda: ours.authentication("near")["cookies"] == 8, 20)
    authdata = network.run(["chronyc", "-n", "authdata"]).stdout
    assert re.search(rf"^{re.escape(HOST)} +NTS +1 +15 +256 +\d+ +0 +0 +8 +100$", authdata, re.MULTILINE), authdata
    assert re.search(r"Authenticated +: Yes", network.run(["chronyc", "-n", "ntpdata"]).stdout)
    assert re.search(r"Remote port +: 1123", network.run(["chronyc", "-n", "ntpdata"]).stdout)
    ours.restart_serve()
    wait_for("it is asked again", lambda: ours.answers("near"), 30)
    assert server.established() == 1
    chronyc(network, server.directory, "shutdown")
    server.directory.rename(server.directory.with_name("before"))
    server.start()
    wait_for("new keys", lambda: server.established() == 1, 60)
    wait_for("it is heard", lambda: ours.answers("near"), 30)
    assert "keys of NTS established" in network.output("nts-ke")


def sealed(ours: Secured) -> bool:
    """Whether the server near gives keys, and its replies are genuine: each request costs a cookie, which only such a reply replaces."""

    def look() -> bool:
        received = ours.upstreams().get("near", {"packets": {"received": 0}})["packets"]["received"]
        return received >= 3 and ours.authentication("near")["cookies"] == 8

    return wait_for("three replies and eight cookies", look, 30)


@pytest.mark.parametrize("release", ["trixie", "forky"])
def test_later_chronyd_is_followed_by_its_own_cipher(network: Processes, daemon: Callable[[str], Secured], release: str) -> None:
    """chronyd 4.6.1 and 4.9: AEAD 30, whose keys both export alike."""
    server = ChronydServer(network, program=of_release(release, "sbin/chronyd"))
    ours = daemon(TABLE.format(name="near", host=HOST, ca=server.ca))
    wait_for("near is heard", lambda: ours.heard("near"), 40)
    wait_for("eight cookies", lambda: ours.authentication("near")["cookies"] == 8, 20)
    told = ours.authentication("near")
    assert (told["key_type"], told["key_bits"], told["naks"]) == (30, 128, 0)


@pytest.mark.parametrize("release", ["installed", "forky"])
def test_ntpd_of_ntpsec_is_followed(
    network: Processes, daemon: Callable[[str], Secured], release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ntpsec 1.2.2 and 1.2.5, which have no time themselves: they say so, sealed."""
    c, directory = Credentials(network.directory, ("127.0.0.1",)), network.directory
    lines = [f"nts cert {c.certificate}", f"nts key {c.key}", f"nts cookie {directory}/cookies", "nts enable", "disable ntp"]
    (directory / "ntp.conf").write_text("\n".join([*lines, ""]), encoding="utf-8")
    program = [ntpsec_programs()[0]] if release == "installed" else of_release(release, "sbin/ntpd")
    network.start("ntpd", [*NO_CLOCK, *program, "-n", "-N", "-c", str(directory / "ntp.conf"), "-f", str(directory / "drift")])
    monkeypatch.setattr(Secured, "listen", f"{HOST}:1123")
    assert sealed(daemon(TABLE.format(name="near", host="127.0.0.1", ca=c.ca)))


def test_ntpd_rs_is_followed(network: Processes, daemon: Callable[[str], Secured]) -> None:
    """ntpd-rs 1.9, which have no time themselves: they say so, sealed."""
    c, directory = Credentials(network.directory, (HOST,)), network.directory
    text = f'''[[nts-ke-server]]
listen = "{HOST}:4460"
certificate-chain-path = "{c.certificate}"
private-key-path = "{c.key}"
[[server]]
listen = "{HOST}:123"
[synchronization]
local-stratum = 3
[observability]
log-level = "info"
'''
    (directory / "ntp.toml").write_text(text, encoding="utf-8")
    clock = clock_environment(directory / "clock", time.time_ns())  # it ends where it may not set one
    network.start("ntpd-rs", [*NO_CLOCK, *of_release("forky", "bin/ntp-daemon"), "-c", str(directory / "ntp.toml")], **clock)
    ours = daemon(TABLE.format(name="near", host=HOST, ca=c.ca))
    assert sealed(ours)


def test_who_proves_nothing_gives_no_time(network: Processes, daemon: Callable[[str], Secured]) -> None:
    """A name that the certificate does not have, and an authority that nobody knows: no sample, and the reason in words; a reload that
    names the authority helps."""
    server = ChronydServer(network, (HOST, "time.example"))
    stranger = network.directory / "stranger.pem"
    made = certificates.OwnCertificates(network.directory / "authority", date(2026, 11, 1), owners())
    (network.directory / "authority" / certificates.AUTHORITY).unlink()
    stranger.write_bytes(made.authority("other", time.time()).pem())
    ours = daemon(TABLE.format(name="near", host=HOST, ca=stranger) + TABLE.format(name="named", host="localhost", ca=server.ca))
    wait_for("unknown authority", lambda: "no authority" in ours.upstreams().get("near", {}).get("why", ""), 30)
    assert ours.upstreams()["near"]["samples"] == 0
    assert "no authority" in ours.command("status") + ours.command("sources", "--json")
    ours.reload(TABLE.format(name="near", host=HOST, ca=server.ca))
    wait_for("heard", lambda: ours.heard("near"), 40)


def test_ours_is_followed_by_ours(network: Processes, daemon: Callable[[str], Secured], tmp_path: Path) -> None:
    """One box with receiver and NTS, and one that asks it, which need nothing but each other and the authority's certificate."""
    other = Processes(tmp_path / "box")
    other.directory.mkdir()
    other.network = network.network

    class Box(Secured):
        listen = f"{HOST}:1123"

    box = Box(other, f'[nts]\nenabled = true\nlisten = ["{HOST}:4460"]\nnames = ["{HOST}"]\n')
    box.fed.set()
    try:
        wait_for("a certificate", lambda: (snapshot(box.run_dir, "nts-ke.sock") or {}).get("until_s"), 20)
        ca = tmp_path / "box.pem"
        told = other.run([*REFCLOCK, "nts", "ca", "--out", str(ca), *box._words])
        assert told.returncode == 0, told.stderr
        wait_for("it serves", lambda: box.clock()["stratum"] == 1, 40)
        ours = daemon(TABLE.format(name="box", host=HOST, ca=ca))
        wait_for("the box is heard", lambda: ours.heard("box"), 40)
        assert ours.upstreams()["box"]["stratum"] == 1
        assert ours.authentication("box")["cookie_bytes"] == 100
        report = snapshot(box.run_dir, "nts-ke.sock") or {}
        assert report["sessions"]["served"] == 1  # type: ignore[index]
    finally:
        box.close()
        other.close()
