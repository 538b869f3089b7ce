"""A receiver at byte level: the output of its serial port after each true second, and its answers to the host.

Flow: gnss.Knowledge -> nmea, ubx, commands -> **output** -> paced chunks -> pty (real time) or world (simulated time). It has no clock: the
shell asks for one cycle per true second, in order. The line carries one byte per ten bit times. Output that does not fit into a second
delays the next one, as in a real receiver whose port is too slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from refclock.sample import NS, FixMode, Satellite
from refclock_sim.models.pulse import Sawtooth
from refclock_sim.receiver import nmea, ubx
from refclock_sim.receiver.commands import FIXED, NOT_SAID, ReceiverSettings
from refclock_sim.receiver.gnss import Gnss, Knowledge
from refclock_sim.receiver.nmea import Civil

MS = 1_000_000
BITS_PER_BYTE = 10
"""8N1: start bit, eight data bits, stop bit."""
BUFFER_BYTES = 1024
"""Bytes that wait for the line; beyond it a u-blox receiver drops whole messages. The others never drop."""
EARLIEST_NS = MS
"""ns: earliest report after its second, whatever the jitter."""


class Chunk(NamedTuple):
    """One sentence or message. ``offset_ns``: from the true second to the arrival of its **last** byte."""

    offset_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of receiver.

    ``messages``: (name, period in seconds) in order of sending. ``delay_ns``, ``jitter_ns``: from the true second to the first byte, mean
    and standard deviation. ``baud`` 0: native USB, a chunk arrives at once. ``ubx``, ``keys``, ``pmtk``: the commands that it obeys
    (commands.ReceiverSettings). ``starts``: sentences at power-on.
    """

    what: str
    messages: tuple[tuple[str, int], ...]
    talker: bytes = b"GP"
    baud: int = 9600
    delay_ns: int = 60 * MS
    jitter_ns: int = 3 * MS
    banner: tuple[str, ...] = ()
    ubx: bool = False
    keys: bool = False
    pmtk: str = ""
    starts: tuple[bytes, ...] = ()
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
_MT3339 = "PMTK705,AXN_2.31_3339_13101700,5632,PA6H,1.0"
_MTK_STARTS = (b"PMTK011,MTKGPS", b"PMTK010,001")
_WATCHED = (*_UBLOX8.messages, ("MON-HW", 1), ("SEC-SIG", 1))
_TIMING = (*_UBX, ("NAV-SAT", 5), ("NAV-EOE", 1))
MODELS = {
    "ublox8": _UBLOX8,
    "ublox8-nmea": replace(_UBLOX8, what="u-blox 8 as it comes, NMEA only", messages=_NMEA),
    "ublox9": replace(
        _UBLOX8,
        what="u-blox F9T as it comes, NMEA only, configured by keys",
        messages=_NMEA,
        baud=38_400,
        banner=("u-blox AG - www.u-blox.com", "HW UBX 9 00190000", "PROTVER=29.00", "MOD=ZED-F9T"),
        keys=True,
        software="EXT CORE 1.00 (3fda8e)",
        hardware="00190000",
        extensions=("ROM BASE 0x118B2060", "FWVER=TIM 2.01", "PROTVER=29.00", "MOD=ZED-F9T", "GPS;GLO;GAL;BDS"),
    ),
    "ublox8-timing": replace(
        _UBLOX8,
        what="u-blox M8T as it comes, NMEA only, surveys in its position",
        messages=_NMEA,
        banner=("u-blox AG - www.u-blox.com", "HW UBX-M8030 00080000", "PROTVER=22.00", "MOD=LEA-M8T-0"),
        software="EXT CORE 3.01 (111141)",
        extensions=("ROM BASE 2.01 (75331)", "FWVER=TIM 1.10", "PROTVER=22.00", "MOD=LEA-M8T-0", "GPS;GLO;GAL;BDS"),
    ),
    "timing": replace(_UBLOX8, what="u-blox timing receiver, UBX only", messages=_TIMING, baud=115_200, delay_ns=40 * MS),
    "watched": replace(_UBLOX8, what="u-blox 8 that reports its health", messages=_WATCHED, baud=38_400),
    "casic": Model("NMEA receiver with an antenna notice", (*_NMEA, ("ANT", 1)), delay_ns=180 * MS),
    "nmea": Model("plain NMEA receiver", _NMEA, delay_ns=120 * MS, jitter_ns=10 * MS),
    "minimal": Model("RMC, GGA and ZDA only", (("RMC", 1), ("GGA", 1), ("ZDA", 1))),
    "slow": Model("4800 baud mouse, late and wandering, no ZDA", _NMEA[:4], baud=4800, delay_ns=250 * MS, jitter_ns=60 * MS),
    "mtk": Model("NMEA receiver that is half a second late", _NMEA, delay_ns=497 * MS, jitter_ns=10 * MS, pmtk=_MT3339, starts=_MTK_STARTS),
}
"""Kinds of receivers. Delays are like published ones: 62-65 ms (u-blox F10), 128-165 (M10), 500 (MT3339); SiRF wanders by 170 ms."""


