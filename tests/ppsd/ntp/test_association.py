"""Associations with NTP servers: what they send, what they believe, and how often they ask."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.ntp.association import BURST, KISS_POLL, Association, Measurement, Polling
from ppsd.ntp.packet import Header, Reason, parse
from refclock.sample import NS, Leap
from refclock.timescales import ntp64

T0 = 1_800_000_000 * NS
NONCES = st.integers(1, 2**64 - 1)
SERVER = Header(mode=4, stratum=2, precision=-20, root_delay=655, root_dispersion=655, refid=0xC0000201, reference=ntp64(T0))
QUIET = Polling(iburst=False)


def kiss(code: str, nonce: int, poll: int = 6) -> bytes:
    return replace(SERVER, leap=Leap.UNSYNCHRONISED, stratum=0, refid=int.from_bytes(code.encode(), "big"), origin=nonce, poll=poll).pack()


def answer(nonce: int, ahead_ns: int = 0, out_ns: int = 5_000_000, back_ns: int = 5_000_000, **changes: object) -> tuple[bytes, int, int]:
    """A reply of a server that is ``ahead_ns`` ahead, with its path; (datagram, T1, T4)."""
    at = T0 + out_ns + ahead_ns
    header = replace(SERVER, origin=nonce, receive=ntp64(at), transmit=ntp64(at + 10_000), **changes)  # type: ignore[arg-type]
    return header.pack(), T0, T0 + out_ns + 10_000 + back_ns


def asked(polling: Polling = QUIET) -> Association:
    """An association whose request with the nonce 7 waits for its answer."""
    association = Association(polling, 0)
    association.request(0, 7)
    return association


# ---- the request ---------------------------------------------------------------------------------------------------------------------


@given(NONCES, st.integers(0, 2**62), st.sampled_from((3, 4)))
def test_a_request_tells_nothing_of_this_machine(nonce: int, now_ns: int, version: int) -> None:
    """Everything but version, mode and the random transmit field is zero (draft-ietf-ntp-data-minimization section 4)."""
    sent = Association(Polling(version=version), now_ns).request(now_ns, nonce)
    assert sent == Header(version=version, transmit=nonce).pack()
    assert sent[1:40] == bytes(39)


# ---- which replies belong to a request -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=120), NONCES)
def test_no_datagram_raises(data: bytes, nonce: int) -> None:
    """Whatever comes is a measurement or a reason."""
    association = Association(QUIET, 0)
    association.request(0, nonce)
    assert isinstance(association.reply(data, T0, T0 + NS), Measurement | Reason)


@given(st.lists(st.tuples(st.sampled_from(("ask", "old", "now", "none", "other", "kiss-other", "kiss-old")), NONCES), max_size=40))
def test_only_the_answer_to_the_waiting_request_counts(script: list[tuple[str, int]]) -> None:
    """Whatever a network delays, repeats or forges: a measurement comes of a reply that echoes the request which waits, once; and no other
    datagram changes when the server is asked again, or what is known of its reach."""
    association, waiting, past = Association(QUIET, 0), 0, [1]
    for what, number in script:
        if what == "ask":
            past += [waiting] if waiting else []
            waiting = number
            association.request(0, number)
            continue
        origin = {"old": past[-1], "kiss-old": past[-1], "now": waiting, "none": 0}.get(what, number)
        data, sent, received = answer(origin)
        if what.startswith("kiss"):
            data = kiss("DENY", origin)
        right = bool(waiting) and origin == waiting
        before = association.due_ns, association.reach, association.poll
        result = association.reply(data, sent, received)
        if not right:
            assert result is Reason.ORIGIN
            assert (association.due_ns, association.reach, association.poll) == before
        else:
            assert isinstance(result, Measurement) != what.startswith("kiss")
            past.append(waiting)
            waiting = 0
            if association.due_ns is None:
                break


def test_a_reply_counts_once() -> None:
    """A replay of the right answer is worth nothing."""
    association, reply = asked(), answer(7)
    assert isinstance(association.reply(*reply), Measurement)
    assert association.reply(*reply) is Reason.ORIGIN


def test_an_origin_of_zero_is_never_right() -> None:
    """A reply with an empty origin answers no request, before the first one as little as after an answer."""
    association = Association(QUIET, 0)
    assert association.reply(*answer(0)) is Reason.ORIGIN
    association.request(0, 7)
    association.reply(*answer(7))
    assert association.reply(*answer(0)) is Reason.ORIGIN


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": 3}, Reason.MODE),
        ({"mode": 5}, Reason.MODE),
        ({"version": 0}, Reason.VERSION),
        ({"version": 7}, Reason.VERSION),
        ({"leap": Leap.UNSYNCHRONISED}, Reason.UNSYNCHRONISED),
        ({"stratum": 16}, Reason.UNSYNCHRONISED),
        ({"stratum": 255}, Reason.UNSYNCHRONISED),
        ({"root_delay": 7 << 16}, Reason.DISTANT),
        ({"root_dispersion": 4 << 16}, Reason.DISTANT),
        ({"refid": 0xC0000207}, Reason.LOOP),
    ],
)
def test_replies_of_no_use(changes: dict[str, object], reason: Reason) -> None:
    """A reply that answers the request and is worth nothing: its reason, and no bit in the register (RFC 5905 section 8, RFC 8633)."""
    association = asked()
    data, sent, received = answer(7, **changes)
    assert association.reply(data, sent, received, ours={0xC0000207}) is reason
    assert association.reach == 0


def test_a_server_of_stratum_1_is_no_loop() -> None:
    """Its reference identifier is a name, whatever number that is."""
    data, sent, received = answer(7, stratum=1, refid=0xC0000207)
    assert isinstance(asked().reply(data, sent, received, ours={0xC0000207}), Measurement)


def test_without_the_key_nothing_counts() -> None:
    """An answer, or a kiss, without the MAC of the configured key is left alone, and the right answer is still taken."""
    association = asked()
    assert association.reply(kiss("DENY", 7), T0, T0 + NS, authentic=False) is Reason.UNAUTHENTIC
    data, sent, received = answer(7)
    assert association.reply(data, sent, received, authentic=False) is Reason.UNAUTHENTIC
    assert association.due_ns is not None
    assert isinstance(association.reply(data, sent, received), Measurement)


# ---- what a reply measures --------------------------------------------------------------------------------------------------------------


@given(
    st.integers(-(10**15), 10**15),
    st.integers(0, 400_000_000),
    st.integers(0, 400_000_000),
    st.integers(-500_000, 500_000),
)
def test_the_distance_covers_any_asymmetry(ahead_ns: int, out_ns: int, back_ns: int, rate_ppb: int) -> None:
    """However the delay is shared between both ways, and however wrong the rate of this clock is: a right server's time is within the
    distance of the offset."""
    data, sent, received = answer(7, ahead_ns, out_ns, back_ns)
    received += (received - sent) * rate_ppb // 10**9
    found = asked().reply(data, sent, received)
    assert isinstance(found, Measurement)
    assert abs(found.offset_ns - ahead_ns) <= found.distance_ns


# ---- kisses (RFC 5905 section 7.4, RFC 8633 section 5.4) --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["DENY", "RSTR"])
def test_deny_and_restrict_end_the_association(code: str) -> None:
    """The server is not asked again."""
    association = asked()
    assert association.reply(kiss(code, 7), T0, T0 + NS) is Reason.KISS
    assert association.due_ns is None


def test_rate_makes_the_interval_longer_for_good() -> None:
    """Each kiss RATE makes the interval longer, up to a limit that no number in the kiss lifts; good answers do not shorten it again."""
    association = asked(Polling(minpoll=4, maxpoll=6, iburst=False))
    association.reply(kiss("RATE", 7), T0, T0 + NS)
    assert association.poll == 7
    association.request(0, 8)
    association.reply(kiss("RATE", 8, poll=127), T0, T0 + NS)
    assert association.poll == KISS_POLL
    for nonce in range(9, 40):
        association.request(0, nonce)
        association.reply(*answer(nonce))
    assert association.poll == KISS_POLL


@pytest.mark.parametrize("code", ["INIT", "STEP", "XFOO"])
def test_other_kisses_only_say_that_there_is_no_time(code: str) -> None:
    """They change nothing about how often the server is asked."""
    association = asked()
    due_ns = association.due_ns
    assert association.reply(kiss(code, 7), T0, T0 + NS) in (Reason.KISS, Reason.UNSYNCHRONISED)
    assert (association.due_ns, association.poll) == (due_ns, 6)


# ---- how often -----------------------------------------------------------------------------------------------------------------------


def run(association: Association, until_s: float, jitter_ns: int = 0, answers: bool = True) -> list[float]:
    """The seconds at which requests went out until then."""
    random, sent = Random(1), []
    while association.due_ns is not None and association.due_ns < until_s * NS:
        now_ns, nonce = association.due_ns, random.getrandbits(64) | 1
        sent.append(now_ns / NS)
        association.request(now_ns, nonce)
        if answers:
            association.reply(*answer(nonce, out_ns=5_000_000 + round(random.expovariate(1) * jitter_ns)))
    return sent


def test_it_begins_with_a_burst() -> None:
    """Four requests two seconds apart, then the interval."""
    sent = run(Association(Polling(), 0), 200)
    assert sent[:BURST] == [0, 2, 4, 6]
    assert 70 <= sent[BURST] <= 72
    assert len(sent) == 6


def test_a_steady_path_is_asked_often_and_a_noisy_one_seldom() -> None:
    """The interval follows the noise of the path, within minpoll and maxpoll."""
    for jitter_ns, poll in ((0, 6), (30_000, 7), (500_000, 10)):
        association = Association(Polling(), 0)
        run(association, 86_400, jitter_ns)
        assert abs(association.poll - poll) <= 1, jitter_ns
        assert association.reach == 0xFF


def test_a_server_that_is_gone_is_asked_less_and_less() -> None:
    """Without answers the interval grows to maxpoll; the first answer brings it back, and a burst at once."""
    association = Association(Polling(), 0)
    sent = run(association, 6 * 3600, answers=False)
    assert association.reach == 0
    assert association.poll == 10
    assert 1000 < sent[-1] - sent[-2] < 1100
    due_ns = association.due_ns
    assert due_ns is not None
    association.request(due_ns, 7)
    association.reply(*answer(7))
    assert (association.poll, association.due_ns) == (6, due_ns + 2 * NS)


def test_a_request_that_cannot_leave_is_no_silence() -> None:
    """No network at boot: tried every ten seconds, and at once when the network comes, with a burst."""
    association = Association(Polling(), 0)
    for now_s in range(0, 300, 10):
        assert association.due_ns == now_s * NS
        association.request(association.due_ns, 7)
        association.unsent(now_s * NS, "network is unreachable")
    association.request(300 * NS, 9)
    assert association.due_ns == 302 * NS


def test_the_network_came_back() -> None:
    """A server that was out of reach for hours is asked at once when an interface changes; one that answers is left alone."""
    association = Association(Polling(), 0)
    run(association, 6 * 3600, answers=False)
    association.wake(6 * 3600 * NS)
    assert association.due_ns == 6 * 3600 * NS
    reached = Association(Polling(), 0)
    run(reached, 1000)
    due_ns = reached.due_ns
    reached.wake(1000 * NS)
    assert reached.due_ns == due_ns


def test_the_register_holds_eight_requests() -> None:
    """A bit a request, the latest lowest (RFC 5905 section 9.2)."""
    association = Association(QUIET, 0)
    for nonce, good in enumerate([True, False, True, True], 1):
        association.request(0, nonce)
        if good:
            association.reply(*answer(nonce))
    assert association.reach == 0b1011


def test_intervals_spread() -> None:
    """Machines that were started at one time do not ask at one time for ever."""
    dues = set()
    for nonce in range(1, 256):
        association = Association(QUIET, 0)
        association.request(0, nonce)
        dues.add(association.due_ns)
    assert len(dues) == 255
    assert max(d for d in dues if d is not None) < 66 * NS


def test_the_header_is_taken_from_the_reply() -> None:
    """Stratum, reference identifier and leap are the server's."""
    found = asked().reply(*answer(7, leap=Leap.INSERT))
    assert isinstance(found, Measurement)
    assert (found.stratum, found.refid, found.leap) == (2, 0xC0000201, Leap.INSERT)
    assert parse(answer(7)[0]) is not None


