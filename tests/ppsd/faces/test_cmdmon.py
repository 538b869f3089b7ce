"""chronyd's command protocol: every field that chronyc reads is the snapshot's, and no datagram gets more than it brought."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import CLIENTS, GPS, LOCKED, NEVER, Known, noise

from ppsd.faces.cmdmon import Command, Layout, Status, answer, float_bits, refids

HEADER = 28


def request(command: int, data: bytes = b"", length: int = 520, *, version: int = 6, kind: int = 1, zeros: int = 0) -> bytes:
    """A request as chronyc makes it, padded to ``length``."""
    return (struct.pack(">BBHHHI8x", version, kind, zeros, command, 0, 0xA1B2C3D4) + data).ljust(length, b"\0")


def ask(command: int, data: bytes = b"", daemon: Known | None = None, trusted: bool = False, length: int = 520) -> tuple[int, int, bytes]:
    """(status, layout, data) of the reply."""
    sent = request(command, data, length)
    reply = answer(sent, daemon or Known(), trusted)
    assert HEADER <= len(reply) <= len(sent)
    version, kind, zeros, number, layout, status, sequence = struct.unpack(">BBHHHH6xI8x", reply[:HEADER])
    assert (version, kind, zeros, number, sequence) == (6, 2, 0, command, 0xA1B2C3D4)
    return status, layout, reply[HEADER:]


def number(bits: int) -> float:
    """chronyd's float to a number, as chronyc reads it (util.c: UTI_FloatNetworkToHost)."""
    exponent, coefficient = bits >> 25, bits % (1 << 25)
    return math.ldexp(coefficient - (1 << 25 if coefficient >= 1 << 24 else 0), exponent - (128 if exponent >= 64 else 0) - 25)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_24_bits(value: float) -> None:
    """A number is told to 24 bits; what is too small becomes zero, what is too large the largest."""
    found = number(float_bits(value))
    if abs(value) < 2.0**62:
        assert found == pytest.approx(value, rel=2.0**-24, abs=2.0**-90)
    else:
        assert abs(found) >= 2.0**61
        assert (found > 0) == (value > 0)


def test_what_is_no_number_is_zero_or_the_largest() -> None:
    """NaN is told as 0, infinities as the largest numbers that there are."""
    assert number(float_bits(math.nan)) == 0.0
    assert number(float_bits(math.inf)) == (2**24 - 1) * 2.0**38
    assert number(float_bits(-math.inf)) == -(2.0**62)


def test_tracking_is_the_snapshot() -> None:
    """Offsets have chronyd's sign: the local clock minus the reference."""
    status, layout, data = ask(Command.TRACKING)
    assert (status, layout) == (Status.SUCCESS, Layout.TRACKING)
    refid, address, stratum, leap, high, low, ns, *floats = struct.unpack(">I20sHHIII9I", data)
    assert refid == 0x50505300
    assert (address, stratum, leap, high) == (bytes(20), 1, 1, 0)
    assert low * 10**9 + ns == LOCKED.reference_utc_ns == 1_795_262_400_500_000_000 - 3_400_000_000
    assert [number(f) for f in floats] == pytest.approx([31e-9, 214e-9, 120e-9, -12.345, 0, 0.012, 0, 18.1e-6, 1.0], rel=1e-6)


def test_an_unsynchronised_clock_is_a_second_off() -> None:
    """Before the first lock nobody computes a small error from what is told: root delay and dispersion are 1 s, as chronyd's."""
    clock = replace(LOCKED, stratum=0, leap="unsynchronised", bound_ns=None, sources=(NEVER,))
    *head, delay, dispersion, interval = struct.unpack(">I20sHHIII9I", ask(Command.TRACKING, daemon=Known(clock))[2])
    assert (head[0], head[2], head[3], head[4:7]) == (0, 0, 3, [0, 0, 0])
    assert [number(f) for f in (delay, dispersion, interval)] == [1.0, 1.0, 0.0]


def test_sources_are_reference_clocks() -> None:
    """Each has state, reach, age, offset and error; one that never gave a sample has no age."""
    assert ask(Command.N_SOURCES) == (0, Layout.N_SOURCES, struct.pack(">I", 2))
    status, layout, data = ask(Command.SOURCE_DATA, struct.pack(">I", 0))
    assert (status, layout) == (Status.SUCCESS, Layout.SOURCE_DATA)
    address, family, poll, stratum, state, mode, flags, reach, age, *floats = struct.unpack(">16sHxxhHHHHHIIII", data)
    assert (address[:4], family) == (b"gps0", 1)
    assert (poll, stratum, state, mode, flags, reach, age) == (0, 0, 0, 2, 0, 0o377, 3)
    assert [number(f) for f in floats] == pytest.approx([214e-9, 214e-9, 18.1e-6], rel=1e-6)
    never = struct.unpack(">16sHxxhHHHHHIIII", ask(Command.SOURCE_DATA, struct.pack(">I", 1))[2])
    assert (never[0][:4], never[4], never[7], never[8], number(never[9])) == (b"rece", 1, 0, 0xFFFFFFFF, 0.0)
    for command in (Command.SOURCE_DATA, Command.SOURCESTATS, Command.SELECT_DATA):
        assert ask(command, struct.pack(">I", 2))[0] == Status.NO_SUCH_SOURCE


