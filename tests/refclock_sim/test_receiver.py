"""The simulated receiver's bytes: right second, checksums, pace, stages, leap seconds, faults, obedience."""

from __future__ import annotations

import itertools
import re
import struct

import pytest
from refclock_sim.models.pulse import Sawtooth
from refclock_sim.receiver.gnss import Gnss, LabelFault, Stage
from refclock_sim.receiver.nmea import sentence
from refclock_sim.receiver.output import MODELS, MS, Chunk, Receiver
from refclock_sim.receiver.ubx import MON_VER, frame

from ppsd.config.tables import SIMULATED
from refclock.protocols import stream as decoding
from refclock.protocols.checksums import nmea_checksum, ubx_checksum
from refclock.sample import NS, FixMode, Instant, LeapNotice, SecondLabel, SkyView
from refclock.sample import Sawtooth as Told
from refclock.timescales import ROLLOVER_S, LeapTable

UTC0 = 1_798_761_600 - 60
"""2026-12-31T23:59:00Z."""
TAI0 = UTC0 + 37
PLAIN = LeapTable()
INSERTED = PLAIN.with_leap(UTC0 + 60, 1)
DELETED = PLAIN.with_leap(UTC0 + 60, -1)


def simulated(
    model: str = "minimal", table: LeapTable = PLAIN, *, power_on: int = TAI0, baud: int | None = None, **sky: object
) -> Receiver:
    """A receiver that was switched on at ``power_on`` and, unless told otherwise, has its fix at once."""
    gnss = Gnss(7, power_on, table, **{"fix_s": 0, **sky})  # type: ignore[arg-type]
    return Receiver(MODELS[model], gnss, 7, baud, Sawtooth(7))


def test_the_configuration_names_every_receiver_of_the_simulator() -> None:
    """``[simulation] receiver`` is checked without the simulator, which is a program of its own."""
    assert tuple(MODELS) == SIMULATED


def text(chunks: list[Chunk], kind: str) -> list[list[str]]:
    """The fields of the sentences of one kind."""
    found = [c.data.decode("ascii").strip() for c in chunks if c.data.startswith(b"$")]
    return [line[1:-3].split(",") for line in found if line[3:6] == kind]


def heard(receiver: Receiver, seconds: int, first: int = TAI0) -> list[tuple[int, object]]:
    """What the real decoders make of the bytes: (true TAI second of the cycle, value); chunk by chunk, in order of arrival."""
    decoder = decoding.ReceiverStream(1_700_000_000)
    values: list[tuple[int, object]] = []
    for tai_s in range(first, first + seconds):
        for chunk in receiver.cycle(tai_s):
            now = tai_s * NS + chunk.offset_ns
            values += [(tai_s, value) for value in decoder.feed(chunk.data, Instant(now - 37 * NS, now), receiver.byte_ns)]
    return values


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_frame_is_sound_and_names_its_second(model: str) -> None:
    """Whatever the kind: only whole frames with right checksums, and every label names the true second of its cycle, seen after it."""
    receiver = simulated(model)
    for chunk in receiver.cycle(TAI0):
        if chunk.data.startswith(b"$"):
            body, star, rest = chunk.data[1:].rpartition(b"*")
            assert (star, rest) == (b"*", b"%02X\r\n" % nmea_checksum(body))
        else:
            assert chunk.data[:2] == b"\xb5\x62"
            assert chunk.data[-2:] == ubx_checksum(chunk.data[2:-2])
            assert struct.unpack_from("<H", chunk.data, 4)[0] == len(chunk.data) - 8
    labels = [(tai, v) for tai, v in heard(receiver, 30, TAI0 + 1) if isinstance(v, SecondLabel)]
    assert len(labels) >= 25
    for tai, label in labels:
        assert label.utc_ns == (tai - 37) * NS
        assert label.at.mono_ns > tai * NS


@pytest.mark.parametrize("baud", [4800, 9600, 115_200])
def test_bytes_take_ten_bit_times(baud: int) -> None:
    """Chunks follow each other at the line's pace, start, eight data and stop bit for each byte; the first after the receiver's delay."""
    receiver = simulated("minimal", baud=baud)
    chunks = receiver.cycle(TAI0)
    first = chunks[0].offset_ns - len(chunks[0].data) * receiver.byte_ns
    assert abs(first - 60 * MS) < 5 * 3 * MS
    for before, after in itertools.pairwise(chunks):
        assert (after.offset_ns - before.offset_ns) / len(after.data) == pytest.approx(10e9 / baud, rel=1e-4)