# ---- which answers are used ------------------------------------------------------------------------------------------------------------


def trips(polling: Polling, delays_ms: list[float]) -> list[bool]:
    """Whether each of the answers with these round trips is used."""
    association, used = Association(polling, 0), []
    for n, delay_ms in enumerate(delays_ms, 1):
        association.request(n * NS, n)
        half_ns = round(delay_ms * 5e5)
        used.append(isinstance(association.reply(*answer(n, 0, half_ns, half_ns)), Measurement))
        assert association.reach & 1
    return used


@pytest.mark.parametrize(
    ("limits", "delays_ms", "used"),
    [
        ({"maxdelay_ns": 20_000_000}, [10, 30, 10], [True, False, True]),
        ({"maxdelayratio": 2.0}, [10, 10, 10, 11, 25, 12], [True, True, True, True, False, True]),
        ({"maxdelaydevratio": 10.0}, [10, 12, 10, 12, 25, 12], [True, True, True, True, False, True]),
        ({"maxdelaydevratio": 10.0}, [10, 12, 10, 12, 19], [True, True, True, True, True]),
        ({"maxdelayratio": 2.0}, [10] * 8 + [50] * 9, [True] * 8 + [False] * 8 + [True]),
        ({}, [1, 1, 1, 1, 1, 900], [True] * 6),
    ],
)
def test_answers_that_took_too_long_are_not_used(limits: dict[str, float], delays_ms: list[float], used: list[bool]) -> None:
    """maxdelay, maxdelayratio and maxdelaydevratio as chrony.conf(5) defines them; the server counts as reachable all the same, and a path
    that has become longer for good is used again."""
    assert trips(replace(QUIET, **limits), delays_ms) == used  # type: ignore[arg-type]


