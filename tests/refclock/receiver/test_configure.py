"""Configuration: the frames of each family, byte for byte where a manual has them, and a dialogue that survives a bad line."""

from __future__ import annotations

import struct

import pytest

from refclock.config import Position, position
from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.ubx import encode
from refclock.receiver.commands import ANSWER_NS, CommandQueue, Item, Result
from refclock.receiver.configure import MTK_MESSAGES, Family, carried, family, for_timing, output, plan, pulse_values, settings
from refclock.receiver.profile import PositionProfile, PulseProfile, TimeBase, TimingProfile
from refclock.receiver.ubx_settings import CFG_MSG, CFG_TP5, RAM, TP5, value_set
from refclock.sample import Instant

M8 = "u-blox NEO-M8N-0 ROM CORE 3.01 (107888) hardware 00080000"
SIX = "u-blox 7.03 (45969) hardware 00040007"
F9 = "u-blox ZED-F9T EXT CORE 1.00 (62bf20) hardware 00190000"
MTK = "PMTK705,AXN_2.31_3339_13101700,5632,PA6H,1.0"
FACTORY_TP5 = struct.pack("<BBHhhIIIIiI", 0, 1, 0, 50, 0, 1_000_000, 1_000_000, 0, 100_000, 0, 0x77)


def time_pulse(payload: bytes, pulse: PulseProfile, base: TimeBase) -> bytes:
    return TP5.write(payload, pulse_values(pulse, base))


def said(*command: int, payload: bytes = b"") -> Frame:
    return Frame(FrameKind.UBX, bytes(command) + payload, Instant(0, 0), True)


def acknowledged(command: tuple[int, int], done: bool = True) -> Frame:
    return said(5, int(done), payload=bytes(command))


def named(items: list[Item]) -> dict[str, Item]:
    return {item.name: item for item in items}


@pytest.mark.parametrize(
    ("identity", "kind"),
    [
        *((M8, Family.UBLOX_8), (SIX, Family.UBLOX_6), (F9, Family.UBLOX_9), (MTK, Family.MTK), ("", None), ("MOD=NEO-M8N", None)),
        ("u-blox ROM SPG 5.10 (7b202e) hardware 000A0000", Family.UBLOX_9),
        ("u-blox something hardware 00010000", None),
    ],
)
def test_the_family_is_read_from_what_the_receiver_calls_itself(identity: str, kind: Family | None) -> None:
    """By the hardware's generation; what is not known is left alone."""
    assert family(identity) is kind
    assert bool(plan(identity, TimingProfile())) is (kind is not None)


def test_frames_of_ublox_8() -> None:
    """The frames that u-center writes for the same settings, and sentences silenced only behind NAV-PVT."""
    items = plan(M8, TimingProfile(stationary=True, save=True))
    frames = {item.name: item.frame for item in items}
    assert frames["NAV-PVT"] == bytes.fromhex("b562060103000107011351")
    assert frames["rate"] == bytes.fromhex("b56206080600e803010000000037")
    assert frames["no GLL"] == encode(6, 1, b"\xf0\x01\x00")
    assert frames["stationary"] == encode(6, 0x24, b"\x01\x00\x02" + bytes(33))
    assert frames["pulse"] == encode(6, 0x31, b"\0")
    assert frames["save"][6:18] == bytes.fromhex("000000001e1f000000000000")
    assert items[-1].name == "save"
    assert {item.name for item in items if item.needs == "NAV-PVT"} == {"no RMC", "no GGA", "no ZDA"}
    assert not any(name.startswith(("no ", "save", "stationary")) for name in named(plan(M8, TimingProfile(keep_nmea=True, baud=115_200))))


def test_ublox_6_has_no_nav_pvt() -> None:
    """NAV-SOL states the fix there and NAV-TIMEUTC the time."""
    names = list(named(plan(SIX, TimingProfile())))
    assert names.index("NAV-SOL") + 1 == names.index("NAV-TIMEUTC") < names.index("no RMC")
    assert "NAV-SVINFO" in names
    assert "NAV-PVT" not in names


