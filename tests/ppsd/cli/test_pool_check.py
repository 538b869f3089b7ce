"""`refclock pool-check`: go and no-go before a server joins the NTP pool."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ppsd.cli.doctor.finding import FAIL, OK, WARN, Finding, Patient
from ppsd.cli.pool_check import examine
from ppsd.cli.query import Address as Asked
from ppsd.cli.query import Try
from ppsd.config.tables import AccessConfig, Config, LimitsConfig, ServerConfig
from ppsd.ntp.packet import Exchange, Header
from ppsd.snapshot import ServerReport
from refclock.kernel.host import Host
from refclock.kernel.interfaces import Address
from refclock.sample import Leap

OPEN = Config(access=AccessConfig(allow=("0.0.0.0/0", "::/0")))
PUBLIC = Address(ip_address("9.9.9.9"), 24, "eth0", True)


def answered(sockaddr: tuple[object, ...], family: int) -> Try:
    """A reply that says: at most 2 µs off, stratum 1."""
    return Try(Asked(family, sockaddr), Exchange(Header(Leap.NORMAL, stratum=1), 0, 1000, 0), "")


def silent(sockaddr: tuple[object, ...], family: int) -> Try:
    return Try(Asked(family, sockaddr), None, "no reply")


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """A machine of which nothing is known, with a server that answers."""
    report = ServerReport(1, 1.0, ("0.0.0.0:123",), False, {})
    return Patient(
        Host(tmp_path), OPEN, None, pause=lambda _: None, server=report, ask=answered, output=lambda _: None, addresses=(PUBLIC,)
    )


def state(findings: list[Finding], check: str) -> str:
    return next(finding.state for finding in findings if finding.check == check)


def test_an_open_server(patient: Patient) -> None:
    """Open to everybody, on port 123, at a lasting public address, within microseconds: all of that is go, and the score says when."""
    found = examine(patient)
    for check in ("port", "public", "lasting", "everybody", "limits", "smear", "score"):
        assert state(found, check) == OK, check
    assert "after 14 checks" in next(finding.what for finding in found if finding.check == "score")
    assert state(found, "time") == FAIL  # no daemon runs here


@pytest.mark.parametrize(
    ("config", "check"),
    [
        (Config(), "everybody"),
        (replace(OPEN, access=AccessConfig(allow=("0.0.0.0/0",))), "everybody"),
        (replace(OPEN, limits=LimitsConfig(rate=0.1, burst=2)), "limits"),
        (replace(OPEN, server=ServerConfig(leap_smear=True, smear_public=True)), "smear"),
        (replace(OPEN, server=ServerConfig(listen=("0.0.0.0:1123",))), "port"),
        (replace(OPEN, server=ServerConfig(listen=("127.0.0.1:123",))), "port"),
    ],
)
def test_no_go(patient: Patient, config: Config, check: str) -> None:
    """Closed networks, limits below what the monitors ask, a smear, another port: each is no-go, with its remedy."""
    found = examine(replace(patient, config=config))
    finding = next(f for f in found if f.check == check)
    assert finding.state == FAIL
    assert finding.do


def test_addresses(patient: Patient) -> None:
    """An address of a private network is told, and so is one whose lease ends."""
    assert state(examine(replace(patient, addresses=(Address(ip_address("192.168.1.5"), 24, "eth0", True),))), "public") == WARN
    assert state(examine(replace(patient, addresses=(PUBLIC._replace(lasting=False),))), "lasting") == WARN


def test_a_silent_server_never_scores(patient: Patient) -> None:
    """A server that does not answer has a score that never reaches the pool's."""
    assert state(examine(replace(patient, ask=silent)), "score") == FAIL
