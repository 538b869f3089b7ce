"""The reports of chronyc and ntpq: text, columns of ``chronyc -c``, and values with their signs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known_daemon import CLOCK, SOURCE

from ppsd.faces import chronyc, ntpq
from ppsd.snapshot import ServerReport

PPS = replace(SOURCE, span_s=7.9)
WRONG = replace(
    PPS, name="a-receiver-with-a-long-name", kind="sock", present=False, tally="x", offset_ns=12_000_000, samples=3000, last_sample_s=1500.0
)
SILENT = replace(
    PPS, name="shm0", kind="shm", tally="?", offset_ns=None, last_sample_s=None, bound_ns=None, reach=0, samples=0, prefer=True
)
LOCKED = replace(CLOCK, sources=(PPS, WRONG, SILENT))
ACQUIRING = replace(LOCKED, stratum=0, refid="", leap="unsynchronised", bound_ns=None, system_offset_ns=None, sources=(SILENT,))
SERVER = ServerReport(
    3, 60.0, ("0.0.0.0:123",), False,
    {"reply": {"basic": 12, "interleaved": 3}, "kod": {"rate": 2}, "drop": {"short": 1}, "server": {"kernel_drops": 4, "unstamped": 1,
     "departures": 3}},
)  # fmt: skip


def test_sources() -> None:
    """The columns of chronyc sources; offsets with its sign (local ahead is positive), a long name cut and marked."""
    report = chronyc.sources(LOCKED)
    assert report.text.splitlines() == [
        "MS Name/IP address         Stratum Poll Reach LastRx Last sample               ",
        "=" * 79,
        "#* gps0                          0   0   377     0   +214ns[ +214ns] +/-   18us",
        "#x a-receiver-with-a-long-n>     0   0   377   25m    -12ms[  -12ms] +/-   18us",
        "#? shm0                          0   0     0     -     +0ns[   +0ns] +/-  120ns",
    ]
    assert report.rows[0] == "#,*,gps0,0,0,377,0,0.000000214,0.000000214,0.000018100"
    assert report.rows[2].split(",")[6] == "4294967295"


def test_tracking() -> None:
    """The labels of chronyc tracking, in its order, with its words for signs; in -c the system time is positive when slow, the frequency
    when fast."""
    report = chronyc.tracking(LOCKED)
    assert report.text.splitlines() == [
        "Reference ID    : 50505300 (PPS)",
        "Stratum         : 1",
        "Ref time (UTC)  : Sat Nov 21 12:00:00 2026",
        "System time     : 0.000000031 seconds slow of NTP time",
        "Last offset     : +0.000000214 seconds",
        "RMS offset      : 0.000000120 seconds",
        "Frequency       : 12.345 ppm slow",
        "Residual freq   : +0.000 ppm",
        "Skew            : 0.012 ppm",
        "Root delay      : 0.000000000 seconds",
        "Root dispersion : 0.000018100 seconds",
        "Update interval : 1.0 seconds",
        "Leap status     : Normal",
    ]
    assert report.rows == (
        "50505300,PPS,1,1795262400.100000000,0.000000031,0.000000214,0.000000120,-12.345,0.000,0.012,0.000000000,0.000018100,1.0,Normal",
    )
    text = chronyc.tracking(ACQUIRING).text
    assert "Reference ID    : 00000000 ()\nStratum         : 0\nRef time (UTC)  : Thu Jan 01 00:00:00 1970" in text
    assert text.endswith("Leap status     : Not synchronised")
    assert "Nov 21 23:59:60" not in chronyc.tracking(replace(LOCKED, utc="2026-11-21T23:59:60.900000000Z")).text


def test_sourcestats_and_selectdata() -> None:
    """One line for each source, in chronyc's columns."""
    stats = chronyc.sourcestats(LOCKED)
    assert stats.text.splitlines()[2] == "gps0                        8   0     7     +0.045      0.010   +214ns   120ns"
    assert stats.rows[0] == "gps0,8,0,7,0.045,0.010,0.000000214,0.000000120"
    select = chronyc.selectdata(LOCKED)
    assert select.text.splitlines()[2:] == [
        "* gps0                      N ----- -----    0   1.0   -18us   +18us  N",
        "x a-receiver-with-a-long-n> N ----- -----  25m   1.0   -12ms   -12ms  N",
        "M shm0                      N -P--- -P---    -   1.0    +0ns    +0ns  ?",
    ]
    assert select.rows[0] == "*,gps0,N,-,-,-,-,-,-,-,-,-,-,0,1.0,-0.000017886,0.000018314,Normal"


def test_server_reports() -> None:
    """Counters and clients as chronyc prints them. A client that asked once has no interval."""
    lines = chronyc.serverstats(SERVER).text.splitlines()
    assert len(lines) == 17
    assert lines[0] == "NTP packets received       : 18"
    assert lines[1] == "NTP packets dropped        : 1"
    assert lines[8] == "Interleaved NTP packets    : 3"
    assert chronyc.serverstats(SERVER).rows == ("18,1,0,0,0,0,0,0,3,0,0,1,12,17,3,0,0",)
    client = {"address": "127.0.0.1", "packets": 3, "drops": 0, "interval_s": 0.03, "last_s": 0.2}
    report = chronyc.clients({"known": 1, "clients": [client, client | {"interval_s": None}]})
    assert report.text.splitlines()[2] == "127.0.0.1                       3      0  -5   -     0       0      0   -     -"
    assert report.text.splitlines()[3] == "127.0.0.1                       3      0   -   -     0       0      0   -     -"
    assert report.rows[0] == "127.0.0.1,3,0,-5,127,0,0,0,127,4294967295"


@pytest.mark.parametrize(
    ("s", "plain", "signed"),
    [
        (0.0, "   0ns", "   +0ns"),
        (-1.8e-8, "  18ns", "  -18ns"),
        (9.999e-6, "9999ns", "+9999ns"),
        (1.2e-3, "1200us", "+1200us"),
        (-0.1, " 100ms", " -100ms"),
        (12.34, " 12.3s", " +12.3s"),
        (86400.0, "86400s", "+86400s"),
        (86400.0 * 10, "14400m", "+14400m"),
        (86400.0 * 100, " 2400h", " +2400h"),
        (86400.0 * 10_000, "10000d", "+10000d"),
        (3.1536e7 * 2000, " 2000y", " +2000y"),
    ],
)
def test_amounts_as_chronyc(s: float, plain: str, signed: str) -> None:
    """Units and widths of chronyc's columns."""
    assert (chronyc.amount(s, False), chronyc.amount(s, True)) == (plain, signed)


def test_intervals_as_chronyc() -> None:
    """Four columns: seconds, m, h, d, y."""
    ages = (None, 0.4, 1199, 1200, 35999, 36000, 345600, 400 * 86400, 2000 * 86400)
    assert [chronyc.interval(s) for s in ages] == ["   -", "   0", "1199", " 20m", "599m", " 10h", "  4d", "400d", "  5y"]


def test_peers() -> None:
    """The billboard of ntpq -p: a pulse that is followed has the tally code o, what disagrees x; milliseconds, +: the source is ahead."""
    assert ntpq.peers(LOCKED).text.splitlines() == [
        "     remote           refid      st t when poll reach   delay   offset   jitter",
        "=" * 79,
        "ogps0(0)         .PPS.            0 l    -    1  377   0.0000  -0.0002   0.0001",
        "xa-receiver-w(1) .SOCK.           0 l 1500    1  377   0.0000  12.0000   0.0001",
        " shm0(2)         .SHM.            0 l    -    1    0   0.0000   0.0000   0.0001",
    ]