class Receiver:
    """One receiver of a kind. ``baud`` replaces the kind's own. ``sawtooth``: the pulse's quantisation error, which TIM-TP states.
    ``bits``: the line's format (uart.FORMATS), which a strict pty applies."""

    bits = "8N1"

    def __init__(self, model: Model, gnss: Gnss, seed: int, baud: int | None = None, sawtooth: Sawtooth | None = None) -> None:
        self.model = model
        self.gnss = gnss
        self.baud = model.baud if baud is None else baud
        self.sawtooth = sawtooth
        version = ubx.mon_ver(model.software, model.hardware, model.extensions)
        self.settings = ReceiverSettings(model.messages, version, model.ubx, model.keys, model.pmtk)
        self.late_ns = 0
        """Delay of its answers."""
        self._random = Random(f"receiver {seed}")
        self._line_free_ns = self._burst_ns = 0  # TAI: end and begin of the last burst planned
        self._greeted = False

    @property
    def byte_ns(self) -> int:
        """Line time of one byte; 0: native USB."""
        return BITS_PER_BYTE * NS // self.baud if self.baud else 0

    def cycle(self, tai_s: int) -> list[Chunk]:
        """The output of the true second ``tai_s`` (TAI). Ask for each second once, in order. Cost: 20 µs for RMC, GGA and ZDA."""
        knows = self.gnss.at(tai_s)
        at = nmea.civil(knows.label)
        delay = max(EARLIEST_NS, round(self._random.gauss(self.model.delay_ns, self.model.jitter_ns))) + knows.delay_ns
        parts: list[bytes] = []
        if not self._greeted:
            self._greeted = True
            parts += nmea.txt(self.model.talker, self.model.banner)
            parts += [nmea.sentence(body) for body in self.model.starts]
        for i, (name, every) in enumerate(self.settings.rates.items()):
            if every and (tai_s + i) % every == 0:  # the long, rare ones fall on different seconds
                parts += self._message(name, tai_s, knows, at)
        second_ns = tai_s * NS
        self._burst_ns = second_ns + delay
        return [Chunk(end - second_ns, data) for end, data in self._send(self._burst_ns, parts)]

    def hear(self, data: bytes, tai_ns: int) -> list[tuple[int, bytes]]:
        """Bytes from the host at TAI ``tai_ns``; the answers as (TAI ns of the last byte, bytes).

        A CFG message that is unknown is refused with ACK-NAK, other unknown messages are ignored. A model without commands ignores all.
        """
        answers = self.settings.hear(data, tai_ns // NS)
        for message, said in ((ubx.NAV_SVIN, ubx.nav_svin), (ubx.TIM_SVIN, ubx.tim_svin)):
            if self.model.ubx and ubx.frame(message) in data:
                answers.append(said(self.settings.survey(tai_ns // NS)))
        return self._send(tai_ns + self.late_ns, answers) if answers else []

    def power_dip(self, greets: bool = True) -> None:
        """Lose the host's settings, and greet again unless ``greets`` is False (the greeting fell into the dip)."""
        self.settings.reset()
        self._greeted = not greets

    def _send(self, earliest_ns: int, parts: Sequence[bytes]) -> list[tuple[int, bytes]]:
        sent = []
        byte_ns = self.byte_ns
        free = max(earliest_ns, self._line_free_ns)
        for part in parts:
            if self.model.ubx and free - max(earliest_ns, self._burst_ns) > BUFFER_BYTES * byte_ns > 0:
                continue
            free += len(part) * byte_ns
            sent.append((free, part))
        self._line_free_ns = free
        return sent

    def _message(self, name: str, tai_s: int, knows: Knowledge, at: Civil) -> list[bytes]:
        talker = self.model.talker
        if name.startswith("NAV-") and knows.fixed and (self.settings.mode == FIXED or self.settings.survey(tai_s)[3]):
            knows = knows._replace(mode=FixMode.TIME_ONLY)
        match name:
            case "RMC":
                return [nmea.rmc(talker, knows, at)]
            case "GGA":
                return [nmea.gga(talker, knows, at, self._used(tai_s, knows))]
            case "ZDA":
                return [nmea.zda(talker, knows, at)]
            case "GSA":
                return nmea.gsa(talker, knows, self._sky(tai_s, knows))
            case "GSV":
                return nmea.gsv(self._sky(tai_s, knows))
            case "ANT":
                return [nmea.antenna(talker, knows)]
            case "MON-HW":
                return [ubx.mon_hw(knows)]
            case "MON-RF":
                return [ubx.mon_rf(knows)]
            case "NAV-STATUS":
                return [ubx.nav_status(knows)]
            case "NAV-SVIN":
                return [ubx.nav_svin(self.settings.survey(tai_s))]
            case "TIM-SVIN":
                return [ubx.tim_svin(self.settings.survey(tai_s))]
            case "SEC-SIG":
                return [ubx.sec_sig(knows)]
            case "NAV-PVT":
                return [ubx.nav_pvt(knows, at, self._used(tai_s, knows))]
            case "NAV-SOL":
                return [ubx.nav_sol(knows, self._used(tai_s, knows))]
            case "NAV-TIMEGPS":
                return [ubx.nav_timegps(knows)]
            case "NAV-TIMEUTC":
                return [ubx.nav_timeutc(knows, at)]
            case "NAV-TIMELS":
                return [ubx.nav_timels(knows)]
            case "NAV-SAT":
                return [ubx.nav_sat(knows, self._sky(tai_s, knows))]
            case "NAV-EOE":
                return [ubx.nav_eoe(knows)]
            case "TIM-TP":
                late_ns = self.sawtooth.late_ns(tai_s + 1) if self.sawtooth is not None and knows.fixed else None
                return [ubx.tim_tp(self.gnss.at(tai_s + 1), late_ns)]
        if name in NOT_SAID:
            return []
        raise ValueError(f"no receiver sends {name!r}")

    def _used(self, tai_s: int, knows: Knowledge) -> int:
        return sum(s.used for s in self._sky(tai_s, knows))

    def _sky(self, tai_s: int, knows: Knowledge) -> Sequence[Satellite]:
        """The satellites that this receiver tracks: with talker GP only GPS."""
        seen = self.gnss.sky(tai_s, knows.stage)
        return seen if self.model.talker == b"GN" else [s for s in seen if s.gnss == "GPS"]
