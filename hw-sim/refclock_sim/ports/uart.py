"""A UART that reads bytes which were sent at another speed, or in another format, than it is set to.

Flow: bytes -> levels of the wire -> **uart** -> bytes that the host reads. The receiving side is a 16550 under Linux: a falling edge starts
a character, each bit is sampled in its middle, a character with a low stop bit is read as a zero byte (termios(3): neither IGNPAR nor
PARMRK), and the next falling edge starts the next character. The host is set to eight data bits without parity.
"""

from __future__ import annotations

from typing import Final

FORMATS: Final = {"8N1": (8, "N", 1), "8N2": (8, "N", 2), "8E1": (8, "E", 1), "8O1": (8, "O", 1)} | {
    "7N2": (7, "N", 2),
    "7E1": (7, "E", 1),
    "7O1": (7, "O", 1),
    "7N1": (7, "N", 1),
}
"""Data bits, parity, stop bits."""


def levels(data: bytes, bits: str = "8N1") -> list[int]:
    """Levels of the wire, one for each bit time; 1 is idle."""
    width, parity, stop = FORMATS[bits]
    wire = []
    for byte in data:
        character = [byte >> i & 1 for i in range(width)]
        ones = sum(character)
        wire += [0, *character, *({"N": [], "E": [ones & 1], "O": [~ones & 1]}[parity]), *([1] * stop)]
    return wire


def heard(data: bytes, bits: str, sent_baud: int, read_baud: int) -> bytes:
    """The bytes that a host at ``read_baud`` 8N1 reads when ``data`` is sent. The line is idle before and after it."""
    if bits in ("8N1", "8N2") and sent_baud == read_baud:
        return data
    wire = levels(data, bits)
    out = bytearray()
    index, at = 0, 0.0  # bit of the wire; where the last character ended

    def level(bit_times: float) -> int:
        return wire[int(bit_times)] if bit_times < len(wire) else 1

    step = sent_baud / read_baud
    while True:
        if index < at:  # only a later edge counts
            while index < len(wire) and wire[index] == 0:
                index += 1
        while index < len(wire) and wire[index] == 1:
            index += 1
        if index >= len(wire):
            return bytes(out)
        sampled = [level(index + (k + 0.5) * step) for k in range(10)]
        if sampled[0] == 0:
            out.append(sum(bit << i for i, bit in enumerate(sampled[1:9])) if sampled[9] else 0)
            at = index + 9.5 * step
        else:  # a spike
            at = index + 0.5
        index = int(at)
