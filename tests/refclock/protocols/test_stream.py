"""The receiver: one label a second out of everything that it says, and none while it contradicts itself."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.labels import Reject, second_of
from refclock.protocols.stream import Load, ReceiverStream
from refclock.protocols.ubx import encode
from refclock.sample import NS, Instant, LabelDoubt, LeapNotice, SecondLabel, SkyView

DAY = datetime(2026, 12, 31, 12, 0, 0, tzinfo=UTC)
NOT_BEFORE = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())


def sentence(body: str) -> bytes:
    return f"${body}*{nmea_checksum(body.encode()):02X}\r\n".encode()


def rmc(at: datetime, fraction: str = "00") -> bytes:
    return sentence(f"GNRMC,{at:%H%M%S}.{fraction},A,4717.1,N,00833.9,E,0.0,0.0,{at:%d%m%y},,,A")


def zda(at: datetime) -> bytes:
    return sentence(f"GNZDA,{at:%H%M%S}.00,{at:%d,%m,%Y},00,00")


def pvt(at: datetime) -> bytes:
    fields = (at.year, at.month, at.day, at.hour, at.minute, at.second, 7, 20, 0, 3, 1, 0, 9)
    return encode(1, 7, struct.pack("<IHBBBBBBIiBBBB", int(at.timestamp()) * 1000 & 0xFFFFFFFF, *fields).ljust(92, b"\0"))


def labels(receiver: ReceiverStream, data: bytes, at_s: float) -> list[SecondLabel]:
    values = receiver.feed(data, Instant(0, round(at_s * NS)), 0)
    return [v for v in values if isinstance(v, SecondLabel)]


def test_one_label_a_second_from_many_statements() -> None:
    """RMC and ZDA of each cycle, ten cycles: ten labels, each second once, from the sentence that comes first."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(10):
        t = DAY + timedelta(seconds=i)
        got += labels(receiver, rmc(t) + zda(t), 100 + i)
    assert [label.utc_ns // NS for label in got] == [int(DAY.timestamp()) + i for i in range(10)]
    assert {label.sentence for label in got} == {"RMC"}
    assert receiver.rejected == {}
    assert receiver.protocol == "NMEA"


def test_fast_receivers_label_each_second_once() -> None:
    """At 5 Hz only the first epoch of each second labels; an epoch at .98 names the second that follows."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(20):
        got += labels(receiver, rmc(DAY + timedelta(seconds=i // 5), f"{i % 5 * 20:02d}"), 100 + i / 5)
    assert [label.utc_ns % NS for label in got] == [0] * 4
    wobble = ReceiverStream(NOT_BEFORE)
    got = [
        *labels(wobble, rmc(DAY, "01"), 100),
        *labels(wobble, rmc(DAY, "98"), 100.97),
        *labels(wobble, rmc(DAY + timedelta(seconds=1), "99"), 101.98),
    ]
    assert [second_of(label) - int(DAY.timestamp()) for label in got] == [0, 1, 2]


def test_ubx_is_preferred_and_nmea_takes_over() -> None:
    """While UBX labels come, NMEA only checks them; three seconds after the last one NMEA labels again."""
    receiver = ReceiverStream(NOT_BEFORE)
    kinds = []
    for i in range(12):
        t = DAY + timedelta(seconds=i)
        kinds.append([label.sentence for label in labels(receiver, (pvt(t) if 2 <= i < 6 else b"") + rmc(t), 100 + i)])
    assert kinds == [["RMC"], ["RMC"], *[["NAV-PVT"]] * 4, [], [], *[["RMC"]] * 4]
    assert receiver.protocol == "NMEA+UBX"


def test_two_statements_that_disagree_are_in_doubt() -> None:
    """RMC and ZDA two seconds apart, in one burst: after the first of them all are in doubt, until they agree again."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(20):
        t = DAY + timedelta(seconds=i)
        got.append([label.doubt for label in labels(receiver, rmc(t) + zda(t + timedelta(seconds=2 if i < 10 else 0)), 100 + i)])
    assert got[0][0] is None
    assert {doubt for doubts in got[1:10] for doubt in doubts} == {LabelDoubt.RIVAL_SENTENCE}
    assert got[13:] == [[None]] * 7


def test_ubx_against_nmea_across_bursts() -> None:
    """A UBX label 3 s from the NMEA labels of the same line, sent at another time of the second: neither is offered."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(8):
        t = DAY + timedelta(seconds=i)
        got += labels(receiver, rmc(t), 100.0 + i)
        got += labels(receiver, pvt(t + timedelta(seconds=3)), 100.5 + i)
    assert len(got) <= 3
    assert receiver.rejected[Reject.LABELS_DISAGREE] >= 12


def test_sentences_every_few_seconds_do_not_contradict() -> None:
    """A plotter sends RMC on odd seconds and ZDA every fourth: all of them label."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(1, 20):
        t = DAY + timedelta(seconds=i)
        got += labels(receiver, rmc(t) if i % 2 else zda(t) if i % 4 == 0 else b"", 100 + i)
    assert [label.utc_ns // NS - int(DAY.timestamp()) for label in got] == [i for i in range(1, 20) if i % 2 or i % 4 == 0]


def test_jumping_date_is_held_until_it_stands() -> None:
    """One label with another year is dropped; a date that stays is taken with its third label."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(12):
        t = DAY + timedelta(seconds=i)
        if i == 3:
            t = t.replace(year=2031)
        if i >= 6:
            t = t.replace(year=2029)
        got += [i] * len(labels(receiver, rmc(t), 100 + i))
    assert got == [0, 1, 2, 4, 5, 8, 9, 10, 11]
    assert receiver.rejected == {Reject.DATE_JUMP: 3}


def test_step_of_seconds_passes() -> None:
    """A receiver that learns its leap count steps back by 3 s: the labels say so at once (trust decides)."""
    receiver = ReceiverStream(NOT_BEFORE)
    got = []
    for i in range(6):
        t = DAY + timedelta(seconds=i - (3 if i >= 3 else 0))
        got += labels(receiver, rmc(t) + zda(t), 100 + i)
    assert [label.utc_ns // NS - int(DAY.timestamp()) for label in got] == [0, 1, 2, 0, 1, 2]


def test_leap_second_is_a_second_of_its_own() -> None:
    """23:59:59, 23:59:60 and 00:00:00 give three labels; the first two have the same number."""
    receiver = ReceiverStream(NOT_BEFORE)
    last = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    sixty = rmc(last).replace(b"235959", b"235960")
    body = sixty[1 : sixty.index(b"*")]
    got = labels(receiver, rmc(last), 100)
    got += labels(receiver, b"$%s*%02X\r\n" % (body, nmea_checksum(body)), 101)
    got += labels(receiver, rmc(last + timedelta(seconds=1)), 102)
    assert [(label.utc_ns // NS - int(last.timestamp()), label.second_60) for label in got] == [(0, False), (0, True), (1, False)]


def test_a_stream_tells_identity_and_sky() -> None:
    """The TXT banner names the receiver; the last sky is kept."""
    receiver = ReceiverStream(NOT_BEFORE)
    receiver.feed(sentence("GPTXT,01,01,02,HW UBX-M8030 00080000"), Instant(0, 0), 0)
    receiver.feed(rmc(DAY) + sentence("GNGSA,A,3,05,,,,,,,,,,,,1,1,1,1"), Instant(0, NS), 0)
    values = receiver.feed(rmc(DAY + timedelta(seconds=1)), Instant(0, 2 * NS), 0)
    assert receiver.identity == "HW UBX-M8030 00080000"
    assert [v for v in values if isinstance(v, SkyView)] == [receiver.sky]


def test_who_sends_only_zda_is_told_what_is_missing() -> None:
    """ZDA alone: its labels pass after some seconds, marked as in doubt, and people read that RMC or GGA is missing; with RMC no more."""
    receiver, got = ReceiverStream(NOT_BEFORE), list[SecondLabel]()
    for i in range(12):
        got += labels(receiver, zda(DAY + timedelta(seconds=i)), 100 + i)
    assert [label.doubt for label in got] == [LabelDoubt.FIX_UNSTATED] * 7
    assert receiver.status().unlabelled.startswith("it sends only ZDA")
    assert "RMC" in receiver.status().unlabelled
    (label,) = labels(receiver, rmc(DAY + timedelta(seconds=12)), 112)
    assert label.doubt is None
    assert receiver.status().unlabelled == ""


def test_complaints_of_both_protocols_reach_the_status() -> None:
    """A warning in a TXT sentence and an error in UBX-INF are both told, and no label is lost by them."""
    receiver = ReceiverStream(NOT_BEFORE)
    shut = sentence("GNTXT,01,01,01,More than 100 frame errors, UART RX was disabled")
    assert len(labels(receiver, rmc(DAY) + shut + encode(4, 0, b"txbuf alloc"), 100)) == 1
    assert [words.partition(":")[0] for words in receiver.status().complaints] == [
        "its input is shut",
        "its output overflows and messages are lost",
    ]


def test_two_messages_that_state_different_leap_counts_confirm_nothing() -> None:
    """PUBX,04 says 18, NAV-TIMELS 17, in the same second: neither count is passed on."""
    receiver = ReceiverStream(NOT_BEFORE)
    said = sentence("PUBX,04,120000.00,311226,475218.00,2451,18,1930035,-2660.664,43,")
    timels = encode(1, 0x26, struct.pack("<IB3xBbBbiHH3xB", 1000, 0, 2, 17, 2, 0, 0, 0, 0, 1))
    values = receiver.feed(said + timels + said, Instant(0, 100 * NS), 0)
    assert [v.tai_offset_s for v in values if isinstance(v, LeapNotice)] == [37, None, None]


def load(duty: float, cycles: int, byte_ns: int = 10 * NS // 9600, begun: Load | None = None) -> list[bool]:
    """Whether the line is saturated after each of ``cycles`` seconds in which its bytes take ``duty`` of the time, in reads of 16 bytes."""
    line, told = begun or Load(), []
    start = 1000 * NS if begun is None else 2000 * NS
    for k in range(cycles):
        began = start + k * NS
        for _ in range(round(duty * NS / (16 * 10 * NS // 9600))):
            ended = began + 16 * byte_ns
            line.read(began, ended, byte_ns)
            began += 16 * (10 * NS // 9600)
        told.append(line.saturated)
    return told


def test_a_line_that_is_never_idle_is_saturated() -> None:
    """Bytes without a pause for ten seconds; one with a twentieth to spare is not, nor is USB, which has no speed."""
    told = load(1.0, 20)
    assert (told[8], told[11], told[19]) == (False, True, True)
    assert not any(load(0.95, 60))
    assert not any(load(1.0, 60, byte_ns=0))


def test_a_saturated_line_is_told_until_it_has_time_to_spare() -> None:
    """One pause does not end it; ten seconds with a pause in each do."""
    line = Load()
    assert load(1.0, 20, begun=line)[-1]
    line.read(2020 * NS + 500_000_000, 2020 * NS + 600_000_000, 10 * NS // 9600)
    assert line.saturated
    for k in range(2021, 2033):
        line.read(k * NS, k * NS + 800_000_000, 10 * NS // 9600)
    assert not line.saturated


def test_reads_of_any_size_show_the_same_load() -> None:
    """A busy host that reads a second's bytes at once, and one that reads single bytes, both see a line without pause."""
    for size in (1, 16, 960):
        line, byte_ns = Load(), 10 * NS // 9600
        for n in range(0, 960 * 15, size):
            line.read(NS + n * byte_ns, NS + (n + size) * byte_ns, byte_ns)
        assert line.saturated
