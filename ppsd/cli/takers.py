"""Programs that take refclock's samples: what runs them, where their configuration is, and what lets refclock reach them.

chronyd and ntpsec's ntpd read a directory of files besides their own, so a file of ours is put there. Others have one file, which is its
owner's: the lines for it are shown, and it is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ppsd.cli.feed import RS_SOCKET, SHM_UNIT, feed_lines
from ppsd.cli.privileges import MADE
from ppsd.config.file import as_value
from refclock.config import Feed, ShmFeed, SockFeed, Source
from refclock.kernel.host import Host

CHRONY_LINES: Final = "/etc/chrony/conf.d/refclock.conf"
CHRONY_DROP_IN: Final = "/etc/systemd/system/chrony.service.d/10-refclock.conf"
CHRONY_SOCKET: Final = "/run/chrony.refclock.sock"
"""Outside /run/chrony, which only chronyd's user may enter. Debian's AppArmor profile of chronyd allows the name."""


@dataclass(frozen=True, slots=True)
class Taker:
    """A program that takes samples. ``program``: its name in ``refclock feed``. ``unit``: the service that runs it. ``configuration``: its
    own file. ``more``: a file of ours that it reads too, if its own matches ``reads``; "" if there is no such place. ``instead``: a file
    that it reads in place of its own when it exists, and then ``more`` is not read. ``drop_ins``: files for systemd that let refclock
    reach it, by name."""

    program: str
    unit: str
    configuration: str
    feed: Feed
    more: str = ""
    reads: str = ""
    instead: str = ""
    drop_ins: Mapping[str, str] = field(default_factory=dict)

    def lines(self, feeds: Sequence[Feed], sources: Sequence[Source]) -> str:
        """What its configuration needs to take the samples of that one of ``feeds`` which is its own, made from ``sources``."""
        own = [feed for feed in feeds if self.is_fed_by(feed)]
        return "\n".join(feed_lines(self.program, own, sources)) + "\n"

    def is_fed_by(self, feed: Feed) -> bool:
        """Whether samples of ``feed`` reach it."""
        return replace(feed, name=self.feed.name, max_bound_us=self.feed.max_bound_us) == self.feed

    def place(self, host: Host) -> str:
        """The file of ours that it reads; "" where there is none, and its owner has to change its own."""
        known = re.search(self.reads, host.text(self.configuration) or "", re.MULTILINE) is not None
        return self.more if known and not (self.instead and host.path(self.instead).exists()) else ""

    def table(self) -> str:
        """The [[feed]] for refclock.toml."""
        key = "path" if isinstance(self.feed, SockFeed) else "unit"
        return f'[[feed]]\ntype = "{self.feed.kind}"\n{key} = {as_value(getattr(self.feed, key))}\n'


TAKERS: Final = (
    Taker(
        "chrony",
        "chrony",
        "/etc/chrony/chrony.conf",
        SockFeed(path=CHRONY_SOCKET),
        more=CHRONY_LINES,
        reads=r"^\s*(confdir|include)\s.*/etc/chrony/conf\.d\b",
        drop_ins={
            CHRONY_DROP_IN: f"{MADE[:-1]}: chronyd makes the socket for root alone.\n[Service]\n"
            f"ExecStartPost=-+/bin/chgrp refclock {CHRONY_SOCKET}\nExecStartPost=-+/bin/chmod 0660 {CHRONY_SOCKET}\n",
        },
    ),
    Taker(
        "ntpsec",
        "ntpsec",
        "/etc/ntpsec/ntp.conf",
        ShmFeed(unit=SHM_UNIT),
        more="/etc/ntpsec/ntp.d/refclock.conf",
        instead="/run/ntpsec/ntp.conf.dhcp",  # which a DHCP client made; ntpd then looks for ntp.d beside that file
    ),
    Taker("ntpd", "ntp", "/etc/ntp.conf", ShmFeed(unit=SHM_UNIT)),
    Taker("ntpd", "ntpd", "/etc/ntp.conf", ShmFeed(unit=SHM_UNIT)),
    Taker(
        "ntpd-rs",
        "ntpd-rs",
        "/etc/ntpd-rs/ntp.toml",
        SockFeed(path=RS_SOCKET),
        drop_ins={
            "/etc/systemd/system/ntpd-rs.service.d/10-refclock.conf": f"{MADE[:-1]}: its group may write to the socket.\n"
            "[Service]\nUMask=0007\n",
            "/etc/systemd/system/refclock-clock.service.d/20-ntpd-rs.conf": f"{MADE}\n[Service]\nSupplementaryGroups=ntpd-rs\n",
        },
    ),
)
