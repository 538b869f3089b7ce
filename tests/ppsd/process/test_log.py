"""The log: lines as text and JSON, and a sink that is full loses lines instead of time."""

import fcntl
import json
import os
from collections.abc import Callable
from tempfile import TemporaryFile

import pytest

from ppsd.process.log import LINE_BYTES, Log, Sink, open_log


def test_forms_and_levels() -> None:
    """Text is key=value, JSON one object a line, both in UTC; less important lines are left out."""
    read, write = os.pipe()
    open_log("text", "info", "clock", write).info("source lost", source="gps0", why="unplugged")
    open_log("json", "warning", "serve", write).info("not shown")
    open_log("json", "warning", "serve", write).warning("slow", delay=3)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        text, told = stream.read().splitlines()
    assert text.startswith("timestamp=2")
    assert text.endswith('Z level=info program=clock event="source lost" source=gps0 why=unplugged')
    assert {"event": "slow", "delay": 3, "level": "warning", "program": "serve"}.items() <= json.loads(told).items()


def test_a_full_sink_never_blocks() -> None:
    """Lines that a pipe has no room for are dropped and counted; the count is told when there is room again."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4 * 4096)
    log = Log(Sink(write), "plain")
    for _ in range(100):
        log.say("x" * 1000)
    assert log.dropped > 80
    dropped = log.dropped
    os.read(read, 1 << 16)
    log.say("after")
    assert os.read(read, 1 << 16).decode() == f"log lines dropped: {dropped}\nafter\n"
    log.say("y" * 10_000)
    assert len(os.read(read, 1 << 16)) == LINE_BYTES
    os.close(read)
    log.say("nobody reads")
    assert log.dropped == dropped + 1
    os.close(write)


def lines(form: str, write: Callable[[Log], None]) -> list[str]:
    """What ``write`` makes a log write."""
    with TemporaryFile("w+", encoding="utf-8") as stream:
        write(Log(Sink(stream.fileno()), form))
        stream.seek(0)
        return stream.read().splitlines()


def test_json_stays_json() -> None:
    """Lines that were dropped, texts that are too long, and texts of others: every line is one JSON object of at most 4096 octets."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4 * 4096)
    log = Log(Sink(write), "json")
    for _ in range(100):
        log.say("x" * 1000)
    os.read(read, 1 << 16)
    log.error("crashed", traceback="\N{MICRO SIGN}" * 10_000, why="\x1b[2J")
    log.passed_on("Segmentation fault", "serve", counted=False)
    log.passed_on('{"event": "serving"}', "serve", counted=False)
    with os.fdopen(read, encoding="utf-8") as stream:
        os.close(write)
        del log
        told = [json.loads(line) for line in stream]
    assert [line["event"].partition(":")[0] for line in told] == ["log lines dropped", "crashed", "Segmentation fault", "serving"]


def test_a_fault_that_goes_on_is_told_and_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens each second for a day, with other figures each time, makes some thirty lines, and the counts add up. Another fault in
    between is told at once, and so is the first one when it comes back after hours."""
    now_s = [0.0]
    monkeypatch.setattr("ppsd.process.log.time.monotonic", lambda: now_s[0])

    def day(log: Log) -> None:
        for second in range(86_400):
            now_s[0] = float(second)
            log.warning("frequency was changed", by_ppm=second / 7)
            if second == 43_200:
                log.error("source lost", source="gps0")
            log.settle()
        now_s[0] += 10_000.0
        log.settle()
        log.warning("frequency was changed", by_ppm=1.0)

    told = [json.loads(line) for line in lines("json", day)]
    faults = [line for line in told if line["event"] == "frequency was changed"]
    assert len(faults) < 35
    assert sum(1 + line.get("repeated", 0) for line in faults[:3]) == 3
    untold = [line for line in faults if line.get("repeated")]
    assert 86_400 - 30 <= 3 + sum(line["repeated"] for line in untold) <= 86_400
    assert faults[-1].get("repeated") is None
    assert sum(line["event"] == "source lost" for line in told) == 1


def test_no_text_from_outside_steers_a_terminal() -> None:
    """Escapes and control characters in events, fields and lines of others come out as text, in every form."""
    evil = "\x1b]0;owned\x07\x9b2J\r\x7f"

    def write(log: Log) -> None:
        log.info("source found", what=evil)
        log.say(evil)
        log.passed_on(evil, "clock", counted=False)

    for form in ("text", "plain", "json"):
        for line in lines(form, write):
            assert line.isprintable() or form == "json"
            assert not set(line) & {"\x1b", "\x9b", "\r", "\x07"}