def test_distance_and_stratum_may_be_limited() -> None:
    """A root distance above maxdistance is not used; a server is taken for minstratum at least."""
    far = asked(replace(QUIET, maxdistance_ns=10_000_000))
    assert far.reply(*answer(7)) is Reason.DISTANT
    found = asked(replace(QUIET, minstratum=5)).reply(*answer(7))
    assert isinstance(found, Measurement)
    assert (found.stratum, found.header.stratum) == (5, 2)


def test_packets_are_counted() -> None:
    """Requests, datagrams, valid answers, and those that are used."""
    association = Association(replace(QUIET, maxdelay_ns=1_000_000), 0)
    association.request(0, 7)
    association.reply(*answer(8))
    association.reply(*answer(7))
    association.request(NS, 9)
    association.reply(*answer(9, 0, 100_000, 100_000))
    assert (association.sent, association.received, association.valid, association.good) == (2, 3, 2, 1)


# ---- interleaved mode ------------------------------------------------------------------------------------------------------------------


class Interleaving:
    """A server as RFC 9769 section 2 has it, whose answers leave ``late_ns`` later than basic ones say. ``able``: it has the mode."""

    def __init__(self, late_ns: int = 300_000, able: bool = True) -> None:
        self.late_ns, self.able = late_ns, able
        self._before = (0, 0)  # receive and departure of the last answer

    def answer(self, request: bytes, at_ns: int) -> bytes:
        """The reply to a request that arrives at ``at_ns``; it leaves 10 us and ``late_ns`` later."""
        asked, receive = parse(request), ntp64(at_ns)
        assert asked is not None
        known, departure = self._before
        self._before = (receive, ntp64(at_ns + 10_000 + self.late_ns))
        if self.able and known and asked.origin == known:
            return replace(SERVER, origin=asked.receive, receive=receive, transmit=departure).pack()
        return replace(SERVER, origin=asked.transmit, receive=receive, transmit=ntp64(at_ns + 10_000)).pack()