def test_native_usb_has_no_pace() -> None:
    """At baud 0 a cycle is there at once."""
    assert len({c.offset_ns for c in simulated("nmea", baud=0).cycle(TAI0)}) == 1


def test_an_overloaded_line_falls_behind() -> None:
    """A port that is too slow for its messages delays each cycle more than the last, and no two chunks ever overlap."""
    receiver = simulated("ublox8", baud=4800)
    ends, begins = [], []
    for tai_s in range(TAI0, TAI0 + 10):
        for chunk in receiver.cycle(tai_s):
            end = (tai_s - TAI0) * NS + chunk.offset_ns
            begins.append(end - len(chunk.data) * receiver.byte_ns)
            ends.append(end)
    assert all(begin >= end for begin, end in zip(begins[1:], ends, strict=False))
    assert ends[-1] > 10.5 * NS


def test_delay_has_its_mean_and_jitter() -> None:
    """The first byte comes after the model's mean delay, with its jitter, and never before the second has begun."""
    receiver = simulated("slow", baud=0)
    delays = [receiver.cycle(tai_s)[0].offset_ns / MS for tai_s in range(TAI0, TAI0 + 2000)]
    mean = sum(delays) / len(delays)
    assert mean == pytest.approx(250, abs=5)
    assert (sum((d - mean) ** 2 for d in delays) / len(delays)) ** 0.5 == pytest.approx(60, rel=0.1)
    assert min(delays) >= 1


# ---- stages ---------------------------------------------------------------------------------------------------------------------------


def test_a_cold_start_goes_from_empty_to_void_to_valid() -> None:
    """No time, then time without date or fix, then 2D, then 3D; the banner comes once, at the start."""
    receiver = simulated("ublox8-nmea", fix_s=9)
    seen = [receiver.cycle(TAI0 + age) for age in range(12)]
    status = [text(chunks, "RMC")[0] for chunks in seen]
    assert [fields[1] != "" for fields in status] == [False] * 3 + [True] * 9
    assert [fields[2] for fields in status] == ["V"] * 6 + ["A"] * 6
    assert [fields[9] != "" for fields in status] == [False] * 6 + [True] * 6
    assert [text(chunks, "GSA")[0][2] for chunks in seen] == ["1"] * 6 + ["2"] * 3 + ["3"] * 3
    assert [text(chunks, "ZDA")[0][4] for chunks in seen] == [""] * 6 + ["2026"] * 6
    assert [bool(text(chunks, "TXT")) for chunks in seen] == [True] + [False] * 11


def test_a_receiver_says_in_ubx_what_it_does_not_know() -> None:
    """NAV-PVT and the rest give no label before the fix and before the leap count has come, and no right UTC either."""
    receiver = simulated("timing", fix_s=6, leap_known_s=20, firmware_tai_offset_s=34)
    values = heard(receiver, 40)
    labelled = [tai for tai, value in values if isinstance(value, SecondLabel)]
    assert min(labelled) == TAI0 + 20
    notices = [value for tai, value in values if isinstance(value, LeapNotice)]
    assert {n.tai_offset_s for n in notices} == {None, 37}


def test_nmea_is_seconds_ahead_until_the_leap_count_is_known() -> None:
    """With a firmware of 34 s a valid 3D fix is 3 s ahead of UTC, and steps back when the almanac has come."""
    receiver = simulated("minimal", leap_known_s=10, firmware_tai_offset_s=34)
    named = [int(text(receiver.cycle(TAI0 + age), "RMC")[0][1][4:6]) for age in range(14)]
    assert named == [*range(3, 13), *range(10, 14)]


def test_a_fix_is_lost_and_comes_back() -> None:
    """Without a fix time and date go on with status void, no label comes of it, and the pulse may stop (``fixed``)."""
    receiver = simulated("nmea", losses=[(5, 8)])
    status = [text(receiver.cycle(TAI0 + age), "RMC")[0] for age in range(10)]
    assert "".join(fields[2] for fields in status) == "AAAAAVVVAA"
    assert [fields[1][4:6] for fields in status] == [f"{age:02d}" for age in range(10)]
    assert [receiver.gnss.at(TAI0 + age).fixed for age in (4, 5, 7, 8)] == [True, False, False, True]


# ---- UTC ------------------------------------------------------------------------------------------------------------------------------


