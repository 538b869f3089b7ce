"""A text without what tells who and where its owner is: keys, places, hardware addresses, public addresses, names. Pure.

What is taken out is replaced by a word with a number, the same for the same thing, so that a reader still sees what belongs together.
Private and loopback addresses of IPv4 stay: they are everybody's, and most faults of a network show in them. In doubt a thing goes: a
report that lacks a word is still useful, one that tells an antenna's place cannot be called back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final

from ppsd.config.tables import TABLES

KEPT_V4: Final = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
    )
)
"""Networks whose addresses say nothing of their owner: private (RFC 1918, RFC 6598), loopback, link-local, multicast and beyond."""
COMMON: Final = frozenset(
    (
        "localhost",
        "refclock",
        "raspberrypi",
        "raspberry",
        "debian",
        "ubuntu",
        "root",
        "pi",
        "gps",
        "gnss",
        "pps",
        "ntp",
        "time",
        "clock",
        "server",
        "ip6-localhost",
        "ip6-loopback",
    )
)
"""Names of machines and users that thousands have."""
ENDINGS: Final = frozenset(
    (
        *("toml", "sock", "service", "socket", "target", "conf", "json", "list", "py", "txt", "log", "keys", "md", "so", "ko", "rules"),
        *("mount", "timer", "slice", "scope", "device", "lease", "leases", "deb", "gz", "yaml", "cfg", "bin", "img", "sh", "pid", "lock"),
    )
)
"""Endings of files and units: what has one is no name of a machine."""
OURS: Final = frozenset(("ppsd", "refclock", "refclock_sim", *TABLES))
"""First words of our own modules and of the configuration's keys, such as clock.steer."""
PUBLIC_NAMES: Final = frozenset(("data.iana.org", "manage.ntppool.org", "pool.ntp.org", "github.com", "www.ntppool.org"))
"""Names that stand in our own messages."""
LONGEST_WORD: Final = 400
"""Characters without a space between them, from which on they are no words: a path has at most 255 between two slashes."""
LONGEST_ADDRESS: Final = 45
"""Characters of an IPv6 address that ends with an IPv4 address (INET6_ADDRSTRLEN of inet_ntop(3), less the NUL)."""
_KEY_TYPES: Final = r"(?:MD5|SHA-?1|SHA-?224|SHA-?256|SHA-?384|SHA-?512(?:-\d+)?|SHA3-\d+|AES-?128(?:CMAC)?|AES-?256(?:CMAC)?|AES|M|CMAC)"
_SECRET: Final = (
    r"pass(?:word|phrase|wd)?|psk|sae_password|wpa_passphrase|secret|token|api_?key|auth_?key|private_?key|community|cookie|ssid"
)
_POSITIONS: Final = r"GGA|GLL|RMC|GNS|RMA|RMB|BWC|WPL|DTM|TLL|GXA|LCD|MLA|VDM|VDO"
"""NMEA 0183 sentences that have places in them."""


