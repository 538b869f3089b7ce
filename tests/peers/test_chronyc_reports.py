"""Our reports beside those of the real chronyc: the same headings, legends, labels and numbers of columns."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from known_daemon import CLOCK, SOURCE
from peers import Processes, wait_for

from ppsd.faces import chronyc
from ppsd.snapshot import ServerReport

LOCKED = replace(CLOCK, sources=(replace(SOURCE, name="PPS"),))
SERVER = ServerReport(3, 60.0, ("0.0.0.0:123",), False, {"reply": {"basic": 12}})
CLIENT = {"address": "127.0.0.1", "packets": 3, "drops": 0, "interval_s": 0.03, "last_s": 0.2}
OURS = {
    "sources": chronyc.sources(LOCKED),
    "sourcestats": chronyc.sourcestats(LOCKED),
    "selectdata": chronyc.selectdata(LOCKED),
    "tracking": chronyc.tracking(LOCKED),
    "serverstats": chronyc.serverstats(SERVER),
    "clients": chronyc.clients({"known": 1, "clients": [CLIENT]}),
    "activity": chronyc.activity(LOCKED),
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command socket of a real chronyd that follows a SOCK reference clock, and does not touch the clock."""
    directory = tmp_path_factory.mktemp("chronyd")
    directory.chmod(0o770)
    programs = Processes(directory)
    config, control = directory / "chrony.conf", directory / "chronyd.sock"
    config.write_text(
        f"refclock SOCK {directory}/in.sock refid PPS poll 0 filter 2\nport 0\ncmdport 0\nbindcmdaddress {control}\n"
        f"pidfile {directory}/pid\n",
        encoding="utf-8",
    )
    programs.start("chronyd", ["chronyd", "-d", "-x", "-U", "-u", str(os.getuid()) if os.getuid() else "root", "-f", str(config)])

    def fed() -> bool:
        now = time.time_ns()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            try:
                out.sendto(struct.pack("=qqdiiii", now // 10**9, now % 10**9 // 1000, 1e-5, 0, 0, 0, 0x534F434B), f"{directory}/in.sock")
            except OSError:
                return False
        return ",PPS," in ask(programs, control, "-c", "tracking")

    wait_for("chronyd follows its SOCK source", fed, 15.0)
    yield control
    programs.close()


def ask(programs: Processes, control: Path, *words: str) -> str:
    """What chronyc prints."""
    return programs.run(["chronyc", "-n", "-h", str(control), *words]).stdout


def shape(line: str) -> str:
    """A line with 0 for each number, and one blank for several: what stays when values change."""
    line = re.sub(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d [\d:]{8} \d{4}", "DATE", line)
    line = re.sub(r"[-+]?\d[\d.]*(?:ns|us|ms|s|m|h|d|y)?(?![A-Za-z])", "0", line)
    return re.sub(r" +", " ", re.sub(r"\b[0-9A-F]{8}\b", "HEX", line).replace("slow", "fast")).rstrip()


@pytest.mark.parametrize("name", OURS)
def test_the_same_shape(tmp_path: Path, control: Path, name: str) -> None:
    """Heading, legend (-v) and labels are the same to the letter, and the columns of -c are as many and of the same kinds."""
    programs, ours = Processes(tmp_path), OURS[name]
    theirs = ask(programs, control, name, *(["-v"] if ours.legend else []))
    lines = (ours.legend + ours.text).splitlines()
    if name == "clients":
        assert theirs.splitlines()[:2] == lines[:2]
        return
    if name == "serverstats":  # Debian 12's chronyc ends before the counters of time stamps
        lines = lines[: len(theirs.splitlines())]
    if ours.legend or name in ("sources", "sourcestats", "selectdata"):
        *heading, _ = theirs.splitlines()
        assert lines[:-1] == heading
    assert [shape(line) for line in lines] == [shape(line) for line in theirs.splitlines()]
    rows = ask(programs, control, "-c", name).splitlines()
    kinds = [[re.sub(r"\d", "", value).replace("-", "") for value in row.split(",")] for row in (rows[0], ours.rows[0])]
    if name == "tracking":
        kinds = [[*row[1:]] for row in kinds]
    assert name == "serverstats" or kinds[0] == kinds[1]