def test_an_inserted_second_is_60() -> None:
    """23:59:59, 23:59:60, 00:00:00, each naming its own TAI second, in NMEA and in UBX."""
    chunks = [simulated("minimal", INSERTED).cycle(TAI0 + k) for k in (59, 60, 61)]
    assert [text(c, "RMC")[0][1] for c in chunks] == ["235959.00", "235960.00", "000000.00"]
    assert [text(c, "RMC")[0][9] for c in chunks] == ["311226", "311226", "010127"]
    for model in ("minimal", "timing"):
        labels = [(tai, v) for tai, v in heard(simulated(model, INSERTED), 70) if isinstance(v, SecondLabel)]
        assert len(labels) == 70
        assert all(INSERTED.utc_to_tai_ns(v.utc_ns, v.second_60) == tai * NS for tai, v in labels)
        assert [tai for tai, v in labels if v.second_60] == [TAI0 + 60]


def test_a_deleted_second_is_missing() -> None:
    """23:59:58 is followed by 00:00:00."""
    receiver = simulated("minimal", DELETED)
    named = [text(receiver.cycle(TAI0 + k), "RMC")[0][1] for k in (57, 58, 59, 60)]
    assert named == ["235957.00", "235958.00", "000000.00", "000001.00"]


@pytest.mark.parametrize(("table", "step"), [(INSERTED, 1), (DELETED, -1), (PLAIN, 0)])
def test_a_leap_second_is_announced(table: LeapTable, step: int) -> None:
    """NAV-TIMELS gives the present count, and the step at the midnight that it ends; afterwards the new count and nothing to come."""
    values = heard(simulated("timing", table), 80)
    notices = {(v.tai_offset_s, v.step_s, v.at_utc_s) for tai, v in values if isinstance(v, LeapNotice) and tai < TAI0 + 55}
    assert notices == {(37, step, UTC0 + 60 if step else None)}
    after = {(v.tai_offset_s, v.step_s) for tai, v in values if isinstance(v, LeapNotice) and tai > TAI0 + 65}
    assert after == {(37 + step, 0)}


def test_a_rollover_is_1024_weeks_in_the_past() -> None:
    """All dates are behind by whole rollovers, and the date window repairs them."""
    for model in ("minimal", "timing"):
        receiver = simulated(model, rollovers=1)
        assert receiver.gnss.at(TAI0).label.utc_s == UTC0 - ROLLOVER_S
        labels = [v for _, v in heard(receiver, 5) if isinstance(v, SecondLabel)]
        assert labels[-1].utc_ns == (UTC0 + 4) * NS
        assert labels[-1].weeks_repaired == 1


def test_labels_lie_on_request() -> None:
    """A fault shifts the label, by chance either way, or delays the message, in its time only and always the same for one seed."""
    late = LabelFault(3, 5, shift_s=-1)
    chance = LabelFault(10, 1010, shift_s=1, probability=0.5, either_way=True)
    slow = LabelFault(2000, 2001, delay_ns=500 * MS)
    gnss = simulated(faults=[late, chance, slow]).gnss
    wrong = [gnss.at(TAI0 + age).label.utc_s - UTC0 - age for age in range(1500)]
    assert wrong[:8] == [0, 0, 0, -1, -1, 0, 0, 0]
    assert sum(map(abs, wrong[10:1010])) == pytest.approx(500, abs=80)
    assert {*wrong[10:1010]} == {-1, 0, 1}
    assert not any(wrong[1010:])
    assert wrong == [gnss.at(TAI0 + age).label.utc_s - UTC0 - age for age in range(1500)]
    assert [gnss.at(TAI0 + age).delay_ns for age in (1999, 2000, 2001)] == [0, 500 * MS, 0]


# ---- sky and pulse --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["nmea", "ublox8-nmea", "ublox8", "timing"])
def test_the_sky_is_plausible(model: str) -> None:
    """The decoders see a 3D fix with four to thirty satellites in view, elevations, azimuths and SNR within their ranges."""
    views = [v for _, v in heard(simulated(model), 40) if isinstance(v, SkyView)]
    view = views[-1]
    assert view.mode is FixMode.FIX_3D
    assert 4 <= view.used <= len(view.satellites) <= 30
    for s in view.satellites:
        assert s.elevation is not None
        assert s.azimuth is not None
        assert s.snr is not None
        assert 3 <= s.elevation <= 90
        assert 0 <= s.azimuth < 360
        assert 15 <= s.snr <= 55


def test_the_sky_moves_slowly_and_depends_on_the_stage() -> None:
    """In a minute no satellite moves by more than two degrees of elevation, in an hour they do; in the dark none is heard."""
    gnss = simulated("nmea").gnss
    now, soon, later = ({(s.gnss, s.number): s.elevation or 0 for s in gnss.sky(TAI0 + t, Stage.FIX_3D)} for t in (0, 60, 3600))
    assert all(abs(soon[key] - now[key]) <= 2 for key in now.keys() & soon.keys())
    assert now != later
    assert not any(s.used or s.snr for s in gnss.sky(TAI0, Stage.DARK))


