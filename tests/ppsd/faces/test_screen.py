"""The screen of ``refclock top``, from values to lines: it fits every size, and shows what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import CLIENTS, COUNTERS, GPS, LOCKED, NEVER

from ppsd.faces.screen import Line, Look, Moment, Pane, Seen, Style, moment, round_up, screen
from ppsd.process.encoding import PLAIN
from ppsd.snapshot import ServerReport, Verdict
from refclock.sample import Satellite

SKY = tuple(Satellite("GPS", n, 5 * n, 20 * n, 20 + 2 * n, n != 3) for n in range(1, 13))
HEARD = replace(LOCKED, sources=(replace(GPS, satellites=SKY), NEVER))
SERVER = ServerReport(3, 60.0, ("0.0.0.0:123",), False, COUNTERS)
MOMENTS = [Moment(float(t), 400 * (t % 7 - 3), 18_000 + 100 * t) for t in range(200)]
SEEN = Seen(HEARD, SERVER, CLIENTS, 40, MOMENTS, 199.0)


def texts(lines: list[Line]) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


def shown(seen: Seen = SEEN, look: Look | None = None) -> str:
    return "\n".join(texts(screen(seen, look or Look(80, 24))[0]))


@given(st.integers(1, 250), st.integers(1, 70), st.sampled_from(Pane), st.integers(0, 2000), st.sampled_from([None, PLAIN]))
def test_every_size(width: int, height: int, pane: Pane, first: int, plain: dict[str, str] | None) -> None:
    """Never more lines or columns than the terminal has; where characters beyond ASCII are lacking, none is shown."""
    lines, row = screen(SEEN, Look(width, height, plain, pane, first))
    assert len(lines) <= height
    assert all(len(text) <= width for text in texts(lines))
    assert 0 <= row <= first
    if plain is not None:
        assert "".join(texts(lines)).isascii()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])
def test_the_overview_has_everything(width: int, height: int) -> None:
    """State, curves with their scales, sources as chronyc's, satellites with signals, clients, counters and keys, on the whole screen."""
    lines = texts(screen(SEEN, Look(width, height))[0])
    text = "\n".join(lines)
    assert len(lines) == height
    for part in (
        "LOCKED · within ±18 µs", "─ Offset +0 ns", "+2.0 µs", "-2.0 µs", "─ Bound ±18 µs", "50 µs", "#* gps0 ", "#? rec", "9 of 12 used",
        "G12 ■■■■■■■■  44", "192.0.2.7 ", " 5123 ", "─ Clients 40", "120 answered", " q quit  h help",
    ):  # fmt: skip
        assert part in text, part
    assert text.count("█") > 50


def test_the_curves() -> None:
    """A column is a second, or as many as are chosen; the bound's columns are as high as the largest of their time, offsets lie on both
    sides of zero, and where nothing is known there is nothing."""
    steps = [Moment(float(t), None if t < 5 else 1000 if t % 2 else -1000, None if t < 5 else 1_000 if t < 8 else 2_000) for t in range(10)]
    seen = replace(SEEN, moments=steps, now_s=9.0)
    rows = texts(screen(seen, Look(80, 24, PLAIN))[0])
    bound = [row[-10:] for row in rows[rows.index(next(row for row in rows if row.startswith("- Bound"))) + 1 :][:2]]
    assert bound == ["        ||", "     |||||"]
    offset = [row[-10:] for row in rows[rows.index(next(row for row in rows if row.startswith("- Offset"))) + 1 :][:3]]
    assert offset[0] == "     * * *"
    assert offset[2] == "      * * "
    far = texts(screen(seen, Look(80, 24, PLAIN, zoom_s=5))[0])
    assert next(row for row in far if " 2.0 us " in row).endswith("  |")
    assert "350 s across" in "\n".join(far) or "6 m across" in "\n".join(far)


@pytest.mark.parametrize(("value", "scale"), [(0, 1), (1, 1), (1.1, 2), (2.1, 5), (5.1, 10), (18_100, 20_000), (0.03, 0.05)])
def test_scales(value: float, scale: float) -> None:
    """The scale's end is the next 1, 2 or 5 times a power of ten: it seldom changes."""
    assert round_up(value) == pytest.approx(scale)


def test_the_offset_has_the_sign_of_the_sources_below_it() -> None:
    """As in chronyc, and nothing is kept while no source is selected."""
    assert moment(LOCKED, 3.0) == Moment(3.0, 214, 18_100)
    assert moment(replace(LOCKED, sources=(NEVER,)), 3.0).offset_ns is None


def test_lists_scroll() -> None:
    """A list begins at its row, no later than its last page, and says which rows are shown."""
    lines, first = screen(SEEN, Look(80, 12, pane=Pane.CLIENTS, first=5))
    assert first == 5
    assert "6 to 12 of 22" in texts(lines)[2]
    assert screen(SEEN, Look(80, 12, pane=Pane.CLIENTS, first=1000))[1] == 22 - 7


def test_what_is_wrong_comes_first() -> None:
    """A daemon that does not answer: why, since when, and that the rest is old; a time that nobody gets; what happened before."""
    gone, _ = screen(replace(SEEN, gone="NO ANSWER for 12 s: no daemon in /run/refclock"), Look(80, 24))
    assert "".join(span.text for span in gone[1]).startswith("NO ANSWER for 12 s")
    assert gone[1][0].style is Style.BAD
    assert "as of 12:00:00 UTC" in texts(gone)[2]
    assert {span.style for line in gone[3:-1] for span in line} == {Style.FAINT}
    failed, _ = screen(replace(SEEN, failed="NOT SERVED: the NTP server is not running"), Look(80, 24))
    assert failed[1][0].style is Style.BAD
    assert texts(failed)[1].startswith("NOT SERVED")
    assert "The daemon is back" in shown(replace(SEEN, news="The daemon is back after 3 s."))
    stages = replace(HEARD, verdict=Verdict.ACQUIRING, stages=(("source found", True), ("locked", False)))
    assert "[x] source found  [ ] locked" in shown(replace(SEEN, clock=stages))


def test_what_is_not_there_is_said() -> None:
    """No receiver, no server, no clients: words instead of nothing."""
    bare = Seen(replace(LOCKED, sources=(), bound_ns=None), "not running", "the server is not running", 0, (), 0.0)
    text = shown(bare)
    for part in ("no source is selected", "none: no time is served", "no source", "no receiver tells of any", "the server is not running"):
        assert part in text
    for pane in Pane:
        assert shown(bare, Look(80, 24, pane=pane))
    assert "nobody has asked yet" in shown(replace(SEEN, clients=[], known=0))


def test_texts_of_others_steer_no_terminal() -> None:
    """Control characters, and characters that take two columns or none, are question marks."""
    bad = replace(HEARD, why="\x1b[2J\u4e2d\u0301\ttime")
    assert "?[2J??? time" in shown(replace(SEEN, clock=bad)) or "?[2J???time" in shown(replace(SEEN, clock=bad))
