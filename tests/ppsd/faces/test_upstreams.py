"""NTP servers in every face: beside a receiver, and in its place."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

from known_daemon import FALLEN, UPSTREAM, WITNESSED, Known

from ppsd.faces import chronyc, mode6, ntpq
from ppsd.faces.cmdmon import Command, Status, answer
from ppsd.faces.mode6 import READVAR, Clients, Told, associations, system_status
from ppsd.faces.prometheus import Reports, compatible, native, page
from ppsd.faces.screen import Look, Seen, screen
from ppsd.faces.text import sources_in_words, top_line
from ppsd.history.spans import second
from ppsd.snapshot import ServerReport, Snapshot


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


NTPDATA = """\
Remote address  : 192.0.2.9 (C0000209)
Remote port     : 123
Local address   : 192.0.2.7 (C0000207)
Leap status     : Normal
Version         : 4
Mode            : Server
Stratum         : 2
Poll interval   : 6 (64 seconds)
Precision       : -24 (0.000000060 seconds)
Root delay      : 0.001000 seconds
Root dispersion : 0.000199 seconds
Reference ID    : C0000201 ()
Reference time  : Sat Nov 21 11:58:20 2026
Offset          : -0.000042000 seconds
Peer delay      : 0.004000000 seconds
Peer dispersion : 0.000001000 seconds
Response time   : 0.000053000 seconds
Jitter asymmetry: +0.00
NTP tests       : 111 111 1111
Interleaved     : No
Authenticated   : Yes
TX timestamping : Daemon
RX timestamping : Kernel
Total TX        : 16
Total RX        : 15
Total valid RX  : 14
Total good RX   : 14"""


def test_chronyc_ntpdata_and_authdata() -> None:
    """What its last answer said, and how it is authenticated, as chronyc prints both."""
    assert chronyc.ntpdata(WITNESSED).text == NTPDATA
    assert chronyc.authdata(WITNESSED).text.splitlines()[-1] == "ntp0                          SK    30   13  128    -    0    0    0    0"
    assert chronyc.selectdata(WITNESSED).rows[-1].startswith("P,ntp0,Y,")


def test_the_packets_of_a_server_over_chronyds_protocol() -> None:
    """Until chrony 4.5 and since 4.6 chronyc expects two layouts; receivers have no packets."""
    address, daemon = bytes([192, 0, 2, 9]) + bytes(12) + b"\0\1\0\0", Known(WITNESSED)

    def ask(command: Command, data: bytes, length: int = 400) -> bytes:
        head = struct.pack(">BBBBHHIII", 6, 1, 0, 0, command, 0, 1, 0, 0)
        return answer((head + data).ljust(length, b"\0"), daemon, False)

    old, new = ask(Command.NTP_DATA, address, 28 + 124), ask(Command.NTP_DATA, address)
    assert (int.from_bytes(old[6:8], "big"), len(old)) == (16, 28 + 124)
    assert (int.from_bytes(new[6:8], "big"), len(new)) == (26, 28 + 144)
    assert old[28:140] == new[28:140]
    assert struct.unpack(">HBBBBbb", old[68:76]) == (123, 0, 4, 4, 2, 6, -24)
    assert struct.unpack(">Hcc4I", old[120:140]) == (0x83FF, b"D", b"K", 16, 15, 14, 14)
    assert struct.unpack(">HHIHHIHHH", ask(Command.AUTH_DATA, address)[28:50]) == (1, 13, 30, 128, 0, 0xFFFFFFFF, 0, 0, 0)
    assert ask(Command.NTP_DATA, b"gps0" + bytes(12) + b"\0\1\0\0")[8:10] == struct.pack(">H", Status.NO_SUCH_SOURCE)


def test_metrics_of_servers() -> None:
    """Offset, bound, delay, reach and counts of each under the names of refclock; under those of chrony_exporter it is a client's."""
    text = page(native(Reports(WITNESSED, None)))
    labels = '{upstream="ntp0",address="192.0.2.9"}'
    for line in ("offset_seconds", "0.00015"), ("error_bound_seconds", "0.0027"), ("delay_seconds", "0.004"), ("used_total", "14"):
        assert f"refclock_upstream_{line[0]}{labels} {line[1]}\n" in text
    assert 'refclock_upstream_state{upstream="ntp0",address="192.0.2.9",state="not_used"} 1' in text
    assert f"refclock_upstream_asymmetry_seconds{labels} 0.0003\n" in text
    assert "upstream_asymmetry" not in page(native(Reports(FALLEN, None)))
    theirs = page(compatible(Reports(FALLEN, None)))
    assert 'source_name="time.example",source_state="sync",source_mode="client"} 1' in theirs
    assert 'chrony_sources_polling_interval_seconds{source_address="192.0.2.9",source_name="time.example"} 64' in theirs


