"""A receiver at byte level: what comes out of its serial port in the second after each true second, and how it obeys its host.

Flow: gnss.Knowledge -> sentences, ubx_messages -> **receiver** -> paced chunks -> pty (real time) or world (simulated time). It has no
clock: the shell asks for one cycle per true second, in order. The line carries one byte per ten bit times; what does not fit into a second
runs into the next and delays it, as it does in a real receiver whose port is too slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from refclock.sample import NS, Satellite
from refclock_sim import sentences, ubx_messages
from refclock_sim.gnss import Gnss, Knowledge
from refclock_sim.pulse import Sawtooth
from refclock_sim.sentences import Civil

MS = 1_000_000
BITS_PER_BYTE = 10
"""8N1: start bit, eight data bits, stop bit."""
EARLIEST_NS = MS
"""However the jitter falls, no receiver reports a second that has not begun."""
HOST_BUFFER = 4096
"""Bytes of commands that may wait for their end; more is noise and dropped."""


class Chunk(NamedTuple):
    """Bytes of one sentence or message. ``offset_ns``: its **last** byte has arrived this long after the true second."""

    offset_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of receiver.

    ``messages``: (name, every so many seconds) in order of sending; ``delay_ns``, ``jitter_ns``: from the true second to the first byte,
    mean and standard deviation; ``baud`` 0: native USB, a chunk is there at once; ``ubx``: understands UBX commands.
    """

    what: str
    messages: tuple[tuple[str, int], ...]
    talker: bytes = b"GP"
    baud: int = 9600
    delay_ns: int = 60 * MS
    jitter_ns: int = 3 * MS
    banner: tuple[str, ...] = ()
    ubx: bool = False
    software: str = ""
    hardware: str = ""
    extensions: tuple[str, ...] = ()


_NMEA = (("RMC", 1), ("GGA", 1), ("GSA", 1), ("GSV", 1), ("ZDA", 1))
_UBX = (("NAV-PVT", 1), ("NAV-TIMEUTC", 1), ("TIM-TP", 1), ("NAV-TIMELS", 4))
_UBLOX8 = Model(
    "u-blox 8, NMEA and UBX",
    (*_UBX, ("RMC", 1), ("GGA", 1), ("ZDA", 1), ("GSA", 1), ("GSV", 5), ("NAV-SAT", 5)),
    talker=b"GN",
    banner=("u-blox AG - www.u-blox.com", "HW UBX-M8030 00080000", "ROM CORE 3.01 (107888)", "PROTVER=18.00", "MOD=NEO-M8N-0"),
    ubx=True,
    software="ROM CORE 3.01 (107888)",
    hardware="00080000",
    extensions=("FWVER=SPG 3.01", "PROTVER=18.00", "MOD=NEO-M8N-0", "GPS;GLO;GAL;BDS"),
)
_WATCHED = (*_UBLOX8.messages, ("MON-HW", 1), ("SEC-SIG", 1))
_TIMING = (*_UBX, ("NAV-SAT", 5), ("NAV-EOE", 1))
MODELS = {
    "ublox8": _UBLOX8,
    "ublox8-nmea": replace(_UBLOX8, what="u-blox 8 as it comes, NMEA only", messages=_NMEA),
    "timing": replace(_UBLOX8, what="u-blox timing receiver, UBX only", messages=_TIMING, baud=115_200, delay_ns=40 * MS),
    "watched": replace(_UBLOX8, what="u-blox 8 that reports its health", messages=_WATCHED, baud=38_400),
    "casic": Model("NMEA receiver with an antenna notice", (*_NMEA, ("ANT", 1)), delay_ns=180 * MS),
    "nmea": Model("plain NMEA receiver", _NMEA, delay_ns=120 * MS, jitter_ns=10 * MS),
    "minimal": Model("RMC, GGA and ZDA only", (("RMC", 1), ("GGA", 1), ("ZDA", 1))),
    "slow": Model("4800 baud mouse, late and wandering, no ZDA", _NMEA[:4], baud=4800, delay_ns=250 * MS, jitter_ns=60 * MS),
    "mtk": Model("NMEA receiver that is half a second late", _NMEA, delay_ns=497 * MS, jitter_ns=10 * MS),
}
"""Delays are of the kind published for such receivers: 62-65 ms (u-blox F10), 128-165 (M10), 500 (MT3339); SiRF wanders by 170 ms."""

_CONFIGURABLE = {
    (0xF0, 0x00): "GGA", (0xF0, 0x02): "GSA", (0xF0, 0x03): "GSV", (0xF0, 0x04): "RMC", (0xF0, 0x08): "ZDA",
    ubx_messages.NAV_SOL: "NAV-SOL", ubx_messages.NAV_PVT: "NAV-PVT", ubx_messages.NAV_TIMEGPS: "NAV-TIMEGPS",
    ubx_messages.NAV_TIMEUTC: "NAV-TIMEUTC", ubx_messages.NAV_TIMELS: "NAV-TIMELS",
    ubx_messages.NAV_SAT: "NAV-SAT", ubx_messages.NAV_EOE: "NAV-EOE", ubx_messages.TIM_TP: "TIM-TP",
}  # fmt: skip
"""Class and id as CFG-MSG names them (u-blox 8 protocol specification, NMEA messages overview: class F0)."""