def test_the_sawtooth_is_told_before_its_pulse() -> None:
    """TIM-TP of one second tells the error of the next second's pulse, with our sign: positive = the pulse is late."""
    receiver = simulated("timing")
    told = [(tai, v) for tai, v in heard(receiver, 20) if isinstance(v, Told)]
    assert len(told) == 20
    for tai, value in told:
        assert value.utc_ns == (tai + 1 - 37) * NS
        assert value.error_ns == pytest.approx(Sawtooth(7).late_ns(tai + 1), abs=1e-3)


# ---- obedience ------------------------------------------------------------------------------------------------------------------------


def test_cfg_msg_changes_what_is_sent() -> None:
    """A rate of 0 silences a message, 1 brings it, each is acknowledged on the paced line; in pieces, and among noise."""
    receiver = simulated("ublox8")
    off, on = frame((0x06, 0x01), b"\xf0\x04\x00"), frame((0x06, 0x01), b"\x01\x61\x01")
    acknowledged = frame((0x05, 0x01), b"\x06\x01")
    stream = b"$PUBX,40*00\r\n\xb5" + off + b"\x00\xb5\xb5\x00" + on
    answers = [answer for i in range(0, len(stream), 5) for answer in receiver.hear(stream[i : i + 5], TAI0 * NS)]
    assert [data for _, data in answers] == [acknowledged] * 2
    assert [at - TAI0 * NS for at, _ in answers] == [10 * receiver.byte_ns, 20 * receiver.byte_ns]
    chunks = receiver.cycle(TAI0 + 1)
    assert not text(chunks, "RMC")
    assert any(c.data[2:4] == b"\x01\x61" for c in chunks)


def test_gps_time_alone_names_the_second() -> None:
    """Switched to NAV-SOL and NAV-TIMEGPS, as programs do with old receivers, each label is right, through a leap second too."""
    receiver = simulated("timing", INSERTED)
    for identity, rate in ((0x07, 0), (0x21, 0), (0x06, 1), (0x20, 1)):
        receiver.hear(frame((0x06, 0x01), bytes((0x01, identity, rate))), TAI0 * NS - NS)
    labels = [(tai, v) for tai, v in heard(receiver, 70) if isinstance(v, SecondLabel)]
    assert len(labels) >= 65
    assert {v.sentence for _, v in labels} == {"NAV-TIMEGPS"}
    assert all(INSERTED.utc_to_tai_ns(v.utc_ns, v.second_60) == tai * NS for tai, v in labels)


def test_it_names_itself_and_refuses_what_it_cannot() -> None:
    """MON-VER is answered, another CFG refused, a broken frame ignored; a receiver without UBX says nothing at all."""
    poll, port = frame((0x0A, 0x04)), frame((0x06, 0x00), bytes(20))
    answers = [data for _, data in simulated("ublox8").hear(poll[:-1] + b"\x00" + poll + port, TAI0 * NS)]
    assert answers[1:] == [frame((0x05, 0x00), b"\x06\x00")]
    decoder = decoding.ReceiverStream(0)
    decoder.feed(answers[0], Instant(0, 0), 0)
    assert re.search("NEO-M8N", decoder.identity)
    assert simulated("nmea").hear(poll + port, 0) == []


def test_a_sentence_carries_its_checksum() -> None:
    """The exclusive or of the bytes between $ and *, short or long."""
    assert sentence(b"GPRMC,,V,,,,,,,,,,N") == b"$GPRMC,,V,,,,,,,,,,N*53\r\n"
    body = bytes(range(0x30, 0x5B)) * 9
    assert sentence(body)[-4:-2] == b"%02X" % nmea_checksum(body)


def test_a_question_is_answered_whenever_it_comes() -> None:
    """On a line that carries its sentences an answer waits for the burst, also for one planned before its second, and is never dropped."""
    late = []
    for tenth in range(10):
        receiver = simulated("ublox8-nmea", baud=9600)
        for s in range(1, 5):
            receiver.cycle(TAI0 + s)
        now_ns = (TAI0 + 4) * NS - NS // 2 + tenth * NS // 10
        answers = receiver.hear(frame(MON_VER), now_ns)
        assert [data[2:4] for _, data in answers] == [bytes(MON_VER)]
        late.append((answers[0][0] - now_ns) / NS)
    assert max(late) < 1.8
