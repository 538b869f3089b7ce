"""The log: lines as text and JSON, and a sink that is full loses lines instead of time."""

import fcntl
import json
import os

from ppsd.process.log import LINE_BYTES, Sink, open_log


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
    sink = Sink(write)
    for _ in range(100):
        sink.msg("x" * 1000)
    assert sink.dropped > 80
    dropped = sink.dropped
    os.read(read, 1 << 16)
    sink.msg("after")
    assert os.read(read, 1 << 16).decode() == f"log lines dropped: {dropped}\nafter\n"
    sink.msg("y" * 10_000)
    assert len(os.read(read, 1 << 16)) == LINE_BYTES
    os.close(read)
    sink.msg("nobody reads")
    assert sink.dropped == dropped + 1
    os.close(write)
