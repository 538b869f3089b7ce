"""NTP servers in every face: beside a receiver, and in its place."""

from __future__ import annotations

import json

from known_daemon import FALLEN, WITNESSED

from ppsd.faces import chronyc, ntpq
from ppsd.faces.mode6 import associations, system_status
from ppsd.faces.text import sources_in_words, top_line
from ppsd.snapshot import Snapshot


def test_chronyc_sources() -> None:
    """Mode ^ with stratum, interval in log2 s, register in octal, and the sign of chronyc."""
    report = chronyc.sources(WITNESSED)
    assert report.text.splitlines()[-1] == "^- ntp0                          2   6   377    21   -150us[ -150us] +/- 2700us"
    assert report.rows[-1] == "^,-,ntp0,2,6,377,21,-0.000150000,-0.000150000,0.002700000"
    assert [told["name"] for told in report.told] == ["gps0", "ntp0"]


def test_chronyc_tracking_of_what_is_followed() -> None:
    """Reference and stratum, root delay, and dispersion: with half the delay they are the bound."""
    text = chronyc.tracking(FALLEN).text
    assert "Reference ID    : C0000209 (192.0.2.9)" in text
    assert "Stratum         : 3" in text
    assert "Root delay      : 0.005000000 seconds" in text
    assert "Root dispersion : 0.000200000 seconds" in text
    assert chronyc.sourcestats(FALLEN).rows[-1].startswith("ntp0,14,0,640,")
    assert chronyc.selectdata(FALLEN).rows[-1].startswith("*,ntp0,")


def test_ntpq_lists_servers_as_unicast() -> None:
    """A dotted reference, stratum, t u, interval in seconds, delay; the system's time comes from NTP (6) while one is followed."""
    line = ntpq.peers(WITNESSED).text.splitlines()[-1]
    assert line == "-time.example    192.0.2.1        2 u   21   64  377   4.0000   0.1500   0.0300"
    assert associations(FALLEN)[-1].selection == 6
    assert system_status(FALLEN) >> 8 & 0x3F == 6


def test_status_in_words() -> None:
    """What it is, how far away, and what it says; and the summary's first words."""
    assert sources_in_words(WITNESSED)[-1] == (
        "- ntp0: NTP server time.example (192.0.2.9), stratum 2, delay 4.0 ms, 150 µs ahead, may be off by 2.7 ms — agrees"
    )
    assert top_line(FALLEN).startswith("FALLBACK · within ±2.7 ms · no receiver can be used")


def test_the_snapshot_comes_back() -> None:
    """Through JSON, servers included."""
    assert Snapshot.from_json(json.loads(json.dumps(FALLEN.to_json()))) == FALLEN
    assert FALLEN.followed is not None
    assert WITNESSED.followed is None