def test_ntpqs_variables_of_a_server() -> None:
    """rv and pstats tell a server's own precision, leap, key and counts."""
    told = Told(lambda: WITNESSED, lambda: ServerReport(7, 60.0, (), False, {}), lambda _: Clients([], 0, 0), 0, bytes(16))

    def ask(names: str) -> str:
        (packet,) = mode6.answer(mode6.HEADER.pack(0x26, READVAR, 77, 0, 2, 0, len(names)) + names.encode(), "a", told)
        return packet[mode6.HEADER.size :].rstrip(b"\0").decode()

    variables = ask("")
    for word in ("srcport=123", "dstadr=192.0.2.7", "precision=-24", "leap=0", "keyid=30", "ppoll=6", "flash=0x0"):
        assert word in variables, variables
    assert ask("sent,received,bogusorg") == "sent=16, received=15, bogusorg=1"


def test_ntpq_lists_servers_as_unicast() -> None:
    """A dotted reference, stratum, t u, interval in seconds, delay; the system's time comes from NTP (6) while one is followed."""
    line = ntpq.peers(WITNESSED).text.splitlines()[-1]
    assert line == "-time.example    192.0.2.1        2 u   21   64  377   4.0000   0.1500   0.0300"
    assert associations(FALLEN)[-1].selection == 6
    assert system_status(FALLEN) >> 8 & 0x3F == 6


def test_status_in_words() -> None:
    """What it is, how far away, what it says, and what a receiver beside it tells of the path; and the summary's first words."""
    assert sources_in_words(WITNESSED)[-2:] == [
        (
            "- ntp0: NTP server time.example (192.0.2.9), stratum 2, delay 4.0 ms, authenticated by key 30, "
            "150 µs ahead, may be off by 2.7 ms — agrees"
        ),
        "  ntp0: if it is right, the way there takes longer than the way back by 300 µs ± 1.4 ms",
    ]
    assert top_line(FALLEN).startswith("FALLBACK · within ±2.7 ms · no receiver can be used")


def test_top_lists_servers_beside_receivers() -> None:
    """The screen of ``refclock top``: each is a line of its own."""
    lines, _ = screen(Seen(WITNESSED, "asked later", (), 0, (), 0.0), Look(100, 40))
    shown = "\n".join("".join(span.text for span in line) for line in lines)
    assert "#* gps0" in shown
    assert "^- ntp0" in shown


def test_history_keeps_answers_of_servers() -> None:
    """A server is in the second in which it answered, and in every one in which it is followed."""
    fresh = replace(WITNESSED, upstreams=(replace(UPSTREAM, last_sample_s=0.3),))
    assert [s.name for s in second(WITNESSED, None, None).sources] == ["gps0"]
    assert [s.name for s in second(fresh, None, None).sources] == ["gps0", "ntp0"]
    followed = second(FALLEN, None, None).sources[-1]
    assert (followed.name, followed.selected) == ("ntp0", 1)


def test_the_snapshot_comes_back() -> None:
    """Through JSON, servers included."""
    assert Snapshot.from_json(json.loads(json.dumps(FALLEN.to_json()))) == FALLEN
    assert FALLEN.followed is not None
    assert WITNESSED.followed is None
