"""The SD card's image, as it is flashed, on another board: the processor, card reader and USB network of a Pi 3, which QEMU emulates."""

from __future__ import annotations

from collections.abc import Callable

from machine import Machine

PATIENCE_S = 400
"""s: longest wait for what takes a minute on two idle cores."""


def test_the_same_card_starts_a_pi_3(new_machine: Callable[..., Machine], figure: Callable[..., None]) -> None:
    """To an answer, without a receiver: "not synchronised" is one."""
    machine = new_machine("raspi3b")
    machine.switch_on()
    figure("SD card in raspi3b: first NTP answer", machine.wait_answer(PATIENCE_S), "s")
