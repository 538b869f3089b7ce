"""NTS: clients of later releases of Debian, and other programs than chrony, establish keys with ours and are served by them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from key_server import CONFIG, KeyServer, established
from packet_net import NO_CLOCK, Lan, Serving, chronyc, ntpsec_programs
from peers import Processes, wait_for
from refclock_sim.ports.device import clock_environment
from unpacked import of_release

pytest.importorskip("OpenSSL", reason="NTS needs pyOpenSSL")
RELEASES = ["trixie", "forky"]


def served(keys: KeyServer, requests: int) -> None:
    """So many requests with NTS were answered, and none was refused."""
    wait_for(f"{requests} replies with NTS", lambda: keys.server.counters()["server"].get("nts", 0) >= requests, 60)
    assert keys.sessions()["served"] == 1
    assert not keys.server.counters()["drop"]


@pytest.mark.parametrize(("asked", "aead"), [([], 30), (["ntsaeads 15"], 15)])
@pytest.mark.parametrize("release", RELEASES)
def test_chronyd(network: Processes, keys: KeyServer, release: str, asked: list[str], aead: int) -> None:
    """chronyd 4.6 and 4.9 prefer AEAD 30, and get keys of it, and eight cookies; or of AEAD 15, when they know that one alone."""
    client = keys.client("chronyd", 1, *asked, program=of_release(release, "sbin/chronyd"))
    wait_for("^*", lambda: "^* 127.0.0.1" in chronyc(network, client, "sources"), 30)
    assert re.search(rf"NTS +1 +{aead} ", established(network, client))
    served(keys, 8)


@pytest.mark.parametrize("release", ["installed", *RELEASES])
def test_ntpd_of_ntpsec(network: Processes, serve: Serving, lan: Lan, tmp_path: Path, release: str) -> None:
    """ntpsec's ntpd 1.2.2, 1.2.3 and 1.2.5, on another machine, for it needs port 123."""
    config = CONFIG.format(state=tmp_path / "state").replace("127.0.0.1:", "0.0.0.0:").replace("127.0.0.1", "10.77.0.1")
    keys = KeyServer(network, serve(config))
    client = lan.clients.directory
    asked = f"server 10.77.0.1 nts ca {keys.authority} minpoll 0 maxpoll 0 iburst\ndisable ntp\n"
    (client / "ntp.conf").write_text(asked, encoding="utf-8")
    ntpd = [ntpsec_programs()[0]] if release == "installed" else of_release(release, "sbin/ntpd")
    lan.clients.start("ntpd", [*NO_CLOCK, *ntpd, "-n", "-N", "-c", str(client / "ntp.conf"), "-f", str(client / "drift")])
    served(keys, 3)


@pytest.mark.parametrize("release", RELEASES)
def test_ntpd_rs(network: Processes, keys: KeyServer, tmp_path: Path, release: str) -> None:
    """ntpd-rs 1.4 and 1.9."""
    config = network.directory / "ntp.toml"
    config.write_text(
        f'''[[source]]
mode = "nts"
address = "127.0.0.1"
certificate-authority = "{keys.authority}"
[source-defaults]
poll-interval-limits = {{ min = 4, max = 4 }}
[observability]
observation-path = "{network.directory}/observe"
log-level = "info"
''',
        encoding="utf-8",
    )
    clock = clock_environment(tmp_path / "clock", time.time_ns())  # it ends where it may not set one
    network.start("ntpd-rs", [*NO_CLOCK, *of_release(release, "bin/ntp-daemon"), "-c", str(config)], **clock)
    served(keys, 1)
    ctl = [*of_release(release, "bin/ntp-ctl"), "-c", str(config), "status"]
    found = re.compile(r"127\.0\.0\.1:4460[/ ]127\.0\.0\.1:123 .*NTS cookies:\s+8/8", re.DOTALL)
    assert wait_for("eight cookies", lambda: found.search(network.run(ctl).stdout), 10)
