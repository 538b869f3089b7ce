"""NTP packets on the Python side: layout, formats, and what a client believes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.ntp.packet import Exchange, Header, Reason, judge, parse, refid_text
from refclock.sample import NS, Leap
from refclock.timescales import ntp64

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
I8 = st.integers(-128, 127)
HEADERS = st.builds(
    Header, st.sampled_from(Leap), st.integers(0, 7), st.integers(0, 7), st.integers(0, 255), I8, I8, U32, U32, U32, U64, U64, U64, U64
)
T0 = 1_800_000_000 * NS


def reply(nonce: int, **changes: object) -> bytes:
    """A stratum-1 answer to ``nonce``, received 0.5 s and sent 0.6 s after T0."""
    fields: dict[str, object] = {
        "mode": 4, "stratum": 1, "precision": -23, "root_delay": 0, "root_dispersion": 655, "refid": 0x47505300,
        "reference": ntp64(T0), "origin": nonce, "receive": ntp64(T0 + NS // 2), "transmit": ntp64(T0 + 6 * NS // 10),
    }  # fmt: skip
    return Header(**{**fields, **changes}).pack()  # type: ignore[arg-type]


@given(HEADERS)
def test_pack_and_parse_are_inverse(header: Header) -> None:
    """Every header survives the wire; what follows it does not matter."""
    assert parse(header.pack()) == header
    assert parse(header.pack() + b"\1\4\0\x10") == header


def test_layout() -> None:
    """Octets where RFC 5905 figure 8 has them."""
    data = Header(Leap.INSERT, 4, 3, 1, 6, -20, 0x00010000, 0x00008000, 0x50505300, 1, 2, 3, 4).pack()
    assert data.hex() == "630106ec" + "00010000" + "00008000" + "50505300" + "".join(f"{n:016x}" for n in (1, 2, 3, 4))


@given(st.binary(max_size=80), U64)
def test_any_datagram_is_judged(data: bytes, nonce: int) -> None:
    """Whatever arrives is an exchange or a reason."""
    assert isinstance(judge(nonce, data, T0, T0 + NS), Exchange | Reason)


def test_offset_and_delay() -> None:
    """T1..T4 = 0, 0.5, 0.6, 0.3 s: offset +0.4 s (the server is ahead), delay 0.2 s, and the distance covers half of it."""
    exchange = judge(7, reply(7), T0, T0 + 3 * NS // 10)
    assert isinstance(exchange, Exchange)
    assert exchange.offset_ns == pytest.approx(400_000_000, abs=2)
    assert exchange.delay_ns == pytest.approx(200_000_000, abs=2)
    assert exchange.root_distance_ns == pytest.approx(100_000_000 + 655 * NS // 65536, abs=4)


def test_offset_across_the_era_of_2036() -> None:
    """The 32-bit seconds wrap on 2036-02-07; the offset does not."""
    end_of_era = (2**32 - 2_208_988_800) * NS
    nonce = 9
    data = reply(nonce, receive=ntp64(end_of_era + 1000), transmit=ntp64(end_of_era + 2000))
    exchange = judge(nonce, data, end_of_era - 5000, end_of_era + 8000)
    assert isinstance(exchange, Exchange)
    assert abs(exchange.offset_ns) < 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"origin": 8}, Reason.ORIGIN),
        ({"origin": 0}, Reason.ORIGIN),
        ({"mode": 3}, Reason.MODE),
        ({"mode": 5}, Reason.MODE),
        ({"version": 0}, Reason.VERSION),
        ({"version": 5}, Reason.VERSION),
        ({"leap": Leap.UNSYNCHRONISED}, Reason.UNSYNCHRONISED),
        ({"stratum": 16}, Reason.UNSYNCHRONISED),
        ({"stratum": 0, "leap": Leap.UNSYNCHRONISED, "refid": 0x494E4954}, Reason.UNSYNCHRONISED),
        ({"stratum": 0, "leap": Leap.UNSYNCHRONISED, "refid": 0x52415445}, Reason.KISS),
        ({"stratum": 0}, Reason.KISS),
        ({"stratum": 0, "refid": 0x52415445, "origin": 8}, Reason.ORIGIN),
        ({"transmit": 0}, Reason.ZERO),
        ({"receive": 0}, Reason.ZERO),
        ({"transmit": ntp64(T0)}, Reason.BACKWARDS),
        ({"root_dispersion": 16 << 16}, Reason.DISTANT),
    ],
)
def test_replies_that_tell_nothing(changes: dict[str, object], reason: Reason) -> None:
    """Spoofed, mistaken and unsynchronised replies are refused for their own reason; a kiss counts only with our origin."""
    assert judge(7, reply(7, **changes), T0, T0 + 3 * NS // 10) is reason


def test_a_server_cannot_have_taken_longer_than_the_answer() -> None:
    """A turnaround longer than the round trip is no exchange, whatever offset it yields; what two clocks may differ by is allowed."""
    assert judge(7, reply(7), T0, T0 + NS // 1000) is Reason.TURNAROUND
    assert isinstance(judge(7, reply(7), T0 + NS // 2, T0 + 6 * NS // 10 - 10_000), Exchange)


def test_stamps_of_a_server_may_be_out_of_order_by_its_precision() -> None:
    """chronyd draws the bits below its precision of every stamp at random, so one that answers at once seems to answer sooner."""
    at = ntp64(T0)
    assert isinstance(judge(7, reply(7, precision=-23, receive=at + 300, transmit=at), T0, T0 + NS // 1000), Exchange)
    assert judge(7, reply(7, precision=-23, receive=at + 3000, transmit=at), T0, T0 + NS // 1000) is Reason.BACKWARDS


def test_short_datagram() -> None:
    """47 octets are no header."""
    assert judge(7, reply(7)[:47], T0, T0) is Reason.SHORT


def test_reference_identifiers() -> None:
    """Letters at stratum 0 and 1, an address above; nothing unprintable reaches the terminal."""
    assert refid_text(0x47505300, 1) == "GPS"
    assert refid_text(0x494E4954, 0) == "INIT"
    assert refid_text(0xC0000207, 2) == "192.0.2.7"
    assert refid_text(0x1B5B334A, 1) == "?[3J"
    assert refid_text(0, 0) == ""
