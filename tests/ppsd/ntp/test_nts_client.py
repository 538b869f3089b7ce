"""The client's half of NTS: what it sends, which replies it believes, and when it wants new keys (RFC 8915)."""

from __future__ import annotations

import os
import struct

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st
from nts_packets import AUTHENTICATOR, COOKIE, PLACEHOLDER, UNIQUE, Field, packed, unpacked

from ppsd.ntp.nts import COOKIES, KeRecord, Kind, message, records
from ppsd.ntp.nts_association import FIRST_PAUSE_NS, LONGEST_PAUSE_NS, NAKED, REFRESH_NS, UNDATED_NS, Secured
from ppsd.ntp.nts_client import COOKIE_BYTES, PACKET_BYTES, REPLY_BYTES, Seal, Terms, Verdict, granted
from ppsd.ntp.nts_errands import Errand, Keys, NoKeys, answer_of
from ppsd.ntp.packet import Header

TO_SERVER, TO_CLIENT = bytes(range(32)), bytes(range(32, 64))
HEADER = Header(transmit=0x0102030405060708).pack()
UNIQUE_BYTES, NONCE = bytes(range(100, 132)), bytes(range(16))
RECORDS = st.builds(KeRecord, st.one_of(st.sampled_from(Kind), st.integers(0, 0x7FFF)), st.binary(max_size=40), st.booleans())
GOOD = [KeRecord(Kind.PROTOCOLS, b"\0\0", critical=True), KeRecord(Kind.AEADS, b"\0\x0f")]


