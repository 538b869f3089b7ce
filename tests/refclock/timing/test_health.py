"""Health: what the receiver says of antenna, jamming, spoofing and position, and what is done about it."""

from __future__ import annotations

import struct

import pytest

from refclock.condition import Code, Condition
from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.ubx import UbxDecoder
from refclock.sample import NS, Antenna, FixMode, HealthReport, Instant, SkyView, Survey
from refclock.timing.health import CALM_S, COASTING_S, SILENT_S, STILL_S, Health, metres

AT = Instant(0, 0)


def at(s: float) -> Instant:
    return Instant(0, round(s * NS))


def blocked(health: Health, s: float) -> str:
    """Why its time is refused then, "" when it is not."""
    found = health.blocked(round(s * NS))
    return "" if found is None else found.words


def sky(health: Health, s: float, used: int = 9, mode: FixMode = FixMode.FIX_3D) -> None:
    health.sky(SkyView(mode, used, (), at(s)))


def ubx(message: tuple[int, int], payload: bytes) -> HealthReport:
    ((report,), _) = UbxDecoder(0).decode(Frame(FrameKind.UBX, bytes(message) + payload, AT, True))
    assert isinstance(report, HealthReport)
    return report


@pytest.mark.parametrize(("status", "state"), [(0, Antenna.UNKNOWN), (2, Antenna.OK), (3, Antenna.SHORT), (4, Antenna.OPEN)])
def test_ubx_hardware_messages_tell_antenna_and_jamming(status: int, state: Antenna) -> None:
    """MON-HW of u-blox 6 and 8 and MON-RF tell antenna and jamming; of two paths the worse one counts."""
    for length in (60, 68):
        payload = bytearray(length)
        payload[20], payload[22] = status, 0b1100
        assert ubx((0x0A, 0x09), bytes(payload)) == HealthReport(AT, antenna=state, jamming=3)
    block = bytes((0, 2, status)) + bytes(21)
    other = bytes((1, 1, 2 if status else 0)) + bytes(21)
    assert ubx((0x0A, 0x38), bytes((0, 2, 0, 0)) + other + block) == HealthReport(AT, antenna=state, jamming=2)


def test_ubx_security_messages_tell_spoofing() -> None:
    """SEC-SIG 1 and 2 while their detection is on, and NAV-STATUS."""
    assert ubx((0x27, 9), bytes((1, 0, 0, 0, 0b101, 0, 0, 0, 0b101, 0, 0, 0))) == HealthReport(AT, jamming=2, spoofing=2)
    assert ubx((0x27, 9), bytes((1, 0, 0, 0, 0b110, 0, 0, 0, 0b110, 0, 0, 0))) == HealthReport(AT)
    assert ubx((0x27, 9), bytes((2, 0b0011_1111, 0, 0))) == HealthReport(AT, jamming=3, spoofing=3)
    assert ubx((0x01, 3), bytes((0, 0, 0, 0, 3, 1, 0, 2 << 3)) + bytes(8)) == HealthReport(AT, spoofing=2)


def test_ubx_place_and_survey() -> None:
    """NAV-PVT tells where, NAV-SVIN and TIM-SVIN how the survey stands: seconds, metres, mean place."""
    pvt = bytearray(92)
    pvt[20], pvt[21] = 3, 1
    struct.pack_into("<ii", pvt, 24, -1_234_567, 515_000_000)
    struct.pack_into("<I", pvt, 40, 2500)
    reports = UbxDecoder(0).decode(Frame(FrameKind.UBX, b"\1\7" + bytes(pvt), AT, True)).values
    assert reports == [HealthReport(AT, position=(51.5, -0.1234567), accuracy_m=2.5)]
    svin = struct.pack("<8xIiiibbbxIIBB2x", 120, 427_800_010, -64_500_020, 467_200_030, 1, -2, 3, 23_400, 120, 0, 1)
    assert ubx((0x01, 0x3B), svin) == HealthReport(AT, survey=Survey(True, False, 120, 2.34, (4278000.1001, -645000.2002, 4672000.3003)))
    svin = struct.pack("<IiiiIIBB2x", 3600, 427_800_010, -64_500_020, 467_200_030, 6_250_000, 3600, 1, 0)
    assert ubx((0x0D, 0x04), svin) == HealthReport(AT, survey=Survey(False, True, 3600, 2.5, (4278000.1, -645000.2, 4672000.3)))


def test_timing_is_told_in_words() -> None:
    """Survey going on, done, a position that was given, and nothing of a receiver that does none of it."""
    health = Health()
    assert health.timing == ""
    health.report(HealthReport(AT, survey=Survey(True, False, 120, 2.34, (0.0, 0.0, 0.0))))
    words = "surveying in its position for 120 s, known to ±2.3 m; its time is good meanwhile"
    assert health.timing == words
    assert health.conditions(AT.mono_ns) == (Condition(Code.SURVEYING, words),)
    health.report(HealthReport(AT, survey=Survey(False, True, 3600, 1.0, (0.0, 0.0, 0.0))))
    assert health.timing == "time from the position that it surveyed in for 3600 s, known to ±1.0 m"
    health.report(HealthReport(AT, survey=Survey(False, False, 0, 0.0, (0.0, 0.0, 0.0))))
    assert health.timing == ""
    health.sky(SkyView(FixMode.TIME_ONLY, 5, (), AT))
    assert health.timing == "time from the position that it was given"
    assert health.conditions(AT.mono_ns) == ()


