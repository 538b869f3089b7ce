"""Symmetric keys: one reader for the key files of chrony (chrony.keys(5)) and of ntp and ntpsec (ntp.keys(5)).

A line is ``ID [TYPE] KEY [ADDRESSES]``. Comments begin with ``#``, ``%``, ``;`` or ``!``. TYPE defaults to MD5 (chrony). KEY is ``HEX:...``
or ``ASCII:...``; without a prefix, a KEY longer than 20 characters is hexadecimal (ntp) and a shorter one is text. ADDRESSES (ntp) is a
comma-separated list of the addresses and prefixes from which the key is accepted. No message contains a KEY: it is secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ppsd.config.access import AccessList, Rule, prefix_complaint
from ppsd.config.contents import contents
from ppsd.config.tables import Config
from refclock.errors import explain
from refclock.kernel.files import Opener, owners
from refclock.schema import ConfigError, Problem

NO_KEYS_BYTES = 1
"""Octets of what refclock-serve.service hands over in place of a file that is missing: "#", for systemd refuses an empty text."""
KINDS = ("MD5", "SHA1", "SHA256", "AES128", "AES256")
"""Key types, in the order of enum mac_type (native/mac.h)."""
WEAK = ("MD5", "SHA1")
"""Types refused unless ``keys.weak`` is set. RFC 8573 section 2 deprecates MD5; SHA-1 keyed by concatenation is no better."""
SECRET_BYTES = {"AES128": 16, "AES256": 32}
"""Octets of a secret, for types that fix its length."""
SECRET_MAX = 4096
"""Octets of the longest secret (native/mac.c)."""
LIMIT_BYTES = 1 << 20
"""Octets of a key file: some ten thousand keys."""
ALIASES = {"M": "MD5", "SHA": "SHA1", "AES": "AES128"} | {
    f"AES{dash}{bits}{end}": f"AES{bits}" for dash in ("", "-") for bits in (128, 256) for end in ("", "CMAC", "-CMAC")
}
"""Other names of the types (chrony.keys(5), ntp.keys(5), ntpsec's ntpkeygen)."""
FOREIGN = re.compile(r"(SHA(224|384|512)|SHA3-\d+|TIGER|WHIRLPOOL|RIPEMD160|RMD160|MDC2|BLAKE2[BS]\d*|CMAC|DES|[SNA])\Z")
"""Types that other programs know and this server does not support."""
TEXT_LENGTH = 20
"""Characters; ntp reads a longer KEY as hexadecimal."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """One key. ``prefixes``: the networks from which it is accepted; none: any."""

    key_id: int
    kind: str
    secret: bytes = field(repr=False)
    prefixes: tuple[str, ...] = ()

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """``prefixes`` as ranges for native/access.h; empty: any address."""
        return AccessList(Rule(prefix, "allow") for prefix in self.prefixes).ranges() if self.prefixes else ()


def _secret(text: str) -> bytes | None:
    """The octets that KEY stands for; None when it is not valid hexadecimal."""
    prefix, colon, rest = text.partition(":")
    if colon and prefix.upper() == "ASCII":
        return rest.encode()
    if colon and prefix.upper() == "HEX":
        digits = rest
    elif len(text) > TEXT_LENGTH:
        digits = text
    else:
        return text.encode()
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def _read(words: list[str]) -> SymmetricKey | str:
    """The key that the words of a line stand for, or what is wrong with it."""
    if not re.fullmatch(r"[0-9]{1,10}", words[0]) or not 0 < int(words[0]) < 1 << 32:
        return "a key begins with its number, 1 to 4294967295"
    kind, rest = "MD5", words[1:]
    if len(rest) > 1:
        kind, rest = rest[0].upper(), rest[1:]
        kind = ALIASES.get(kind, kind)
    if not rest:
        return f"key {words[0]} has no secret; a line is NUMBER TYPE SECRET"
    if kind not in KINDS:
        known = "is not supported" if FOREIGN.match(kind) else "is not known"
        return f"key {words[0]}: its type {known}; allowed: {', '.join(KINDS)}"
    if len(rest) > 2:
        return f"key {words[0]}: too many words; a line is NUMBER TYPE SECRET [ADDRESS,ADDRESS...]"
    prefixes = tuple(rest[1].split(",")) if len(rest) == 2 else ()
    for prefix in prefixes:
        complaint = prefix_complaint(prefix)
        if complaint:
            return f"key {words[0]}: {prefix} {complaint}"
    secret = _secret(rest[0])
    if not secret:
        return (
            f"key {words[0]}: its secret is not a hexadecimal number of whole bytes (text longer than {TEXT_LENGTH} needs ASCII: before it)"
        )
    if len(secret) > SECRET_MAX:
        return f"key {words[0]}: a secret has at most {SECRET_MAX} bytes, this one has {len(secret)}; 32 are enough"
    needed = SECRET_BYTES.get(kind, len(secret))
    if len(secret) != needed:
        return f"key {words[0]}: a secret of {kind} has {needed} bytes ({2 * needed} digits after HEX:), this one has {len(secret)}"
    return SymmetricKey(int(words[0]), kind, secret, prefixes)


def parse_keys(text: str, allow_weak: bool) -> tuple[tuple[SymmetricKey, ...], list[tuple[int, str]]]:
    """The keys sorted by number, and (line, problem) of every faulty line. MD5 and SHA1 are problems unless ``allow_weak``."""
    keys: dict[int, SymmetricKey] = {}
    problems: list[tuple[int, str]] = []
    for line, words in _lines(text):
        key = _read(words)
        if isinstance(key, str):
            problems.append((line, key))
        elif key.key_id in keys:
            problems.append((line, f"key {key.key_id} is defined twice"))
        elif key.kind in WEAK and not allow_weak:
            what = f"key {key.key_id} is of type {key.kind}, which is weak; use AES128, or allow it with keys.weak = true"
            problems.append((line, what))
        else:
            keys[key.key_id] = key
    return tuple(keys[i] for i in sorted(keys)), problems


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of each line that is not empty or a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and words[0][0] not in "#%;!":
            comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
            yield number, words[:comment]


def handed_over(file: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where to read a file of secrets: the copy of the same name that systemd made for this process at its start (LoadCredential=,
    systemd.exec(5)), unless it is missing or holds no key; else ``file`` itself."""
    directory = environment.get("CREDENTIALS_DIRECTORY", "")
    copy = Path(directory) / file.name
    try:
        return copy if directory and copy.stat().st_size > NO_KEYS_BYTES else file
    except OSError:
        return file


def read_keys(config: Config, opener: Opener = os.open) -> tuple[SymmetricKey, ...]:
    """The keys of ``keys.file``. ConfigError: faulty lines, an unreadable file, or one that every user may read: the keys are secret.

    Links to the file are followed. It must belong to root, to this process's user or to ``run.user``. ``opener``: opens it in place of
    os.open.
    """
    path = config.keys.file
    if not path:
        return ()
    try:
        text = contents(handed_over(Path(path)), LIMIT_BYTES, private=owners(config.run.user), opener=opener).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError([Problem(path, 0, "", explain(error, "the key file cannot be used"))]) from error
    keys, problems = parse_keys(text, config.keys.weak)
    found = [Problem(path, line, "", what) for line, what in problems]
    if config.server.broadcast and config.server.broadcast_key not in {key.key_id for key in keys}:
        found.append(Problem(path, 0, "", f"has no key {config.server.broadcast_key}, which server.broadcast_key names"))
    lacking = {u.key: u.name for u in config.upstreams if u.key and u.key not in {key.key_id for key in keys}}
    found += [Problem(path, 0, "", f"has no key {number}, which upstream {name} names") for number, name in lacking.items()]
    if found:
        raise ConfigError(found)
    return keys
