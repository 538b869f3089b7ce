"""Other protocols: recognised by name, whole or in pieces, and never at the cost of a good frame."""

from __future__ import annotations

from binascii import crc32, crc_hqx
from collections.abc import Callable
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.foreign import advice
from refclock.protocols.framing import Framer
from refclock.protocols.stream import ReceiverStream
from refclock.protocols.ubx import encode
from refclock.sample import Instant

AT = Instant(0, 10**12)
RMC = b"GPRMC,131519.00,A,4153.85990,N,08738.63638,W,0.048,,030216,,,D"
SENTENCE = b"$%s*%02X\r\n" % (RMC, nmea_checksum(RMC))
PAYLOAD = b"\x29$GPRMC,\xb5\x62\x10\x10\x03!!"  # everything that could mislead


def fold(body: bytes) -> int:
    return reduce(xor, body, 0)


def sirf(body: bytes) -> bytes:
    return b"\xa0\xa2" + len(body).to_bytes(2, "big") + body + (sum(body) & 0x7FFF).to_bytes(2, "big") + b"\xb0\xb3"


def casic(body: bytes) -> bytes:
    words = sum(int.from_bytes(body[i : i + 4], "little") for i in range(0, len(body), 4))
    check = len(body) + (1 << 16) + (3 << 24) + words & 0xFFFF_FFFF
    return b"\xba\xce" + len(body).to_bytes(2, "little") + b"\1\3" + body + check.to_bytes(4, "little")


def rtcm(body: bytes) -> bytes:
    frame = b"\xd3" + len(body).to_bytes(2, "big") + body
    crc = 0
    for bit in (byte >> i & 1 for byte in frame + b"\0\0\0" for i in range(7, -1, -1)):  # long division, bit by bit
        crc = crc << 1 | bit
        crc ^= 0x186_4CFB if crc >> 24 else 0
    return frame + crc.to_bytes(3, "big")


def novatel(body: bytes) -> bytes:
    frame = b"\xaa\x44\x12\x1c" + b"\0" * 4 + len(body).to_bytes(2, "little") + b"\0" * 18 + body
    return frame + (crc32(frame, 0xFFFF_FFFF) ^ 0xFFFF_FFFF).to_bytes(4, "little")


def zodiac(words: int) -> bytes:
    head = b"\xff\x81" + (1000).to_bytes(2, "little") + words.to_bytes(2, "little") + b"\0\0"
    head += (-sum(int.from_bytes(head[i : i + 2], "little") for i in range(0, 8, 2)) & 0xFFFF).to_bytes(2, "little")
    body = b"\1\2" * words
    return head + body + (-words * 0x0201 & 0xFFFF).to_bytes(2, "little")


def dle(body: bytes) -> bytes:
    return b"\x10" + body.replace(b"\x10", b"\x10\x10") + b"\x10\x03"


def garmin(body: bytes) -> bytes:
    packet = bytes((51, len(body))) + body
    return dle(packet + bytes((-sum(packet) & 0xFF,)))


def oncore(body: bytes) -> bytes:
    return b"@@Ea" + body + bytes((fold(b"Ea" + body),)) + b"\r\n"


def sbf(body: bytes) -> bytes:
    rest = (4007).to_bytes(2, "little") + (8 + len(body)).to_bytes(2, "little") + body
    return b"$@" + crc_hqx(rest, 0).to_bytes(2, "little") + rest


def geostar(words: list[bytes]) -> bytes:
    body = [b"PSGG", b"\x20\0" + len(words).to_bytes(2, "little"), *words]
    return b"".join([*body, reduce(xor, (int.from_bytes(word, "little") for word in body)).to_bytes(4, "little")])


def navcom(body: bytes) -> bytes:
    packet = b"\xae" + (len(body) + 4).to_bytes(2, "little") + body
    return b"\x02\x99\x66" + packet + bytes((fold(packet), 3))


def superstar(body: bytes) -> bytes:
    packet = bytes((1, 0x71, 0x71 ^ 0xFF, len(body))) + body
    return packet + (sum(packet) & 0xFFFF).to_bytes(2, "little")


def oem7(log: bytes) -> bytes:
    return b"#%s*%08x\r\n" % (log, crc32(log, 0xFFFF_FFFF) ^ 0xFFFF_FFFF)


