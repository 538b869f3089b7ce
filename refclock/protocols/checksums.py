"""Checksums of receivers' protocols, other than those that Python has (``binascii.crc32``, ``crc_hqx``)."""

from __future__ import annotations

from itertools import accumulate


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


def crc24q(body: bytes) -> int:
    """Qualcomm's CRC-24, polynomial 1864CFB (RTCM 10403.3 section 4.2)."""
    crc = 0
    for byte in body:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x100_0000:
                crc ^= 0x186_4CFB
    return crc
