"""The configuration loader takes anything."""

import contextlib
import json
from dataclasses import replace
from datetime import date

from hypothesis import assume, given
from hypothesis import strategies as st

from ppsd.config.file import as_toml, parse, parse_bytes
from ppsd.config.tables import Config
from refclock.config import BAUDS, GpsdSource, ReceiverSource, ShmFeed, ShmSource, SockFeed, SockSource
from refclock.schema import ConfigError

WORDS = """[clock] [[source]] [[feed]] [source] type unit steer "kernel" = == [ ] { } , . ' " \'\'\' 1 -1 1e999 nan inf true 2026-01-01 0xff
# server.threads name "a" listen a.b.c 'receiver' "shm" [1,2 \\u0000 not_before"""
FRAGMENTS = st.sampled_from([*WORDS.split(), '"""', "\n", "\r\n", "\t", " ", "\\", "\ufeff"])


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes: a Config, or a ConfigError that has problems; never anything else."""
    try:
        assert isinstance(parse_bytes(data, "f"), Config)
    except ConfigError as error:
        assert error.problems


@given(st.lists(FRAGMENTS | st.text(max_size=8), max_size=40))
def test_any_text_of_the_right_words(words: list[str]) -> None:
    """The same for text made of TOML's and our own words, where lines are looked up as well."""
    text = " ".join(words)
    with contextlib.suppress(ConfigError):
        assert parse(as_toml(parse(text))) == parse(text)


SCALARS = st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return value.isoformat() if isinstance(value, date) else repr(value)


@given(st.sampled_from(["steer", "holdover_limit_s", "not_before", "max_bound_ms"]), VALUES)
def test_any_value_of_any_type(key: str, value: object) -> None:
    """A value of any type for a known key: accepted as it is, or one problem on line 2."""
    try:
        parse(f"[clock]\n{key} = {_toml(value)}\n")
    except ConfigError as error:
        assert all(p.line == 2 for p in error.problems)


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
PATHS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20).map(lambda t: "/" + t)
NUMBERS = st.floats(0, 1000)
SOURCES = st.one_of(
    st.builds(ReceiverSource, device=PATHS, baud=st.sampled_from(BAUDS), edge=st.sampled_from(["auto", "assert"]), pps_bias_us=NUMBERS),
    st.builds(GpsdSource, port=st.integers(1, 65535), device=PATHS, message_delay_ms=st.none() | NUMBERS),
    st.builds(ShmSource, unit=st.integers(0, 255), bias_us=NUMBERS, prefer=st.booleans()),
    st.builds(SockSource, path=PATHS),
)
FEEDS = st.one_of(st.builds(ShmFeed, unit=st.integers(0, 255)), st.builds(SockFeed, path=PATHS))


@given(NAMES, SOURCES, FEEDS)
def test_written_configuration_reads_back(name: str, source: ReceiverSource, feed: ShmFeed) -> None:
    """as_toml and parse are inverse for every valid configuration."""
    assume({getattr(source, "unit", -1), getattr(source, "path", "")}.isdisjoint({getattr(feed, "unit", -2), getattr(feed, "path", "-")}))
    made = Config(sources=(replace(source, name=name),), feeds=(replace(feed, name=name),))
    assert parse(as_toml(made)) == made