def test_the_pulse_keeps_what_is_left_open() -> None:
    """What u-blox 8 comes with needs no change; cable delay and edge stay unless they are asked for."""
    assert time_pulse(FACTORY_TP5, PulseProfile(), TimeBase.UTC) == FACTORY_TP5
    own = struct.pack("<BBHhhIIIIiI", 0, 1, 0, 73, 0, 100, 100, 50, 50, -5, 0x0F)
    told = struct.unpack("<BBHhhIIIIiI", time_pulse(own, PulseProfile(width_ms=20), TimeBase.GNSS))
    assert told == (0, 1, 0, 73, 0, 1_000_000, 1_000_000, 0, 20_000, -5, 0xB7)
    changed = PulseProfile(on_lock_only=False, rising=True, cable_delay_ns=-12)
    told = struct.unpack("<BBHhhIIIIiI", time_pulse(own, changed, TimeBase.UTC))
    assert (told[3], told[7], told[8], told[10]) == (-12, 100_000, 100_000, 0x77)


def test_frames_of_ublox_9() -> None:
    """CFG-VALSET: keys and values little-endian, on the port that we are on, saved only when asked."""
    items = named(plan(F9, TimingProfile(pulse=PulseProfile(rising=False, cable_delay_ns=-1), stationary=True)))
    assert items["NAV-PVT"].frame == encode(6, 0x8A, bytes.fromhex("00010000 0700912001"))
    assert items["stationary"].frame == encode(6, 0x8A, bytes.fromhex("00010000 2100112002"))
    assert items["no ZDA"].frame == encode(6, 0x8A, bytes.fromhex("00010000 d900912000"))
    assert bytes.fromhex("0b00051000") in items["pulse"].frame
    assert bytes.fromhex("01000530ffff") in items["pulse"].frame
    usb = named(plan(F9, TimingProfile(baud=0, save=True)))
    assert usb["NAV-PVT"].frame == encode(6, 0x8A, bytes.fromhex("00070000 0900912001"))
    assert bytes.fromhex("0b000510") not in usb["pulse"].frame
    assert value_set([(0x40050004, 100_000)], RAM) == bytes.fromhex("00010000 04000540 a0860100")


def test_sentences_of_mediatek() -> None:
    """RMC and ZDA each second, at 1 Hz."""
    items = plan(MTK, TimingProfile())
    assert items[0].frame == b"$PMTK314,0,1,0,1,1,5,0,0,0,0,0,0,0,0,0,0,0,1,0*2D\r\n"
    assert items[1].frame == b"$PMTK220,1000*1F\r\n"
    assert items[2].frame == b"$PMTK300,1000,0,0,0,0*1C\r\n"
    assert [item.frame[:9] for item in items[3:]] == [b"$PMTK386,", b"$PMTK285,"]
    assert items[4].frame.startswith(b"$PMTK285,3,100*")
    older = plan(MTK.replace("AXN_2.31_3339", "AXN_1.30_3329"), TimingProfile(pulse=None))
    assert older[-1].frame.startswith(b"$PMTK397,0*")


# ---- the dialogue ---------------------------------------------------------------------------------------------------------------------


def test_one_frame_at_a_time() -> None:
    """The next goes out when the one before is answered: done or refused, each under its name; what needs a refused one is left out."""
    one, two, three = (Item(n, n.encode(), CFG_MSG, needs=need) for n, need in (("one", ""), ("two", ""), ("three", "two")))
    talk = CommandQueue([one, two, three])
    assert talk.send(0) == b"one"
    assert talk.send(1) == b""
    talk.hear(acknowledged((6, 8)), 2)  # another's
    talk.hear(said(1, 7, payload=bytes(92)), 2)
    assert talk.send(3) == b""
    talk.hear(acknowledged(CFG_MSG), 4)
    assert talk.send(4) == b"two"
    talk.hear(acknowledged(CFG_MSG, False), 5)
    assert talk.send(5) == b""
    assert talk.finished
    assert talk.results == {"one": Result.DONE, "two": Result.REFUSED, "three": Result.LEFT_OUT}