class Anonymiser:
    """Cleans texts. ``names``: of machines and users that are known; ``secrets``: keys that are known. The same thing in several texts is
    replaced by the same word."""

    def __init__(self, names: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        self._words: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._secrets = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._names = sorted({name.lower() for name in names if len(name) >= 2 and name.lower() not in COMMON}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without what tells who or where its owner is."""
        text = re.sub(rf"\S{{{LONGEST_WORD},}}", "<octets>", text)
        for secret in self._secrets:
            text = text.replace(secret, "<key>")
        text = self._places(self._keys(text))
        return self._people(self._addresses(self._hardware(text)))

    def _word(self, kind: str, thing: str) -> str:
        """The word that stands for a thing."""
        thing = thing.lower()
        if thing not in self._words:
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            self._words[thing] = f"<{kind}-{self._numbers[kind]}>"
        return self._words[thing]

    # ---- keys -------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _keys(text: str) -> str:
        text = re.sub(r"-----BEGIN [^-]+-----.*?(-----END [^-]+-----|\Z)", "<key>", text, flags=re.DOTALL)
        text = re.sub(rf"\b(\d{{1,10}}[ \t]+{_KEY_TYPES})[ \t]+\S+", r"\1 <key>", text, flags=re.IGNORECASE)
        text = re.sub(r"\b(HEX|ASCII):\S+", r"\1:<key>", text)
        text = re.sub(r"\b((?:MD5|SHA\d+|AES\d+)[:=])\S{6,}", r"\1<key>", text)
        text = re.sub(r"(?i)(?<![\w-])([\w-]*psk|passw(?:or)?d|passphrase|bearer)[ \t]+(\"[^\"\n]*\"|[^\s=:]+)", r"\1 <key>", text)
        text = re.sub(r"(?i)\b(pass(?:word|phrase)[ \t]*[:=][ \t]*)[^\s\"'][^\n\"',;}]*", r"\1<key>", text)
        text = re.sub(rf"(?i)(?<![\w-])([\w-]*(?:{_SECRET})[\w-]*[\"']?\s*[:=]\s*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}}]+)", r"\1<key>", text)
        text = re.sub(r"(?i)\b(key[\"']?\s*[:=]\s*)(\"[^\"\n/]{4,}\"|'[^'\n/]{4,}'|[^\s\"'/,;]{8,})", r"\1<key>", text)
        text = re.sub(r"://[^\s/@\"]+@", "://<key>@", text)
        return re.sub(r"(?<![\w/+])[A-Za-z0-9+/]{40,}={0,2}(?![\w+/])", _unless_path, text)

    # ---- places -----------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _places(text: str) -> str:
        taken, number = "<place>", r"[-+]?\d+(?:\.\d+)?"
        text = re.sub(rf"\b([A-Z]{{2}}(?:{_POSITIONS}))(?:,[^\s\"'\\<>]*)?(?=[\s\"'\\<>]|$)", rf"\1,{taken}", text)
        text = re.sub(rf"\$?(P[A-Z]{{3,5}}\d*)(,[^\s\"'\\<>]*?)?{number}\s*,\s*[NS]\s*,[^\s\"'\\]*", rf"\1,{taken}", text)
        text = re.sub(rf"(?<![\d.]){number}\s*,\s*[NS]\s*,\s*{number}\s*,\s*[EW]\b", taken, text)
        text = re.sub(r"\b\d{4,5}\.\d{2,}\s*,\s*[NSEW]\b", taken, text)
        text = re.sub(r"(?i)\b((?:fixed_)?position[\"']?\s*[:=]\s*)(\"[^\"\n]*\"|'[^'\n]*'|\[[^\]\n]*\])", rf"\1{taken}", text)
        keyed = r"lat|latitude|lon|long|lng|longitude|alt|altitude|alt_?hae|alt_?msl|height|ecef[_ ]?[xyz]|geoid_?sep|hmsl"
        text = re.sub(rf"(?i)(\b(?:{keyed})[\"']?\s*[:=]\s*[\"']?){number}", rf"\1{taken}", text)
        text = re.sub(rf"(?i)\b(lat(?:itude)?|long?(?:itude)?|altitude)\s+{number}", rf"\1 {taken}", text)
        text = re.sub(rf"(?i)\becef[ :=]+{number}[ ,]+{number}[ ,]+{number}", taken, text)
        text = re.sub(r"\d{1,3}\s*°\s*(?:\d{1,2}(?:\.\d+)?\s*['′]\s*)?(?:\d{1,2}(?:\.\d+)?\s*[\"″]\s*)?[NSEW]\b", taken, text)
        text = re.sub(r"\b\d{1,3}[° ]\s?\d{1,2}\.\d+\s?['′]?\s?[NSEW]\b", taken, text)
        text = re.sub(r"\b[NSEW]\s?\d{1,3}[° ]\s?\d{1,2}\.\d+\b", taken, text)
        text = re.sub(r"\b\d{1,5}\.\d{2,}\s*[,°]?\s*[NSEW]\b", taken, text)
        text = re.sub(r"\b[NSEW]\s*\d{1,3}\.\d{3,}\b", taken, text)
        text = re.sub(r"(?<![\w.,])[-+]?\d{1,2},\d{4,}°?\s*[;/ ]\s*[-+]?\d{1,3},\d{4,}(?![\w.,])", taken, text)
        text = re.sub(r"\b\d{1,3} \d{1,2} \d{1,2}(?:\.\d+)? ?[NSEW]\b", taken, text)
        return re.sub(r"(?<![\w.])[-+]?\d{1,2}\.\d{4,}°?\s*[,;/ ]\s*[-+]?\d{1,3}\.\d{4,}(?![\w.])", taken, text)

    # ---- hardware ---------------------------------------------------------------------------------------------------------------------

    def _hardware(self, text: str) -> str:
        def mac(found: re.Match[str]) -> str:
            return self._word("mac", re.sub(r"[:.-]", "", found[0]))

        text = re.sub(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "<uuid>", text)
        text = re.sub(r"(?<!\w)(?:[0-9A-Fa-f]{2}:){5,}[0-9A-Fa-f]{2}(?!\w)", mac, text)
        text = re.sub(r"(?<![\w-])(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}(?![\w-])", mac, text)
        text = re.sub(r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])", mac, text)
        text = re.sub(r"\b(en|wl|ww|us)x([0-9a-f]{12})\b", lambda found: f"{found[1]}x{self._word('mac', found[2])}", text)
        text = re.sub(r"\b(?=[0-9A-F]*[A-F]|[0-9a-f]*[a-f])(?=[A-Fa-f]*\d)[0-9A-Fa-f]{12}\b", mac, text)
        text = re.sub(r"\b(?:[0-9A-Fa-f]{2}[ :]){11,}[0-9A-Fa-f]{2}\b", "<octets>", text)
        text = re.sub(r"\b(?:0x)?[0-9A-Fa-f]{20,}\b", "<octets>", text)
        text = re.sub(r"(by-id/\S*?)_([0-9A-Za-z]{4,})(?=-(?:if|port)\d|[\s\"',;]|$)", r"\1_<serial>", text)
        text = re.sub(
            r"(?i)\b(unique[ _-]?id|chip[ _-]?id|serial(?:[ _-]?(?:number|no))?)([\"']?\s*[:=]\s*[\"']?)[\w-]+", r"\1\2<serial>", text
        )
        return re.sub(r"\b0x[0-9A-Fa-f]{10,}\b", "<serial>", text)

    # ---- addresses --------------------------------------------------------------------------------------------------------------------

    def _addresses(self, text: str) -> str:
        text = re.sub(r"(?i)(?<![\w.])(?:[0-9a-f]\.){16,}ip6\.arpa\b", lambda found: self._word("public-v6", found[0]), text)
        text = re.sub(r"(?<![\w.-])[\w.-]*(?::[\w.]*){2,}", self._v6, text)
        return re.sub(r"(?<![\w.])\d{1,3}(?:([.-])\d{1,3})(?:\1\d{1,3}){2}(?!\w|\.\d)", self._v4, text)

    def _v6(self, found: re.Match[str]) -> str:
        """The longest part of a run of colons that is an address: something may stand before it and after it."""
        run = found[0]
        starts = [0, *(at + 1 for at, character in enumerate(run) if character in ":-")]
        ends = [len(run), *(at for at in range(len(run), 0, -1) if run[at - 1 : at] in (":", ".") or run[at : at + 1] in (":", "."))]
        for start in starts:
            for end in (end for end in ends if end - start <= LONGEST_ADDRESS):
                try:
                    address = IPv6Address(run[start:end])
                except ValueError:
                    continue
                if address.is_unspecified or address.is_loopback or address.is_multicast:
                    return run
                kind = "link-local-v6" if address.is_link_local else "private-v6" if (int(address) >> 121) == 0x7E else "public-v6"
                return run[:start] + self._word(kind, str(address)) + run[end:]
        return run

    def _v4(self, found: re.Match[str]) -> str:
        try:
            address = ip_address(found[0].replace("-", "."))
        except ValueError:
            return found[0]
        if isinstance(address, IPv4Address) and any(address in net for net in KEPT_V4):
            return found[0]
        return self._word("public-v4", str(address))

    # ---- names ------------------------------------------------------------------------------------------------------------------------

    def _people(self, text: str) -> str:
        text = re.sub(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}", lambda found: self._word("mail", found[0]), text)
        text = re.sub(r"(/home|/Users)/([^/\s\"':,;]+)", lambda found: f"{found[1]}/{self._word('user', found[2])}", text)
        name = r"(?<![\w.<-])(?<![^/]/)(?:[A-Za-z0-9_](?:[\w-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-]|\.\w)"
        text = re.sub(name, lambda found: found[0] if _is_no_machine(found[0]) else self._word("name", found[0]), text)
        for known in self._names:
            own = rf"(?<![A-Za-z0-9<]){re.escape(known)}(?![A-Za-z0-9])"
            text = re.sub(own, lambda found: self._word("name", found[0]), text, flags=re.IGNORECASE)
        return text


def _unless_path(found: re.Match[str]) -> str:
    """A long run of letters is a key unless it is a path or a word: keys in base64 mix digits and both cases."""
    text = found[0]
    mixed = re.search(r"\d", text) and re.search(r"[a-z]", text) and re.search(r"[A-Z]", text)
    return "<key>" if mixed else text


def _is_no_machine(name: str) -> bool:
    first, last = name.lower().split(".")[0], name.rpartition(".")[2]
    if name.lower() in PUBLIC_NAMES or last.lower() in ENDINGS or first in OURS:
        return True
    return re.search(r"(Error|Exception|Warning|Interrupt)$", last) is not None