FRAMES = {
    "SiRF": sirf(PAYLOAD),
    "SkyTraq": b"\xa0\xa1" + len(PAYLOAD).to_bytes(2, "big") + PAYLOAD + bytes((fold(PAYLOAD),)) + b"\r\n",
    "CASIC": casic(PAYLOAD[:12]),
    "RTCM3": rtcm(PAYLOAD),
    "Allystar": b"\xf1\xd9" + encode(1, 2, PAYLOAD)[2:],
    "NovAtel": novatel(PAYLOAD),
    "Zodiac": zodiac(7),
    "GeoStar": geostar([b"$GPR", b"\xb5\x62!!", b"abcd"]),
    "NavCom": navcom(PAYLOAD),
    "SuperStar": superstar(PAYLOAD),
    "iTalk": b"<!#\x7f\3\0\3" + b"$GPRMC!!>",
    "RTCM2": b"fArlXYC@@yYvNSf",  # from gpsd test/daemon/rtcm2.bend.log (BSD-2-Clause)
    "TSIP": dle(b"\x8f\xab" + PAYLOAD),
    "Garmin": garmin(PAYLOAD),
    "Oncore": oncore(PAYLOAD),
    "GREIS": b"~~005abcd\x55\n",
    "SBF": sbf(b"x" * 16),
    "gpsd": b'{"class":"VERSION","release":"3.25"}\r\n',
    "AIS": b"!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C\r\n",
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_protocol_is_named(name: str) -> None:
    """Three frames between noise: named, counted, with the way to NMEA, and the sentence behind them is found."""
    receiver = ReceiverStream(0)
    receiver.feed(b"\0\xa0\xba" + FRAMES[name] * 3, AT, 0)
    assert receiver.framer.foreign == {name: 3}
    assert receiver.protocol == name
    assert receiver.advice == advice(name)
    receiver.feed(SENTENCE, AT, 0)
    assert (receiver.framer.counts["NMEA"], receiver.advice) == (1, "")


def test_advice_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    """What a person reads about a receiver that speaks something else, for each protocol, to the letter."""
    told = []
    for name in sorted(FRAMES):
        receiver = ReceiverStream(0)
        receiver.feed(FRAMES[name] * 3, AT, 0)
        told.append(f"{receiver.protocol}: {receiver.advice}")
    golden("protocols.txt", "\n".join(told) + "\n")


@pytest.mark.parametrize("name", FRAMES)
def test_names_do_not_depend_on_single_bytes(name: str) -> None:
    """Byte by byte the same is found as at once."""
    whole, cut = Framer(), Framer()
    stream = FRAMES[name] * 3 + SENTENCE
    whole.feed(stream, AT, 0)
    for i in range(len(stream)):
        cut.feed(stream[i : i + 1], AT, 0)
    assert (cut.foreign, cut.counts) == (whole.foreign, whole.counts)


@pytest.mark.parametrize("name", ["SiRF", "SkyTraq", "CASIC", "RTCM3", "Allystar", "NovAtel", "Zodiac", "GeoStar", "NavCom", "SuperStar"])
def test_damaged_frame_swallows_nothing(name: str) -> None:
    """A frame with a wrong bit, or torn by a sentence, is not counted, and the sentence comes out."""
    broken = bytearray(FRAMES[name])
    broken[-6] ^= 1
    for data in (bytes(broken) + SENTENCE + FRAMES[name], FRAMES[name][:11] + SENTENCE + b"\0" * 40):
        framer = Framer()
        frames = [f.data for f in framer.feed(data + b"\0" * 64, AT, 0)]
        assert RMC in frames
        assert framer.foreign[name] == (FRAMES[name] in data)


@given(st.lists(st.sampled_from([*FRAMES.values(), SENTENCE, b"\x10", b"\xd3", b"$@", b"@@Aa", b"\xff\x81\0"]), max_size=8), st.data())
def test_names_do_not_depend_on_chunks(parts: list[bytes], data: st.DataObject) -> None:
    """The same frames and names from any cutting of the same bytes."""
    stream = b"".join(parts)
    whole, cut = Framer(), Framer()
    frames = [f.data for f in whole.feed(stream, AT, 0)]
    points = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    pieces = [stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)]
    assert [f.data for piece in pieces for f in cut.feed(piece, AT, 0)] == frames
    assert cut.foreign == whole.foreign
    assert cut.counts == whole.counts
