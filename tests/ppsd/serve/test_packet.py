"""The packet path under anything that a network can deliver."""

from hypothesis import example, given
from hypothesis import strategies as st

from ppsd.serve.ntp_server import ACTIONS, REASONS, PacketPath
from refclock.record import Record
from refclock.sample import NS
from refclock.timescales import LeapTable, ntp64

RAW = 1000 * NS
MIDNIGHT_S = 1_798_761_600  # 2027-01-01


def record(tai_ns: int = 1_800_000_037 * NS, leap_tai_ns: int = 0, leap_step_s: int = 0, bound_ns: float = 1000.0) -> Record:
    return Record(
        raw_ns=RAW,
        tai_ns=tai_ns,
        rate=0.0,
        bound_ns=bound_ns,
        bound_rate=0.0,
        bound_wander_ns=0.0,
        root_delay_ns=0,
        reference_raw_ns=RAW,
        valid_until_raw_ns=RAW + 10**18,
        leap_tai_ns=leap_tai_ns,
        leap_step_s=leap_step_s,
        tai_offset_s=37,
        refid=0x47505300,
        precision=-24,
        stratum=1,
        simulated=False,
    )


PATH = PacketPath(record())
first_bytes = st.one_of(st.integers(0, 255), st.sampled_from([0x0B, 0x13, 0x1B, 0x23, 0xE3, 0x08]))


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    """An extension field, mostly with a true length."""
    body = draw(st.binary(max_size=60))
    length = draw(st.one_of(st.just(4 + len(body)), st.integers(0, 65535)))
    return draw(st.binary(min_size=2, max_size=2)) + length.to_bytes(2, "big") + body


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A header, extension fields, and a tail that may pass for a MAC."""
    header = bytes([draw(first_bytes)]) + draw(st.binary(min_size=47, max_size=47))
    return header + b"".join(draw(st.lists(fields(), max_size=4))) + draw(st.binary(max_size=30))


@given(st.one_of(st.binary(max_size=300), requests(), st.binary(min_size=2040, max_size=2060)), st.integers(0, 65535))
@example(bytes([0x23]) + bytes(47), 123)
@example(bytes([0x23]) + bytes(2047), 1)
def test_any_bytes_end_in_one_reason_and_no_more_bytes(request: bytes, port: int) -> None:
    """Whatever arrives: one known action and reason, a reply no longer than the request, silence exactly for drops."""
    reply, action, reason = PATH.respond(request, RAW, RAW + 1000, port)
    assert action in ACTIONS
    assert reason in REASONS
    assert len(reply) <= len(request)
    assert len(reply) == {"drop": 0, "reply": 48, "kod": 48}[action]


@given(requests(), st.integers(1, 65535))
def test_a_reply_is_the_requests_and_is_never_answered(request: bytes, port: int) -> None:
    """Origin, version and poll are the request's, the mode is 4, and a reply that comes back to a server ends there."""
    reply, action, _ = PATH.respond(request, RAW, RAW, port)
    if action == "drop":
        return
    assert reply[24:32] == request[40:48]
    assert reply[0] & 0x3F == (request[0] & 0x38) | 4
    assert reply[2] == request[2]
    assert PATH.respond(reply, RAW, RAW, port)[1] == "drop"


@given(st.integers(0, 2**63 // 2), st.integers(0, 10 * NS), st.integers(1, NS))
def test_time_stamps_are_those_of_the_python_side(utc_ns: int, later: int, took: int) -> None:
    """Receive and transmit agree with timescales.ntp64 to the last bit, across the eras of 2036 and 2172."""
    path = PacketPath(record(utc_ns + 37 * NS))
    reply, _, _ = path.respond(bytes([0x23]) + bytes(47), RAW + later, RAW + later + took)
    assert int.from_bytes(reply[32:40], "big") == ntp64(utc_ns + later)
    assert int.from_bytes(reply[40:48], "big") == ntp64(utc_ns + later + took)


@given(st.sampled_from([1, -1]), st.integers(-90_000 * NS, 10 * NS))
@example(1, -1)
@example(1, 0)
@example(-1, -1)
@example(-1, 0)
def test_leap_seconds_are_those_of_the_python_side(step_s: int, offset_ns: int) -> None:
    """Around an inserted or deleted second the served UTC is that of LeapTable, and LI says so only in the 24 h before."""
    table = LeapTable((0, MIDNIGHT_S), (37, 37 + step_s))
    leap_tai_ns = table.leap_tai_ns(1)
    path = PacketPath(record(leap_tai_ns + offset_ns, leap_tai_ns, step_s))
    reply, _, _ = path.respond(bytes([0x23]) + bytes(47), RAW, RAW)
    assert int.from_bytes(reply[32:40], "big") == ntp64(table.tai_to_utc_ns(leap_tai_ns + offset_ns))
    pending = -86_400 * NS <= offset_ns < 0
    assert reply[0] >> 6 == ((1 if step_s > 0 else 2) if pending else 0)


@given(st.floats(0, 1e18))
def test_the_dispersion_on_the_wire_is_never_below_the_bound(bound_ns: float) -> None:
    """2^-16 s units, rounded up: at most one unit more, never less, and saturated at the field's end."""
    reply, _, _ = PacketPath(record(bound_ns=bound_ns)).respond(bytes([0x23]) + bytes(47), RAW, RAW)
    on_the_wire_ns = int.from_bytes(reply[8:12], "big") * NS / 65536
    assert on_the_wire_ns >= bound_ns or reply[8:12] == b"\xff\xff\xff\xff"
    assert on_the_wire_ns <= bound_ns + 1 + NS / 65536 or reply[8:12] == b"\xff\xff\xff\xff"
