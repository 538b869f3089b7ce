"""The history as other programs write it: each column is where they have it, with their sign."""

from __future__ import annotations

import json
from csv import DictReader
from dataclasses import replace

import pytest
from spans_at_hand import NOON, minute

from ppsd.history.formats import FORMS, as_json, csv, loopstats, peerstats, temps, tracking_log
from ppsd.history.spans import Span, Spread

SPAN = replace(minute(0), offsets=Spread(60, 8621.0, 2940.0, -9000.0, 12000.0), bound_ns=347_200.0, frequency_ppm=-3.541, skew_ppm=0.075)
EMPTY = Span(NOON, 60, 0, 0, "", "unsynchronised", *[None] * 10)


def test_tracking_log() -> None:
    """The columns of the example in chrony.conf(5), to the character: offsets are positive when the clock is fast. A heading every 32
    lines, as chronyd repeats it."""
    lines = list(tracking_log([SPAN] * 40))
    assert [n for n, line in enumerate(lines) if line.startswith("   Date (UTC) Time     IP Address")] == [1, 36]
    assert lines[0] == lines[2] == "=" * 135
    assert len(lines[1]) <= 135
    told = lines[3]
    assert told == (
        "2026-11-21 12:00:00 PPS              1     -3.541      0.075 -8.621e-06 +"
        "  1  2.940e-06  0.000e+00  0.000e+00  3.472e-04  3.472e-04"
    )
    theirs = (
        "2017-08-22 13:22:36 203.0.113.15     2     -3.541      0.075 -8.621e-06 N"
        "  2  2.940e-03 -2.084e-04  1.534e-02  3.472e-04  8.304e-03"
    )
    assert len(told) == len(theirs)
    assert [n for n, c in enumerate(told) if c == "e"][-6:] == [n for n, c in enumerate(theirs) if c == "e"][-6:]
    assert " ? " in list(tracking_log([EMPTY]))[3]


def test_loopstats() -> None:
    """Modified Julian day, second, offset (positive: the clock is slow), frequency as ntpd's correction, jitter, wander, poll."""
    assert list(loopstats([SPAN, EMPTY])) == ["61365 43200.000 0.000008621 3.541000 0.000002940 0.075000 0"]


def test_peerstats() -> None:
    """A line for each source with a sample: day, second, name, status word, offset, delay, dispersion, jitter."""
    (line,) = peerstats([SPAN, EMPTY])
    day, at, name, status, offset, delay, dispersion, jitter = line.split()
    assert (day, at, name, offset, delay) == ("61365", "43200.000", "gps0", "-0.000000214", "0.000000000")
    assert int(status, 16) >> 8 & 7 == 6
    assert (float(dispersion), float(jitter)) == (18_100e-9, 120e-9)


def test_temps() -> None:
    """UTC in s, what, degrees."""
    assert list(temps([SPAN, EMPTY])) == [f"{NOON} crystal 48.500"]


def test_csv_and_json_say_the_same() -> None:
    """Values with a heading, empty where nothing is known; JSON with the sources in it."""
    first, second = DictReader(csv([SPAN, EMPTY]))
    assert (first["utc"], first["offset_mean_ns"], first["bound_ns"], first["celsius"]) == (
        "2026-11-21T12:00:00Z",
        "8621",
        "347200",
        "48.5",
    )
    assert (second["offset_count"], second["frequency_ppm"], second["leap"]) == ("", "", "unsynchronised")
    one, two = json.loads("".join(as_json([SPAN, EMPTY])))
    assert (one["at"], one["offsets"]["mean"], one["sources"][0]["name"]) == (NOON, 8621.0, "gps0")
    assert two["offsets"] is None
    assert json.loads("".join(as_json([]))) == []


@pytest.mark.parametrize("form", FORMS)
def test_nothing_known_raises_nothing(form: str) -> None:
    """A minute in which nothing was measured breaks no form."""
    list(FORMS[form]([EMPTY, SPAN, EMPTY]))
