"""Packet timestamps that the driver of each network interface supports, as ethtool(8) -T shows them.

The kernel stamps arrivals on every interface. It stamps departures, which interleaved mode needs, only where the driver supports it.
Hardware timestamps are reported but not used: they are on the card's own clock, and a process that faces the network opens no device.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array

from ppsd.snapshot import Stamping

SIOCETHTOOL = 0x8946
GET_TS_INFO = 0x41
"""linux/sockios.h, ETHTOOL_GET_TS_INFO of linux/ethtool.h."""
_TS_INFO = struct.Struct("=IIiI3II3I")
"""struct ethtool_ts_info: command, so_timestamping, phc_index, tx_types, reserved, rx_filters, reserved."""
_TX_HARDWARE, _TX_SOFTWARE, _RX_HARDWARE, _RX_SOFTWARE = 1, 2, 4, 8
"""SOF_TIMESTAMPING_* of linux/net_tstamp.h."""


def _word(flags: int, software: int, hardware: int) -> str:
    """Who stamps, from SOF_TIMESTAMPING ``flags``; "card could": the card supports it too."""
    if not flags & software:
        return "none"
    return "kernel (card could)" if flags & hardware else "kernel"


def _ask(asker: socket.socket, name: str) -> tuple[int, int] | None:
    """(SOF_TIMESTAMPING flags, index of the card's clock or -1) of interface ``name``; None when its driver does not answer."""
    info = array("B", _TS_INFO.pack(GET_TS_INFO, *[0] * 10))
    request = struct.pack("16sP16x", name.encode(), info.buffer_info()[0])  # struct ifreq: name, ifr_data
    try:
        fcntl.ioctl(asker, SIOCETHTOOL, request)
    except OSError:
        return None
    _, flags, index, *_ = _TS_INFO.unpack(info.tobytes())
    return flags, index


def stamping() -> list[Stamping]:
    """The timestamps of every interface in this network namespace, except those whose driver does not answer. Empty where the interfaces
    may not be listed (a netlink socket is needed: systemd's RestrictAddressFamilies, seccomp)."""
    found: list[Stamping] = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            for _, name in socket.if_nameindex():
                told = _ask(asker, name)
                if told is not None:
                    flags, index = told
                    arrivals, departures = _word(flags, _RX_SOFTWARE, _RX_HARDWARE), _word(flags, _TX_SOFTWARE, _TX_HARDWARE)
                    found.append(Stamping(name, arrivals, departures, f"ptp{index}" if index >= 0 else ""))
    except OSError:
        return []
    return found
