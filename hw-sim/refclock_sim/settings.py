"""What a receiver is set to and how it is set: commands of its host to answers.

Flow: bytes of the host -> receiver -> **settings** (rates of messages, measurement rate, time pulse, dynamic model) -> answers. All of it
is in RAM: ``reset`` is a loss of power. Layouts: u-blox 8/M8 protocol specification, u-blox F9 interface description (CFG-VALSET),
GlobalTop PMTK command packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from refclock_sim import sentences, ubx_messages

HOST_BUFFER: Final = 4096
"""Bytes of commands that may wait for their end; more is noise and dropped."""
FACTORY_PULSE: Final = struct.pack("<BBHhhIIIIiI", 0, 1, 0, 50, 0, 1_000_000, 1_000_000, 0, 100_000, 0, 0x77)
"""CFG-TP5: 1 Hz, 100 ms when locked, none without, rising edge on the second of UTC, 50 ns of cable."""
NOT_SAID: Final = ("GLL", "VTG")
"""Sentences that can be switched, though this simulation has no text for them: they tell nothing of time."""

_BY_ID: Final = {
    (0xF0, 0x00): "GGA", (0xF0, 0x01): "GLL", (0xF0, 0x02): "GSA", (0xF0, 0x03): "GSV", (0xF0, 0x04): "RMC", (0xF0, 0x05): "VTG",
    (0xF0, 0x08): "ZDA",
    ubx_messages.NAV_SOL: "NAV-SOL", ubx_messages.NAV_PVT: "NAV-PVT", ubx_messages.NAV_TIMEGPS: "NAV-TIMEGPS",
    ubx_messages.NAV_TIMEUTC: "NAV-TIMEUTC", ubx_messages.NAV_TIMELS: "NAV-TIMELS",
    ubx_messages.NAV_SAT: "NAV-SAT", ubx_messages.NAV_EOE: "NAV-EOE", ubx_messages.TIM_TP: "TIM-TP",
}  # fmt: skip
"""Class and id as CFG-MSG names them (u-blox 8 protocol specification, NMEA messages overview: class F0)."""
_BY_KEY: Final = {
    0x209100BB: "GGA", 0x209100CA: "GLL", 0x209100C0: "GSA", 0x209100C5: "GSV", 0x209100AC: "RMC", 0x209100B1: "VTG", 0x209100D9: "ZDA",
    0x20910007: "NAV-PVT", 0x20910048: "NAV-TIMEGPS", 0x2091005C: "NAV-TIMEUTC", 0x20910061: "NAV-TIMELS", 0x20910016: "NAV-SAT",
    0x20910160: "NAV-EOE", 0x2091017E: "TIM-TP",
}  # fmt: skip
"""CFG-MSGOUT-..._UART1."""
_OTHER_KEYS: Final = frozenset(
    [
        *(0x30210001, 0x30210002, 0x20210003, 0x20110021, 0x30050001, 0x2005000C, 0x20050023, 0x20050030),
        *(*range(0x40050002, 0x40050007), *range(0x10050007, 0x1005000C)),
    ]
)
"""CFG-RATE, CFG-NAVSPG-DYNMODEL and CFG-TP."""
_KEY_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
_PMTK_FIELDS: Final = {0: "GLL", 1: "RMC", 2: "VTG", 3: "GGA", 4: "GSA", 5: "GSV", 17: "ZDA"}
_PMTK_INVALID, _PMTK_UNSUPPORTED, _PMTK_DONE = 0, 1, 3


class Settings:
    """One receiver's. ``ubx``: obeys UBX, with ``keys`` CFG-VALSET too; ``pmtk``: obeys PMTK and calls itself so; neither: deaf.

    ``rates``: message -> every so many seconds; ``pulse``: CFG-TP5; ``values``: what CFG-VALSET set besides; ``rate_ms``; ``model``.
    """

    def __init__(self, messages: Sequence[tuple[str, int]], version: bytes, ubx: bool, keys: bool, pmtk: str) -> None:
        self._messages, self._version = tuple(messages), version
        self._ubx, self._keys, self._pmtk = ubx, keys, pmtk
        self._heard = bytearray()
        self.reset()

    def reset(self) -> None:
        """Back to the factory's settings."""
        self.rates = dict(self._messages)
        self.pulse = FACTORY_PULSE
        self.rate_ms = 1000
        self.model = 0
        self.values: dict[int, int] = {}
        self._heard.clear()

    def hear(self, data: bytes) -> list[bytes]:
        """The answers to what the host wrote, as far as it is complete."""
        if not (self._ubx or self._pmtk):
            return []
        self._heard += data
        return self._hear_ubx() if self._ubx else self._hear_pmtk()

    def _hear_ubx(self) -> list[bytes]:
        answers: list[bytes] = []
        while (begin := self._heard.find(b"\xb5\x62")) >= 0:
            del self._heard[:begin]
            if len(self._heard) < 6:
                break
            length = int.from_bytes(self._heard[4:6], "little")
            if length > HOST_BUFFER:
                del self._heard[:2]
                continue
            if len(self._heard) < length + 8:
                break
            command, payload = (self._heard[2], self._heard[3]), bytes(self._heard[6 : 6 + length])
            if bytes(self._heard[: length + 8]) != ubx_messages.frame(command, payload):
                del self._heard[:2]
                continue
            del self._heard[: length + 8]
            answers += self._obey(command, payload)
        if not self._heard.startswith(b"\xb5"):
            del self._heard[: -1 if self._heard.endswith(b"\xb5") else None]
        return answers

    def _obey(self, command: tuple[int, int], payload: bytes) -> list[bytes]:
        if command == ubx_messages.MON_VER and not payload:
            return [self._version]
        if command[0] != ubx_messages.CFG_MSG[0]:
            return []
        told: list[bytes] = []
        match command:
            case ubx_messages.CFG_MSG:
                done = self._cfg_msg(payload)
            case ubx_messages.CFG_RATE:
                done = len(payload) == 6 and payload[2:4] == b"\1\0"
                self.rate_ms = int.from_bytes(payload[:2], "little") if done else self.rate_ms
            case ubx_messages.CFG_TP5:
                done = payload in (b"", b"\0") or (len(payload) == len(FACTORY_PULSE) and payload[0] == 0)
                if done and len(payload) < 2:
                    told.append(ubx_messages.frame(command, self.pulse))
                elif done:
                    self.pulse = payload
            case ubx_messages.CFG_NAV5:
                done = len(payload) == 36
                if done and payload[0] & 1:
                    self.model = payload[2]
            case ubx_messages.CFG_CFG:
                done = len(payload) in (12, 13)
            case ubx_messages.CFG_VALSET:
                done = self._keys and self._valset(payload)
            case _:
                done = False
        return [*told, ubx_messages.frame(ubx_messages.ACK_ACK if done else ubx_messages.ACK_NAK, bytes(command))]

    def _cfg_msg(self, payload: bytes) -> bool:
        """This port's rate; or those of six ports, UART1 is the second."""
        name = _BY_ID.get((payload[0], payload[1])) if len(payload) in (3, 8) else None
        if name is not None:
            self.rates[name] = payload[2] if len(payload) == 3 else payload[3]
        return name is not None

    def _valset(self, payload: bytes) -> bool:
        """Every pair or none: one key that is not known refuses them all."""
        pairs: dict[int, int] = {}
        at = 4
        if len(payload) < 4 or payload[0] > 1 or not payload[1] & 7:
            return False
        while at < len(payload):
            key = int.from_bytes(payload[at : at + 4], "little")
            size = _KEY_BYTES.get(key >> 28 & 7, 0)
            if at + 4 + size > len(payload) or key not in _BY_KEY.keys() | _OTHER_KEYS:
                return False
            pairs[key] = int.from_bytes(payload[at + 4 : at + 4 + size], "little")
            at += 4 + size
        for key, value in pairs.items():
            if key in _BY_KEY:
                self.rates[_BY_KEY[key]] = value
            else:
                self.values[key] = value
        return True

    def _hear_pmtk(self) -> list[bytes]:
        *lines, rest = bytes(self._heard).split(b"\n")
        self._heard[:] = rest[-HOST_BUFFER:]
        answers: list[bytes] = []
        for line in lines:
            begin, star = line.rfind(b"$PMTK"), line.rfind(b"*")
            body = line[begin + 1 : star]
            if 0 <= begin < star and line[begin:].strip() == sentences.sentence(body).strip():
                answers.append(sentences.sentence(self._obey_pmtk(body.decode("ascii", "replace")).encode("ascii")))
        return answers

    def _obey_pmtk(self, body: str) -> str:
        command, *fields = body[4:].split(",")
        if command == "605":
            return self._pmtk
        result = _PMTK_UNSUPPORTED
        if command == "314":
            result = _PMTK_INVALID
            if len(fields) == 19 and all(f in ("0", "1", "2", "3", "4", "5") for f in fields):
                self.rates.update({name: int(fields[i]) for i, name in _PMTK_FIELDS.items()})
                result = _PMTK_DONE
        elif command == "220":
            known = len(fields) == 1 and fields[0].isdecimal() and 100 <= int(fields[0]) <= 10_000
            result = _PMTK_DONE if known else _PMTK_INVALID
            self.rate_ms = int(fields[0]) if known else self.rate_ms
        return f"PMTK001,{command},{result}"
