"""NTS key establishment: what a client's request is answered, row by row of RFC 8915 section 4."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.ntp.nts import (
    AES_128_GCM_SIV,
    AES_SIV_CMAC_256,
    COOKIES,
    REQUEST_BYTES,
    Agreement,
    Fault,
    Flaw,
    KeRecord,
    Kind,
    agreed,
    exporter_context,
    message,
    records,
    refusal,
    reply,
)

END = KeRecord(Kind.END, critical=True)
NTP = KeRecord(Kind.PROTOCOLS, b"\0\0", critical=True)
SIV = KeRecord(Kind.AEADS, b"\0\x0f", critical=True)
GOOD = Agreement(True, AES_SIV_CMAC_256)
GCM = KeRecord(Kind.AEADS, b"\0\x1e", critical=True)
EXPORT = KeRecord(Kind.COMPLIANT_EXPORT)

RECORDS = st.builds(KeRecord, st.one_of(st.sampled_from(Kind), st.integers(0, 0x7FFF)), st.binary(max_size=40), st.booleans())


def found(data: bytes) -> tuple[KeRecord, ...]:
    """The records of a whole message."""
    parsed = records(data)
    assert isinstance(parsed, tuple)
    return parsed


@given(st.lists(RECORDS.filter(lambda record: record.kind != Kind.END), max_size=20))
def test_a_message_comes_back_as_it_was_written(parts: list[KeRecord]) -> None:
    """Whatever records are written, the same are read."""
    assert found(message(parts)) == (*parts, END)


@given(st.binary(max_size=200))
def test_no_octets_make_the_parser_raise(data: bytes) -> None:
    """Whatever comes, there are records or a reason; and every request is answered with a message or an error."""
    parsed = records(data)
    if isinstance(parsed, tuple):
        assert isinstance(agreed(parsed), Agreement | Fault)


@given(st.lists(RECORDS, max_size=12))
def test_every_request_is_answered(parts: list[KeRecord]) -> None:
    """Any records in any order give an agreement or an error, and its answer can be read."""
    answer = agreed(parts)
    assert found(reply(answer) if isinstance(answer, Agreement) else refusal(answer))[-1] == END


@given(st.lists(RECORDS, max_size=8), st.integers(0, 400))
def test_a_message_that_was_cut_is_unfinished(parts: list[KeRecord], cut: int) -> None:
    """What has come of a message so far is taken for unfinished, never for a shorter message."""
    whole = message([part for part in parts if part.kind != Kind.END])
    if cut < len(whole):
        assert records(whole[:cut]) is Flaw.UNFINISHED


def test_bounds_of_a_message() -> None:
    """A request of 1024 octets is read (section 4); a longer one than any client sends, or what follows the end, is none."""
    assert found(message([KeRecord(0x4000, bytes(1024))]))
    assert records(KeRecord(0x4000, bytes(REQUEST_BYTES)).to_bytes()) is Flaw.TOO_LONG
    assert records(struct.pack("!HH", 0x4000, 0xFFFF)) is Flaw.TOO_LONG
    assert records(message([NTP]) + b"\0") is Flaw.TRAILING


@pytest.mark.parametrize(
    ("section", "request_records", "answer"),
    [
        ("4: the usual request", [NTP, SIV, END], GOOD),
        ("4.1: order does not matter", [SIV, NTP, END], GOOD),
        ("4.1: unknown and not critical: ignored", [NTP, SIV, KeRecord(0x4321, b"x"), END], GOOD),
        ("4.1: unknown and critical: error 0", [NTP, SIV, KeRecord(0x4321, b"x", critical=True), END], Fault.UNKNOWN_CRITICAL),
        ("4.1.1: the end is critical", [NTP, SIV, KeRecord(Kind.END)], Fault.BAD_REQUEST),
        ("4.1.1: the end is empty", [NTP, SIV, KeRecord(Kind.END, b"x", critical=True)], Fault.BAD_REQUEST),
        ("4.1.2: next protocol is there", [SIV, END], Fault.BAD_REQUEST),
        ("4.1.2: and once", [NTP, NTP, SIV, END], Fault.BAD_REQUEST),
        ("4.1.2: and critical", [KeRecord(Kind.PROTOCOLS, b"\0\0"), SIV, END], Fault.BAD_REQUEST),
        ("4.1.2: and names at least one", [KeRecord(Kind.PROTOCOLS, b"", critical=True), SIV, END], Fault.BAD_REQUEST),
        ("4.1.2: of whole numbers", [KeRecord(Kind.PROTOCOLS, b"\0\0\0", critical=True), SIV, END], Fault.BAD_REQUEST),
        ("4.1.2: NTPv4 among others", [KeRecord(Kind.PROTOCOLS, b"\x80\x01\0\0", critical=True), SIV, END], GOOD),
        ("4.1.2: none that we have", [KeRecord(Kind.PROTOCOLS, b"\x80\x01", critical=True), END], Agreement(False, None)),
        ("4.1.3: a client sends no error", [NTP, SIV, KeRecord(Kind.ERROR, b"\0\1", critical=True), END], Fault.BAD_REQUEST),
        ("4.1.4: nor a warning", [NTP, SIV, KeRecord(Kind.WARNING, b"\0\0", critical=True), END], Fault.BAD_REQUEST),
        ("4.1.5: an AEAD is named for NTPv4", [NTP, END], Fault.BAD_REQUEST),
        ("4.1.5: once", [NTP, SIV, SIV, END], Fault.BAD_REQUEST),
        ("4.1.5: of whole numbers", [NTP, KeRecord(Kind.AEADS, b"\0\x0f\0"), END], Fault.BAD_REQUEST),
        ("4.1.5: critical or not", [NTP, KeRecord(Kind.AEADS, b"\0\x0f"), END], GOOD),
        ("4.1.5: ours among others", [NTP, KeRecord(Kind.AEADS, b"\0\x11\0\x0f\0\x10"), END], GOOD),
        ("4.1.5: the client's first", [NTP, KeRecord(Kind.AEADS, b"\0\x0f\0\x1e"), END], GOOD),
        ("4.1.5: which may be 30", [NTP, KeRecord(Kind.AEADS, b"\0\x1e\0\x0f"), END], Agreement(True, AES_128_GCM_SIV)),
        ("4.1.5: none that we have", [NTP, KeRecord(Kind.AEADS, b"\0\x10"), END], Agreement(True, None)),
        ("5.1: with its own exporter", [NTP, GCM, EXPORT, END], Agreement(True, AES_128_GCM_SIV, compliant=True)),
        ("5.1: which AEAD 15 has anyway", [NTP, SIV, EXPORT, END], GOOD),
        ("4.1: a number that others may use otherwise", [NTP, GCM, KeRecord(1024, b"x"), END], Agreement(True, AES_128_GCM_SIV)),
        ("4.1.6: a client sends no cookie", [NTP, SIV, KeRecord(Kind.COOKIE, b"x"), END], Fault.BAD_REQUEST),
        ("4.1.7: it may wish a server", [NTP, SIV, KeRecord(Kind.SERVER, b"ntp.example.net"), END], GOOD),
        ("4.1.7: one", [NTP, SIV, *[KeRecord(Kind.SERVER, b"a")] * 2, END], Fault.BAD_REQUEST),
        ("4.1.8: it may wish a port", [NTP, SIV, KeRecord(Kind.PORT, b"\0\x7b"), END], GOOD),
        ("4.1.8: one", [NTP, SIV, *[KeRecord(Kind.PORT, b"\0\x7b")] * 2, END], Fault.BAD_REQUEST),
        ("4.1.8: of two octets", [NTP, SIV, KeRecord(Kind.PORT, b"\x7b"), END], Fault.BAD_REQUEST),
    ],
)
def test_requests_are_answered_as_the_rfc_says(section: str, request_records: list[KeRecord], answer: Agreement | Fault) -> None:
    """Each row of RFC 8915 sections 4.1 to 4.1.8."""
    assert agreed(request_records) == answer, section


def test_a_good_request_gets_eight_cookies() -> None:
    """Next protocol NTPv4, AEAD 15, eight cookies, the end: what every client expects (sections 4.1.2, 4.1.5, 4.1.6)."""
    cookies = [bytes([n]) * 100 for n in range(COOKIES)]
    answer = found(reply(GOOD, cookies))
    assert answer == (NTP, KeRecord(Kind.AEADS, b"\0\x0f"), *(KeRecord(Kind.COOKIE, c) for c in cookies), END)


def test_no_common_cipher_is_an_empty_record() -> None:
    """A client whose ciphers are not known gets an empty AEAD record and no cookie (section 4.1.5); one whose protocols are not, an empty
    list of those (section 4.1.2)."""
    assert found(reply(Agreement(True, None), [b"x"])) == (NTP, KeRecord(Kind.AEADS), END)
    assert found(reply(Agreement(False, None), [b"x"])) == (KeRecord(Kind.PROTOCOLS, critical=True), END)


def test_clients_are_sent_elsewhere_when_configured() -> None:
    """Server and port are told when they are not the usual ones (sections 4.1.7, 4.1.8)."""
    kinds = {record.kind: record.body for record in found(reply(GOOD, [b"x"], "ntp.example.net", 1123))}
    assert (kinds[Kind.SERVER], kinds[Kind.PORT]) == (b"ntp.example.net", b"\x04\x63")
    assert Kind.PORT not in {record.kind for record in found(reply(GOOD, [b"x"], port=123))}


def test_an_error_is_critical_and_alone() -> None:
    """An error's code is two octets, and nothing else comes with it (section 4.1.3)."""
    assert found(refusal(Fault.BAD_REQUEST)) == (KeRecord(Kind.ERROR, b"\0\1", critical=True), END)


def test_keys_of_aead_30_are_exported_as_the_client_does() -> None:
    """chronyd 4.4 to 4.6 exports keys of AEAD 30 as of AEAD 15; later ones ask by a record for its own number, and want that back."""
    old, new = Agreement(True, AES_128_GCM_SIV), Agreement(True, AES_128_GCM_SIV, compliant=True)
    assert (GOOD.exported_as, old.exported_as, new.exported_as) == (15, 15, 30)
    assert found(reply(new, [b"x"])) == (NTP, KeRecord(Kind.AEADS, b"\0\x1e"), EXPORT, KeRecord(Kind.COOKIE, b"x"), END)
    assert EXPORT not in found(reply(old, [b"x"]))


def test_contexts_of_the_exporter() -> None:
    """Protocol, AEAD and direction, as section 5.1 writes them."""
    assert exporter_context(15, to_server=True) == bytes.fromhex("0000000f00")
    assert exporter_context(15, to_server=False) == bytes.fromhex("0000000f01")
