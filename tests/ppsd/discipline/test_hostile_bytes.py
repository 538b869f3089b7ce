"""What a receiver or gpsd may send: any fields behind right checksums, through decoder and engine."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ppsd.config.tables import Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Reported, Ticked
from ppsd.discipline.saved import Saved
from refclock.config import ReceiverSource
from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.stream import ReceiverStream
from refclock.protocols.ubx import encode
from refclock.sample import NS, Instant, SourceId

GPS = SourceId("gps0")
REAL0, RAW0, NOT_BEFORE_S = 1_795_000_000 * NS, 1000 * NS, 1_793_491_200
FIELDS = st.one_of(
    st.sampled_from(
        ["", "A", "V", "N", "E", "0", "1", "-1", "235960", "235959.99", "310299", "000000", "9" * 30, "1e999", "nan", "4717.11"]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="$*,!"), max_size=12),
)
KINDS = st.sampled_from(["GPRMC", "GNZDA", "GPGGA", "GPGSA", "GPGSV", "GPGLL", "PUBX,04", "PMTKLSC", "PGRMF", "GPTXT,01,01,02", "PUBX,00"])
sentences = st.tuples(KINDS, st.lists(FIELDS, max_size=20)).map(lambda s: ",".join([s[0], *s[1]]).encode())
nmea = sentences.map(lambda body: b"$%s*%02X\r\n" % (body, nmea_checksum(body)))
MESSAGES = st.sampled_from(
    [(1, 7), (1, 0x20), (1, 0x21), (1, 0x26), (1, 0x35), (0x0D, 1), (0x0D, 3), (0x0A, 4), (0x0A, 9), (1, 0x3B), (5, 1)]
)
ubx = st.tuples(MESSAGES, st.binary(max_size=100)).map(lambda m: encode(*m[0], m[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(nmea, ubx), max_size=40))
def test_no_frame_ends_the_clock_process(frames: list[bytes]) -> None:
    """Frames with right checksums and any content, one each second: nothing raises, and what is told can be written."""
    stream = ReceiverStream(NOT_BEFORE_S)
    config = Config(sources=(ReceiverSource(name=str(GPS), device="/dev/a", pps=""),))
    engine = Engine(config, Saved(), Instant(REAL0, RAW0), simulated=False, version="", pid=1)
    for k, frame in enumerate(frames, 1):
        at = Instant(REAL0 + k * NS, RAW0 + k * NS)
        engine.handle(Reported(GPS, tuple(stream.feed(frame, at, 86_806)), at, 86_806))
        engine.handle(Ticked(at, None))
        json.dumps([engine.snapshot(at).to_json(), engine.state().to_json()], allow_nan=False)