class Receiver:
    """One receiver of a kind. ``baud`` replaces the kind's own; ``sawtooth``: the pulse's quantisation error, which TIM-TP tells."""

    def __init__(self, model: Model, gnss: Gnss, seed: int, baud: int | None = None, sawtooth: Sawtooth | None = None) -> None:
        self.model = model
        self.gnss = gnss
        self.baud = model.baud if baud is None else baud
        self.sawtooth = sawtooth
        self.rates = dict(model.messages)
        self._random = Random(f"receiver {seed}")
        self._line_free_ns = 0  # TAI
        self._greeted = False
        self._heard = bytearray()

    @property
    def byte_ns(self) -> int:
        """Line time of one byte; 0: native USB."""
        return BITS_PER_BYTE * NS // self.baud if self.baud else 0

    def cycle(self, tai_s: int) -> list[Chunk]:
        """The output of the true second ``tai_s`` (TAI); ask for each second once, in order. Cost: 20 µs for RMC, GGA and ZDA."""
        knows = self.gnss.at(tai_s)
        at = sentences.civil(knows.label)
        delay = max(EARLIEST_NS, round(self._random.gauss(self.model.delay_ns, self.model.jitter_ns))) + knows.delay_ns
        parts: list[bytes] = []
        if not self._greeted:
            self._greeted = True
            parts += sentences.txt(self.model.talker, self.model.banner)
        for i, (name, every) in enumerate(self.rates.items()):
            if every and (tai_s + i) % every == 0:  # the long, rare ones fall on different seconds
                parts += self._message(name, tai_s, knows, at)
        second_ns = tai_s * NS
        return [Chunk(end - second_ns, data) for end, data in self._send(second_ns + delay, parts)]

    def hear(self, data: bytes, tai_ns: int) -> list[tuple[int, bytes]]:
        """Bytes from the host at TAI ``tai_ns``; the answers as (TAI ns of the last byte, bytes).

        Obeyed: CFG-MSG (rate of a message), MON-VER; any other CFG is refused with ACK-NAK, the rest ignored, as is everything when the
        model speaks no UBX.
        """
        if not self.model.ubx:
            return []
        self._heard += data
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
        return self._send(tai_ns, answers)

    def _send(self, earliest_ns: int, parts: Sequence[bytes]) -> list[tuple[int, bytes]]:
        sent = []
        byte_ns = self.byte_ns
        free = max(earliest_ns, self._line_free_ns)
        for part in parts:
            free += len(part) * byte_ns
            sent.append((free, part))
        self._line_free_ns = free
        return sent

    def _message(self, name: str, tai_s: int, knows: Knowledge, at: Civil) -> list[bytes]:
        talker = self.model.talker
        match name:
            case "RMC":
                return [sentences.rmc(talker, knows, at)]
            case "GGA":
                return [sentences.gga(talker, knows, at, self._used(tai_s, knows))]
            case "ZDA":
                return [sentences.zda(talker, knows, at)]
            case "GSA":
                return sentences.gsa(talker, knows, self._sky(tai_s, knows))
            case "GSV":
                return sentences.gsv(self._sky(tai_s, knows))
            case "ANT":
                return [sentences.antenna(talker, knows)]
            case "MON-HW":
                return [ubx_messages.mon_hw(knows)]
            case "SEC-SIG":
                return [ubx_messages.sec_sig(knows)]
            case "NAV-PVT":
                return [ubx_messages.nav_pvt(knows, at, self._used(tai_s, knows))]
            case "NAV-SOL":
                return [ubx_messages.nav_sol(knows, self._used(tai_s, knows))]
            case "NAV-TIMEGPS":
                return [ubx_messages.nav_timegps(knows)]
            case "NAV-TIMEUTC":
                return [ubx_messages.nav_timeutc(knows, at)]
            case "NAV-TIMELS":
                return [ubx_messages.nav_timels(knows)]
            case "NAV-SAT":
                return [ubx_messages.nav_sat(knows, self._sky(tai_s, knows))]
            case "NAV-EOE":
                return [ubx_messages.nav_eoe(knows)]
            case "TIM-TP":
                late_ns = self.sawtooth.late_ns(tai_s + 1) if self.sawtooth is not None and knows.fixed else None
                return [ubx_messages.tim_tp(self.gnss.at(tai_s + 1), late_ns)]
        raise ValueError(f"no receiver sends {name!r}")

    def _used(self, tai_s: int, knows: Knowledge) -> int:
        return sum(s.used for s in self._sky(tai_s, knows))

    def _sky(self, tai_s: int, knows: Knowledge) -> Sequence[Satellite]:
        """What this receiver can see: talker GP is a GPS-only one."""
        seen = self.gnss.sky(tai_s, knows.stage)
        return seen if self.model.talker == b"GN" else [s for s in seen if s.gnss == "GPS"]

    def _obey(self, command: tuple[int, int], payload: bytes) -> list[bytes]:
        if command == ubx_messages.MON_VER and not payload:
            return [ubx_messages.mon_ver(self.model.software, self.model.hardware, self.model.extensions)]
        if command[0] != ubx_messages.CFG_MSG[0]:
            return []
        done = ubx_messages.ACK_NAK
        if command == ubx_messages.CFG_MSG and len(payload) in (3, 8):  # this port's rate; or those of six ports, UART1 is the second
            name = _CONFIGURABLE.get((payload[0], payload[1]))
            if name is not None:
                self.rates[name] = payload[2] if len(payload) == 3 else payload[3]
                done = ubx_messages.ACK_ACK
        return [ubx_messages.frame(done, bytes(command))]
