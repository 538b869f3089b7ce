"""Bytes from outside never raise, and what is read does not depend on how reads cut them up."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.nmea import NmeaDecoder
from refclock.protocols.stream import ReceiverStream
from refclock.protocols.ubx import UbxDecoder, encode
from refclock.sample import NS, Instant, SecondLabel

NOT_BEFORE = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def sentence(body: str) -> bytes:
    return f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode()


kinds = st.sampled_from(["GPRMC", "GNRMC", "GPZDA", "GPGGA", "GNGNS", "GPGLL", "GNGSA", "GPGSV", "GPTXT", "PUBX", "GNRMCH"])
fields = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="$*"), max_size=9) | st.sampled_from(
    ["A", "V", "N", "", "3", "1", "235960.00", "120000.25", "311226", "2208-1", "31", "12", "2026"]
)
sentences = st.builds(lambda kind, rest: sentence(",".join([kind, *rest])), kinds, st.lists(fields, max_size=20))
ubx_ids = st.sampled_from([(1, 3), (1, 6), (1, 7), (1, 0x20), (1, 0x21), (1, 0x26), (1, 0x35), (0x0D, 1), (0x0A, 4)])
messages = st.builds(lambda ids, payload: encode(*ids, payload), ubx_ids, st.binary(max_size=120))
noise = st.binary(max_size=30) | st.sampled_from(
    [b"$", b"$$", b"\xb5\x62", b"\xb5", b"\xb5\x62\x01\x07\x00\x02", b"\r\n", b"$GPRMC,1", b"*4"]
)
streams = st.lists(sentences | messages | noise, max_size=12).map(b"".join)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in points)})
    return [data[a:b] for a, b in pairwise(edges)]


def drain(chunks: list[bytes]) -> tuple[list[Frame], dict[str, int]]:
    """Frames with stamps on a line where each byte takes 1 µs."""
    framer = Framer()
    frames: list[Frame] = []
    end = 0
    for chunk in chunks:
        end += len(chunk) * 1000
        frames += framer.feed(chunk, Instant(end, end), 1000)
    return frames, dict(framer.counts)


@given(streams, st.lists(st.integers(0, 2000), max_size=40))
def test_frames_do_not_depend_on_chunks(data: bytes, points: list[int]) -> None:
    """The same frames, stamps and counts from any cutting of the same bytes."""
    assert drain(cut(data, points)) == drain([data])


@given(streams)
def test_byte_by_byte_is_the_same(data: bytes) -> None:
    """Even one byte a read."""
    assert drain([data[i : i + 1] for i in range(len(data))]) == drain([data])


@given(st.lists(streams, max_size=6))
def test_no_byte_string_raises(chunks: list[bytes]) -> None:
    """Whatever arrives, the receiver returns values; every label lies after the date window's start."""
    receiver = ReceiverStream(NOT_BEFORE)
    for i, chunk in enumerate(chunks):
        for value in receiver.feed(chunk, Instant(i * NS, i * NS), 87_000):
            if isinstance(value, SecondLabel):
                assert value.utc_ns >= NOT_BEFORE * NS - NS


@given(st.binary(max_size=200))
def test_decoders_take_any_frame(data: bytes) -> None:
    """Frames with arbitrary content, with every checksum verdict, are decoded or counted."""
    for verdict in (True, False, None):
        NmeaDecoder(NOT_BEFORE).decode(Frame(FrameKind.NMEA, data, Instant(0, 0), verdict))
    UbxDecoder(NOT_BEFORE).decode(Frame(FrameKind.UBX, b"\1\7" + data, Instant(0, 0), True))


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=2000).filter(lambda b: b"\xb5\x62" not in b and b"$" not in b))
def test_ubx_frames_are_read_as_written(message_class: int, message_id: int, payload: bytes) -> None:
    """What encode makes, the framer reads back, between noise."""
    frames = Framer().feed(b"\xb5x" + encode(message_class, message_id, payload) + b"\0", Instant(0, 0), 0)
    assert [f.data for f in frames] == [bytes((message_class, message_id)) + payload]


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2039, 8, 15)),
    st.sampled_from(["GP", "GN", "GL", "GA", "GB", "BD", "IN"]),
    st.integers(0, 3),
)
def test_nmea_times_are_read_as_written(when: datetime, talker: str, digits: int) -> None:
    """RMC and ZDA generated for any time come back as that time, to the last digit sent."""
    fraction = f"{when.microsecond:06d}"[:digits]
    time = f"{when:%H%M%S}" + (f".{fraction}" if digits else "")
    expected = int(when.replace(tzinfo=UTC, microsecond=0).timestamp()) * NS + int(fraction.ljust(9, "0"))
    nmea = NmeaDecoder(NOT_BEFORE)
    for body in (f"{talker}RMC,{time},A,4717.1,N,00833.9,E,0.0,0.0,{when:%d%m%y},,,A", f"{talker}ZDA,{time},{when:%d,%m,%Y},00,00"):
        (frame,) = Framer().feed(sentence(body), Instant(0, 0), 0)
        ((label,), _) = nmea.decode(frame)
        assert isinstance(label, SecondLabel)
        assert (label.utc_ns, label.weeks_repaired) == (expected, 0)