def test_sourcestats_and_selectdata() -> None:
    """Frequencies are told against the served one; what is configured shows in the options."""
    refid, address, points, runs, span, *floats = struct.unpack(">I20s3I5I", ask(Command.SOURCESTATS, struct.pack(">I", 0))[2])
    assert (refid, address, points, runs, span) == (0x67707330, bytes(20), 8, 0, 77)
    assert [number(f) for f in floats] == pytest.approx([120e-9, 0.045, 0.01, 214e-9, 18.1e-6], rel=1e-5)
    layout = struct.Struct(">I20scBBxHHI3I")
    refid, _, state, authenticated, leap, options, effective, age, *floats = layout.unpack(
        ask(Command.SELECT_DATA, struct.pack(">I", 0))[2]
    )
    assert (refid, state, authenticated, leap, options, effective, age) == (0x67707330, b"*", 0, 1, 2, 2, 3)
    assert [number(f) for f in floats] == pytest.approx([1.0, 214e-9 - 18.1e-6, 214e-9 + 18.1e-6], rel=1e-6)
    never = layout.unpack(ask(Command.SELECT_DATA, struct.pack(">I", 1))[2])
    assert (never[2], never[4], never[5], never[7]) == (b"N", 3, 1, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("state", "letter"),
    [
        ({"tally": "x"}, "x"), ({"tally": "+"}, "+"), ({"tally": "~"}, "~"), ({"tally": "-"}, "P"), ({"tally": "?"}, "s"),
        ({"tally": "?", "reach": 0}, "S"), ({"tally": "?", "bound_ns": None}, "M"), ({"noselect": True, "tally": "?"}, "N"),
    ],
)  # fmt: skip
def test_why_a_source_is_not_selected(state: dict[str, object], letter: str) -> None:
    """The letters of ``chronyc selectdata``."""
    clock = replace(LOCKED, sources=(replace(GPS, **state),))  # type: ignore[arg-type]
    assert ask(Command.SELECT_DATA, bytes(4), Known(clock))[2][24:25] == letter.encode()


def test_names_become_identifiers_of_four_characters() -> None:
    """No two sources have the same identifier; by it, as an address, the whole name is found."""
    clock = replace(LOCKED, sources=tuple(replace(GPS, name=name) for name in ("gps0", "sock0", "sock1", "sock", "a", "gps0x")))
    found = [refid.to_bytes(4, "big") for refid in refids(clock)]
    assert found == [b"gps0", b"sock", b"soc0", b"soc1", b"a\0\0\0", b"gps1"]
    name = ask(Command.NTP_SOURCE_NAME, b"soc0" + bytes(12) + b"\0\1\0\0", Known(clock))
    assert name == (0, Layout.NTP_SOURCE_NAME, b"sock1".ljust(256, b"\0"))
    assert ask(Command.NTP_SOURCE_NAME, bytes(20))[0] == Status.NO_SUCH_SOURCE


def test_activity_counts_what_is_plugged_in() -> None:
    """A receiver that is absent is offline."""
    assert ask(Command.ACTIVITY) == (0, Layout.ACTIVITY, struct.pack(">5i", 1, 1, 0, 0, 0))


def test_serverstats_has_the_layout_that_is_asked_for() -> None:
    """chronyc 4.3 pads to 72 octets and gets 32-bit counters, later ones pad to 196 and get 64-bit counters, also of time stamps."""
    old, new = ask(Command.SERVER_STATS, length=72), ask(Command.SERVER_STATS, length=196)
    common = (131, 0, 41, 8, 0, 2, 0, 5, 20, 0, 0)
    assert old == (0, Layout.SERVER_STATS3, struct.pack(">11I", *common))
    assert new[:2] == (0, Layout.SERVER_STATS4)
    assert struct.unpack(">17Q", new[2][:136]) == (*common, 4, 102, 127, 18, 0, 0)
    assert new[2][136:] == b"\xff" * 32


