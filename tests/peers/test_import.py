"""The import beside the programs whose files it reads: the same clients are let in, and what it is given is what they take."""

from __future__ import annotations

import random
from ipaddress import ip_network
from pathlib import Path

from packet_net import NO_CLOCK, ROOT, chronyc, chronyd, ntpsec_programs
from peers import Processes, wait_for

from ppsd.config.file import parse
from ppsd.config.import_chrony import import_chrony
from ppsd.config.import_ntp import import_ntp

DATA = ROOT / "tests" / "data" / "import"
ADDRESSES = (
    "10.0.0.1",
    "10.1.2.3",
    "10.129.0.1",
    "192.168.3.4",
    "192.168.66.7",
    "203.0.113.1",
    "127.0.0.1",
    "fd00::1",
    "2001:db8:1::1",
    "::1",
)


def rules(seed: int) -> list[str]:
    """Random allow and deny lines around ADDRESSES, in all the forms that chronyd takes."""
    chance, lines = random.Random(seed), list[str]()
    for _ in range(chance.randint(1, 12)):
        address = chance.choice(ADDRESSES)
        length = chance.randint(0, 64 if ":" in address else 32)
        net = ip_network(f"{address}/{length}", strict=False)
        short = ".".join(address.split(".")[: chance.randint(1, 3)]) if ":" not in address else address
        form = chance.choice((str(net), f"{address}/{length}", address, short, ""))
        lines.append(f"{chance.choice(('allow', 'deny'))} {chance.choice(('', '', 'all '))}{form}".strip())
    return lines


def test_the_same_clients_as_a_real_chronyd(network: Processes) -> None:
    """Of 20 random lists of allow and deny, a real chronyd (chronyc accheck) and the imported configuration let in the same addresses."""
    for seed in range(20):
        lines = rules(seed)
        access = parse(import_chrony("\n".join(lines), "chrony.conf").text())
        directory = chronyd(network, f"chronyd{seed}", *lines)
        wait_for("chronyd answers", lambda directory=directory: chronyc(network, directory, "activity").startswith("200"), 20)
        asked = [f"accheck {address}\n" for address in ADDRESSES]
        told = chronyc(network, directory, "-m", *(question.strip() for question in asked)).splitlines()
        verdicts = [line for line in told if line.startswith(("208", "209"))]
        assert len(verdicts) == len(ADDRESSES), told
        for address, verdict in zip(ADDRESSES, verdicts, strict=True):
            allowed = access.server.enabled and access.access.rules().decide(address).action == "allow"
            assert allowed == verdict.startswith("208"), (address, verdict, lines)


def test_the_guides_files_are_files_of_these_programs(network: Processes) -> None:
    """What the tests import, the programs themselves read without complaint: chronyd each chrony.conf, ntpd the ntp.conf."""
    for name in ("ubuntu-gpsd-chrony.conf", "maas-chrony.conf"):  # pi-chrony.conf has words of later versions
        done = network.run(["chronyd", "-p", "-f", str(DATA / name)])
        assert done.returncode == 0, done.stderr
    ntpd, _ = ntpsec_programs()
    path = Path(network.directory) / "ntp.conf"
    path.write_text((DATA / "pool-ntp.conf").read_text(encoding="utf-8"), encoding="utf-8")
    network.start("ntpd", [*NO_CLOCK, ntpd, "-n", "-c", str(path)])
    wait_for("ntpd reads it", lambda: "Listen normally" in network.output("ntpd"), 20)
    assert "syntax error" not in network.output("ntpd")
    assert import_ntp(path.read_text(encoding="utf-8"), str(path)).sources
