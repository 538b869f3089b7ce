"""`refclock replay`: what a recording is made of."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

from ppsd.cli.replay import replay
from refclock.protocols.checksums import nmea_checksum


def packet(second: int, text: str, **more: bool) -> str:
    at = f"2026-06-15T06:07:{second:02}.071517Z"
    return json.dumps({"t": at, "ascii": f"${text}*{nmea_checksum(text.encode()):02X}\r\n", **more})


def test_what_the_host_sent_is_no_answer(tmp_path: Path) -> None:
    """A packet log holds both directions; a command of the host, even one like a sentence in the middle of a receiver's, is not heard."""
    log = tmp_path / "log.jsonl"
    lines = []
    for second in range(8):
        lines.append(packet(second, f"GPRMC,0607{second:02}.00,A,4153.8,N,08738.6,W,0.0,,150626,,,A"))
        lines.append(packet(second, f"GPZDA,0607{second + 20:02}.00,15,06,2026,00,00", out=True))
    log.write_text("\n".join(lines), encoding="utf-8")
    out = io.StringIO()
    assert replay(log, None, True, out) == 0
    summary = json.loads(out.getvalue().splitlines()[-1])["summary"]
    assert (summary["labels"], summary["trusted"], summary["rejected"]) == (8, 8, {})


def recorded(path: Path, *bodies: str) -> Path:
    path.write_bytes(b"".join(f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode() for body in bodies))
    return path


def replayed(path: Path, as_json: bool = False) -> str:
    out = io.StringIO()
    assert replay(path, date(2026, 1, 1), as_json, out) == 0
    return out.getvalue()


def test_a_receivers_complaint_is_told_with_its_remedy(tmp_path: Path) -> None:
    """A recording in which the receiver says that its input is shut: that is told in plain words, with what to do."""
    rmc = "GPRMC,102000.00,A,4717.1,N,00833.9,E,0.0,0.0,211126,,,A"
    shut = "GNTXT,01,01,01,More than 100 frame errors, UART RX was disabled"
    log = recorded(tmp_path / "shut.log", rmc, shut)
    (line,) = (line for line in replayed(log).splitlines() if line.startswith("Complaint: "))
    assert "its input is shut" in line
    assert "UART RX was disabled" in line
    assert "check the wire" in line
    assert len(json.loads(replayed(log, True).splitlines()[-1])["summary"]["complaints"]) == 1


def test_a_recording_without_time_says_why(tmp_path: Path) -> None:
    """ZDA alone, and dates before 1980: the reason is told with what to do, not only counted."""
    zda = [f"GPZDA,1020{second:02}.00,21,11,2026,00,00" for second in range(12)]
    assert "it sends only ZDA" in replayed(recorded(tmp_path / "zda.log", *zda))
    old = [f"GPRMC,1020{second:02}.00,V,,,,,,,050180,,,N" for second in range(12)]
    told = replayed(recorded(tmp_path / "void.log", *old))
    assert "Why it names no second by itself: it says itself that its time is not valid (status V)" in told
    assert "Not used: 12 x void: it says itself" in told