def test_clients_come_in_pages() -> None:
    """All clients are told, eight at a time, with the interval as a power of two; -p takes those with many packets."""
    found, first = [], 0
    while True:
        status, layout, data = ask(Command.CLIENT_ACCESSES_BY_INDEX3, struct.pack(">4I", first, 8, 0, 0))
        assert (status, layout, len(data)) == (0, Layout.CLIENT_ACCESSES_BY_INDEX3, 12 + 8 * 60)
        indices, first, count = struct.unpack(">III", data[:12])
        found += [struct.unpack(">16sHxx6I4b3I", data[12 + 60 * i : 72 + 60 * i]) for i in range(count)]
        if first >= indices or count < 8:
            break
    assert len(found) == len(CLIENTS) == indices
    assert found[0] == (bytes([192, 0, 2, 7]) + bytes(12), 1, 5123, 0, 0, 3, 0, 0, 4, 127, 127, 127, 3, 0xFFFFFFFF, 0xFFFFFFFF)
    assert found[1][:3] == (bytes.fromhex("20010db8000000010000000000000000"), 2, 1)
    assert found[1][8] == 127
    assert found[2][:2] == (bytes.fromhex("fe800000000000000001000200030004"), 2)
    _, _, data = ask(Command.CLIENT_ACCESSES_BY_INDEX3, struct.pack(">4I", 0, 8, 5000, 0))
    assert struct.unpack(">III", data[:12]) == (len(CLIENTS), len(CLIENTS), 1)
    assert ask(Command.CLIENT_ACCESSES_BY_INDEX3, struct.pack(">4I", 0, 8, 0, 1))[0] == Status.UNAUTHORISED


def test_access_checks() -> None:
    """accheck tells who may ask for the time, cmdaccheck who may ask here."""
    v4, v6, none = bytes([192, 0, 2, 1]) + bytes(12) + b"\0\1\0\0", bytes.fromhex("20010db8" + 23 * "0" + "1") + b"\0\2\0\0", bytes(20)
    assert [ask(Command.ACCHECK, data)[0] for data in (v4, v6, none)] == [8, 8, 9]
    assert [ask(Command.CMDACCHECK, data)[0] for data in (v4, bytes([127, 0, 0, 1]) + bytes(12) + b"\0\1\0\0")] == [9, 8]


def test_without_the_clock_process_its_part_fails() -> None:
    """What only the clock process knows is refused, at once; the server's own figures are still told."""
    lost = Known(None)
    for command in (Command.TRACKING, Command.N_SOURCES, Command.ACTIVITY, Command.SOURCE_DATA, Command.NTP_SOURCE_NAME):
        assert ask(command, daemon=lost)[0] == Status.FAILED
    assert ask(Command.SERVER_STATS, daemon=lost)[0] == Status.SUCCESS


def test_nobody_changes_anything() -> None:
    """From the network every other command is not authorised. Over the unix socket some have nothing to do, and the others are refused."""
    reads = {14, 15, 25, 26, 33, 34, 35, 41, 44, 51, 54, 57, 65, 67, 68, 69}
    assert {int(c) for c in Command if ask(c)[0] != Status.UNAUTHORISED} == reads
    succeeded = {c for c in Command if int(c) not in reads and ask(c, trusted=True)[0] == Status.SUCCESS}
    assert succeeded == {Command.REFRESH, Command.CYCLELOGS, Command.RESELECT, Command.ONOFFLINE}
    assert ask(Command.BURST, trusted=True)[0] == Status.NO_SUCH_SOURCE
    assert ask(Command.MAKESTEP, trusted=True)[0] == Status.FAILED
    assert ask(Command.SHUTDOWN, trusted=True)[0] == Status.UNAUTHORISED
    assert [ask(command)[0] for command in (Command.SMOOTHING, Command.RTCREPORT)] == [Status.NOT_ENABLED] * 2
    assert [ask(command)[0] for command in (Command.NTP_DATA, Command.AUTH_DATA)] == [Status.NO_SUCH_SOURCE] * 2


def test_wrong_headers() -> None:
    """Unknown commands and versions are named as such; what is no request, or too short for any reply, gets silence."""
    assert [ask(command)[0] for command in (0, 10, 27, 76, 0xFFFF)] == [Status.INVALID] * 5
    assert ask(Command.TRACKING, length=28)[0] == Status.BAD_LENGTH
    assert answer(request(33, version=5), Known(), False)[8:10] == struct.pack(">H", Status.BAD_VERSION)
    for silent in (
        request(33, version=4),
        request(33, kind=2),
        request(33, zeros=1),
        request(33, length=27),
        request(33, length=2000),
        b"",
    ):
        assert answer(silent, Known(), False) == b""


def test_no_datagram_gets_more_than_it_brought() -> None:
    """100,000 random and mutated datagrams: none raises, and no reply is longer than its request."""
    daemon = Known()
    whole = [request(command, bytes(20), length) for command in Command for length in (28, 72, 104, 196, 312, 520)]
    replies = 0
    for k, sent in enumerate(noise(14, whole, 4)):
        reply = answer(sent, daemon, trusted=k % 2 == 0)
        assert len(reply) <= len(sent)
        replies += bool(reply)
    assert replies > 30_000
