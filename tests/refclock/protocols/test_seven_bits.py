"""Lines of seven data bits are read like others, and no others are taken for such."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from refclock_sim.ports.uart import heard

from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.framing import PARITY_RUN, Framer, SevenBits
from refclock.protocols.ubx import encode
from refclock.sample import Instant

AT = Instant(0, 0)
formats = st.sampled_from(["7N2", "7E1", "7O1"])
words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="$*!"), min_size=4, max_size=60)
sentences = words.map(lambda body: f"$GPTXT,{body}*{nmea_checksum(f'GPTXT,{body}'.encode()):02X}\r\n".encode())
texts = st.lists(sentences, min_size=5, max_size=12)
messages = st.builds(lambda kind, payload: encode(1, kind, payload), st.integers(0, 99), st.binary(max_size=100))


def stripped(data: bytes, points: list[int]) -> tuple[bytes, str]:
    line = SevenBits()
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in points)})
    return b"".join(line.strip(data[a:b]) for a, b in pairwise(edges)), line.bits


@given(texts, formats)
def test_seven_bits_give_every_sentence_after_the_first_characters(some: list[bytes], bits: str) -> None:
    """What was sent with seven data bits is read on a line of eight: each sentence that begins after the first 48 characters."""
    text = b"".join(some)
    framer = Framer()
    frames = framer.feed(heard(text, bits, 9600, 9600), AT, 0)
    assert framer.tally.bits == bits
    assert [f.data for f in frames][-(len(some) - 4) :] == [s[1:-5] for s in some][4:]
    assert stripped(heard(text, bits, 9600, 9600), [])[0][PARITY_RUN:] == text[PARITY_RUN:]


@given(st.lists(sentences | messages | st.binary(max_size=40), max_size=12), st.lists(st.integers(0, 3000), max_size=30))
def test_eight_bits_are_left_as_they_are(some: list[bytes], points: list[int]) -> None:
    """NMEA, UBX and noise of eight data bits pass unchanged, however reads cut them up."""
    data = b"".join(some)
    assert stripped(data, points) == (data, "")


@given(texts, formats, st.lists(messages, min_size=2, max_size=4), st.lists(st.integers(0, 3000), max_size=30))
def test_what_comes_out_depends_on_the_bytes_alone(some: list[bytes], bits: str, then: list[bytes], points: list[int]) -> None:
    """Seven bits, then something else, then seven bits again, in reads of any length."""
    data = heard(b"".join(some), bits, 9600, 9600)
    data = data + b"".join(then) + data
    assert stripped(data, points) == stripped(data, [])
    assert stripped(data, list(range(len(data)))) == stripped(data, [])


@given(texts, formats, messages)
def test_a_line_of_eight_bits_is_believed_again(some: list[bytes], bits: str, message: bytes) -> None:
    """After another receiver took its place, a whole message later at most its frames come unharmed."""
    framer = Framer()
    framer.feed(heard(b"".join(some), bits, 9600, 9600), AT, 0)
    framer.feed(b"\xff\x00" * PARITY_RUN, AT, 0)
    assert framer.tally.bits == ""
    assert any(frame.data[:1] == b"\x01" for frame in framer.feed(encode(1, 7, bytes(92)), AT, 0))