def interleaved(server: Interleaving, script: str) -> list[tuple[bool, int, int]]:
    """(interleaved, offset, age in s) of what comes of requests 64 s apart: "a" is answered, "l" is lost on its way there, "r" on its way
    back. Each way takes 1 ms; the server's clock is right; this machine's loses 100 us in a second."""
    association, found = Association(replace(QUIET, xleave=True), 0), []
    for n, what in enumerate(script):
        raw = n * 64 * NS
        utc = T0 + raw - n * 64 * 100_000
        request = association.request(raw, 2 * n + 1, 2 * n + 2)
        if what == "l":
            continue
        reply = server.answer(request, T0 + raw + 1_000_000)
        if what == "r":
            continue
        trip = 2_010_000 + server.late_ns
        result = association.reply(reply, utc, utc + trip, raw_ns=raw + trip)
        assert isinstance(result, Measurement), result
        found.append((result.interleaved, result.offset_ns, round((utc - result.utc_ns) / NS)))
    return found


def test_interleaved_answers_tell_the_departure_of_the_one_before() -> None:
    """The first answer is a basic one, with half of the delay that the server does not know of in its offset; the others are without that
    error, and one interval old."""
    found = interleaved(Interleaving(), "aaaa")
    assert [mode for mode, _, _ in found] == [False, True, True, True]
    assert found[0][1] == pytest.approx(-150_000, abs=10)
    for n, (_, offset_ns, age_s) in enumerate(found[1:], 1):
        assert offset_ns == pytest.approx(n * 64 * 100_000, abs=20)  # this clock as it is now, carried back by the raw clock
        assert age_s == 64