def test_silence_is_asked_once_more() -> None:
    """A second without an answer: once more; another one: given up. A late answer to the first try is not taken for the next item's."""
    talk = CommandQueue([Item("one", b"one", CFG_MSG), Item("two", b"two", CFG_MSG), Item("three", b"three", CFG_MSG)])
    assert talk.send(0) == b"one"
    assert talk.send(ANSWER_NS) == b"one"
    talk.hear(acknowledged(CFG_MSG), ANSWER_NS + 1)
    assert talk.send(ANSWER_NS + 1) == b""
    talk.hear(acknowledged(CFG_MSG, False), ANSWER_NS + 2)  # the second answer
    assert talk.send(2 * ANSWER_NS + 1) == b"two"
    assert talk.send(3 * ANSWER_NS + 1) == b"two"
    assert talk.send(4 * ANSWER_NS + 1) == b"three"
    talk.hear(acknowledged(CFG_MSG), 4 * ANSWER_NS + 2)
    assert talk.send(4 * ANSWER_NS + 2) == b""
    assert talk.results == {"one": Result.DONE, "two": Result.NO_ANSWER, "three": Result.DONE}


def test_the_pulse_is_asked_for_and_edited() -> None:
    """Polled, its answer edited and written; not written when it is as wanted; a lost acknowledgement of the poll costs a second."""
    item = named(plan(M8, TimingProfile()))["pulse"]
    talk = CommandQueue([item])
    assert talk.send(0) == item.frame
    talk.hear(said(*CFG_TP5, payload=FACTORY_TP5), 1)
    talk.hear(acknowledged(CFG_TP5), 2)
    assert talk.send(3) == b""
    assert talk.results == {"pulse": Result.DONE}
    other = FACTORY_TP5[:28] + b"\x07\0\0\0"
    talk = CommandQueue([item])
    talk.send(0)
    talk.hear(said(*CFG_TP5, payload=other), 1)
    wanted = encode(*CFG_TP5, time_pulse(other, PulseProfile(), TimeBase.UTC))
    assert talk.send(2) == b""
    assert talk.send(ANSWER_NS) == wanted
    talk.hear(acknowledged(CFG_TP5), ANSWER_NS + 1)
    assert talk.results == {"pulse": Result.DONE}
    talk = CommandQueue([item])
    talk.send(0)
    talk.hear(acknowledged(CFG_TP5, False), 1)
    assert talk.results == {"pulse": Result.REFUSED}


def test_mediatek_answers_by_number() -> None:
    """PMTK001 with 3 is done, anything less refused; a wrong checksum answers nothing."""
    talk = CommandQueue(plan(MTK, TimingProfile()))
    assert talk.send(0).startswith(b"$PMTK314")
    talk.hear(Frame(FrameKind.NMEA, b"PMTK001,314,3", Instant(0, 0), False), 1)
    talk.hear(Frame(FrameKind.NMEA, b"PMTK001,220,3", Instant(0, 0), True), 1)
    assert not talk.results
    talk.hear(Frame(FrameKind.NMEA, b"PMTK001,314,3", Instant(0, 0), True), 1)
    assert talk.send(2).startswith(b"$PMTK220")
    talk.hear(Frame(FrameKind.NMEA, b"PMTK001,220,1", Instant(0, 0), True), 3)
    assert talk.results == {"sentences": Result.DONE, "rate": Result.REFUSED}
    assert talk.send(4).startswith(b"$PMTK300")


