"""`refclock replay`: what a recording is made of."""

from __future__ import annotations

import io
import json
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