class Siv:
    """AES-SIV-CMAC-256 of another library than the one that is used."""

    def __init__(self, cipher: int, secret: bytes) -> None:
        if cipher != 15:
            raise ValueError("no such cipher")
        self.siv = AESSIV(secret)

    def seal(self, data: bytes, nonce: bytes, text: bytes) -> bytes:
        assert not text
        return self.siv.encrypt(text, [data, nonce])

    def open(self, data: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        try:
            return self.siv.decrypt(sealed, [data, nonce])
        except (InvalidTag, ValueError):
            return None


def cookies(count: int = COOKIES, size: int = 100) -> list[bytes]:
    return [bytes([n]) * size for n in range(1, count + 1)]


def seal(count: int = COOKIES, size: int = 100) -> Seal:
    return Seal(15, Siv(15, TO_SERVER), Siv(15, TO_CLIENT), cookies(count, size))


def reply(
    inside: list[Field], *, unique: bytes = UNIQUE_BYTES, key: bytes = TO_CLIENT, nonce: bytes = NONCE, more: tuple[Field, ...] = ()
) -> bytes:
    """A server's reply to a request of HEADER and UNIQUE_BYTES."""
    head = Header(mode=4, stratum=1, origin=0x0102030405060708, receive=1, transmit=1).pack() + packed([(UNIQUE, unique), *more])
    text = AESSIV(key).encrypt(packed(inside), [head, nonce])
    return head + packed([(AUTHENTICATOR, struct.pack("!HH", len(nonce), len(text)) + nonce + bytes(-len(nonce) % 4) + text)])


def nak(unique: bytes = UNIQUE_BYTES, origin: int = 0x0102030405060708) -> bytes:
    return Header(mode=4, refid=int.from_bytes(b"NTSN"), origin=origin).pack() + packed([(UNIQUE, unique)])


# ---- requests ----------------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, COOKIES), st.integers(1, COOKIE_BYTES))
def test_a_request_is_sealed_and_asks_for_as_many_cookies_as_are_lacking(count: int, size: int) -> None:
    """5.3 to 5.7: unique identifier, one cookie, a placeholder of its length for each that is lacking, as far as the packet passes
    undivided; and an authenticator over all of it."""
    one = seal(count, size)
    packet = one.request(HEADER, UNIQUE_BYTES, NONCE)
    assert packet.startswith(HEADER)
    assert len(packet) <= PACKET_BYTES
    first, second, *placeholders, last = unpacked(packet[48:]) if size > 11 else fields(packet)
    assert first == (UNIQUE, UNIQUE_BYTES)
    assert (second[0], second[1][:size]) == (COOKIE, cookies(1, size)[0])
    wanted = COOKIES - count
    assert len(placeholders) == min(wanted, (PACKET_BYTES - 48 - 36 - 40 - (size + 3) // 4 * 4 - 4) // ((size + 3) // 4 * 4 + 4))
    assert set(placeholders) <= {(PLACEHOLDER, bytes(len(second[1])))}
    assert last[0] == AUTHENTICATOR
    covered = packet[: -len(last[1]) - 4]
    assert AESSIV(TO_SERVER).encrypt(b"", [covered, NONCE]) == last[1][20:]


def fields(packet: bytes) -> list[Field]:
    """Extension fields of any length."""
    found, at = [], 48
    while at < len(packet):
        kind, length = struct.unpack_from("!HH", packet, at)
        found.append((kind, packet[at + 4 : at + length]))
        at += length
    return found


def test_no_cookie_is_sent_twice() -> None:
    """5.7: over 30 exchanges, some without an answer, every request has a cookie of its own, and eight are held when answers come."""
    one, sent, fresh = seal(), list[bytes](), 50
    for turn in range(30):
        packet = one.request(HEADER, UNIQUE_BYTES, NONCE)
        found = fields(packet)
        sent.append(found[1][1])
        if turn % 3:
            lacking = sum(kind == PLACEHOLDER for kind, _ in found) + 1
            inside = [(COOKIE, bytes([fresh + n]) * 100) for n in range(lacking)]
            fresh += lacking
            assert one.reply(reply(inside)) is Verdict.GENUINE
            assert len(one.cookies) == COOKIES
    assert len(set(sent)) == len(sent)


# ---- replies -----------------------------------------------------------------------------------------------------------------------------


def test_replies_count_once_and_only_when_they_are_sealed_for_this_request() -> None:
    """5.7: another identifier, none, another key, a changed octet and a replay are strange; what stands in the clear is not taken."""
    one = seal(1)
    assert one.reply(reply([])) is Verdict.STRANGE  # nothing was asked
    one.request(HEADER, UNIQUE_BYTES, NONCE)
    inside = [(COOKIE, b"n" * 100)]
    good = reply(inside, more=((COOKIE, b"f" * 100),))
    assert one.reply(reply(inside, unique=bytes(32))) is Verdict.STRANGE
    assert one.reply(reply(inside, key=TO_SERVER)) is Verdict.STRANGE
    assert one.reply(reply(inside, more=((UNIQUE, UNIQUE_BYTES),))) is Verdict.STRANGE
    for place in (1, 24, 47, 60, 100, 150, len(good) - 1):
        assert one.reply(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]) is Verdict.STRANGE
    assert not one.cookies
    assert one.reply(good + packed([(COOKIE, b"x" * 100)])) is Verdict.GENUINE
    assert one.cookies == (b"n" * 100,)
    assert one.reply(good) is Verdict.STRANGE


def test_a_nak_is_heard_only_in_answer_to_the_request() -> None:
    """5.7: its unique identifier and origin are the request's. A sealed reply after it shows that it was not the server's."""
    one = seal()
    one.request(HEADER, UNIQUE_BYTES, NONCE)
    assert one.reply(nak(unique=bytes(32))) is Verdict.STRANGE
    assert one.reply(nak(origin=7)) is Verdict.STRANGE
    assert not one.naked
    assert one.reply(nak()) is Verdict.NAK
    assert one.naked
    assert one.reply(reply([])) is Verdict.GENUINE
    assert not one.naked


@given(st.binary(max_size=400), st.booleans())
def test_no_datagram_raises_or_is_believed(data: bytes, framed: bool) -> None:
    """Whatever comes, also behind a right header and identifier, is not genuine."""
    one = seal()
    one.request(HEADER, UNIQUE_BYTES, NONCE)
    packet = reply([])[: 48 + 36] + data if framed else data
    assert one.reply(packet) in (Verdict.STRANGE, Verdict.NAK)
    assert len(one.cookies) == COOKIES - 1


@given(st.binary(max_size=300))
def test_no_sealed_text_raises(text: bytes) -> None:
    """A server that has the keys may seal anything: cookies that are none are not kept."""
    one = seal(1)
    one.request(HEADER, UNIQUE_BYTES, NONCE)
    head = Header(mode=4, origin=0x0102030405060708).pack() + packed([(UNIQUE, UNIQUE_BYTES)])
    sealed = AESSIV(TO_CLIENT).encrypt(text or b"\0", [head, NONCE])
    assert (
        one.reply(head + packed([(AUTHENTICATOR, struct.pack("!HH", 16, len(sealed)) + NONCE + sealed + bytes(-len(sealed) % 4))]))
        in Verdict
    )
    assert all(0 < len(cookie) <= COOKIE_BYTES for cookie in one.cookies)


# ---- key servers -------------------------------------------------------------------------------------------------------------------------


@given(st.lists(RECORDS, max_size=12), st.booleans())
def test_no_answer_of_a_key_server_raises(answer: list[KeRecord], begun: bool) -> None:
    """Either terms that can be used, or words."""
    found = granted([*(GOOD if begun else []), *answer], (15,))
    if isinstance(found, Terms):
        assert found.aead == 15
        assert 0 < len(found.cookies) <= COOKIES
        assert found.port is None or 0 < found.port < 65536
    else:
        assert found


@given(st.binary(max_size=300))
def test_no_octets_of_a_key_server_raise(data: bytes) -> None:
    """They are records, or a flaw."""
    found = records(data, REPLY_BYTES)
    if isinstance(found, tuple):
        granted(found, (15,))


def test_where_the_time_is_asked_for_is_negotiated() -> None:
    """4.1.7 and 4.1.8: a name or an address, and a port; eight cookies are kept of more."""
    extra = [KeRecord(Kind.SERVER, b"ntp.example.net", critical=True), KeRecord(Kind.PORT, b"\x04\x63", critical=True)]
    answer = records(message([*GOOD, *extra, *[KeRecord(Kind.COOKIE, bytes([n]) * 100) for n in range(12)]]), REPLY_BYTES)
    assert isinstance(answer, tuple)
    found = granted(answer, (30, 15))
    assert isinstance(found, Terms)
    assert (found.aead, found.server, found.port, len(found.cookies)) == (15, "ntp.example.net", 1123, COOKIES)
    assert isinstance(granted([*GOOD, KeRecord(Kind.COOKIE, b"c"), KeRecord(Kind.SERVER, b"a b")], (15,)), str)
    assert isinstance(granted([*GOOD, KeRecord(Kind.COOKIE, b"c"), KeRecord(0x4000, critical=True)], (15,)), str)


# ---- when new keys are wanted ------------------------------------------------------------------------------------------------------------


def keys(*, undated: bool = False, cipher: int = 15) -> Keys:
    return Keys(Terms(cipher, tuple(cookies())), TO_SERVER, TO_CLIENT, undated)


def test_keys_are_wanted_when_there_are_none_at_growing_intervals() -> None:
    """A key server that gives none is asked again after 16 s, 32 s ... and at least every 70 minutes; a change of the network asks anew."""
    one, now = Secured(Siv, 0), 0
    pauses = []
    for _ in range(12):
        start = now
        while not one.wants_keys(now):
            now += FIRST_PAUSE_NS // 4
        pauses.append(now - start)
        one.asked(now)
        assert not one.wants_keys(now + LONGEST_PAUSE_NS)  # while an answer is waited for
        one.got(NoKeys("nobody is there"), now)
    assert pauses[:4] == [0, FIRST_PAUSE_NS, 2 * FIRST_PAUSE_NS, 4 * FIRST_PAUSE_NS]
    assert pauses[-1] == LONGEST_PAUSE_NS
    assert one.attempts == 12
    assert "nobody is there" in one.why
    one.wake(now)
    assert one.wants_keys(now)


@pytest.mark.parametrize(("undated", "lasting"), [(False, REFRESH_NS), (True, UNDATED_NS)])
def test_keys_are_used_for_a_time(undated: bool, lasting: int) -> None:
    """Four weeks; a quarter of an hour when the dates of the certificate were wrong. The old ones serve until new ones have come."""
    one = Secured(Siv, 0)
    one.asked(0)
    one.got(keys(undated=undated), 0)
    assert not one.wants_keys(lasting)
    assert one.wants_keys(lasting + 1)
    one.asked(lasting + 1)
    one.got(NoKeys("the certificate ended"), lasting + 2)
    assert one.ready


def test_a_nak_has_new_keys_asked_for_and_the_old_ones_used_on() -> None:
    """5.7: until key establishment succeeds the client goes on with the cookies that it has. Naked keys are not kept over a restart."""
    one = Secured(Siv, 0)
    one.asked(0)
    one.got(keys(), 0)
    assert one.seal is not None
    one.seal.request(HEADER, UNIQUE_BYTES, NONCE)
    assert one.kept() == Keys(Terms(15, tuple(cookies()[1:])), TO_SERVER, TO_CLIENT)
    assert one.replied(nak()) is Verdict.NAK
    assert (one.why, one.kept()) == (NAKED, None)
    assert one.wants_keys(FIRST_PAUSE_NS)
    assert one.ready
    one.asked(FIRST_PAUSE_NS)
    one.got(keys(), FIRST_PAUSE_NS)
    assert (one.why, len(one.seal.cookies)) == ("", COOKIES)


def test_keys_of_a_cipher_that_nobody_asked_for_are_none() -> None:
    """They bring no seal, and a reason."""
    one = Secured(Siv, 0)
    one.got(keys(cipher=17), 0)
    assert not one.ready
    assert "no such cipher" in one.why


# ---- between the processes ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(min_size=1, max_size=COOKIE_BYTES), max_size=COOKIES),
    st.text(max_size=20),
    st.one_of(st.none(), st.integers(1, 65535)),
)
def test_keys_pass_between_processes_as_they_are(given_cookies: list[bytes], server: str, port: int | None) -> None:
    """To octets and back."""
    one = Keys(Terms(15, tuple(given_cookies), server, port), os.urandom(32), os.urandom(32), undated=True)
    assert answer_of(one.to_bytes()) == one
    assert answer_of(NoKeys(server).to_bytes()) == NoKeys(server)
    errand = Errand(server, "192.0.2.1", server, 4460, "/etc/ssl/ca.pem")
    assert Errand.from_bytes(errand.to_bytes()) == errand


@given(st.binary(max_size=60))
def test_other_octets_between_processes_are_refused(data: bytes) -> None:
    """ValueError, and nothing else."""
    for reader in (answer_of, Errand.from_bytes):
        try:
            reader(data)
        except ValueError:
            continue