# ---- places, timing, budget -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("47.28512 8.56531 408.3", Position(False, (47.28512, 8.56531, 408.3))),
        ("-33.9, 151.2, 20", Position(False, (-33.9, 151.2, 20.0))),
        ("ECEF 4278000.1 645000.2 4672000.3", Position(True, (4278000.1, 645000.2, 4672000.3))),
        *((wrong, None) for wrong in ("", "47.2 8.5", "91 0 0", "0 181 0", "1 2 nan", "47 8 90000", "ecef 1 2 3", "ecef 1 2", "a b c")),
    ],
)
def test_a_place_is_degrees_and_height_or_ecef(text: str, place: Position | None) -> None:
    """What no antenna can stand at is refused."""
    assert position(text) == place


def test_timing_receivers_are_known_by_name() -> None:
    """Only they are asked to survey by themselves."""
    names = ("LEA-M8T-0", "ZED-F9T", "RCB-F9T-1", "NEO-F10T", "LEA-6T", "LEA-M8F")
    assert all(for_timing(f"u-blox {name} ROM hardware 00080000") for name in names)
    assert not any(for_timing(f"u-blox {name} ROM hardware 00080000") for name in ("NEO-M8N-0", "ZED-F9P", "MAX-M10S", "NEO-M9N", ""))
    auto = TimingProfile(timing=PositionProfile(named_only=True))
    assert "timing mode" in settings(F9, auto)
    assert "timing mode" not in settings(M8, auto)
    assert "timing mode" in settings(M8, TimingProfile(timing=PositionProfile()))


def test_a_running_survey_is_not_begun_anew() -> None:
    """Asked first; nothing is set when it surveys as wanted, or has a position of its owner's; else the wanted survey or position."""
    wanted = TimingProfile(timing=PositionProfile(survey_s=600, accuracy_m=5.0))
    (first, second) = (item for item in plan(M8, wanted) if item.name == "timing mode")
    assert (first.frame, second.frame, second.instead) == (encode(6, 0x3D), encode(6, 0x71), True)
    assert first.edit is not None
    survey = struct.pack("<BxHiiiIII", 1, 0, 0, 0, 0, 0, 600, 5000)
    assert first.edit(survey) == b""
    assert first.edit(struct.pack("<BxHiiiIII", 2, 0, 1, 2, 3, 4, 0, 0)) == b""
    assert first.edit(bytes(28)) == encode(6, 0x3D, survey)
    fixed = TimingProfile(timing=PositionProfile(fixed=Position(False, (47.5, -8.25, 400.5)), accuracy_m=2.0))
    (first, second) = (item for item in plan(M8, fixed) if item.name == "timing mode")
    assert first.edit is not None
    assert second.edit is not None
    assert first.edit(survey) == encode(6, 0x3D, struct.pack("<BxHiiiIII", 2, 1, 475_000_000, -82_500_000, 40_050, 2000, 600, 5000))
    third = struct.pack("<2xHiii4xIII8x", 2 | 1 << 8, 475_000_000, -82_500_000, 40_050, 20_000, 0, 0)
    assert second.edit(bytes(40)) == encode(6, 0x71, third)


@pytest.mark.parametrize("baud", [4800, 9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600])
@pytest.mark.parametrize("identity", [SIX, M8, F9])
@pytest.mark.parametrize("keep_nmea", [False, True])
def test_no_second_holds_more_than_the_line_carries(identity: str, baud: int, keep_nmea: bool) -> None:
    """Even when every message falls on the same second; time, pulse, antenna and leap seconds come at every speed."""
    wanted = output(identity, TimingProfile(keep_nmea=keep_nmea, timing=PositionProfile(), baud=baud))
    assert sum(w.bytes for w in (*wanted.first, *wanted.more)) < baud / 10
    names = {w.name for w in (*wanted.first, *wanted.more)}
    assert {"TIM-TP", "MON-RF" if identity == F9 else "MON-HW"} <= names
    assert bool({"NAV-PVT", "NAV-SOL"} & names)
    assert not names & {w.name for w in wanted.out} | names & set(wanted.silent)
    if baud >= 38_400:
        assert not wanted.out
    mtk, _ = carried(MTK_MESSAGES, baud)
    assert {"RMC", "ZDA"} <= {w.name for w in mtk}
    assert sum(w.bytes for w in mtk) < baud / 10
