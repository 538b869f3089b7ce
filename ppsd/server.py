"""The NTP server: the only importer of the C extension ``ppsd._server`` (native/server.h, native/packet.h).

``NtpServer`` starts C threads that answer from the timescale record without the GIL; Python only sets them up and reads their counters.
``PacketPath`` is the very same decision, ``pkt_respond``, as a function of bytes and instants: what the simulator's world and the property
tests run is what the network gets.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ppsd._server import ffi, lib
from ppsd.events import Publish

if TYPE_CHECKING:
    from ppsd._server import Srv

ACTIONS: Final = tuple(ffi.string(lib.pkt_action_name(i)).decode() for i in range(lib.PKT_ACTIONS))
REASONS: Final = tuple(ffi.string(lib.pkt_reason_name(i)).decode() for i in range(lib.PKT_REASONS))
"""The words of enum pkt_action and enum pkt_reason, in order."""

_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation",
    errno.EADDRINUSE: "another NTP server has it (ss -ulnp says which); stop that one, or use another port",
    errno.EADDRNOTAVAIL: "no interface has this address yet",
    errno.EINVAL: "give a numeric IPv4 or IPv6 address, 0.0.0.0 and :: for all",
    errno.ENOSPC: "too many addresses",
    errno.EPROTOTYPE: "the descriptor handed over is no UDP socket",
}


def _checked(result: int, doing: str) -> None:
    if result < 0:
        hint = _HINTS.get(-result)
        raise OSError(-result, f"{doing}: {os.strerror(-result)}{'; ' + hint if hint else ''}")


class PacketPath:
    """``pkt_respond`` on one record at a time, about 2 us a call. Not for several threads at once."""

    def __init__(self, record: Publish) -> None:
        self._context = ffi.new("struct pkt_context *")
        self._outcome = ffi.new("struct pkt_outcome *")
        self._reply = ffi.new("uint8_t[]", lib.PKT_REPLY_MAX)
        self._bytes = ffi.buffer(self._reply)
        self.publish(record)

    def publish(self, record: Publish) -> None:
        """Answer from ``record`` from now on."""
        r = self._context.record
        r.raw_ns, r.tai_ns, r.rate = record.raw_ns, record.tai_ns, record.rate
        r.bound_ns, r.bound_rate, r.bound_wander_ns = record.bound_ns, record.bound_rate, record.bound_wander_ns
        r.root_delay_ns, r.reference_raw_ns = record.root_delay_ns, record.reference_raw_ns
        r.valid_until_raw_ns = record.valid_until_raw_ns
        r.leap_tai_ns, r.leap_step_s, r.tai_offset_s = record.leap_tai_ns, record.leap_step_s, record.tai_offset_s
        r.refid, r.precision, r.stratum, r.simulated = record.refid, record.precision, record.stratum, int(record.simulated)

    def respond(self, request: bytes, rx_raw_ns: int, tx_raw_ns: int, source_port: int = 1024) -> tuple[bytes, str, str]:
        """(reply, action, reason) for a request that arrived and leaves at these raw instants; an empty reply is silence."""
        context, outcome = self._context, self._outcome
        context.rx_raw_ns = rx_raw_ns
        context.tx_raw_ns = tx_raw_ns
        context.source_port = source_port
        length = lib.pkt_respond(context, request, len(request), self._reply, outcome)
        return self._bytes[:length], ACTIONS[outcome.action], REASONS[outcome.reason]


def respond(request: bytes, record: Publish, rx_raw_ns: int, tx_raw_ns: int, source_port: int = 1024) -> tuple[bytes, str, str]:
    """``PacketPath.respond`` for a single packet."""
    return PacketPath(record).respond(request, rx_raw_ns, tx_raw_ns, source_port)


class NtpServer:
    """NTP on UDP at ``addresses`` (numeric host, port; port 0 picks one) and on the bound sockets ``fds`` (socket activation; the caller
    keeps them). IPv4 and IPv6 are separate: give both. The record at ``timescale_path`` may appear later; until then replies say LI 3.

    Raises OSError when an address cannot be had, with the address and what to do.
    """

    def __init__(self, timescale_path: str | Path, addresses: Sequence[tuple[str, int]], threads: int = 1, fds: Sequence[int] = ()) -> None:
        cell = ffi.new("struct srv **")
        _checked(lib.srv_create(os.fsencode(timescale_path), threads, cell), f"making an NTP server of {threads} threads")
        self._handle: Srv | None = cell[0]
        try:
            for host, port in addresses:
                _checked(lib.srv_listen(self._srv, host.encode(), port), f"listening at {host} port {port}")
            for fd in fds:
                _checked(lib.srv_adopt(self._srv, fd), f"serving the inherited socket {fd}")
        except OSError:
            self.close()
            raise
        self.bound_addresses: Final = self._bound()
        """(host, port) of every address served, in the order given."""

    @property
    def _srv(self) -> Srv:
        if self._handle is None:
            raise ValueError("the NTP server is closed")
        return self._handle

    def _bound(self) -> tuple[tuple[str, int], ...]:
        host, port = ffi.new("char[]", lib.SRV_HOST_MAX), ffi.new("uint16_t *")
        bound: list[tuple[str, int]] = []
        while lib.srv_bound(self._srv, len(bound), host, port) == 0:
            bound.append((ffi.string(host).decode(), port[0]))
        return tuple(bound)

    def start(self) -> None:
        """Start answering."""
        _checked(lib.srv_start(self._srv), "starting the NTP server threads")

    def stop(self) -> None:
        """Stop answering; the addresses stay ours and requests queue there. ``start`` goes on."""
        lib.srv_stop(self._srv)

    def close(self) -> None:
        """Stop for good and give the addresses up."""
        if self._handle is not None:
            lib.srv_destroy(self._handle)
            self._handle = None

    def counters(self) -> dict[str, dict[str, int]]:
        """Packets by action and reason since construction, zeros left out; each packet is in exactly one. ``"server"`` holds what is no
        packet: ``unstamped`` and ``stepped`` (arrivals read late, from our own clock), ``receive_errors``."""
        counts = ffi.new("struct srv_counts *")
        lib.srv_count(self._srv, counts)
        by_action = {
            action: {reason: row[j] for j, reason in enumerate(REASONS) if row[j]}
            for action, row in zip(ACTIONS, (counts.packets[i] for i in range(len(ACTIONS))), strict=True)
        }
        own = {"unstamped": counts.unstamped, "stepped": counts.stepped, "receive_errors": counts.receive_errors}
        return by_action | {"server": own}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