@pytest.mark.parametrize("script", ["aalaa", "aaraa", "alraa"])
def test_after_a_silence_the_mode_begins_anew(script: str) -> None:
    """A lost request or answer: the next one is basic, and nothing is computed from two halves that do not belong together."""
    found = interleaved(Interleaving(), script)
    assert [mode for mode, _, _ in found][-2:] == [False, True]
    assert all(abs(offset_ns - 64 * 100_000 * 4) < 64 * 100_000 * 5 for _, offset_ns, _ in found)


def test_a_server_without_the_mode_is_asked_all_the_same() -> None:
    """Its answers are basic ones, and each counts."""
    assert [mode for mode, _, _ in interleaved(Interleaving(able=False), "aaa")] == [False] * 3


def test_an_interleaved_request_tells_two_random_numbers_and_what_the_server_said() -> None:
    """Nothing of this machine's clock; without the option nothing but one random number."""
    association = Association(replace(QUIET, xleave=True), 0)
    association.request(0, 7, 8)
    data, sent, received = answer(7)
    association.reply(data, sent, received, raw_ns=1)
    said = parse(data)
    assert said is not None
    assert association.request(NS, 9, 10) == Header(version=4, origin=said.receive, receive=10, transmit=9).pack()
    assert association.reply(answer(8)[0], sent, received) is Reason.ORIGIN
    plain = asked()
    plain.reply(*answer(7))
    assert plain.request(NS, 9, 10) == Header(version=4, transmit=9).pack()