def test_cut_cable_blocks_until_well() -> None:
    """Well, then open: refused at once and said; well again: used at once."""
    health = Health()
    sky(health, 0)
    health.report(HealthReport(at(1), antenna=Antenna.OK))
    assert health.conditions(NS) == ()
    health.report(HealthReport(at(100), antenna=Antenna.OPEN))
    told = "the antenna is disconnected (open): the receiver coasts and its time is not used; check plug and cable"
    assert blocked(health, 100) == told
    health.report(HealthReport(at(110), antenna=Antenna.OK))
    assert health.conditions(110 * NS) == ()


def test_splitter_is_harmless() -> None:
    """ "Open" from the first moment, or for a minute with a fix, is told and does no harm; so is a short circuit without a fix told."""
    health = Health()
    health.report(HealthReport(at(0), antenna=Antenna.OPEN))
    sky(health, 0)
    assert blocked(health, 1) == ""
    assert "harmless" in health.conditions(NS)[0].words
    health.report(HealthReport(at(1), antenna=Antenna.OK))
    health.report(HealthReport(at(2), antenna=Antenna.SHORT))
    assert "short-circuited" in blocked(health, 2)
    sky(health, 3, used=0, mode=FixMode.NONE)
    sky(health, 20)
    assert blocked(health, (2 + COASTING_S + 1))
    assert blocked(health, (20 + COASTING_S + 1)) == ""


@pytest.mark.parametrize("kind", ["jamming", "spoofing"])
def test_alarm_calms_down(kind: str) -> None:
    """A critical state blocks, until calm for a minute or unheard for two; a jamming warning is only told."""
    health = Health()
    health.report(HealthReport(at(0), **{kind: 3}))
    assert kind in blocked(health, 0)
    for s in range(1, CALM_S + 5):
        health.report(HealthReport(at(s), **{kind: 1}))
        assert bool(blocked(health, s)) == (s <= CALM_S)
    health.report(HealthReport(at(100), **{kind: 2}))
    assert bool(blocked(health, 100)) == (kind == "spoofing")
    assert len(health.conditions(100 * NS)) == 1
    assert health.conditions((101 + SILENT_S) * NS) == ()


def still(health: Health, first: int, last: int, place: tuple[float, float]) -> None:
    for s in range(first, last):
        health.report(HealthReport(at(s), position=(place[0] + 1e-5 * (s % 3), place[1])))


def test_fixed_antenna_that_jumps() -> None:
    """Ten minutes at one place, then 3 km away from one second to the next: refused with the distance, until it is back."""
    health, home = Health(), (51.5, -0.12)
    still(health, 0, STILL_S + 5, home)
    still(health, STILL_S + 5, STILL_S + 20, (51.527, -0.12))
    assert "the antenna stood still and now is 3.0 km away" in blocked(health, (STILL_S + 20))
    still(health, STILL_S + 20, STILL_S + 21, home)
    assert blocked(health, (STILL_S + 21)) == ""
    still(health, STILL_S + 30, 2 * STILL_S + 40, (51.527, -0.12))  # moved for good
    assert blocked(health, (2 * STILL_S + 40)) == ""


def test_vehicle_is_no_jump() -> None:
    """A parked car that drives off, at any speed, and a receiver that appears elsewhere after a silence, are not refused."""
    for speed in (2, 15, 90):
        health = Health()
        still(health, 0, STILL_S + 5, (51.5, -0.12))
        for s in range(300):
            health.report(HealthReport(at(STILL_S + 5 + s), position=(51.5 + s * speed / 111_195, -0.12)))
            assert blocked(health, (STILL_S + 5 + s)) == ""
        still(health, STILL_S + 400, STILL_S + 410, (48.0, 11.0))
        assert blocked(health, (STILL_S + 410)) == ""


def test_two_dimensions_widen_the_bound() -> None:
    """A 2D fix is used with a microsecond more of bound, and said."""
    health = Health()
    sky(health, 0, 3, FixMode.FIX_2D)
    assert health.extra_ns == 1000
    assert [(c.code, c.blocks) for c in health.conditions(0)] == [(Code.FIX_2D, False)]
    sky(health, 1)
    assert (health.extra_ns, health.conditions(NS)) == (0, ())


def test_distance_on_the_globe_is_right() -> None:
    """London to Paris is 344 km, the antipodes half the Earth's girth."""
    assert metres((51.5074, -0.1278), (48.8566, 2.3522)) == pytest.approx(343_556, rel=2e-3)
    assert metres((0, 0), (0, 180)) == pytest.approx(20_015_100, rel=1e-3)
