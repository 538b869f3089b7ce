"""Checksums of receivers' protocols, other than those that Python has (``binascii.crc32``, ``crc_hqx``), and how much of them a line gets.

A header that claims a long frame costs its reader a checksum of that length. Chance makes such headers now and then; somebody who wants to
stop the reader makes nothing else. ``Effort`` keeps the work in proportion to the bytes that come.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

EARNED: Final = 2
"""Bytes of wrong claims that may be checked for each byte of the line. Chance headers in a binary stream cost 0.1."""
EFFORT_MAX: Final = 32_768
"""Bytes of wrong claims that may be saved up: the four longest."""


class Effort:
    """What one line may cost in claims that turn out wrong. It depends on positions in the stream alone, never on how reads cut it up."""

    def __init__(self) -> None:
        self._left, self._position = EFFORT_MAX, 0

    def allows(self, position: int, length: int) -> bool:
        """Whether a claim of ``length`` bytes at ``position`` of the stream may be checked. Positions must not go back."""
        self._left = min(EFFORT_MAX, self._left + EARNED * (position - self._position))
        self._position = position
        return length <= self._left

    def spend(self, length: int) -> None:
        """The claim that was allowed last, of ``length`` bytes, was wrong."""
        self._left -= length


def nmea_checksum(body: bytes) -> int:
    """Exclusive or of all bytes (NMEA 0183 section 5.3), by folding one big integer: no loop over bytes."""
    folded = int.from_bytes(body, "little")
    shift = 512 if len(body) <= 128 else 4096
    while shift >= 8:
        folded ^= folded >> shift
        shift >>= 1
    return folded & 0xFF


def ubx_checksum(body: bytes) -> bytes:
    """8-bit Fletcher sums over class, id, length and payload (u-blox protocol specification, UBX checksum; RFC 1145)."""
    sums = list(accumulate(body))
    return bytes(((sums[-1] & 0xFF) if sums else 0, sum(sums) & 0xFF))


def _crc24q_of(byte: int) -> int:
    crc = byte << 16
    for _ in range(8):
        crc <<= 1
        if crc & 0x100_0000:
            crc ^= 0x186_4CFB
    return crc


_CRC24Q = tuple(_crc24q_of(byte) for byte in range(256))


def crc24q(body: bytes) -> int:
    """Qualcomm's CRC-24, polynomial 1864CFB (RTCM 10403.3 section 4.2)."""
    crc = 0
    for byte in body:
        crc = (crc << 8 & 0xFF_FF00) ^ _CRC24Q[crc >> 16 ^ byte]
    return crc
