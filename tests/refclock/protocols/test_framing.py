"""Framing: what is a frame, what is junk, and when its first byte came."""

from __future__ import annotations

import pytest

from refclock.protocols.checksums import nmea_checksum, ubx_checksum
from refclock.protocols.framing import SENTENCE_MAX, UBX_PAYLOAD_MAX, Frame, FrameKind, Framer
from refclock.protocols.ubx import encode
from refclock.sample import Instant

AT = Instant(1_000_000_000_000, 5_000_000_000)
RMC = b"GPRMC,131519.00,A,4153.85990,N,08738.63638,W,0.048,,030216,,,D"


def sentence(body: bytes) -> bytes:
    return b"$%s*%02X\r\n" % (body, nmea_checksum(body))


def frames(data: bytes) -> tuple[list[Frame], Framer]:
    framer = Framer()
    return framer.feed(data, AT, 0), framer


def test_checksums_are_the_published_ones() -> None:
    """RMC from a u-blox receiver carries *61; UBX-MON-VER poll is B5 62 0A 04 00 00 0E 34."""
    assert nmea_checksum(RMC) == 0x61
    assert nmea_checksum(b"") == 0
    assert nmea_checksum(RMC * 15) == nmea_checksum(RMC)
    assert encode(0x0A, 0x04) == bytes.fromhex("b5620a0400000e34")
    assert ubx_checksum(b"") == b"\0\0"


def test_mixed_stream_gives_each_frame_in_order() -> None:
    """NMEA and UBX interleaved with noise: all frames, in order, and the noise counted by the byte."""
    got, framer = frames(
        b"\x00\xffxx" + sentence(RMC) + encode(1, 7, b"abc") + b"\xba\xce$\xb5" + encode(5, 1, b"\1\2") + sentence(b"GPGLL,,V")
    )
    assert [(f.kind, f.data) for f in got] == [
        (FrameKind.NMEA, RMC),
        (FrameKind.UBX, b"\1\7abc"),
        (FrameKind.UBX, b"\5\1\1\2"),
        (FrameKind.NMEA, b"GPGLL,,V"),
    ]
    assert framer.counts["junk-bytes"] == 8
    assert framer.counts["NMEA"] == framer.counts["UBX"] == 2


@pytest.mark.parametrize(
    ("data", "body", "checksum"),
    [
        (b"$GPRMC,205150.00,V,,,,,,,,,,,V*4a\r\n", b"GPRMC,205150.00,V,,,,,,,,,,,V", True),  # lower-case hex
        (b"$GPGLL,,V*00\r\n", b"GPGLL,,V", False),
        (b"$GPZDA,222449,25,10,2010,+00,00\r\n", b"GPZDA,222449,25,10,2010,+00,00", None),
        (b"$$PSTMX,0*%02X" % nmea_checksum(b"PSTMX,0"), b"PSTMX,0", True),  # two dollars, no line end
    ],
)
def test_how_a_sentence_ends_is_told(data: bytes, body: bytes, checksum: bool | None) -> None:
    """Lower-case hex, wrong, missing checksum, missing line end and a doubled dollar are told apart."""
    got, _framer = frames(data)
    assert [(f.data, f.checksum) for f in got] == [(body, checksum)]


def test_sentence_written_into_another_is_found() -> None:
    """A GPSDO injects its status in the middle of a GSV: the injected one and the next are whole, the torn one gives nothing."""
    got, framer = frames(b"$GPGSV,4,1,15,02,11,115,36,0" + sentence(b"PTNTA,1") + b"5,34,060,48*71\r\n" + sentence(RMC))
    assert [f.data for f in got] == [b"PTNTA,1", RMC]
    assert framer.counts["torn-sentence"] == 1


def test_chance_ubx_header_swallows_nothing() -> None:
    """A stray B5 62 that claims 5000 bytes: the sentence and the frame behind it come out as soon as they are complete."""
    framer = Framer()
    stray = b"\xb5\x62\x01\x07" + (5000).to_bytes(2, "little")
    assert [f.data for f in framer.feed(stray + sentence(RMC), AT, 0)] == [RMC]
    assert [f.data for f in framer.feed(stray + encode(1, 7, b"x" * 40), AT, 0)] == [b"\1\7" + b"x" * 40]
    assert framer.counts["ubx-bogus"] == 2


def test_wrong_ubx_checksum_resynchronises_inside() -> None:
    """A corrupt frame is searched for others, and the next one is taken."""
    bad = bytearray(encode(1, 7, b"y" * 30))
    bad[10] ^= 1
    got, framer = frames(bytes(bad) + encode(1, 3, b"z" * 16))
    assert [f.data for f in got] == [b"\1\3" + b"z" * 16]
    assert framer.counts["ubx-checksum"] == 1


def test_buffer_is_bounded() -> None:
    """Endless sentences and absurd UBX lengths are given up: never more than the longest frame is kept."""
    framer = Framer()
    for _ in range(50):
        framer.feed(b"$" + b"A" * 500, AT, 0)
        assert len(framer._pending) <= SENTENCE_MAX
    framer.feed(b"\xb5\x62\x01\x07" + (UBX_PAYLOAD_MAX + 1).to_bytes(2, "little") + b"\0" * 100, AT, 0)
    assert framer.counts["ubx-length"] == 1
    assert framer._pending == b""


def test_stamp_is_the_first_bytes_arrival() -> None:
    """Bytes behind the first one in its own read took their line time; later reads do not matter."""
    framer = Framer()
    data = sentence(RMC)
    assert framer.feed(b"xx" + data[:10], AT, 1000) == []
    (frame,) = framer.feed(data[10:], AT.shifted(777_000), 1000)
    assert frame.at == AT.shifted(-9 * 1000)
    (second,) = framer.feed(data, AT, 0)
    assert second.at == AT


def test_dollar_in_a_binary_stream_is_no_sentence() -> None:
    """A dollar before a line end, as binary protocols carry them now and then, is torn: without checksum only an address tells."""
    framer = Framer()
    assert [f.data for f in framer.feed(b"\x01$-\n$42.3\r\n$\r\n$GPRMC,1\r\n$PLCS\r\n", Instant(0, 0), 0)] == [b"GPRMC,1", b"PLCS"]
    assert framer.counts["NMEA"] == 2
