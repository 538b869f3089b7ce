"""The antenna's cable: by how much it delays the pulse, and who takes that off, the receiver or we; never both.

Flow: ``[[source]] cable_delay_ns``, whether the receiver confirmed its pulse (refclock.upkeep) -> **cable** -> stamps of the pulse.
Until a receiver has confirmed it is taken to allow for no cable (u-blox comes with 50 ns: the pulse is that much early for seconds).
"""

from __future__ import annotations

from refclock.config import ReceiverSource, Source
from refclock.sample import Instant


class Cable:
    """One source's. ``delay_ns``: positive, the cable makes the pulse late; ``told``: the receiver allows for it."""

    def __init__(self, config: Source) -> None:
        self.delay_ns = (config.cable_delay_ns or 0) if isinstance(config, ReceiverSource) and config.pps else 0
        self.told = False

    def taken_off(self, at: Instant) -> Instant:
        """When the pulse would have come without the cable."""
        return at if self.told else at.shifted(-self.delay_ns)

    @property
    def words(self) -> str:
        """Who takes it off; "" when there is nothing to take off."""
        who = "the receiver takes it off" if self.told else "taken off here, for the receiver was not told"
        return f"antenna cable {self.delay_ns} ns: {who}" if self.delay_ns else ""
