"""The simulated receivers as a host finds them: configured over their line, forgetful after a loss of power, deaf when they are plain."""

from __future__ import annotations

import struct

import pytest
from refclock_sim.receiver.commands import FACTORY_PULSE
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.nmea import sentence
from refclock_sim.receiver.output import MODELS, MS, Receiver
from refclock_sim.receiver.ubx import frame

from refclock.protocols.framing import Framer
from refclock.receiver.commands import CommandQueue, Result
from refclock.receiver.configure import plan
from refclock.receiver.profile import PulseProfile, TimeBase, TimingProfile
from refclock.sample import NS, Instant
from refclock.timescales import LeapTable

TAI0 = 1_798_761_600 - 60 + 37
IDENTITY = {
    "ublox8-nmea": "u-blox NEO-M8N-0 ROM CORE 3.01 (107888) hardware 00080000",
    "ublox9": "u-blox ZED-F9T EXT CORE 1.00 (3fda8e) hardware 00190000",
    "mtk": "PMTK705,AXN_2.31_3339_13101700,5632,PA6H,1.0",
}
WANTED = TimingProfile(
    pulse=PulseProfile(width_ms=20, rising=False, cable_delay_ns=73), stationary=True, time_base=TimeBase.GNSS, save=True
)


def simulated(model: str) -> Receiver:
    return Receiver(MODELS[model], Gnss(7, TAI0, LeapTable(), fix_s=0), 7)


def configured(receiver: Receiver, identity: str, intent: TimingProfile, second: int = TAI0) -> tuple[dict[str, Result], int]:
    """The dialogue over the paced line, among what the receiver says anyway; the results and the second at which it ended."""
    talk, framer = CommandQueue(plan(identity, intent)), Framer()
    line: list[tuple[int, bytes]] = []
    for tai_s in range(second, second + 100):
        line += [(tai_s * NS + chunk.offset_ns, chunk.data) for chunk in receiver.cycle(tai_s)]
        for now in range(tai_s * NS, (tai_s + 1) * NS, 50 * MS):
            for end, data in sorted(line):
                if end <= now:
                    line.remove((end, data))
                    for told in framer.feed(data, Instant(0, end), receiver.byte_ns):
                        talk.hear(told, now)
            wish = talk.send(now)
            line += receiver.hear(wish, now) if wish else []
        if talk.finished:
            return talk.results, tai_s + 1
    raise AssertionError(f"never finished: {talk.results}")


@pytest.mark.parametrize("model", sorted(IDENTITY))
def test_every_item_is_done_and_again_after_a_power_dip(model: str) -> None:
    """Each family over its own line at its own speed; what was set is what is sent, a dip undoes it, and the same plan brings it back."""
    receiver = simulated(model)
    second = TAI0
    for _ in range(2):
        results, second = configured(receiver, IDENTITY[model], WANTED, second)
        assert results
        assert set(results.values()) == {Result.DONE}
        said = receiver.settings.rates
        if model == "mtk":
            assert [said[name] for name in ("RMC", "ZDA", "GSV", "GLL")] == [1, 1, 5, 0]
        else:
            assert [said[name] for name in ("NAV-PVT", "TIM-TP", "NAV-SAT", "RMC", "GSV")] == [1, 1, 5, 0, 0]
        receiver.power_dip()
        assert receiver.settings.rates == dict(MODELS[model].messages)
        assert receiver.settings.pulse == FACTORY_PULSE
        second += 1


def test_the_pulse_becomes_what_was_wanted() -> None:
    """CFG-TP5 by reading and writing, the keys of u-blox 9 at once: width, edge, cable and grid."""
    old, new = simulated("ublox8-nmea"), simulated("ublox9")
    configured(old, IDENTITY["ublox8-nmea"], WANTED)
    configured(new, IDENTITY["ublox9"], WANTED)
    assert struct.unpack("<BBHhhIIIIiI", old.settings.pulse) == (0, 1, 0, 73, 0, 1_000_000, 1_000_000, 0, 20_000, 0, 0xB7)
    assert old.settings.model == new.settings.values[0x20110021] == 2
    values = {key: new.settings.values[key] for key in (0x30050001, 0x40050004, 0x40050005, 0x1005000B, 0x2005000C)}
    assert values == {0x30050001: 73, 0x40050004: 0, 0x40050005: 20_000, 0x1005000B: 0, 0x2005000C: 1}


def test_what_a_receiver_has_not_is_refused() -> None:
    """u-blox 8 has no keys and no MON-RF; an unknown key refuses its whole frame; PMTK tells unknown commands apart from bad ones."""
    refused, taken = frame((5, 0), b"\x06\x8a"), frame((5, 1), b"\x06\x8a")
    key = bytes.fromhex("00010000 0700912001")
    assert [d for _, d in simulated("ublox8").hear(frame((6, 0x8A), key), 0)] == [refused]
    assert [d for _, d in simulated("ublox8").hear(frame((6, 1), b"\x0a\x38\x01"), 0)] == [frame((5, 0), b"\x06\x01")]
    nine = simulated("ublox9")
    assert [d for _, d in nine.hear(frame((6, 0x8A), key + bytes.fromhex("0100ff2001")), 0)] == [refused]
    assert "NAV-PVT" not in nine.settings.rates
    assert [d for _, d in nine.hear(frame((6, 0x8A), key), 0)] == [taken]
    said = b"".join(sentence(body) for body in (b"PMTK999", b"PMTK220,5", b"PMTK605")) + b"$PMTK605*00\r\n"
    answers = [data.split(b"*")[0] for _, data in simulated("mtk").hear(b"\xb5b" + said, 0)]
    assert answers == [b"$PMTK001,999,1", b"$PMTK001,220,0", b"$PMTK705,AXN_2.31_3339_13101700,5632,PA6H,1.0"]


def test_a_plain_receiver_is_deaf() -> None:
    """Nothing is answered and nothing changes."""
    receiver = simulated("nmea")
    for identity in IDENTITY.values():
        for item in plan(identity, WANTED):
            assert receiver.hear(item.frame, 0) == []
    assert receiver.settings.rates == dict(MODELS["nmea"].messages)
