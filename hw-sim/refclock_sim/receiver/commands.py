"""A receiver's settings, and the commands with which its host changes and reads them.

Flow: bytes of the host -> receiver -> **commands** (rates of messages, measurement rate, time pulse, dynamic model) -> answers. Settings
are in RAM: ``reset`` is a loss of power. Layouts: u-blox 8/M8 protocol specification, u-blox F9 interface description (CFG-VALSET),
GlobalTop PMTK command packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from refclock_sim.receiver import nmea, ubx

HOST_BUFFER: Final = 4096
"""Bytes of an unfinished command; longer ones are noise and dropped."""
FACTORY_PULSE: Final = struct.pack("<BBHhhIIIIiI", 0, 1, 0, 50, 0, 1_000_000, 1_000_000, 0, 100_000, 0, 0x77)
"""CFG-TP5: 1 Hz, 100 ms when locked, no pulse otherwise, rising edge on the second of UTC, 50 ns of cable."""
NOT_SAID: Final = ("GLL", "VTG")
"""Sentences that can be switched but are not simulated: they say nothing about time."""

_BY_ID: Final = {
    (0xF0, 0x00): "GGA", (0xF0, 0x01): "GLL", (0xF0, 0x02): "GSA", (0xF0, 0x03): "GSV", (0xF0, 0x04): "RMC", (0xF0, 0x05): "VTG",
    (0xF0, 0x08): "ZDA",
    ubx.NAV_SOL: "NAV-SOL", ubx.NAV_PVT: "NAV-PVT", ubx.NAV_TIMEGPS: "NAV-TIMEGPS",
    ubx.NAV_TIMEUTC: "NAV-TIMEUTC", ubx.NAV_TIMELS: "NAV-TIMELS",
    ubx.NAV_SAT: "NAV-SAT", ubx.NAV_EOE: "NAV-EOE", ubx.TIM_TP: "TIM-TP",
    ubx.NAV_STATUS: "NAV-STATUS", ubx.MON_HW: "MON-HW", ubx.TIM_SVIN: "TIM-SVIN",
}  # fmt: skip
"""Class and id as CFG-MSG names them (u-blox 8 protocol specification, NMEA messages overview: class F0)."""
_BY_KEY: Final = {
    0x209100BB: "GGA", 0x209100CA: "GLL", 0x209100C0: "GSA", 0x209100C5: "GSV", 0x209100AC: "RMC", 0x209100B1: "VTG", 0x209100D9: "ZDA",
    0x20910007: "NAV-PVT", 0x20910048: "NAV-TIMEGPS", 0x2091005C: "NAV-TIMEUTC", 0x20910061: "NAV-TIMELS", 0x20910016: "NAV-SAT",
    0x20910160: "NAV-EOE", 0x2091017E: "TIM-TP", 0x2091001B: "NAV-STATUS", 0x2091035A: "MON-RF", 0x20910635: "SEC-SIG",
    0x20910089: "NAV-SVIN",
}  # fmt: skip
"""CFG-MSGOUT-..._UART1."""
_OTHER_KEYS: Final = frozenset(
    [
        *(0x30210001, 0x30210002, 0x20210003, 0x20110021, 0x30050001, 0x2005000C, 0x20050023, 0x20050030),
        *(*range(0x40050002, 0x40050007), *range(0x10050007, 0x1005000C), 0x1041000D),
    ]
)
"""CFG-RATE, CFG-NAVSPG-DYNMODEL, CFG-TP and CFG-ITFM-ENABLE."""
_TMODE_KEYS: Final = frozenset((0x20030001, 0x20030002, *range(0x40030003, 0x40030006), *range(0x40030009, 0x4003000C)))
_TMODE_KEYS_MORE: Final = frozenset(range(0x4003000F, 0x40030012))
_FACTORY_VALUES: Final = {
    0x30210001: 1000,
    0x30210002: 1,
    0x20210003: 0,
    0x20110021: 0,
    0x30050001: 50,
    0x2005000C: 0,
    0x20050023: 0,
    0x20050030: 1,
    0x40050002: 1_000_000,
    0x40050003: 1_000_000,
    0x40050004: 0,
    0x40050005: 100_000,
    0x40050006: 0,
    0x1041000D: 0,
    **dict.fromkeys(range(0x10050007, 0x1005000C), 1),
}
FACTORY_MONITOR: Final = bytes.fromhex("f3ac622d1e030000")
"""CFG-ITFM: factory thresholds, switched off."""
SURVEY, FIXED = 1, 2
"""Modes of CFG-TMODE2 and CFG-TMODE-MODE."""
SURVEYED_M: Final = 20.0
"""m: accuracy of a survey after one second; it improves with the root of the time."""
_KEY_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
_PMTK_FIELDS: Final = {0: "GLL", 1: "RMC", 2: "VTG", 3: "GGA", 4: "GSA", 5: "GSV", 17: "ZDA"}
_PMTK_COLD = 104
"""Full cold start: the host's settings are lost."""
_PMTK_INVALID, _PMTK_UNSUPPORTED, _PMTK_DONE = 0, 1, 3


