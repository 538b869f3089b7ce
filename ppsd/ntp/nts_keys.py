"""Keys of NTS cookies: one secret makes the key of every period, so boxes with one secret take each other's cookies.

RFC 8915 section 6 has the server change the key that seals cookies, and keep old ones for clients that were asleep. Here
the key of a period is derived and never stored: a restart loses none, and two processes need to share only the secret.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

PERIOD_S: Final = 86400
"""Seconds of UTC for which cookies are sealed with one key. RFC 8915 section 6 suggests a day."""
SECRET_BYTES: Final = 32
"""Length of the secret: as long as the keys that it makes."""
KEY_BYTES: Final = 32
"""Length of a cookie key: AES-SIV-CMAC-256 (AEAD 15) takes two AES-128 keys (RFC 5297 section 2.2)."""
KEPT_BEFORE: Final = 8
"""Periods before the present one whose cookies are taken: a client may sleep for a week and a day."""
KEPT_AFTER: Final = 1
"""Periods after the present one whose cookies are taken: another box of the fleet may be ahead at midnight."""

_INFO: Final = b"refclock nts cookie key"
"""Binds a derived key to its use (RFC 5869 section 3.2)."""


def period_of(utc_s: int) -> int:
    """The period that a second of UTC (POSIX count) lies in: the key id that cookies carry. A clock before 1970 is in the first one."""
    return max(utc_s // PERIOD_S, 0)


def cookie_key(secret: bytes, period: int) -> bytes:
    """The AES-SIV-CMAC-256 key that seals the cookies of `period` (unsigned, 32 bits).

    HKDF-SHA256 (RFC 5869) without a salt; 32 octets are one block of its output.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the NTS secret has {len(secret)} bytes, not {SECRET_BYTES}")
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, _INFO + period.to_bytes(4) + b"\x01", "sha256")[:KEY_BYTES]


@dataclass(frozen=True, slots=True)
class CookieKeys:
    """The keys that cookies are taken with, of the periods ``first`` and following; cookies are sealed with that of ``present``."""

    first: int
    present: int
    keys: tuple[bytes, ...] = field(repr=False)


def cookie_keys(secret: bytes, utc_s: int) -> CookieKeys:
    """The keys in force at a second of UTC."""
    present = period_of(utc_s)
    first = max(present - KEPT_BEFORE, 0)
    return CookieKeys(first, present, tuple(cookie_key(secret, period) for period in range(first, present + KEPT_AFTER + 1)))
