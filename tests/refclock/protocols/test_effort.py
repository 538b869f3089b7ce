"""Bytes made to keep the decoder busy: the work is in proportion to the bytes, and what comes after them is heard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from refclock.protocols import foreign, framing
from refclock.protocols.checksums import EFFORT_MAX, nmea_checksum
from refclock.protocols.framing import Frame, Framer
from refclock.protocols.ubx import encode
from refclock.sample import Instant

SIZE = 24_000
AT = Instant(1_000_000_000_000, 5_000_000_000)


def repeated(piece: bytes) -> bytes:
    return piece * (SIZE // len(piece))


def nested() -> bytes:
    """UBX headers, each of which claims what is left of 8000 bytes."""
    return b"".join(b"\xb5\x62\x01\x07" + (8000 - 6 * k % 7992).to_bytes(2, "little") for k in range(SIZE // 6))


HOSTILE = {
    "RTCM 3 headers": repeated(b"\xd3\x03\xff"),
    "RTCM 2 preambles": repeated(b"f"),
    "Motorola headers and line ends": repeated(b"@@Aa\r\n\r\n"),
    "one Motorola header among line ends": repeated(b"@@Aa" + b"\r\n" * 100),
    "UBX lengths one within the other": nested(),
    "UBX headers of the longest claim": repeated(b"\xb5\x62\x01\x07\x00\x20"),
    "UBX headers of a thousand bytes": repeated(b"\xb5\x62\x01\x07\x00\x04"),
    "exclamation marks": repeated(b"!"),
    "ships": repeated(b"!AIVDM,"),
    "DLE pairs": repeated(b"\x10\x10A" * 1400 + b"\x10\x03"),
    "SkyTraq headers": repeated(b"\xa0\xa1\x0f\x00"),
    "GeoStar headers": repeated(b"PSGG\0\0\xf0\x03"),
    "headers of several kinds": repeated(b"\xd3\x03\xff\xb5\x62\x01\x07\x00\x04@@Aa\r\n\xa0\xa2\x03\xff"),
}


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what checksums are made of."""
    lengths: list[int] = []

    def counting(checksum: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def counted(body: bytes) -> object:
            lengths.append(len(body))
            return checksum(body)

        return counted

    for module in (framing, foreign):
        for name in ("nmea_checksum", "ubx_checksum", "crc24q"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counting(getattr(module, name)))
    forms = [form._replace(good=lambda frame, good=form.good: counting(good)(frame)) for form in foreign.FORMS]
    monkeypatch.setattr(foreign, "FORMS", tuple(forms))
    return lengths


@pytest.mark.parametrize("name", HOSTILE)
def test_work_is_in_proportion_to_the_bytes(name: str, worked: list[int]) -> None:
    """Checksums are made of no more than some bytes for each byte that comes, whatever the headers claim."""
    framer, data = Framer(), HOSTILE[name]
    for i in range(0, len(data), 256):
        framer.feed(data[i : i + 256], AT, 0)
    assert sum(worked) < 12 * len(data) + 4 * EFFORT_MAX


def heard(data: bytes, cut: int) -> tuple[list[Frame], dict[str, int], dict[str, int]]:
    framer, frames = Framer(), list[Frame]()
    for i in range(0, len(data), cut):
        frames += framer.feed(data[i : i + cut], AT, 0)
    return frames, dict(framer.counts), dict(framer.foreign)


RMC = b"GPRMC,131519.00,A,4153.85990,N,08738.63638,W,0.048,,030216,,,D"
GOOD = b"$%s*%02X\r\n" % (RMC, nmea_checksum(RMC)) + encode(1, 7, bytes(92))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_receiver_is_heard_after_such_bytes(name: str) -> None:
    """Sentences and UBX frames that follow are found, all but those within the reach of the last claims. How reads cut the bytes up makes
    no difference."""
    data = HOSTILE[name] + GOOD * 100
    frames, counts, names = heard(data, 4096)
    assert len(frames) >= 2 * 100 - 10
    assert heard(data, 61) == (frames, counts, names)