class ReceiverSettings:
    """Settings of one receiver. ``ubx``: it obeys UBX, with ``keys`` also CFG-VALSET. ``pmtk``: it obeys PMTK; its name. Neither: deaf.

    Timing firmware (TIM) has CFG-TMODE2, or with ``keys`` CFG-TMODE. ``rates``: message to its period in seconds. ``pulse``: CFG-TP5.
    ``values``: other keys of CFG-VALSET. ``place``: CFG-TMODE2. ``pmtk_values``: arguments of PMTK commands. ``refuses``: commands (class
    and id, or number) that are not obeyed.
    """

    def __init__(self, messages: Sequence[tuple[str, int]], version: bytes, ubx: bool, keys: bool, pmtk: str) -> None:
        self._messages, self._version = tuple(messages), version
        self._ubx, self._keys, self._pmtk = ubx, keys, pmtk
        self._timing = b"FWVER=TIM" in version
        self.refuses: set[tuple[int, int] | int] = set()
        self._known = frozenset(_OTHER_KEYS | (_TMODE_KEYS | _TMODE_KEYS_MORE if self._timing else frozenset()))
        self._heard = bytearray()
        self._now_s = 0
        self.reset()

    def reset(self) -> None:
        """Back to the factory's settings."""
        self.rates = dict(self._messages)
        self.pulse = FACTORY_PULSE
        self.rate_ms = 1000
        self.time_base = 0
        self.model = 0
        self.values: dict[int, int] = {}
        self.monitor = FACTORY_MONITOR
        self.place = bytes(28)
        self.survey_began_s = 0
        self.pmtk_values: dict[int, str] = {220: "1000", 300: "1000,0,0,0,0"}
        self._heard.clear()

    @property
    def mode(self) -> int:
        """Timing mode: 0 none, 1 survey, 2 fixed position."""
        return self.values.get(0x20030001, 0) if self._keys else self.place[0]

    def survey(self, tai_s: int) -> tuple[int, float, bool, bool]:
        """State of the survey: (duration in s, accuracy in m, active, valid)."""
        if self.mode != SURVEY:
            return 0, 0.0, False, False
        if self._keys:
            wanted_s, limit_m = self.values.get(0x40030010, 0), self.values.get(0x40030011, 0) / 1e4
        else:
            wanted_s, limit_m = (int.from_bytes(self.place[at : at + 4], "little") for at in (20, 24))
            limit_m /= 1e3
        passed = max(1, tai_s - self.survey_began_s)
        done_s = max(wanted_s, -(-((SURVEYED_M / limit_m) ** 2) // 1) if limit_m else 1 << 30)
        passed = min(passed, int(done_s))
        return passed, SURVEYED_M / passed**0.5, passed < done_s, passed >= done_s

    def hear(self, data: bytes, tai_s: int = 0) -> list[bytes]:
        """The answers to the commands that are complete."""
        self._now_s = tai_s
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
            if bytes(self._heard[: length + 8]) != ubx.frame(command, payload):
                del self._heard[:2]
                continue
            del self._heard[: length + 8]
            answers += self._obey(command, payload)
        if not self._heard.startswith(b"\xb5"):
            del self._heard[: -1 if self._heard.endswith(b"\xb5") else None]
        return answers

    def _obey(self, command: tuple[int, int], payload: bytes) -> list[bytes]:
        if command == ubx.MON_VER and not payload:
            return [self._version]
        if command[0] != ubx.CFG_MSG[0]:
            return []
        told: list[bytes] = []
        match command:
            case _ if command in self.refuses:
                done = False
            case ubx.CFG_MSG if len(payload) == 2:
                name = _BY_ID.get((payload[0], payload[1]))
                done = name is not None
                told += [ubx.frame(command, payload + bytes((0, self.rates.get(name, 0), 0, 0, 0, 0)))] if name else []
            case ubx.CFG_MSG:
                done = self._cfg_msg(payload)
            case ubx.CFG_RATE if not payload:
                done = True
                told.append(ubx.frame(command, struct.pack("<HHH", self.rate_ms, 1, self.time_base)))
            case ubx.CFG_RATE:
                done = len(payload) == 6 and payload[2:4] == b"\1\0"
                if done:
                    self.rate_ms, self.time_base = int.from_bytes(payload[:2], "little"), payload[4]
            case ubx.CFG_ITFM:
                done, self.monitor, said = _kept(self.monitor, payload)
                told += [ubx.frame(command, said)] if said else []
            case ubx.CFG_TMODE2 if self._timing and not self._keys:
                done, self.place, said = _kept(self.place, payload)
                told += [ubx.frame(command, said)] if said else []
                self.survey_began_s = self.survey_began_s if said else self._now_s
            case ubx.CFG_TP5:
                done = payload in (b"", b"\0") or (len(payload) == len(FACTORY_PULSE) and payload[0] == 0)
                if done and len(payload) < 2:
                    told.append(ubx.frame(command, self.pulse))
                elif done:
                    self.pulse = payload
            case ubx.CFG_NAV5:
                done = len(payload) in (0, 36)
                if not payload:
                    told.append(ubx.frame(command, bytes((0, 0, self.model)) + bytes(33)))
                elif done and payload[0] & 1:
                    self.model = payload[2]
            case ubx.CFG_CFG:
                done = len(payload) in (12, 13)
                if done and payload[8:12] != bytes(4):
                    heard = bytes(self._heard)
                    self.reset()
                    self._heard += heard
            case ubx.CFG_VALSET:
                done = self._keys and self._valset(payload)
            case ubx.CFG_VALGET:
                answer = self._valget(payload) if self._keys else None
                done = answer is not None
                told += [ubx.frame(command, answer)] if answer is not None else []
            case _:
                done = False
        return [*told, ubx.frame(ubx.ACK_ACK if done else ubx.ACK_NAK, bytes(command))]

    def _cfg_msg(self, payload: bytes) -> bool:
        """Set the rate on this port, or on six ports, of which UART1 is the second."""
        name = _BY_ID.get((payload[0], payload[1])) if len(payload) in (3, 8) else None
        if name == "TIM-SVIN" and not self._timing:
            return False
        if name is not None:
            self.rates[name] = payload[2] if len(payload) == 3 else payload[3]
        return name is not None

    def _valget(self, payload: bytes) -> bytes | None:
        """The value in force of each key; None when one key is unknown."""
        out = b"\1" + payload[1:4]
        for at in range(4, len(payload) - 3, 4):
            key = int.from_bytes(payload[at : at + 4], "little")
            if key not in _BY_KEY.keys() | self._known:
                return None
            value = self.rates.get(_BY_KEY[key], 0) if key in _BY_KEY else self.values.get(key, _FACTORY_VALUES.get(key, 0))
            out += payload[at : at + 4] + value.to_bytes(_KEY_BYTES[key >> 28 & 7], "little")
        return out

    def _valset(self, payload: bytes) -> bool:
        """Set every pair or none: one unknown key refuses them all."""
        pairs: dict[int, int] = {}
        at = 4
        if len(payload) < 4 or payload[0] > 1 or not payload[1] & 7:
            return False
        while at < len(payload):
            key = int.from_bytes(payload[at : at + 4], "little")
            size = _KEY_BYTES.get(key >> 28 & 7, 0)
            if at + 4 + size > len(payload) or key not in _BY_KEY.keys() | self._known:
                return False
            pairs[key] = int.from_bytes(payload[at + 4 : at + 4 + size], "little")
            at += 4 + size
        for key, value in pairs.items():
            if key in _BY_KEY:
                self.rates[_BY_KEY[key]] = value
            else:
                self.values[key] = value
        if any(key in _TMODE_KEYS for key in pairs):
            self.survey_began_s = self._now_s
        return True

    def _hear_pmtk(self) -> list[bytes]:
        *lines, rest = bytes(self._heard).split(b"\n")
        self._heard[:] = rest[-HOST_BUFFER:]
        answers: list[bytes] = []
        for line in lines:
            begin, star = line.rfind(b"$PMTK"), line.rfind(b"*")
            body = line[begin + 1 : star]
            if 0 <= begin < star and line[begin:].strip() == nmea.sentence(body).strip():
                answers.append(nmea.sentence(self._obey_pmtk(body.decode("ascii", "replace")).encode("ascii")))
        return answers

    def _obey_pmtk(self, body: str) -> str:
        command, *fields = body[4:].split(",")
        number = int(command) if command.isdecimal() else 0
        told = {
            605: self._pmtk,
            414: "PMTK514," + ",".join(str(self.rates.get(_PMTK_FIELDS.get(i, ""), 0)) for i in range(19)),
            400: f"PMTK500,{self.pmtk_values[300]}",
            447: f"PMTK527,{float(self.pmtk_values.get(386, '0')):.2f}",
        }.get(number)
        if told is not None and not fields:
            return told
        if number == _PMTK_COLD:
            self.reset()
            return "PMTK010,001"
        value = ",".join(fields)
        valid = {
            314: len(fields) == 19 and all(f in ("0", "1", "2", "3", "4", "5") for f in fields),
            220: len(fields) == 1 and value.isdecimal() and 100 <= int(value) <= 10_000,
            300: len(fields) == 5 and fields[0].isdecimal() and 100 <= int(fields[0]) <= 10_000,
            386: len(fields) == 1 and value in ("0", "0.4", "1.2", "2.0"),
            285: len(fields) == 2 and fields[0] in ("0", "1", "2", "3", "4") and fields[1].isdecimal() and 2 <= int(fields[1]) <= 998,
        }.get(number)
        if valid is None or number in self.refuses:
            return f"PMTK001,{command},{_PMTK_UNSUPPORTED}"
        if valid and number == 314:
            self.rates.update({name: int(fields[i]) for i, name in _PMTK_FIELDS.items()})
        elif valid:
            self.pmtk_values[number] = value
            self.rate_ms = int(value) if number == 220 else self.rate_ms
        return f"PMTK001,{command},{_PMTK_DONE if valid else _PMTK_INVALID}"


def _kept(present: bytes, payload: bytes) -> tuple[bool, bytes, bytes]:
    """A message that reads when it is empty and sets otherwise: (obeyed, value in force afterwards, answer)."""
    if not payload:
        return True, present, present
    fits = len(payload) == len(present)
    return fits, payload if fits else present, b""
